"""Functions of a model, which stand in for the operators of `native/`.

onnxruntime runs the operator of a function's name if one is registered, and the function
otherwise. A function computes the same with onnxruntime's own operators, and slower.
"""

from enum import StrEnum
from typing import Any, Final

import onnx
import onnx.parser

from gpt2flow.export.graph.model_writer import CONTRIB, OPSET

DOMAIN: Final = "gpt2flow"
"""Domain of the operators and of the functions."""


class Product(StrEnum):
    """Operators with a packed matrix; their number of bits is appended."""

    NORM = "RowQuantNormMatMul"
    NORM_GELU = "RowQuantNormGeluMatMul"
    ADD = "RowQuantMatMulAdd"
    NORM_HEAD = "RowQuantNormHead"


_PRELUDE: Final = f"""
<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "{CONTRIB}" : 1, "{DOMAIN}" : 1]>
"""

# Codes of 4 bits [panels, blocks, steps, 48, 4] as bytes of MatMulNBits, [columns, blocks, bytes].
_UNPACK_4: Final = """
    four = Constant <value = uint8 {4}> ()
    fifteen = Constant <value = uint8 {15}> ()
    low = BitwiseAnd (weights, fifteen)
    high = BitShift <direction = "RIGHT"> (weights, four)
    axis_3 = Constant <value_ints = [3]> ()
    low_half = Unsqueeze (low, axis_3)
    high_half = Unsqueeze (high, axis_3)
    steps = Concat <axis = 3> (low_half, high_half)
    codes = Transpose <perm = [0, 4, 1, 2, 3, 5]> (steps)
    in_pairs = Constant <value_ints = [0, 0, 0, -1, 2]> ()
    pairs = Reshape (codes, in_pairs)
    first, second = Split <axis = 4, num_outputs = 2> (pairs)
    shifted = BitShift <direction = "LEFT"> (second, four)
    bytes = BitwiseOr (first, shifted)
"""

# Codes of 8 bits likewise.
_UNPACK_8: Final = """
    codes = Transpose <perm = [0, 3, 1, 2, 4]> (weights)
    in_blocks = Constant <value_ints = [0, 0, 0, -1]> ()
    bytes = Reshape (codes, in_blocks)
"""

_COLUMNS: Final = """
    zero = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    column_count = Constant <value_int : int = @N> ()
    columns = Reshape (column_count, rest)
    block_shape = Shape <start = 2, end = 4> (bytes)
    rows_shape = Concat <axis = 0> (rest, block_shape)
    padded_data = Reshape (bytes, rows_shape)
    data = Slice (padded_data, zero, columns, zero)
    scale_columns = Transpose <perm = [0, 2, 1]> (scales)
    scale_count = Shape <start = 1, end = 2> (scales)
    scales_shape = Concat <axis = 0> (rest, scale_count)
    padded_scales = Reshape (scale_columns, scales_shape)
    column_scales = Slice (padded_scales, zero, columns, zero)
"""

# Zero points [panels, blocks, 48] as bytes of MatMulNBits, [columns, bytes].
_ZEROS: Final = """
    zero_columns = Transpose <perm = [0, 2, 1]> (zero_points)
    padded_zeros = Reshape (zero_columns, scales_shape)
    column_zeros = Slice (padded_zeros, zero, columns, zero)
    pad_ends = Constant <value_ints = [0, 0, 0, 1]> ()
    one_more = Pad (column_zeros, pad_ends)
    two = Constant <value_ints = [2]> ()
    one = Constant <value_ints = [1]> ()
    half_count = Div (scale_count, two)
    odd_count = Mod (scale_count, two)
    byte_count = Add (half_count, odd_count)
    even_count = Mul (byte_count, two)
    even_zeros = Slice (one_more, zero, even_count, one)
    zeros_shape = Concat <axis = 0> (columns, byte_count, two)
    zero_pairs = Reshape (even_zeros, zeros_shape)
    first_zero, second_zero = Split <axis = 2, num_outputs = 2> (zero_pairs)
    shifted_zero = BitShift <direction = "LEFT"> (second_zero, four)
    zero_bytes = BitwiseOr (first_zero, shifted_zero)
    zeros = Squeeze (zero_bytes, two)
"""

