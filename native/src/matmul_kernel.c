/* Product of quantized rows and a panel. Compiled once for each instruction set, with
 * -DVARIANT=name. `matmul.h` has the layout. */
#include "matmul.h"

#include "dot.h"

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

static void quantize(const Matrix *matrix, const float *values, int64_t inputs, Rows *to,
                     int64_t row) {
    const int64_t size = matrix->block_size, blocks = matrix->blocks;
    for (int64_t b = 0; b < blocks; b++) {
        const float *from = values + b * size;
        float padded[MOST_BLOCK_SIZE] = {0};
        if ((b + 1) * size > inputs)
            from = memcpy(padded, from, (size_t)(inputs - b * size) * sizeof(float));
        const int64_t at = row * blocks + b;
        to->scales[at] = quantize_block(from, size, to->codes + at * size, to->sums + at);
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
    __builtin_prefetch(weights + AHEAD);
    __builtin_prefetch(weights + AHEAD + 64);
    __builtin_prefetch(weights + AHEAD + 128);
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

static void multiply(const Matrix *matrix, const Rows *rows, int64_t panel, float *out,
                     int64_t stride) {
    const int64_t column = panel * PANEL, left = matrix->columns - column;
    const int64_t columns = left < PANEL ? left : PANEL;
    const float *bias = matrix->bias ? matrix->bias + column : NULL;
    float result[MOST_ROWS][PANEL];
    for (int64_t row = 0; row < rows->rows; row += MOST_ROWS) {
        const int64_t count = rows->rows - row < MOST_ROWS ? rows->rows - row : MOST_ROWS;
        if (matrix->bits == 8)
            multiply_some(matrix, rows, row, panel, result, count, 8, 0);
        else if (!matrix->zeros)
            multiply_some(matrix, rows, row, panel, result, count, 4, 0);
        else
            multiply_some(matrix, rows, row, panel, result, count, 4, 1);
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < columns; c++)
                out[(row + i) * stride + c] = bias ? result[i][c] + bias[c] : result[i][c];
    }
}

const MatmulKernel JOIN(matmul_, VARIANT) = {TEXT(VARIANT), quantize, multiply};
