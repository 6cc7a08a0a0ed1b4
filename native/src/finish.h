/* The end of a product: bias, activation and residual. */
#ifndef GPT2FLOW_FINISH_H
#define GPT2FLOW_FINISH_H

#include "matmul.h"
#include "power.h"

/* GELU by tanh, x · (1 + tanh(u)) / 2 = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3).
 * The exponential is taken of -|2u|, so that it does not overflow. */
INLINE Floats gelu(Floats x) {
    const Floats cubic = x * x * x;
    const Floats twice = fused(all(0.044715f), cubic, x) * all(2 * 0.79788456080286536f * LOG2_E);
    const Floats power = power_of_two(-magnitude(twice));
    return x * choose(twice > all(0), all(1), power) / (all(1) + power);
}

/* The columns that a panel has: 48, or fewer in the last one. */
INLINE int64_t columns_of(const Matrix *matrix, int64_t panel) {
    const int64_t left = matrix->columns - panel * PANEL;
    return left < PANEL ? left : PANEL;
}

INLINE void finish_columns(const Finish *finish, const float *bias, const float *residual,
                           const float *products, float *to) {
    UNROLL for (int v = 0; v < VECTORS_OF_PANEL; v++) {
        Floats values = load(products + v * LANES);
        if (bias) values += load(bias + v * LANES);
        if (finish->is_gelu) values = gelu(values);
        if (residual) values += load(residual + v * LANES);
        store(to + v * LANES, values);
    }
}

/* Finish the products of one row with a panel of `columns` columns. */
INLINE void finish_row(const Finish *finish, int64_t row, int64_t columns, const float *products) {
    float *out = finish->out + row * finish->stride;
    const float *bias = finish->bias;
    const float *residual = finish->residual ? finish->residual + row * finish->stride : NULL;
    if (columns == PANEL) {
        finish_columns(finish, bias, residual, products, out);
        return;
    }
    float padded[3][PANEL] = {{0}};
    const size_t bytes = (size_t)columns * sizeof(float);
    if (bias) bias = memcpy(padded[0], bias, bytes);
    if (residual) residual = memcpy(padded[1], residual, bytes);
    finish_columns(finish, bias, residual, products, padded[2]);
    memcpy(out, padded[2], bytes);
}

#endif
