/* The one instruction that a product needs: 4 codes of each of 16 columns, times 4 codes of a row.
 *
 * Codes of a matrix are unsigned, those of a row signed. Where the instruction takes signed codes,
 * the 8-bit ones are shifted by 128 here, and ZERO_8, the code of 0.0 for the sums, is 0. */
#ifndef GPT2FLOW_DOT_H
#define GPT2FLOW_DOT_H

#include "vectors.h"

#if defined(__AVX512VNNI__)
enum { ZERO_8 = 128, MOST_ROWS = 8 };

INLINE Ints dot(Ints sums, Bytes codes, int32_t row, const int bits) {
    (void)bits;
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, _mm512_set1_epi32(row));
}

#elif defined(__AVX2__)
#if defined(__AVXVNNI__)
enum { ZERO_8 = 128, MOST_ROWS = 2 };
#else
enum { ZERO_8 = 0, MOST_ROWS = 2 };
#endif

INLINE __m256i dot_half(__m256i sums, __m256i codes, __m256i row, const int bits) {
#if defined(__AVXVNNI__)
    (void)bits;
    return _mm256_dpbusd_avx_epi32(sums, codes, row);
#else
    __m256i pairs;
    if (bits == 4)
        pairs = _mm256_maddubs_epi16(codes, row);
    else { /* |a - 128| · ±b: a sum of two stays below 2^15, as no code of a row is -128 */
        codes = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
        pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(row, codes));
    }
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

INLINE Ints dot(Ints sums, Bytes codes, int32_t row, const int bits) {
    union { Ints all; __m256i half[2]; } to = {sums};
    union { Bytes all; __m256i half[2]; } from = {codes};
    const __m256i four = _mm256_set1_epi32(row);
    UNROLL for (int i = 0; i < 2; i++) to.half[i] = dot_half(to.half[i], from.half[i], four, bits);
    return to.all;
}

#elif defined(__ARM_FEATURE_DOTPROD)
enum { ZERO_8 = 0, MOST_ROWS = 2 };

INLINE Ints dot(Ints sums, Bytes codes, int32_t row, const int bits) {
    union { Ints all; int32x4_t part[4]; } to = {sums};
    union { Bytes all; uint8x16_t part[4]; } from = {codes};
    const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(row));
    const uint8x16_t flip = vdupq_n_u8(bits == 8 ? 128 : 0);
    UNROLL for (int i = 0; i < 4; i++) {
        const int8x16_t part = vreinterpretq_s8_u8(veorq_u8(from.part[i], flip));
        to.part[i] = vdotq_s32(to.part[i], part, four);
    }
    return to.all;
}

#else
enum { ZERO_8 = 128, MOST_ROWS = 1 };

INLINE Ints dot(Ints sums, Bytes codes, int32_t row, const int bits) {
    (void)bits;
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++) sums[i] += codes[4 * i + j] * (int8_t)(row >> (8 * j));
    return sums;
}
#endif

#endif
