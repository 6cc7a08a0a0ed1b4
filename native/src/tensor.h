/* Inputs and outputs of an operator, with checked shapes. */
#ifndef GPT2FLOW_TENSOR_H
#define GPT2FLOW_TENSOR_H

#include "ort.h"

enum { MOST_RANK = 6 };

/* A tensor; an optional input that is missing has no data and no elements. */
typedef struct {
    void *data;
    int64_t shape[MOST_RANK];
    size_t rank;
    int64_t count;
} Tensor;

/* Return an error that names the operator and what it demands. */
OrtStatus *invalid(OrtApi api, const char *message);

/* Read the inputs of a node, in their order. */
OrtStatus *read_inputs(OrtApi api, OrtContext *context, Tensor *inputs, size_t count);

/* Allocate an output. */
OrtStatus *make_output(OrtApi api, OrtContext *context, size_t index, const int64_t *shape,
                       size_t rank, void **data);

/* Return whether a tensor has a shape. */
int has_shape(const Tensor *tensor, size_t rank, const int64_t *shape);

/* Call a function with 0 to `count` - 1: with few in this thread, else in onnxruntime's threads. */
OrtStatus *parallel_for(OrtApi api, OrtContext *context, void (*call)(void *, size_t),
                        int64_t count, int in_parallel, void *data);

#endif
