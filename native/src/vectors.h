/* Vectors of 16 numbers, whatever the width of the registers.
 *
 * Every kernel computes with these types, so that the order of its sums does not depend on the
 * instruction set. Products are fused into sums by `fused` alone: the compiler must not contract
 * (-ffp-contract=off), or the bits would depend on its mood. */
#ifndef GPT2FLOW_VECTORS_H
#define GPT2FLOW_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { LANES = 16 };

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef int8_t Codes __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(64)));
typedef int16_t Pairs __attribute__((vector_size(64))); /* two numbers of each of 16 */

typedef Floats LooseFloats __attribute__((aligned(4), may_alias));
typedef Codes LooseCodes __attribute__((aligned(1), may_alias));
typedef Bytes LooseBytes __attribute__((aligned(1), may_alias));

/* The name of a kernel's table, and that of the kernel. */
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* Adding it to a number of less than 2^22 rounds to the nearest integer, ties to even. */
#define ROUNDING 12582912.0f

INLINE Floats load(const float *from) { return *(const LooseFloats *)from; }
INLINE void store(float *to, Floats values) { *(LooseFloats *)to = values; }
INLINE Bytes load_bytes(const uint8_t *from) { return *(const LooseBytes *)from; }

INLINE Floats all(float value) { return value - (Floats){0}; }

INLINE Floats choose(Ints mask, Floats yes, Floats no) {
    return (Floats)(((Ints)yes & mask) | ((Ints)no & ~mask));
}
INLINE Floats larger(Floats a, Floats b) { return choose(a > b, a, b); }
INLINE Floats smaller(Floats a, Floats b) { return choose(a < b, a, b); }

/* a · b + c, rounded once. */
INLINE Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union { Floats all; __m256 half[2]; } x = {a}, y = {b}, z = {c};
    UNROLL for (int i = 0; i < 2; i++) z.half[i] = _mm256_fmadd_ps(x.half[i], y.half[i], z.half[i]);
    return z.all;
#elif defined(__ARM_NEON)
    union { Floats all; float32x4_t part[4]; } x = {a}, y = {b}, z = {c};
    UNROLL for (int i = 0; i < 4; i++) z.part[i] = vfmaq_f32(z.part[i], x.part[i], y.part[i]);
    return z.all;
#else
    for (int i = 0; i < LANES; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

INLINE Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }

/* 16 signed bytes as numbers. */
INLINE Floats widen(const int8_t *from) {
    Codes codes = *(const LooseCodes *)from;
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)codes));
#elif defined(__AVX2__)
    union { Floats all; __m256 half[2]; } wide;
    __m128i low = (__m128i)codes, high = _mm_srli_si128(low, 8);
    wide.half[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
    wide.half[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
    return wide.all;
#else
    return to_floats(__builtin_convertvector(codes, Ints));
#endif
}

INLINE Floats magnitude(Floats values) { return (Floats)((Ints)values & 0x7fffffff); }

/* 32 signed bytes as pairs. */
INLINE Pairs load_pairs(const int8_t *from) {
#if defined(__AVX512BW__)
    return (Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__AVX2__)
    union { Pairs all; __m256i half[2]; } wide;
    UNROLL for (int i = 0; i < 2; i++)
        wide.half[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from + 16 * i)));
    return wide.all;
#else
    typedef int8_t Bytes32 __attribute__((vector_size(32), aligned(1), may_alias));
    return __builtin_convertvector(*(const Bytes32 *)from, Pairs);
#endif
}

/* Add the products of 16 pairs and one pair, whose first number has the lower bits. */
INLINE Ints add_pairs(Ints sums, Pairs pairs, int32_t pair) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)pairs, _mm512_set1_epi32(pair));
#elif defined(__AVX2__)
    union { Ints all; __m256i half[2]; } to = {sums};
    union { Pairs all; __m256i half[2]; } from = {pairs};
    UNROLL for (int i = 0; i < 2; i++) {
        const __m256i products = _mm256_madd_epi16(from.half[i], _mm256_set1_epi32(pair));
        to.half[i] = _mm256_add_epi32(to.half[i], products);
    }
    return to.all;
#else
    const int32_t low = (int16_t)pair, high = pair >> 16;
    for (int i = 0; i < LANES; i++) sums[i] += pairs[2 * i] * low + pairs[2 * i + 1] * high;
    return sums;
#endif
}

INLINE float largest(Floats values) {
    float most = values[0];
    for (int i = 1; i < LANES; i++) most = values[i] > most ? values[i] : most;
    return most;
}

/* The sum in one order: halves, quarters, eighths. */
INLINE float sum(Floats values) {
    float parts[LANES];
    store(parts, values);
    UNROLL for (int width = LANES / 2; width; width /= 2)
        UNROLL for (int i = 0; i < width; i++) parts[i] += parts[i + width];
    return parts[0];
}

#endif
