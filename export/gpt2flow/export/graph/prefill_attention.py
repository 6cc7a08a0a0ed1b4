"""The nodes of attention of many new tokens of one row to an int8 KV cache.

`GroupQueryAttention` takes 2.7 ms for 128 tokens of 12 heads, and 9.3 ms if 512 are before them;
`Attention` on the numbers that the cache stands for takes 1.3 and 3.4 ms with all that it needs.
"""

from typing import Any

import numpy as np
import onnx

from gpt2flow.export.graph.cache import PARTS, Cache, past_names, present_names
from gpt2flow.export.graph.model_writer import ModelWriter


def add_prefill_attention(
    writer: ModelWriter, cache: Cache, scope: str, layer: int, *, qkv: str, past_length: str
) -> str:
    """Add the attention of a layer; returns the outcome, [1, tokens, channels].

    Args:
        writer: What it is added to.
        cache: The cache, of int8 numbers.
        scope: What the names of nodes and of the present begin with.
        layer: The layer, counted from 0.
        qkv: Queries, keys and values of the new tokens, [1, tokens, 3 · channels].
        past_length: How many positions of the cache are filled, [1].
    """
    name = f"{scope}h.{layer}.attn"
    heads = cache.architecture.heads
    new = [f"{name}.{part}" for part in ("query", *PARTS)]
    writer.node("Split", [qkv], new, name=f"{name}.split", axis=2, num_outputs=3)
    past = [_read(writer, cache, f"{name}.{part}", (layer, part), past_length) for part in PARTS]
    for part, present in zip(PARTS, present_names(scope, layer), strict=True):
        codes = _codes(writer, cache, f"{name}.{part}", (layer, part))
        writer.node(
            "TensorScatter",
            [past_names(layer)[PARTS.index(part)], codes, past_length],
            [present],
            name=f"{name}.{part}.write",
            axis=2,
            mode="linear",
        )
    return writer.node(
        "Attention",
        [*new, "", *past],
        # The operator wants to tell all keys and values where it is told those of the past.
        [f"{name}.output", *(f"{name}.{part}.all" for part in PARTS)],
        name=name,
        q_num_heads=heads,
        kv_num_heads=heads,
        is_causal=1,
        scale=cache.architecture.attention_scale(layer),
    )


def scale_of(writer: ModelWriter, cache: Cache, layer: int, part: str) -> str:
    """Add the scales of the keys or values of a layer, [1, heads, 1, head_size]."""
    assert cache.scales
    scales = cache.scales.of(layer, part, cache.head_size)
    return writer.constant(f"h.{layer}.attn.{part}_scale", scales)


def _read(
    writer: ModelWriter, cache: Cache, name: str, part: tuple[int, str], past_length: str
) -> str:
    """Add what the filled positions stand for, [1, heads, past, head_size]."""
    add = writer.node
    past = past_names(part[0])[PARTS.index(part[1])]
    start = writer.constant("cache_start", np.array([0]))
    axis = writer.constant("cache_axis", np.array([2]))
    filled, numbers = f"{name}.filled", f"{name}.numbers"
    add("Slice", [past, start, past_length, axis], [filled], name=filled)
    add("Cast", [filled], [numbers], name=numbers, to=onnx.TensorProto.FLOAT)
    scale = scale_of(writer, cache, *part)
    return add("Mul", [numbers, scale], [f"{name}.past"], name=f"{name}.past")


def _codes(writer: ModelWriter, cache: Cache, new: str, part: tuple[int, str]) -> str:
    """Add the int8 numbers of new keys or values, [1, heads, tokens, head_size]."""
    layer, name = part
    assert cache.scales
    scales = cache.scales.of(layer, name, cache.head_size).ravel()
    shape = np.array([0, 0, cache.architecture.heads, cache.head_size])
    # Division by channel, then one operator that rounds and clips with a scale for all: the
    # operator's own scales by channel are slow where channels are the innermost dimension.
    one = writer.constant("code_scale", np.array(1, np.float32))
    zero = writer.constant("code_zero", np.array(0, np.int8))
    channel_scales = writer.constant(f"h.{layer}.attn.{name}_scales", scales)
    steps: dict[str, tuple[str, list[str], dict[str, Any]]] = {
        "scaled": ("Div", [channel_scales], {}),
        "rounded": ("QuantizeLinear", [one, zero], {}),
        "heads": ("Reshape", [writer.constant("heads_shape", shape)], {}),
        "codes": ("Transpose", [], {"perm": [0, 2, 1, 3]}),
    }
    outcome = new
    for step, (operator, inputs, attributes) in steps.items():
        output = f"{new}.{step}"
        outcome = writer.node(operator, [outcome, *inputs], [output], name=output, **attributes)
    return outcome
