"""Causal self-attention nodes with a KV cache that is updated in place.

With an int8 cache, `GroupQueryAttention` is fast for one new token per row, but slow for more.
Several new tokens are always a prefill chunk of a single row, which `prefill_attention` handles.
"""

from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import onnx

from gpt2flow.export.graph.cache import PARTS, CacheSpec, past_names, present_names
from gpt2flow.export.graph.model_writer import CONTRIB, ModelWriter, make_value_info
from gpt2flow.export.graph.prefill_attention import add_cache_scale, add_prefill_attention

_INT8_CACHE: Final = {
    "kv_cache_bit_width": 8,
    "k_quant_type": "PER_CHANNEL",
    "v_quant_type": "PER_CHANNEL",
}


class AttentionWriter:
    """Writer of the attention nodes of each layer."""

    def __init__(self, writer: ModelWriter, cache: CacheSpec) -> None:
        self._writer = writer
        self._cache = cache

    def add_attention(self, scope: str, layer: int, qkv: str, *, small_batch: bool) -> str:
        """Add the attention of a layer.

        Args:
            scope: Prefix of the names of nodes and of the present keys and values.
            layer: Index of the layer, counted from 0.
            qkv: Queries, keys and values of the new tokens, [batch, tokens, 3 · channels].
            small_batch: Whether the scope only runs for small batches. Then one operator is fast
                enough for any number of new tokens.

        Returns:
            Name of the output, [batch, tokens, channels].
        """
        if small_batch or self._cache.scales is None:
            return self._add_decode_attention(scope, layer, qkv)
        name = f"{scope}h.{layer}.attn"
        one_token, past_length = self._add_lengths(scope)
        one, many = f"{scope}one/", f"{scope}many/"
        with self._subgraph(one, layer) as then_branch:
            self._add_decode_attention(one, layer, qkv)
        with self._subgraph(many, layer) as else_branch:
            add_prefill_attention(
                self._writer, self._cache, many, layer, qkv=qkv, past_length=past_length
            )
        outputs = [f"{name}.output", *present_names(scope, layer)]
        branches = {"then_branch": then_branch, "else_branch": else_branch}
        return self._writer.add_node("If", [one_token], outputs, name=name, **branches)

    def _add_decode_attention(self, scope: str, layer: int, qkv: str) -> str:
        """Add attention that is fast for one new token per row."""
        name = f"{scope}h.{layer}.attn"
        architecture, cache = self._cache.architecture, self._cache
        inputs = [qkv, "", "", *past_names(layer), "seqlens_k", "total_sequence_length"]
        if cache.scales:
            scales = [add_cache_scale(self._writer, cache, layer, part) for part in PARTS]
            inputs += [*[""] * 5, *scales]
        return self._writer.add_node(
            "GroupQueryAttention",
            inputs,
            [f"{name}.output", *present_names(scope, layer)],
            name=name,
            domain=CONTRIB,
            num_heads=architecture.heads,
            kv_num_heads=architecture.heads,
            scale=architecture.attention_scale(layer),
            do_rotary=0,
            **(_INT8_CACHE if cache.scales else {}),
        )

    def _subgraph(self, scope: str, layer: int) -> AbstractContextManager[Any]:
        name = f"{scope}h.{layer}.attn"
        width = self._cache.architecture.heads * self._cache.head_size
        attended = make_value_info(f"{name}.output", np.float32, ["batch", "tokens", width])
        outputs = [attended, *self._cache.layer_present_value_infos(scope, layer)]
        return self._writer.subgraph(name, outputs)

    def _add_lengths(self, scope: str) -> tuple[str, str]:
        """Add the lengths that select and feed the prefill attention.

        Returns:
            Name of a boolean scalar, true for one new token per row, and name of the past length of
            row 0, [1].
        """
        add, one_token, past = self._writer.add_node, f"{scope}one_token", f"{scope}past_length"
        if not self._writer.has_output(one_token):
            one = self._writer.add_constant("one", np.array([1]))
            tokens, total = f"{scope}tokens", f"{scope}total_length"
            add("Shape", ["input_ids"], [tokens], name=tokens, start=1)
            add("Equal", [tokens, one], [one_token], name=one_token)
            add("Cast", ["total_sequence_length"], [total], name=total, to=onnx.TensorProto.INT64)
            add("Sub", [total, tokens], [past], name=past)
        return one_token, past
