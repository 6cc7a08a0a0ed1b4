"""The nodes of causal self-attention on a KV cache that is updated in place.

With an int8 cache, `GroupQueryAttention` is fast for one new token a row but slow for many, which
are of one row then: these go through `prefill_attention` instead.
"""

from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import onnx

from gpt2flow.export.graph.cache import PARTS, Cache, past_names, present_names
from gpt2flow.export.graph.model_writer import CONTRIB, ModelWriter, tensor_info
from gpt2flow.export.graph.prefill_attention import add_prefill_attention, scale_of

_INT8_CACHE: Final = {
    "kv_cache_bit_width": 8,
    "k_quant_type": "PER_CHANNEL",
    "v_quant_type": "PER_CHANNEL",
}


class AttentionWriter:
    """Adds the attention of each layer to a graph."""

    def __init__(self, writer: ModelWriter, cache: Cache) -> None:
        self._writer = writer
        self._cache = cache

    def attend(self, scope: str, layer: int, qkv: str, *, few: bool) -> str:
        """Add the attention of a layer; returns the outcome, [batch, tokens, channels].

        Args:
            scope: What the names of nodes and of the present begin with.
            layer: The layer, counted from 0.
            qkv: Queries, keys and values of the new tokens, [batch, tokens, 3 · channels].
            few: There are never many new tokens.
        """
        if few or self._cache.scales is None:
            return self._decode(scope, layer, qkv)
        name = f"{scope}h.{layer}.attn"
        one_token, past_length = self._lengths(scope)
        one, many = f"{scope}one/", f"{scope}many/"
        with self._branch(one, layer) as then_branch:
            self._decode(one, layer, qkv)
        with self._branch(many, layer) as else_branch:
            add_prefill_attention(
                self._writer, self._cache, many, layer, qkv=qkv, past_length=past_length
            )
        outputs = [f"{name}.output", *present_names(scope, layer)]
        branches = {"then_branch": then_branch, "else_branch": else_branch}
        return self._writer.node("If", [one_token], outputs, name=name, **branches)

    def _decode(self, scope: str, layer: int, qkv: str) -> str:
        """Add attention that is fast for one new token a row."""
        name = f"{scope}h.{layer}.attn"
        architecture, cache = self._cache.architecture, self._cache
        inputs = [qkv, "", "", *past_names(layer), "seqlens_k", "total_sequence_length"]
        if cache.scales:
            scales = [scale_of(self._writer, cache, layer, part) for part in PARTS]
            inputs += [*[""] * 5, *scales]
        return self._writer.node(
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

    def _branch(self, scope: str, layer: int) -> AbstractContextManager[Any]:
        name = f"{scope}h.{layer}.attn"
        width = self._cache.architecture.heads * self._cache.head_size
        attended = tensor_info(f"{name}.output", np.float32, ["batch", "tokens", width])
        outputs = [attended, *self._cache.present_infos_of(scope, layer)]
        return self._writer.branch(name, outputs)

    def _lengths(self, scope: str) -> tuple[str, str]:
        """Add whether there is one new token a row, and how long the past of one row is, [1]."""
        add, one_token, past = self._writer.node, f"{scope}one_token", f"{scope}past_length"
        if not self._writer.knows(one_token):
            one = self._writer.constant("one", np.array([1]))
            tokens, total = f"{scope}tokens", f"{scope}total_length"
            add("Shape", ["input_ids"], [tokens], name=tokens, start=1)
            add("Equal", [tokens, one], [one_token], name=one_token)
            add("Cast", ["total_sequence_length"], [total], name=total, to=onnx.TensorProto.INT64)
            add("Sub", [total, tokens], [past], name=past)
        return one_token, past
