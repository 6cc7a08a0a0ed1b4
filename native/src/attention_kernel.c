/* Attention of one head. Compiled once for each instruction set, with -DVARIANT=name.
 *
 * A token's softmax is computed online, in spans of 256 positions that begin at multiples of 256.
 * So its bits depend on its own queries and on the cache alone: they are the same by itself,
 * beside others, in a chunk of a prompt, and after a cached prefix. */
#include "attention.h"
#include "power.h"

/* Tokens of one sequence that share the loads of keys and values, and vectors of values that are
 * summed at a time: as many as there are registers for. */
#if defined(__AVX512F__)
enum { GROUP = 4, GROUP_BLOCKS = 2, SINGLE_BLOCKS = 4, VECTORS = 4 };
#elif defined(__ARM_NEON)
enum { GROUP = 2, GROUP_BLOCKS = 1, SINGLE_BLOCKS = 4, VECTORS = 2 };
#else
enum { GROUP = 2, GROUP_BLOCKS = 1, SINGLE_BLOCKS = 4, VECTORS = 2 };
#endif

enum { SPAN = 256 };

/* Fetch a line of the cache into the second level. The processor does not do it by itself: a head's
 * keys and values are short streams, and each begins on another page. Values are fetched while the
 * keys of their positions are read, and keys while the values before them are. The second level
 * takes more lines at a time than the first. */
INLINE void fetch(const char *line) { __builtin_prefetch(line, 0, 2); }
static const float LOWEST = -1e30f;

/* A token during its pass over the cache. */
typedef struct {
    float query[MOST_HEAD_SIZE];   /* scaled, so that scores are exponents of 2 */
    int16_t codes[MOST_HEAD_SIZE]; /* for int8 keys: the query / unit, rounded */
    float unit;
    float sums[MOST_HEAD_SIZE];  /* weighted values so far */
    float weights[SPAN];         /* scores of the span, then their exponentials */
    float most, total;           /* largest score, and sum of the exponentials, so far */
    int64_t length;              /* positions to attend to */
} Token;

INLINE Floats load_cached(const void *cache, int64_t at, const int is_int8) {
    return is_int8 ? widen((const int8_t *)cache + at) : load((const float *)cache + at);
}

/* 16 channels as int8 codes. */
INLINE Codes quantize(Floats values, Floats scales) {
    const Floats scaled = smaller(larger(values / scales, all(-128.0f)), all(127.0f));
    return __builtin_convertvector((Ints)(scaled + all(ROUNDING)) - (Ints)all(ROUNDING), Codes);
}

/* Write the keys and values of a token into the cache. */
INLINE void write_token(const Attention *run, int64_t head, int64_t token, const int is_int8) {
    const int64_t size = run->size, at = run->positions[token], lane = at % LANES;
    const int64_t row = (run->slots[token] * run->heads + head) * run->capacity;
    const float *key = run->qkv + ((token * 3 + 1) * run->heads + head) * size;
    const float *value = key + run->heads * size;
    const int64_t block = (row + at - lane) * size;
    for (int64_t c = 0; c < size; c += LANES) {
        if (is_int8) {
            const int64_t channel = head * size + c;
            const Codes codes = quantize(load(key + c), load(run->key_scales + channel));
            int8_t *keys = (int8_t *)run->keys + block + c * LANES + 2 * lane;
            for (int i = 0; i < LANES; i++) keys[i / 2 * 2 * LANES + i % 2] = codes[i];
            int8_t *values = (int8_t *)run->values + (row + at) * size + c;
            *(LooseCodes *)values = quantize(load(value + c), load(run->value_scales + channel));
        } else {
            float *keys = (float *)run->keys + block + c * LANES + lane;
            for (int i = 0; i < LANES; i++) keys[i * LANES] = key[c + i];
            store((float *)run->values + (row + at) * size + c, load(value + c));
        }
    }
}

/* Round a query to 16 bits. Its scores are exact in 32 bits: 2^15 · 2^7 · 256 < 2^31. */
INLINE void round_query(Token *token, int64_t size) {
    Floats most = all(0);
    for (int64_t c = 0; c < size; c += LANES)
        most = larger(magnitude(load(token->query + c)), most);
    const float top = largest(most);
    const Floats inverse = all(top > 0 ? 32767.0f / top : 0);
    for (int64_t c = 0; c < size; c += LANES) {
        const Floats shifted = load(token->query + c) * inverse + all(ROUNDING);
        const Ints rounded = (Ints)shifted - (Ints)all(ROUNDING);
        for (int i = 0; i < LANES; i++) token->codes[c + i] = (int16_t)rounded[i];
    }
    token->unit = top / 32767.0f;
}

INLINE void start_token(const Attention *run, int64_t head, int64_t token, Token *state,
                        const int is_int8) {
    const float *query = run->qkv + (token * 3 * run->heads + head) * run->size;
    const Floats scale = all(run->scale * LOG2_E);
    for (int64_t c = 0; c < run->size; c += LANES) {
        Floats channels = load(query + c) * scale;
        if (is_int8) channels *= load(run->key_scales + head * run->size + c);
        store(state->query + c, channels);
        store(state->sums + c, all(0));
    }
    if (is_int8) round_query(state, run->size);
    state->most = LOWEST;
    state->total = 0;
    state->length = run->positions[token] + 1;
}

