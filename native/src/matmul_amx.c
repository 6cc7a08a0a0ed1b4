/* Products with AMX tiles, for many rows; few rows take the AVX-512 kernel.
 *
 * A tile of rows is 16 rows of 64 codes, and a tile of columns is 16 steps of 4 codes of each of 16
 * columns: 64 bytes of a panel's step, as `matmul.h` packs them. One instruction multiplies the
 * two. The sums of a block are exact, and blocks are added as in `matmul_kernel.c`, so the bits are
 * the same. */
#include "finish.h"
#include "matmul.h"
#include "vectors.h"

enum { TILE_ROWS = 16, TILE_INPUTS = 64, MOST_BLOCK_SIZE = 128, STEP = PANEL * 4 };
/* For fewer rows, unpacking takes longer than the tiles save. */
enum { LEAST_ROWS = 32 };

extern const MatmulKernel matmul_avx512;

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileShapes;

/* Tile 0 has rows, 1 to 3 columns, 4 to 6 sums. */
static void load_shapes(int rows) {
    TileShapes shapes = {.palette = 1};
    for (int tile = 0; tile < 7; tile++) {
        shapes.bytes[tile] = 64;
        shapes.rows[tile] = (uint8_t)(tile == 0 || tile > 3 ? rows : 16);
    }
    _tile_loadconfig(&shapes);
}

/* Unpack a block of 4-bit codes to bytes: two steps of 8 bits for one of 4. */
static void unpack_block(const uint8_t *weights, int64_t steps, uint8_t *to) {
    for (int64_t s = 0; s < steps; s++, weights += STEP, to += 2 * STEP)
        UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) {
            const Bytes both = load_bytes(weights + v * 64);
            *(LooseBytes *)(to + v * 64) = both & 15;
            *(LooseBytes *)(to + STEP + v * 64) = both >> 4;
        }
}

/* Multiply the codes of up to 16 rows with a block of a panel: sums [3][16][16]. */
static void multiply_block(const int8_t *codes, int64_t stride, const uint8_t *columns,
                           int64_t size, int32_t sums[VECTORS_OF_PANEL][TILE_ROWS][LANES]) {
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    for (int64_t k = 0; k < size; k += TILE_INPUTS) {
        const uint8_t *from = columns + k / 4 * STEP;
        _tile_loadd(0, codes + k, stride);
        _tile_loadd(1, from, STEP);
        _tile_dpbsud(4, 0, 1);
        _tile_loadd(2, from + 64, STEP);
        _tile_dpbsud(5, 0, 2);
        _tile_loadd(3, from + 128, STEP);
        _tile_dpbsud(6, 0, 3);
    }
    _tile_stored(4, sums[0], LANES * sizeof(int32_t));
    _tile_stored(5, sums[1], LANES * sizeof(int32_t));
    _tile_stored(6, sums[2], LANES * sizeof(int32_t));
}

/* Add a block's sums, minus those of the codes of 0.0, to the totals of the rows. */
static void add_block(const Matrix *matrix, const Rows *rows, int64_t first, int64_t count,
                      int64_t panel, int64_t b,
                      int32_t sums[VECTORS_OF_PANEL][TILE_ROWS][LANES], float totals[][PANEL]) {
    const int64_t blocks = matrix->blocks, block = panel * blocks + b;
    UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) {
        typedef uint8_t Small __attribute__((vector_size(16), aligned(1), may_alias));
        const int64_t column = block * PANEL + v * LANES;
        Ints zeros = (Ints){0} + (matrix->bits == 4 ? 8 : 128);
        if (matrix->zeros)
            zeros = __builtin_convertvector(*(const Small *)(matrix->zeros + column), Ints);
        const Floats scales = load(matrix->scales + column);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = (first + i) * blocks + b;
            const Ints sum = *(const Ints *)sums[v][i] - zeros * rows->sums[at];
            float *total = totals[i] + v * LANES;
            store(total, fused(to_floats(sum), all(rows->scales[at]) * scales, load(total)));
        }
    }
}

static void multiply(const Matrix *matrix, const Rows *rows, int64_t panel, const Finish *finish) {
    const int64_t size = matrix->block_size, blocks = matrix->blocks;
    if (rows->rows < LEAST_ROWS || size < TILE_INPUTS) {
        matmul_avx512.multiply(matrix, rows, panel, finish);
        return;
    }
    const int64_t panel_columns = columns_of(matrix, panel), steps = size * matrix->bits / 32;
    const uint8_t *weights = matrix->weights + panel * blocks * steps * STEP;
    enum { MANY = 64 };
    float totals[MANY][PANEL] __attribute__((aligned(64)));
    int32_t sums[VECTORS_OF_PANEL][TILE_ROWS][LANES] __attribute__((aligned(64)));
    uint8_t unpacked[MOST_BLOCK_SIZE / 4 * STEP] __attribute__((aligned(64)));
    int64_t shaped = 0; /* rows that the tiles are for */
    for (int64_t from = 0; from < rows->rows; from += MANY) {
        const int64_t many = rows->rows - from < MANY ? rows->rows - from : MANY;
        memset(totals, 0, sizeof totals);
        for (int64_t b = 0; b < blocks; b++) {
            const uint8_t *block = weights + b * steps * STEP;
            if (matrix->bits == 4) unpack_block(block, steps, unpacked);
            const uint8_t *columns = matrix->bits == 4 ? unpacked : block;
            for (int64_t i = 0; i < many; i += TILE_ROWS) {
                const int64_t count = many - i < TILE_ROWS ? many - i : TILE_ROWS;
                const int8_t *codes = rows->codes + ((from + i) * blocks + b) * size;
                if (count != shaped) load_shapes((int)(shaped = count));
                multiply_block(codes, blocks * size, columns, size, sums);
                add_block(matrix, rows, from + i, count, panel, b, sums, totals + i);
            }
        }
        for (int64_t i = 0; i < many; i++) finish_row(finish, from + i, panel_columns, totals[i]);
    }
    _tile_release();
}

static void quantize(const Matrix *matrix, const Norm *norm, const float *values, int64_t inputs,
                     Rows *to, int64_t row) {
    matmul_avx512.quantize(matrix, norm, values, inputs, to, row);
}

const MatmulKernel matmul_amx = {"amx", quantize, multiply};
