"""Attention nodes for a prefill chunk on an int8 KV cache.

A prefill chunk is many new tokens of a single row. `GroupQueryAttention` takes 2.7 ms for 128
tokens of 12 heads, and 9.3 ms after 512 cached positions. Dequantizing the cache and running the
fp32 operator `Attention` takes 1.3 and 3.4 ms, everything included.
"""

from typing import Any

import numpy as np
import onnx

from gpt2flow.export.graph.cache import PARTS, CacheSpec, past_names, present_names
from gpt2flow.export.graph.model_writer import ModelWriter


def add_prefill_attention(
    writer: ModelWriter, cache: CacheSpec, scope: str, layer: int, *, qkv: str, past_length: str
) -> str:
    """Add the attention of a layer for a prefill chunk.

    Past keys and values are dequantized. Those of the new tokens are attended to in fp32, and
    quantized for the cache only.

    Args:
        writer: Writer of the model.
        cache: Layout of the cache, which must be int8.
        scope: Prefix of the names of nodes and of the present keys and values.
        layer: Index of the layer, counted from 0.
        qkv: Queries, keys and values of the new tokens, [1, tokens, 3 · channels].
        past_length: Name of the number of filled cache positions, [1].

    Returns:
        Name of the output, [1, tokens, channels].
    """
    name = f"{scope}h.{layer}.attn"
    heads = cache.architecture.heads
    new = [f"{name}.{part}" for part in ("query", *PARTS)]
    writer.add_node("Split", [qkv], new, name=f"{name}.split", axis=2, num_outputs=3)
    past = [
        _add_dequantized_past(writer, cache, f"{name}.{part}", (layer, part), past_length)
        for part in PARTS
    ]
    for part, present in zip(PARTS, present_names(scope, layer), strict=True):
        codes = _add_quantized_new(writer, cache, f"{name}.{part}", (layer, part))
        writer.add_node(
            "TensorScatter",
            [past_names(layer)[PARTS.index(part)], codes, past_length],
            [present],
            name=f"{name}.{part}.write",
            axis=2,
            mode="linear",
        )
    return writer.add_node(
        "Attention",
        [*new, "", *past],
        # With past inputs, the operator requires the present outputs, though they are unused.
        [f"{name}.output", *(f"{name}.{part}.all" for part in PARTS)],
        name=name,
        q_num_heads=heads,
        kv_num_heads=heads,
        is_causal=1,
        scale=cache.architecture.attention_scale(layer),
    )


def add_cache_scale(writer: ModelWriter, cache: CacheSpec, layer: int, part: str) -> str:
    """Add the scales of a layer's keys or values.

    Returns:
        Name of the scales, float32 [1, heads, 1, head_size].
    """
    assert cache.scales
    scales = cache.scales.for_layer(layer, part, cache.head_size)
    return writer.add_constant(f"h.{layer}.attn.{part}_scale", scales)


def _add_dequantized_past(
    writer: ModelWriter, cache: CacheSpec, name: str, part: tuple[int, str], past_length: str
) -> str:
    """Add the dequantized past, float32 [1, heads, past, head_size]."""
    add = writer.add_node
    past = past_names(part[0])[PARTS.index(part[1])]
    start = writer.add_constant("cache_start", np.array([0]))
    axis = writer.add_constant("cache_axis", np.array([2]))
    filled, codes = f"{name}.filled", f"{name}.numbers"
    add("Slice", [past, start, past_length, axis], [filled], name=filled)
    add("Cast", [filled], [codes], name=codes, to=onnx.TensorProto.FLOAT)
    scale = add_cache_scale(writer, cache, *part)
    return add("Mul", [codes, scale], [f"{name}.past"], name=f"{name}.past")


def _add_quantized_new(
    writer: ModelWriter, cache: CacheSpec, new: str, part: tuple[int, str]
) -> str:
    """Add new keys or values as int8 codes, [1, heads, tokens, head_size]."""
    layer, name = part
    assert cache.scales
    scales = cache.scales.for_layer(layer, name, cache.head_size).ravel()
    shape = np.array([0, 0, cache.architecture.heads, cache.head_size])
    # Divide by the channel scales first, then round and clip with a scale of 1. The per-channel
    # scales of `QuantizeLinear` are slow where channels are the innermost dimension.
    one = writer.add_constant("code_scale", np.array(1, np.float32))
    zero = writer.add_constant("code_zero", np.array(0, np.int8))
    channel_scales = writer.add_constant(f"h.{layer}.attn.{name}_scales", scales)
    steps: dict[str, tuple[str, list[str], dict[str, Any]]] = {
        "scaled": ("Div", [channel_scales], {}),
        "rounded": ("QuantizeLinear", [one, zero], {}),
        "heads": ("Reshape", [writer.add_constant("heads_shape", shape)], {}),
        "codes": ("Transpose", [], {"perm": [0, 2, 1, 3]}),
    }
    current = new
    for step, (operator, inputs, attributes) in steps.items():
        output = f"{new}.{step}"
        current = writer.add_node(operator, [current, *inputs], [output], name=output, **attributes)
    return current
