/* Operator RowLogSumExp: the log-sum-exp of each row of logits. */
#include <stdlib.h>

#include "kernels.h"
#include "ops.h"
#include "tensor.h"

typedef struct {
    OrtApi api;
    LogSumExp *kernel;
} Node;

typedef struct {
    LogSumExp *kernel;
    const float *logits;
    int64_t columns;
    float *out;
} Work;

static void sum_row(void *data, size_t row) {
    const Work *work = data;
    const float *logits = work->logits + (int64_t)row * work->columns;
    work->out[row] = work->kernel(logits, work->columns);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtKernelInfo *info, void **to) {
    (void)op, (void)info;
    Node *node = malloc(sizeof *node);
    if (!node) return invalid(api, "RowLogSumExp: out of memory");
    *node = (Node){api, chosen_kernels()->logsumexp};
    *to = node;
    return NULL;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const Node *node = kernel;
    Tensor in[1];
    OrtStatus *status = read_inputs(node->api, context, in, 1);
    if (status) return status;
    if (in->rank != 2) return invalid(node->api, "RowLogSumExp: logits must be [rows, columns]");
    Work work = {.kernel = node->kernel, .logits = in->data, .columns = in->shape[1]};
    status = make_output(node->api, context, 0, in->shape, 1, (void **)&work.out);
    if (status) return status;
    return parallel_for(node->api, context, sum_row, in->shape[0], 1, &work);
}

static const char *get_name(const OrtCustomOp *op) { return (void)op, "RowLogSumExp"; }
static OrtElementType get_input_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_FLOAT;
}
static size_t get_input_count(const OrtCustomOp *op) { return (void)op, 1; }
static OrtElementType get_output_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_FLOAT;
}
static size_t get_output_count(const OrtCustomOp *op) { return (void)op, 1; }
static OrtCharacteristic get_input_characteristic(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_REQUIRED;
}

const OrtCustomOp logsumexp_op = OPERATOR(create, compute);
