/* Random nodes and inputs for the operators, behind a stand-in for onnxruntime.
 *
 *   fuzz SEED COUNT
 *
 * Each case runs on every kernel of the processor, in several threads. Tensors lie in memory of
 * exactly their size, so that a sanitizer sees every access beyond them. Of the cases, some are
 * damaged: a shape, a slot, a position or an id is out of range. Those must end with an error, and
 * leave the cache as it was. The others must give the same result on every kernel. */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "ops.h"

enum { THREADS = 3, MEMBERS = 300, MOST_TENSORS = 8, KINDS = 4 };

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s, case %d\n", __FILE__, __LINE__, #condition, number);   \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static int number; /* of the case */

/* --- Random numbers ------------------------------------------------------------------ */

static uint64_t state;
static uint32_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}
static int64_t between(int64_t low, int64_t high) { return low + random_bits() % (high - low + 1); }
static float random_float(void) { return (float)((double)random_bits() / 2147483648.0 - 1.0); }

/* --- A stand-in for onnxruntime ------------------------------------------------------ */

struct OrtValue {
    void *data;
    int64_t shape[6];
    size_t rank;
    size_t item;
};
struct OrtStatus {
    char text[160];
};
struct OrtContext {
    OrtValue *inputs[MOST_TENSORS];
    OrtValue outputs[3];
    void *in_place[3]; /* memory that an output is bound to, or NULL */
};
struct OrtKernelInfo {
    int64_t heads, inputs, columns, block_size;
    float scale;
};

static size_t items(const OrtValue *value) {
    size_t count = 1;
    for (size_t i = 0; i < value->rank; i++) count *= (size_t)value->shape[i];
    return count;
}

static OrtStatus *create_status(int code, const char *message) {
    OrtStatus *status = calloc(1, sizeof *status);
    snprintf(status->text, sizeof status->text, "%d %s", code, message);
    return status;
}
static OrtStatus *get_shape(const OrtValue *value, OrtShape **to) {
    *to = (OrtShape *)value;
    return NULL;
}
static OrtStatus *get_rank(const OrtShape *shape, size_t *to) {
    *to = ((const OrtValue *)shape)->rank;
    return NULL;
}
static OrtStatus *get_dimensions(const OrtShape *shape, int64_t *to, size_t count) {
    memcpy(to, ((const OrtValue *)shape)->shape, count * sizeof *to);
    return NULL;
}
static void release_shape(OrtShape *shape) { (void)shape; }
static OrtStatus *get_data(OrtValue *value, void **to) {
    *to = value->data;
    return NULL;
}
static OrtStatus *get_input(const OrtContext *context, size_t index, const OrtValue **to) {
    *to = context->inputs[index];
    return NULL;
}
static OrtStatus *get_output(OrtContext *context, size_t index, const int64_t *shape, size_t rank,
                             OrtValue **to) {
    OrtValue *value = context->outputs + index;
    memcpy(value->shape, shape, rank * sizeof *shape);
    value->rank = rank;
    if (context->in_place[index])
        value->data = context->in_place[index];
    else
        value->data = malloc(items(value) * value->item);
    *to = value;
    return NULL;
}
static OrtStatus *get_int(const OrtKernelInfo *info, const char *name, int64_t *to) {
    if (!strcmp(name, "num_heads")) *to = info->heads;
    if (!strcmp(name, "K")) *to = info->inputs;
    if (!strcmp(name, "N")) *to = info->columns;
    if (!strcmp(name, "block_size")) *to = info->block_size;
    return NULL;
}
static OrtStatus *get_float(const OrtKernelInfo *info, const char *name, float *to) {
    (void)name;
    *to = info->scale;
    return NULL;
}

typedef struct {
    void (*call)(void *, size_t);
    void *data;
    size_t next, total;
} Job;