_NORM: Final = """
    rows = LayerNormalization <axis = -1, epsilon : float = @epsilon> (x, gain, shift)
"""

_PRODUCT: Final = """
    {output} = {domain}.MatMulNBits <K : int = @K, N : int = @N, block_size : int = @block_size,
        bits = {bits}, accuracy_level = 4>
        ({rows}, data, column_scales, {zeros}, , {bias})
"""

# The columns of `ids`, or all if there are none.
_RESTRICT: Final = """
    first_id = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    every = Range (first_id, column_count, step)
    id_count = Shape (ids)
    none = Equal (id_count, zero)
    wanted_count = Where (none, columns, id_count)
    both = Concat <axis = 0> (ids, every)
    wanted = Slice (both, zero, wanted_count)
    y = Gather <axis = 1> (logits, wanted)
"""

_QUANTIZE: Final = """
    {part}_scale = Reshape ({part}_scales, head_shape)
    {part}_ratio = Div ({part}, {part}_scale)
    {part}_rounded = Round ({part}_ratio)
    {part}_clipped = Clip ({part}_rounded, lowest, highest)
    {part}_new = Cast <to = 3> ({part}_clipped)
"""

_ATTENTION: Final = """
RaggedAttention <num_heads, scale>
(qkv, slots, positions, keys, values, key_scales, value_scales)
=> (out, present_keys, present_values)
{{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    rest = Constant <value_ints = [-1]> ()
    heads = Constant <value_int : int = @num_heads> ()
    head_count = Reshape (heads, rest)
    size = Shape <start = 3, end = 4> (values)
    head_shape = Concat <axis = 0> (head_count, size)
    three = Constant <value_ints = [3]> ()
    parts_shape = Concat <axis = 0> (rest, three, head_shape)
    parts = Reshape (qkv, parts_shape)
    query_part, key_part, value_part = Split <axis = 1, num_outputs = 3> (parts)
    query = Squeeze (query_part, one)
    key = Squeeze (key_part, one)
    value = Squeeze (value_part, one)
    {quantize}

    start = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    lanes = Constant <value_ints = [16]> ()
    size_scalar = Squeeze (size)
    head_range = Range (start, heads, step)
    channel_range = Range (start, size_scalar, step)
    to_tokens = Constant <value_ints = [-1, 1, 1, 1]> ()
    to_heads = Constant <value_ints = [1, -1, 1, 1]> ()
    to_channels = Constant <value_ints = [1, 1, -1, 1]> ()
    token_count = Shape (slots)
    key_index_shape = Concat <axis = 0> (token_count, head_shape, one)
    value_index_shape = Concat <axis = 0> (token_count, head_count, one, one)
    slot_column = Reshape (slots, to_tokens)
    head_column = Reshape (head_range, to_heads)
    channel_column = Reshape (channel_range, to_channels)
    position_column = Reshape (positions, to_tokens)
    paired = Constant <value_ints = [{channels}]> ()
    group_column = Div (channel_column, paired)
    part_column = Mod (channel_column, paired)
    block_column = Div (position_column, lanes)
    lane_column = Mod (position_column, lanes)
    key_slots = Expand (slot_column, key_index_shape)
    key_heads = Expand (head_column, key_index_shape)
    key_blocks = Expand (block_column, key_index_shape)
    key_groups = Expand (group_column, key_index_shape)
    key_parts = Expand (part_column, key_index_shape)
    key_lanes = Expand (lane_column, key_index_shape)
    key_index = Concat <axis = 3>
        (key_slots, key_heads, key_blocks, key_groups, key_lanes, key_parts)
    present_keys = ScatterND (keys, key_index, key_new)
    value_slots = Expand (slot_column, value_index_shape)
    value_heads = Expand (head_column, value_index_shape)
    value_positions = Expand (position_column, value_index_shape)
    value_places = Concat <axis = 3> (value_slots, value_heads, value_positions)
    value_index = Squeeze (value_places, two)
    present_values = ScatterND (values, value_index, value_new)

    factor = Constant <value_float : float = @scale> ()
    small_query = Mul (query, factor)
    scaled_query = {scale_query}
    keys_shape = Concat <axis = 0> (head_shape, rest)
    slot_axes = Constant <value_ints = [0, 2]> ()
    rounds = Squeeze (token_count)
    go = Constant <value = bool {{1}}> ()
    attended = Loop (rounds, go) <body = one_token (int64 i, bool go_on)
        => (bool still, float[heads_, size_] row) {{
        still = Identity (go_on)
        at = Reshape (i, rest)
        slot = Gather (slots, at)
        next_slot = Add (slot, one)
        position = Gather (positions, at)
        length = Add (position, one)
        last_block = Div (position, lanes)
        block_count = Add (last_block, one)
        key_starts = Concat <axis = 0> (slot, zero)
        key_ends = Concat <axis = 0> (next_slot, block_count)
        slot_keys = Slice (present_keys, key_starts, key_ends, slot_axes)
        head_keys = Squeeze (slot_keys, zero)
        key_numbers = Cast <to = 1> (head_keys)
        side_by_side = Transpose <perm = [0, 2, 4, 1, 3]> (key_numbers)
        padded = Reshape (side_by_side, keys_shape)
        own_keys = Slice (padded, zero, length, two)
        own_query = Gather (scaled_query, i)
        query_row = Unsqueeze (own_query, one)
        scores = MatMul (query_row, own_keys)
        weights = Softmax <axis = -1> (scores)
        value_ends = Concat <axis = 0> (next_slot, length)
        slot_values = Slice (present_values, key_starts, value_ends, slot_axes)
        head_values = Squeeze (slot_values, zero)
        value_numbers = Cast <to = 1> (head_values)
        products = MatMul (weights, value_numbers)
        row = Squeeze (products, one)
    }}>
    scaled = {scale_output}
    flat_width = Mul (head_count, size)
    out_shape = Concat <axis = 0> (token_count, flat_width)
    out = Reshape (scaled, out_shape)
}}
"""


