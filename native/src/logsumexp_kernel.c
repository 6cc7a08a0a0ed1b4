/* Logarithm of the summed exponentials of a row. Compiled once for each instruction set. */
#include <math.h>

#include "kernels.h"
#include "power.h"

static const float LOWEST = -INFINITY;

/* The numbers from `at` on; beyond the row, those that add nothing. */
INLINE Floats load_tail(const float *row, int64_t at, int64_t columns) {
    float padded[LANES];
    store(padded, all(LOWEST));
    memcpy(padded, row + at, (size_t)(columns - at) * sizeof(float));
    return load(padded);
}

float JOIN(logsumexp_, VARIANT)(const float *row, int64_t columns) {
    const int64_t whole = columns / LANES * LANES;
    const Floats tail = load_tail(row, whole, columns);
    Floats most = tail;
    for (int64_t c = 0; c < whole; c += LANES) most = larger(load(row + c), most);
    const float top = largest(most);
    if (top == LOWEST) return top;
    Floats total = power_of_two((tail - all(top)) * all(LOG2_E));
    total = choose(tail > all(LOWEST), total, all(0));
    for (int64_t c = 0; c < whole; c += LANES)
        total += power_of_two((load(row + c) - all(top)) * all(LOG2_E));
    return top + logf(sum(total));
}
