/* Product of quantized rows and a panel. Compiled once for each instruction set, with
 * -DVARIANT=name. `matmul.h` has the layout. */
#include <math.h>

#include "dot.h"
#include "finish.h"
#include "matmul.h"

enum { MOST_BLOCK_SIZE = 128, AHEAD = 2048 };

/* Quantize a block: write its codes, return its scale, and set the sum of the codes. */
static float quantize_block(const float *values, int64_t size, int8_t *codes, int32_t *sum) {
    Floats most = all(0);
    for (int64_t k = 0; k < size; k += LANES) most = larger(magnitude(load(values + k)), most);
    const float largest_value = largest(most);
    const Floats inverse = all(largest_value > 0 ? 127.0f / largest_value : 0);
    Ints sums = {0};
    for (int64_t k = 0; k < size; k += LANES) {
        const Floats shifted = load(values + k) * inverse + all(ROUNDING);
        const Ints rounded = (Ints)shifted - (Ints)all(ROUNDING);
        *(LooseCodes *)(codes + k) = __builtin_convertvector(rounded, Codes);
        sums += rounded;
    }
    *sum = 0;
    for (int i = 0; i < LANES; i++) *sum += sums[i];
    return largest_value / 127.0f;
}

/* Mean of a row, and one over its standard deviation. */
typedef struct {
    float mean, inverse;
} Moments;

/* Some numbers of a row, as many as a block has: padded with zeros beyond its end. */
INLINE const float *load_block(const float *values, int64_t size, int64_t left, float *padded) {
    if (left >= size) return values;
    memset(padded, 0, (size_t)size * sizeof(float));
    return memcpy(padded, values, (size_t)left * sizeof(float));
}

static Moments find_moments(const Norm *norm, const float *values, int64_t inputs) {
    float padded[LANES];
    Floats total = all(0), squares = all(0);
    for (int64_t k = 0; k < inputs; k += LANES)
        total += load(load_block(values + k, LANES, inputs - k, padded));
    const float mean = sum(total) / (float)inputs;
    for (int64_t k = 0; k < inputs; k += LANES) {
        Floats centred = load(load_block(values + k, LANES, inputs - k, padded)) - all(mean);
        if (inputs - k < LANES)
            for (int64_t i = inputs - k; i < LANES; i++) centred[i] = 0;
        squares = fused(centred, centred, squares);
    }
    return (Moments){mean, 1.0f / sqrtf(sum(squares) / (float)inputs + norm->epsilon)};
}

/* Normalize a block, of which the row has `left` numbers. */
static const float *normalize(const Norm *norm, Moments moments, const float *values, int64_t at,
                              int64_t size, int64_t left, float *to) {
    float padded[2][MOST_BLOCK_SIZE];
    values = load_block(values, size, left, to);
    const float *gain = load_block(norm->gain + at, size, left, padded[0]);
    const float *shift = load_block(norm->shift + at, size, left, padded[1]);
    for (int64_t k = 0; k < size; k += LANES) {
        const Floats centred = (load(values + k) - all(moments.mean)) * all(moments.inverse);
        store(to + k, fused(centred, load(gain + k), load(shift + k)));
    }
    return to;
}

static void quantize(const Matrix *matrix, const Norm *norm, const float *values, int64_t inputs,
                     Rows *to, int64_t row) {
    const int64_t size = matrix->block_size, blocks = matrix->blocks;
    const Moments moments = norm->gain ? find_moments(norm, values, inputs) : (Moments){0, 1};
    float block[MOST_BLOCK_SIZE];
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t at = b * size, place = row * blocks + b;
        const float *from = norm->gain ? normalize(norm, moments, values + at, at, size,
                                                   inputs - at, block)
                                       : load_block(values + at, size, inputs - at, block);
        int8_t *codes = to->codes + place * size;
        to->scales[place] = quantize_block(from, size, codes, to->sums + place);
    }
}

/* The sums that a block begins with: minus the code of 0.0 for each code of the row. */
INLINE Ints start(const Matrix *matrix, int64_t block, int v, int32_t sum, const int bits,
                  const int has_zeros) {
    const int zero = bits == 4 ? 8 : ZERO_8;
    if (!has_zeros) return (Ints){0} - zero * sum;
    typedef uint8_t Small __attribute__((vector_size(16), aligned(1), may_alias));
    const Small *zeros = (const Small *)(matrix->zeros + block * PANEL + v * LANES);
    return -__builtin_convertvector(*zeros, Ints) * sum;
}

