/* Products of float rows and quantized matrices.
 *
 * A matrix [K][N] of unsigned codes is packed into panels of 48 columns, each panel in blocks along
 * K, each block in steps. A step holds 4 bytes of each column side by side, which is what one
 * dot-product instruction takes:
 *
 *   weights  [panels][blocks][steps][48][4]
 *            8 bits: byte j is the code of k = 4·step + j; block / 4 steps
 *            4 bits: byte j has the code of k = 8·step + j in its low half, and that of
 *                    k = 8·step + 4 + j in its high half; block / 8 steps
 *   scales   [panels][blocks][48]
 *   zeros    [panels][blocks][48], the code of 0.0; without them it is 8, or 128 for 8 bits
 *
 * Rows are quantized to int8, with a scale for each row and block: largest magnitude / 127.
 * The sum of a block is exact, in integers. Blocks are added in float, in their order. So the
 * bits of a row do not depend on other rows, nor on the instruction set. */
#ifndef GPT2FLOW_MATMUL_H
#define GPT2FLOW_MATMUL_H

#include <stddef.h>
#include <stdint.h>

enum { PANEL = 48, VECTORS_OF_PANEL = PANEL / 16 };

/* A packed matrix. K = blocks · block_size; rows shorter than that are padded with zeros. */
typedef struct {
    const uint8_t *weights;
    const float *scales;
    const uint8_t *zeros; /* or NULL; for 4 bits alone */
    int64_t columns, blocks, block_size;
    int bits;
} Matrix;

/* Layer normalization of rows before they are quantized; without a gain there is none. */
typedef struct {
    const float *gain, *shift; /* [inputs] */
    float epsilon;
} Norm;

/* Quantized rows: codes [rows][K], scales and sums of the codes [rows][blocks]. */
typedef struct {
    int8_t *codes;
    float *scales;
    int32_t *sums;
    int64_t rows;
} Rows;

/* What is done with a product, in this order, and where it goes. */
typedef struct {
    const float *bias;     /* [columns], or NULL */
    int is_gelu;           /* the activation, by its approximation with tanh */
    const float *residual; /* [rows][stride], added at the end; or NULL */
    float *out;            /* [rows][stride] */
    int64_t stride;
} Finish;

/* Quantize a row of `inputs` numbers. */
typedef void QuantizeRow(const Matrix *matrix, const Norm *norm, const float *values,
                         int64_t inputs, Rows *to, int64_t row);

/* Multiply all rows with a panel. The arrays of `finish` begin at the panel's first column; of
 * `out`, the columns that the matrix has are written. */
typedef void MultiplyPanel(const Matrix *matrix, const Rows *rows, int64_t panel,
                           const Finish *finish);

typedef struct {
    const char *name;
    QuantizeRow *quantize;
    MultiplyPanel *multiply;
} MatmulKernel;

#endif