/* Scores of `blocks` times 16 positions, for `count` tokens. Their values begin at `values`. */
INLINE void score_floats(const float *keys, int64_t size, Token *tokens, int64_t to,
                         const char *values, const int count, const int blocks) {
    Floats scores[GROUP][SINGLE_BLOCKS];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int b = 0; b < blocks; b++) scores[i][b] = all(0);
    for (int64_t c = 0; c < size; c++) {
        Floats channel[SINGLE_BLOCKS];
        UNROLL for (int b = 0; b < blocks; b++) {
            const int64_t offset = (b * size + c) * LANES;
            channel[b] = load(keys + offset);
            fetch(values + offset * (int64_t)sizeof(float));
        }
        UNROLL for (int i = 0; i < count; i++) {
            const Floats query = all(tokens[i].query[c]);
            UNROLL for (int b = 0; b < blocks; b++)
                scores[i][b] = fused(query, channel[b], scores[i][b]);
        }
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int b = 0; b < blocks; b++)
            store(tokens[i].weights + to + b * LANES, scores[i][b]);
}

/* The same for int8 keys, two channels at a time. */
INLINE void score_codes(const int8_t *keys, int64_t size, Token *tokens, int64_t to,
                        const char *values, const int count, const int blocks) {
    Ints scores[GROUP][SINGLE_BLOCKS];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int b = 0; b < blocks; b++) scores[i][b] = (Ints){0};
    for (int64_t c = 0; c < size; c += 2) {
        Pairs channels[SINGLE_BLOCKS];
        UNROLL for (int b = 0; b < blocks; b++) {
            const int64_t offset = (b * size + c) * LANES;
            channels[b] = load_pairs(keys + offset);
            if (c % 4 == 0) fetch(values + offset);
        }
        UNROLL for (int i = 0; i < count; i++) {
            int32_t pair;
            memcpy(&pair, tokens[i].codes + c, sizeof pair);
            UNROLL for (int b = 0; b < blocks; b++)
                scores[i][b] = add_pairs(scores[i][b], channels[b], pair);
        }
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int b = 0; b < blocks; b++)
            store(tokens[i].weights + to + b * LANES,
                  to_floats(scores[i][b]) * all(tokens[i].unit));
}

INLINE void score_blocks(const void *keys, int64_t at, int64_t size, Token *tokens, int64_t to,
                         const char *values, const int count, const int blocks,
                         const int is_int8) {
    if (is_int8)
        score_codes((const int8_t *)keys + at, size, tokens, to, values, count, blocks);
    else
        score_floats((const float *)keys + at, size, tokens, to, values, count, blocks);
}

INLINE const char *address(const void *cache, int64_t at, const int is_int8) {
    return (const char *)cache + at * (is_int8 ? 1 : (int64_t)sizeof(float));
}

/* Scores of the first `positions` of a span. */
INLINE void score_span(const Attention *run, int64_t at, int64_t positions, Token *tokens,
                       const int count, const int is_int8) {
    const int blocks = count > 1 ? GROUP_BLOCKS : SINGLE_BLOCKS;
    const int64_t size = run->size, step = blocks * LANES;
    int64_t done = 0;
    for (; done + step <= positions; done += step) {
        const int64_t from = at + done * size;
        const char *values = address(run->values, from, is_int8);
        score_blocks(run->keys, from, size, tokens, done, values, count, blocks, is_int8);
    }
    for (; done < positions; done += LANES) {
        const int64_t from = at + done * size;
        const char *values = address(run->values, from, is_int8);
        score_blocks(run->keys, from, size, tokens, done, values, count, 1, is_int8);
    }
}