# Inputs between the matrix and its zero points, and the body around the product.
_INPUTS: Final = {
    Product.NORM: "bias, gain, shift",
    Product.NORM_GELU: "bias, gain, shift",
    Product.ADD: "bias, residual",
    Product.NORM_HEAD: "ids, gain, shift",
}
_OUTPUTS: Final = {
    Product.NORM: "y = Identity (product)",
    Product.NORM_GELU: f"y = {CONTRIB}.FastGelu (product)",
    Product.ADD: "y = Add (product, residual)",
    Product.NORM_HEAD: _RESTRICT,
}


def attention_function(*, int8_cache: bool) -> Any:
    """Return the function `RaggedAttention`, for an int8 or a float32 cache."""
    quantize = """
    key_new = Identity (key)
    value_new = Identity (value)
    """
    if int8_cache:
        bounds = """
    lowest = Constant <value_float = -128.0> ()
    highest = Constant <value_float = 127.0> ()
        """
        quantize = bounds + _QUANTIZE.format(part="key") + _QUANTIZE.format(part="value")
    text = _ATTENTION.format(
        quantize=quantize,
        channels=2 if int8_cache else 1,
        scale_query="Mul (small_query, key_scale)" if int8_cache else "Identity (small_query)",
        scale_output="Mul (attended, value_scale)" if int8_cache else "Identity (attended)",
    )
    return onnx.parser.parse_function(_PRELUDE + text)


def product_function(operator: Product, bits: int, *, zero_points: bool) -> Any:
    """Return the function of an operator with a product.

    Args:
        operator: The operator.
        bits: Bits of the codes, 4 or 8.
        zero_points: Whether every node has zero points.
    """
    is_norm, is_head = operator is not Product.ADD, operator is Product.NORM_HEAD
    product = _PRODUCT.format(
        output="logits" if is_head else "product",
        domain=CONTRIB,
        bits=bits,
        rows="rows" if is_norm else "x",
        zeros="zeros" if zero_points else "",
        bias="" if is_head else "bias",
    )
    unpack = (_UNPACK_4 if bits == 4 else _UNPACK_8) + _COLUMNS + (_ZEROS if zero_points else "")
    body = (_NORM if is_norm else "") + unpack + product + _OUTPUTS[operator]
    inputs = f"x, weights, scales, {_INPUTS[operator]}, zero_points"
    attributes = "K, N, block_size" + (", epsilon" if is_norm else "")
    text = f"{operator}{bits} <{attributes}> ({inputs}) => (y) {{{body}}}"
    return onnx.parser.parse_function(_PRELUDE + text)