INLINE int32_t four_codes(const int8_t *codes) {
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return four;
}

/* Add the dot products of a step: one of 8 bits, or two of 4 bits. */
INLINE void add_step(const uint8_t *weights, const int8_t *codes, int64_t stride,
                     Ints sums[MOST_ROWS][VECTORS_OF_PANEL], const int count, const int bits) {
    Bytes step[VECTORS_OF_PANEL];
    UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++)
        __builtin_prefetch(weights + AHEAD + v * 64);
    UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) step[v] = load_bytes(weights + v * 64);
    UNROLL for (int half = 0; half < 8 / bits; half++)
        UNROLL for (int i = 0; i < count; i++) {
            const int32_t four = four_codes(codes + i * stride + 4 * half);
            UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) {
                const Bytes part = bits == 8 ? step[v] : half ? step[v] >> 4 : step[v] & 15;
                sums[i][v] = dot(sums[i][v], part, four, bits);
            }
        }
}

/* Multiply `count` rows with a panel. */
INLINE void multiply_rows(const Matrix *matrix, const Rows *rows, int64_t first, int64_t panel,
                          float out[MOST_ROWS][PANEL], const int count, const int bits,
                          const int has_zeros) {
    const int64_t size = matrix->block_size, blocks = matrix->blocks, steps = size * bits / 32;
    const uint8_t *weights = matrix->weights + panel * blocks * steps * PANEL * 4;
    Floats totals[MOST_ROWS][VECTORS_OF_PANEL];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) totals[i][v] = all(0);
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t block = panel * blocks + b, at = first * blocks + b;
        const int8_t *codes = rows->codes + at * size;
        Ints sums[MOST_ROWS][VECTORS_OF_PANEL];
        UNROLL for (int i = 0; i < count; i++)
            UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++)
                sums[i][v] = start(matrix, block, v, rows->sums[at + i * blocks], bits, has_zeros);
        for (int64_t s = 0; s < steps; s++, weights += PANEL * 4, codes += 32 / bits)
            add_step(weights, codes, blocks * size, sums, count, bits);
        UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) {
            const Floats scales = load(matrix->scales + block * PANEL + v * LANES);
            UNROLL for (int i = 0; i < count; i++) {
                const Floats scale = all(rows->scales[at + i * blocks]) * scales;
                totals[i][v] = fused(to_floats(sums[i][v]), scale, totals[i][v]);
            }
        }
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) store(out[i] + v * LANES, totals[i][v]);
}

/* Multiply up to MOST_ROWS rows, with a body of its own for each number of rows. */
INLINE void multiply_some(const Matrix *matrix, const Rows *rows, int64_t first, int64_t panel,
                          float out[MOST_ROWS][PANEL], int64_t count, const int bits,
                          const int has_zeros) {
#define CASE(n)                                                                               \
    case n:                                                                                   \
        if (n <= MOST_ROWS)                                                                   \
            multiply_rows(matrix, rows, first, panel, out, n <= MOST_ROWS ? n : 1, bits,      \
                          has_zeros);                                                         \
        break;
    switch (count) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

static void multiply(const Matrix *matrix, const Rows *rows, int64_t panel, const Finish *finish) {
    const int64_t columns = columns_of(matrix, panel);
    float result[MOST_ROWS][PANEL];
    for (int64_t row = 0; row < rows->rows; row += MOST_ROWS) {
        const int64_t count = rows->rows - row < MOST_ROWS ? rows->rows - row : MOST_ROWS;
        if (matrix->bits == 8)
            multiply_some(matrix, rows, row, panel, result, count, 8, 0);
        else if (!matrix->zeros)
            multiply_some(matrix, rows, row, panel, result, count, 4, 0);
        else
            multiply_some(matrix, rows, row, panel, result, count, 4, 1);
        for (int64_t i = 0; i < count; i++) finish_row(finish, row + i, columns, result[i]);
    }
}

const MatmulKernel JOIN(matmul_, VARIANT) = {TEXT(VARIANT), quantize, multiply};
