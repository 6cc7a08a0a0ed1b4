/* The operators of the library. */
#ifndef GPT2FLOW_OPS_H
#define GPT2FLOW_OPS_H

#include <stdlib.h>

#include "ort.h"

extern const OrtCustomOp attention_int8_op, attention_float32_op;
extern const OrtCustomOp norm_matmul_4_op, norm_matmul_8_op;
extern const OrtCustomOp norm_gelu_matmul_4_op, norm_gelu_matmul_8_op;
extern const OrtCustomOp matmul_add_4_op, matmul_add_8_op, norm_head_4_op, norm_head_8_op;

/* What every operator answers alike. */
const char *get_execution_provider(const OrtCustomOp *op);
OrtCharacteristic get_required(const OrtCustomOp *op, size_t index);
int get_default_memory(const OrtCustomOp *op, size_t index);
int get_one(const OrtCustomOp *op);
int get_any_version(const OrtCustomOp *op);

/* An operator whose file has the functions get_name, get_input_type and so on. */
#define OPERATOR(create, compute)                                                              \
    {                                                                                          \
        ORT_API_VERSION, NULL, get_name, get_execution_provider, get_input_type,               \
            get_input_count, get_output_type, get_output_count, NULL, free,                    \
            get_input_characteristic, get_required, get_default_memory,                        \
            {get_one, get_one, get_one, get_one}, create, compute, NULL, get_one,              \
            get_any_version, {NULL, NULL, NULL, NULL}                                          \
    }

#endif
