/* Attention of new tokens to the KV cache of their sequences.
 *
 * The cache holds, for each layer:
 *
 *   keys    [slots][heads][capacity / 16][size / n][16][n]
 *   values  [slots][heads][capacity][size]
 *
 * as int8 codes with a scale for each channel of each head, or as float. The keys of 16 positions
 * lie side by side, so that one load serves 16 scores: n channels of each, which is 2 for int8 and
 * 1 for float. */
#ifndef GPT2FLOW_ATTENTION_H
#define GPT2FLOW_ATTENTION_H

#include <stdint.h>

enum { MOST_HEAD_SIZE = 256 };

/* One run: new tokens of any sequences, and the cache.
 *
 * qkv: queries, keys and values of the tokens, [tokens][3][heads][size].
 * slots, positions: where each token's keys and values go, [tokens]. The token attends to the
 *   positions 0 to its own, those of this run included.
 * keys, values: the cache; int8_t with scales, float without.
 * key_scales, value_scales: [heads][size], or NULL.
 * out: [tokens][heads][size]. */
typedef struct {
    const float *qkv;
    const int64_t *slots, *positions;
    void *keys, *values;
    const float *key_scales, *value_scales;
    float *out;
    int64_t tokens, heads, capacity, size;
    float scale;
} Attention;

/* Write all new keys and values of a head, then attend. Heads are independent. */
typedef void AttendHead(const Attention *run, int64_t head);

typedef struct {
    const char *name;
    AttendHead *int8, *float32;
} AttentionKernel;

#endif