static void *work(void *argument) {
    Job *job = argument;
    size_t at;
    while ((at = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->total)
        job->call(job->data, at);
    return NULL;
}
static OrtStatus *parallel_for(const OrtContext *context, void (*call)(void *, size_t),
                               size_t total, size_t batches, void *data) {
    (void)context, (void)batches;
    Job job = {call, data, 0, total};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(threads + i, NULL, work, &job);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return NULL;
}

static void *members[MEMBERS];
static void fill_api(void) {
    members[ORT_create_status] = (void *)create_status;
    members[ORT_get_shape] = (void *)get_shape;
    members[ORT_get_rank] = (void *)get_rank;
    members[ORT_get_dimensions] = (void *)get_dimensions;
    members[ORT_release_shape] = (void *)release_shape;
    members[ORT_get_data] = (void *)get_data;
    members[ORT_get_input] = (void *)get_input;
    members[ORT_get_output] = (void *)get_output;
    members[ORT_get_int_attribute] = (void *)get_int;
    members[ORT_get_float_attribute] = (void *)get_float;
    members[ORT_parallel_for] = (void *)parallel_for;
}

/* --- Tensors ------------------------------------------------------------------------- */

static OrtValue make(size_t item, size_t rank, ...) {
    OrtValue value = {.item = item, .rank = rank};
    __builtin_va_list list;
    __builtin_va_start(list, rank);
    for (size_t i = 0; i < rank; i++) value.shape[i] = __builtin_va_arg(list, int64_t);
    __builtin_va_end(list);
    value.data = malloc(items(&value) * item + 1);
    value.data = realloc(value.data, items(&value) * item ? items(&value) * item : 1);
    return value;
}
static void fill_floats(OrtValue *value, float low) {
    float *data = value->data;
    for (size_t i = 0; i < items(value); i++) {
        data[i] = random_float();
        if (low > 0) data[i] = fabsf(data[i]) + low;
    }
}
static void fill_bytes(OrtValue *value, int mask) {
    uint8_t *data = value->data;
    for (size_t i = 0; i < items(value); i++) data[i] = (uint8_t)(random_bits() & mask);
}
static void fill_ids(OrtValue *value, int64_t limit) {
    int64_t *data = value->data;
    for (size_t i = 0; i < items(value); i++) data[i] = between(0, limit - 1);
}

/* Run a node; return its status. The outputs are the caller's. */
static OrtStatus *run(const OrtCustomOp *op, const OrtKernelInfo *info, OrtContext *context) {
    void *kernel = NULL;
    OrtStatus *status = op->create_kernel(op, members, info, &kernel);
    if (status) return status;
    status = op->compute(kernel, context);
    op->destroy_kernel(kernel);
    return status;
}

/* --- Cases ---------------------------------------------------------------------------- */

/* Return a value out of range, near it or far. */
static int64_t outside(int64_t limit) {
    const int64_t values[] = {-1, limit, limit + 15, INT64_MIN, INT64_MAX, limit * 1000};
    return values[between(0, 5)];
}

static float difference(const float *a, const float *b, size_t count) {
    float most = 0;
    for (size_t i = 0; i < count; i++) {
        const float each = fabsf(a[i] - b[i]);
        if (!(each <= most)) most = each;
    }
    return most;
}

static void attention_case(int is_int8, int damaged) {
    const int64_t heads = between(1, 4), size = 16 * between(1, 16), slots = between(1, 4);
    const int64_t blocks = between(1, 40), capacity = 16 * blocks, tokens = between(0, 20);
    const size_t item = is_int8 ? 1 : sizeof(float);
    const int64_t n = is_int8 ? 2 : 1;
    const OrtKernelInfo info = {.heads = heads, .scale = 0.1f};
    OrtValue qkv = make(4, 2, tokens, 3 * heads * size), slot = make(8, 1, tokens);
    OrtValue position = make(8, 1, tokens);
    OrtValue keys = make(item, 6, slots, heads, blocks, size / n, 16L, n);
    OrtValue values = make(item, 4, slots, heads, capacity, size);
    OrtValue key_scales = make(4, 2, heads, size), value_scales = make(4, 2, heads, size);
    fill_floats(&qkv, 0), fill_ids(&slot, slots), fill_ids(&position, capacity);
    if (tokens && between(0, 1)) /* a chunk of a prompt */
        for (int64_t i = 1; i < tokens; i++) {
            ((int64_t *)slot.data)[i] = *(int64_t *)slot.data;
            ((int64_t *)position.data)[i] = (*(int64_t *)position.data + i) % capacity;
        }
    fill_floats(&key_scales, 0.01f), fill_floats(&value_scales, 0.01f);
    is_int8 ? fill_bytes(&keys, 255) : fill_floats(&keys, 0);
    is_int8 ? fill_bytes(&values, 255) : fill_floats(&values, 0);
    if (damaged && tokens && between(0, 1))
        ((int64_t *)(between(0, 1) ? slot.data : position.data))[between(0, tokens - 1)] =
            outside(capacity > slots ? capacity : slots);
    else if (damaged) {
        OrtValue *const any[] = {&qkv, &slot, &position, &keys, &values};
        OrtValue *value = any[between(0, 4)];
        value->shape[between(0, (int64_t)value->rank - 1)] += between(0, 1) ? 1 : -1;
    }
    const size_t key_bytes = (size_t)(slots * heads * capacity * size) * item;
    float *first = NULL;
    char *first_keys = malloc(key_bytes), *first_values = malloc(key_bytes);
    for (int k = 0; kernels_name(k); k++) {
        choose_kernels(kernels_name(k));
        char *own_keys = malloc(key_bytes), *own_values = malloc(key_bytes);
        memcpy(own_keys, keys.data, key_bytes), memcpy(own_values, values.data, key_bytes);
        OrtValue in_keys = keys, in_values = values;
        in_keys.data = own_keys, in_values.data = own_values;
        OrtContext context = {
            .inputs = {&qkv, &slot, &position, &in_keys, &in_values,
                       is_int8 ? &key_scales : NULL, is_int8 ? &value_scales : NULL},
            .outputs = {{.item = 4}, {.item = item}, {.item = item}},
            .in_place = {NULL, own_keys, own_values},
        };
        const OrtCustomOp *op = is_int8 ? &attention_int8_op : &attention_float32_op;
        OrtStatus *status = run(op, &info, &context);
        CHECK(!status == !damaged);
        if (damaged) {
            CHECK(!memcmp(own_keys, keys.data, key_bytes));
            CHECK(!memcmp(own_values, values.data, key_bytes));
        } else if (!first) {
            first = context.outputs[0].data;
            memcpy(first_keys, own_keys, key_bytes), memcpy(first_values, own_values, key_bytes);
            context.outputs[0].data = NULL;
        } else {
            const size_t count = (size_t)(tokens * heads * size);
            CHECK(difference(first, context.outputs[0].data, count) < 0.0128f);
            CHECK(!memcmp(own_keys, first_keys, key_bytes));
            CHECK(!memcmp(own_values, first_values, key_bytes));
        }
        free(context.outputs[0].data), free(status), free(own_keys), free(own_values);
    }
    free(first), free(first_keys), free(first_values);
    free(qkv.data), free(slot.data), free(position.data), free(keys.data), free(values.data);
    free(key_scales.data), free(value_scales.data);
}

/* The operators by kind and bits: norm, norm and activation, residual, head. */
static const OrtCustomOp *const products[KINDS][2] = {
    {&norm_matmul_4_op, &norm_matmul_8_op},
    {&norm_gelu_matmul_4_op, &norm_gelu_matmul_8_op},
    {&matmul_add_4_op, &matmul_add_8_op},
    {&norm_head_4_op, &norm_head_8_op},
};
enum { ADD = 2, HEAD = 3 };

static void product_case(int bits, int kind, int damaged) {
    const int64_t size = 16 << between(0, 3), inputs = between(1, 300), columns = between(1, 200);
    const int64_t blocks = (inputs + size - 1) / size, panels = (columns + 47) / 48;
    /* Tiles (AMX) take 32 rows or more, and 64 at a time. */
    const int64_t rows = between(0, 3) ? between(0, 20) : between(30, 70);
    const int64_t ids = kind == HEAD ? between(0, 60) : columns;
    const OrtKernelInfo info = {
        .inputs = inputs, .columns = columns, .block_size = size, .scale = 1e-5f};
    OrtValue x = make(4, 2, rows, inputs);
    OrtValue weights = make(1, 5, panels, blocks, size * bits / 32, 48L, 4L);
    OrtValue scales = make(4, 3, panels, blocks, 48L), zeros = make(1, 3, panels, blocks, 48L);
    OrtValue bias = make(kind == HEAD ? 8 : 4, 1, ids); /* or ids of a head */
    OrtValue gain = make(4, 1, inputs), shift = make(4, 1, inputs);
    OrtValue residual = make(4, 2, rows, columns);
    fill_floats(&x, 0), fill_bytes(&weights, 255), fill_floats(&scales, 0), fill_bytes(&zeros, 15);
    fill_floats(&gain, 0), fill_floats(&shift, 0), fill_floats(&residual, 0);
    kind == HEAD ? fill_ids(&bias, columns) : fill_floats(&bias, 0);
    OrtValue *has_zeros = bits == 4 && between(0, 1) ? &zeros : NULL;
    if (damaged && kind == HEAD && ids && between(0, 1))
        ((int64_t *)bias.data)[between(0, ids - 1)] = outside(columns);
    else if (damaged) {
        OrtValue *const any[] = {&weights, &scales, &x, kind == ADD ? &residual : &gain,
                                 kind == ADD ? &bias : &shift};
        const int64_t which = between(0, 4);
        const int64_t at = which == 2 ? 1 : between(0, (int64_t)any[which]->rank - 1);
        any[which]->shape[at] += between(0, 1) ? 1 : -1;
    }
    const size_t count = (size_t)(rows * (kind == HEAD && ids ? ids : columns));
    float *first = NULL;
    for (int k = 0; kernels_name(k); k++) {
        choose_kernels(kernels_name(k));
        OrtContext context = {
            .inputs = {&x, &weights, &scales, &bias, kind == ADD ? &residual : &gain,
                       kind == ADD ? has_zeros : &shift, kind == ADD ? NULL : has_zeros},
            .outputs = {{.item = 4}},
        };
        OrtStatus *status = run(products[kind][bits == 8], &info, &context);
        CHECK(!status == !damaged);
        if (!damaged && !first) {
            first = context.outputs[0].data;
            context.outputs[0].data = NULL;
        } else if (!damaged)
            CHECK(!memcmp(first, context.outputs[0].data, count * sizeof(float)));
        free(context.outputs[0].data), free(status);
    }
    free(first), free(x.data), free(weights.data), free(scales.data), free(zeros.data);
    free(bias.data), free(gain.data), free(shift.data), free(residual.data);
}

static void sum_case(void) {
    OrtValue row = make(4, 1, between(1, 300));
    fill_floats(&row, 0);
    for (int k = 0; kernels_name(k); k++) {
        choose_kernels(kernels_name(k));
        float sum = chosen_kernels()->logsumexp(row.data, row.shape[0]), expected = 0;
        for (int64_t i = 0; i < row.shape[0]; i++) expected += expf(((float *)row.data)[i]);
        expected = logf(expected);
        CHECK(difference(&sum, &expected, 1) < 1e-5f);
    }
    free(row.data);
}

int main(int count, char **arguments) {
    if (count != 3) return fprintf(stderr, "usage: fuzz SEED COUNT\n"), 2;
    state = strtoull(arguments[1], NULL, 10);
    const int cases = atoi(arguments[2]);
    fill_api();
    for (number = 0; number < cases; number++) {
        const int damaged = between(0, 3) == 0;
        if (between(0, 9) == 0)
            sum_case();
        else if (between(0, 1))
            attention_case((int)between(0, 1), damaged);
        else
            product_case(between(0, 1) ? 4 : 8, (int)between(0, KINDS - 1), damaged);
    }
    printf("%d cases\n", cases);
    return 0;
}