/* Turn the scores of a span into weights, and rescale the sums to the new maximum. */
INLINE void weigh_span(Token *token, int64_t positions, int64_t size) {
    static const float INDICES[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int64_t last = (positions - 1) / LANES * LANES;
    const Ints inside = load(INDICES) < all((float)(positions - last));
    Floats most = choose(inside, load(token->weights + last), all(LOWEST));
    store(token->weights + last, most);
    for (int64_t t = 0; t < last; t += LANES) most = larger(load(token->weights + t), most);
    const float top = largest(most) > token->most ? largest(most) : token->most;
    Floats total = all(0);
    for (int64_t t = 0; t <= last; t += LANES) {
        Floats weights = power_of_two(load(token->weights + t) - all(top));
        if (t == last) weights = choose(inside, weights, all(0));
        store(token->weights + t, weights);
        total += weights;
    }
    const Floats shrink = power_of_two(all(token->most - top));
    for (int64_t c = 0; c < size; c += LANES)
        store(token->sums + c, load(token->sums + c) * shrink);
    token->total = __builtin_fmaf(token->total, shrink[0], sum(total));
    token->most = top;
}

/* Add the weighted values of the positions `from` to `until` of a span, for some channels. The keys
 * that are read next begin at `next`. */
INLINE void add_channels(const void *values, int64_t at, int64_t size, int64_t from, int64_t until,
                         Token *tokens, int64_t channel, const char *next, const int count,
                         const int vectors, const int is_int8) {
    Floats sums[GROUP][VECTORS];
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sums[i][v] = load(tokens[i].sums + channel + v * LANES);
    for (int64_t t = from; t < until; t++) {
        Floats row[VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) {
            row[v] = load_cached(values, at + t * size + channel + v * LANES, is_int8);
            if (!is_int8 || v % 4 == 0)
                fetch(address(next, t * size + channel + v * LANES, is_int8));
        }
        UNROLL for (int i = 0; i < count; i++) {
            const Floats weight = all(tokens[i].weights[t]);
            UNROLL for (int v = 0; v < vectors; v++) sums[i][v] = fused(weight, row[v], sums[i][v]);
        }
    }
    UNROLL for (int i = 0; i < count; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            store(tokens[i].sums + channel + v * LANES, sums[i][v]);
}

INLINE void add_values(const void *values, int64_t at, int64_t size, int64_t from, int64_t until,
                       Token *tokens, const char *next, const int count, const int is_int8) {
    int64_t c = 0;
    for (; c + VECTORS * LANES <= size; c += VECTORS * LANES)
        add_channels(values, at, size, from, until, tokens, c, next, count, VECTORS, is_int8);
    for (; c < size; c += LANES)
        add_channels(values, at, size, from, until, tokens, c, next, count, 1, is_int8);
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE void finish_token(const Attention *run, int64_t head, int64_t token, const Token *state,
                         const int is_int8) {
    float *out = run->out + (token * run->heads + head) * run->size;
    const Floats inverse = all(1.0f / state->total);
    for (int64_t c = 0; c < run->size; c += LANES) {
        Floats channels = load(state->sums + c) * inverse;
        if (is_int8) channels *= load(run->value_scales + head * run->size + c);
        store(out + c, channels);
    }
}

/* Where the keys or values of a head of a token's sequence begin. */
INLINE int64_t cache_of(const Attention *run, int64_t head, int64_t token) {
    return (run->slots[token] * run->heads + head) * run->capacity * run->size;
}

/* Attend from `count` tokens of one sequence, the first of which is `first`. */
INLINE void attend(const Attention *run, int64_t head, int64_t first, Token *tokens,
                   const int count, const int is_int8) {
    const int64_t size = run->size, cache = cache_of(run, head, first);
    const int is_last = first + count >= run->tokens;
    const int64_t following =
        is_last ? cache + run->capacity * size : cache_of(run, head, first + count);
    int64_t longest = 0;
    for (int i = 0; i < count; i++) {
        start_token(run, head, first + i, tokens + i, is_int8);
        longest = most(longest, tokens[i].length);
    }
    for (int64_t start = 0; start < longest; start += SPAN) {
        const int64_t at = cache + start * size, positions = least(longest - start, SPAN);
        const int64_t then = longest - start > SPAN ? at + SPAN * size : following;
        const char *next = address(run->keys, then, is_int8);
        score_span(run, at, positions, tokens, count, is_int8);
        int64_t own[GROUP], shared = SPAN;
        for (int i = 0; i < count; i++) {
            own[i] = most(least(tokens[i].length - start, SPAN), 0);
            shared = least(shared, own[i]);
            if (own[i]) weigh_span(tokens + i, own[i], size);
        }
        add_values(run->values, at, size, 0, shared, tokens, next, count, is_int8);
        for (int i = 0; i < count; i++)
            if (own[i] > shared)
                add_values(run->values, at, size, shared, own[i], tokens + i, next, 1, is_int8);
    }
    for (int i = 0; i < count; i++) finish_token(run, head, first + i, tokens + i, is_int8);
}

INLINE int is_group(const Attention *run, int64_t first) {
    if (first + GROUP > run->tokens) return 0;
    for (int i = 1; i < GROUP; i++)
        if (run->slots[first + i] != run->slots[first]) return 0;
    return 1;
}

INLINE void attend_head(const Attention *run, int64_t head, const int is_int8) {
    Token tokens[GROUP];
    for (int64_t i = 0; i < run->tokens; i++) write_token(run, head, i, is_int8);
    for (int64_t i = 0; i < run->tokens;)
        if (is_group(run, i)) {
            attend(run, head, i, tokens, GROUP, is_int8);
            i += GROUP;
        } else
            attend(run, head, i++, tokens, 1, is_int8);
}

static void attend_int8(const Attention *run, int64_t head) { attend_head(run, head, 1); }
static void attend_float32(const Attention *run, int64_t head) { attend_head(run, head, 0); }

const AttentionKernel JOIN(attention_, VARIANT) = {TEXT(VARIANT), attend_int8, attend_float32};
