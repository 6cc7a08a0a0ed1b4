/* Powers of two, for exponentials of what is at most 0. */
#ifndef GPT2FLOW_POWER_H
#define GPT2FLOW_POWER_H

#include "vectors.h"

#define LOG2_E 1.44269504088896341f

/* 2^x for x <= 0, within 2 ulp; a polynomial of degree 6 (Cephes' exp2f). */
INLINE Floats power_of_two(Floats x) {
    x = larger(x, all(-126.0f));
    Floats shifted = x + all(ROUNDING);
    Floats rest = x - (shifted - all(ROUNDING));
    Floats p = all(1.535336188319500e-4f);
    p = fused(p, rest, all(1.339887440266574e-3f));
    p = fused(p, rest, all(9.618437357674640e-3f));
    p = fused(p, rest, all(5.550332471162809e-2f));
    p = fused(p, rest, all(2.402264791363012e-1f));
    p = fused(p, rest, all(6.931472028550421e-1f));
    p = fused(p, rest, all(1.0f));
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}

#endif
