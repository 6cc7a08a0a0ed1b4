#include "tensor.h"

OrtStatus *invalid(OrtApi api, const char *message) {
    return ORT_CALL(api, create_status)(ORT_INVALID_ARGUMENT, message);
}

static OrtStatus *read_shape(OrtApi api, const OrtValue *value, Tensor *to) {
    OrtShape *shape;
    OrtStatus *status = ORT_CALL(api, get_shape)(value, &shape);
    if (status) return status;
    status = ORT_CALL(api, get_rank)(shape, &to->rank);
    if (!status && to->rank > MOST_RANK) status = invalid(api, "a tensor has too many dimensions");
    if (!status) status = ORT_CALL(api, get_dimensions)(shape, to->shape, to->rank);
    ORT_CALL(api, release_shape)(shape);
    to->count = 1;
    for (size_t i = 0; !status && i < to->rank; i++) to->count *= to->shape[i];
    return status;
}

OrtStatus *read_inputs(OrtApi api, OrtContext *context, Tensor *inputs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const OrtValue *value = NULL;
        inputs[i] = (Tensor){0};
        OrtStatus *status = ORT_CALL(api, get_input)(context, i, &value);
        if (!status && value) status = read_shape(api, value, inputs + i);
        if (!status && value)
            status = ORT_CALL(api, get_data)((OrtValue *)value, &inputs[i].data);
        if (status) return status;
    }
    return NULL;
}

OrtStatus *make_output(OrtApi api, OrtContext *context, size_t index, const int64_t *shape,
                       size_t rank, void **data) {
    OrtValue *value;
    OrtStatus *status = ORT_CALL(api, get_output)(context, index, shape, rank, &value);
    return status ? status : ORT_CALL(api, get_data)(value, data);
}

int has_shape(const Tensor *tensor, size_t rank, const int64_t *shape) {
    if (!tensor->data && tensor->rank == 0) return 0;
    if (tensor->rank != rank) return 0;
    for (size_t i = 0; i < rank; i++)
        if (tensor->shape[i] != shape[i]) return 0;
    return 1;
}

OrtStatus *parallel_for(OrtApi api, OrtContext *context, void (*call)(void *, size_t),
                        int64_t count, int in_parallel, void *data) {
    if (in_parallel && count > 1)
        return ORT_CALL(api, parallel_for)(context, call, (size_t)count, 0, data);
    for (int64_t i = 0; i < count; i++) call(data, (size_t)i);
    return NULL;
}
