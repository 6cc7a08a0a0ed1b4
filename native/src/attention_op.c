/* Operator RaggedAttention: checks its inputs, and runs a kernel over the heads. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "ops.h"
#include "tensor.h"

enum { QKV, SLOTS, POSITIONS, KEYS, VALUES, KEY_SCALES, VALUE_SCALES, INPUTS };
enum { OUT, PRESENT_KEYS, PRESENT_VALUES, OUTPUTS };
enum { BLOCK = 16, CHANNELS_OF_INT8 = 2 };

typedef struct {
    OrtApi api;
    const AttentionKernel *kernel;
    int64_t heads;
    float scale;
    int is_int8;
} Node;

typedef struct {
    Attention run;
    AttendHead *attend;
} Work;

static void attend_head(void *data, size_t head) {
    const Work *work = data;
    work->attend(&work->run, (int64_t)head);
}

static int is_int8(const OrtCustomOp *op) { return op == &attention_int8_op; }

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtKernelInfo *info, void **to) {
    Node *node = malloc(sizeof *node);
    if (!node) return invalid(api, "RaggedAttention: out of memory");
    node->api = api;
    node->kernel = chosen_kernels()->attention;
    node->is_int8 = is_int8(op);
    OrtStatus *status = ORT_CALL(api, get_int_attribute)(info, "num_heads", &node->heads);
    if (!status) status = ORT_CALL(api, get_float_attribute)(info, "scale", &node->scale);
    if (!status && node->heads < 1)
        status = invalid(api, "RaggedAttention: num_heads must be positive");
    if (status)
        free(node);
    else
        *to = node;
    return status;
}

/* Return an error unless the shapes fit together. */
static OrtStatus *check_shapes(const Node *node, const Tensor *in) {
    OrtApi api = node->api;
    const Tensor *keys = in + KEYS;
    const int64_t channels = node->is_int8 ? CHANNELS_OF_INT8 : 1;
    if (keys->rank != 6 || keys->shape[1] != node->heads || keys->shape[4] != BLOCK ||
        keys->shape[5] != channels)
        return invalid(api, "RaggedAttention: keys must be "
                            "[slots, num_heads, capacity / 16, size / n, 16, n], n = 2 for int8");
    const int64_t size = keys->shape[3] * channels;
    if (size < 1 || size % BLOCK || size > MOST_HEAD_SIZE)
        return invalid(api,
                       "RaggedAttention: the size of a head must be a multiple of 16 up to 256");
    const int64_t values[] = {keys->shape[0], node->heads, keys->shape[2] * BLOCK, size};
    if (!has_shape(in + VALUES, 4, values))
        return invalid(api, "RaggedAttention: values must be [slots, num_heads, capacity, size]");
    const int64_t tokens = in[SLOTS].count, width = node->heads * size;
    const int64_t qkv[] = {tokens, 3 * width};
    if (!has_shape(in + QKV, 2, qkv))
        return invalid(api, "RaggedAttention: qkv must be [tokens, 3 · num_heads · size]");
    if (!has_shape(in + SLOTS, 1, &tokens) || !has_shape(in + POSITIONS, 1, &tokens))
        return invalid(api, "RaggedAttention: slots and positions must be [tokens]");
    if (node->is_int8 && (in[KEY_SCALES].count != width || in[VALUE_SCALES].count != width))
        return invalid(api, "RaggedAttention: scales must have num_heads · size elements");
    return NULL;
}

/* Return an error if a token lies outside the cache. */
static OrtStatus *check_places(const Node *node, const Attention *run, int64_t slots) {
    for (int64_t i = 0; i < run->tokens; i++) {
        if (run->slots[i] < 0 || run->slots[i] >= slots)
            return invalid(node->api, "RaggedAttention: a slot is outside the cache");
        if (run->positions[i] < 0 || run->positions[i] >= run->capacity)
            return invalid(node->api, "RaggedAttention: a position is outside the cache");
    }
    return NULL;
}

/* Make the present cache: the past one's memory where both are bound to it, else a copy. */
static OrtStatus *make_present(const Node *node, OrtContext *context, size_t index,
                               const Tensor *past, void **present) {
    OrtStatus *status = make_output(node->api, context, index, past->shape, past->rank, present);
    if (!status && *present != past->data)
        memcpy(*present, past->data, (size_t)past->count * (node->is_int8 ? 1 : sizeof(float)));
    return status;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const Node *node = kernel;
    Tensor in[INPUTS];
    OrtStatus *status = read_inputs(node->api, context, in, INPUTS);
    if (!status) status = check_shapes(node, in);
    if (status) return status;
    Work work = {
        {.qkv = in[QKV].data, .slots = in[SLOTS].data, .positions = in[POSITIONS].data,
         .key_scales = in[KEY_SCALES].data, .value_scales = in[VALUE_SCALES].data,
         .tokens = in[SLOTS].count, .heads = node->heads, .capacity = in[VALUES].shape[2],
         .size = in[VALUES].shape[3], .scale = node->scale},
        node->is_int8 ? node->kernel->int8 : node->kernel->float32,
    };
    status = check_places(node, &work.run, in[VALUES].shape[0]);
    const int64_t shape[] = {work.run.tokens, node->heads * work.run.size};
    if (!status) status = make_output(node->api, context, OUT, shape, 2, (void **)&work.run.out);
    if (!status) status = make_present(node, context, PRESENT_KEYS, in + KEYS, &work.run.keys);
    if (!status)
        status = make_present(node, context, PRESENT_VALUES, in + VALUES, &work.run.values);
    if (status) return status;
    return parallel_for(node->api, context, attend_head, node->heads, 1, &work);
}

static const char *get_name(const OrtCustomOp *op) { return (void)op, "RaggedAttention"; }

static OrtElementType get_input_type(const OrtCustomOp *op, size_t index) {
    if (index == SLOTS || index == POSITIONS) return ORT_INT64;
    return is_int8(op) && (index == KEYS || index == VALUES) ? ORT_INT8 : ORT_FLOAT;
}
static size_t get_input_count(const OrtCustomOp *op) { return (void)op, INPUTS; }
static OrtElementType get_output_type(const OrtCustomOp *op, size_t index) {
    return is_int8(op) && index != OUT ? ORT_INT8 : ORT_FLOAT;
}
static size_t get_output_count(const OrtCustomOp *op) { return (void)op, OUTPUTS; }
static OrtCharacteristic get_input_characteristic(const OrtCustomOp *op, size_t index) {
    return (void)op, index >= KEY_SCALES ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp attention_int8_op = OPERATOR(create, compute);
const OrtCustomOp attention_float32_op = OPERATOR(create, compute);
