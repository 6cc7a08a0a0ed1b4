/* What the library exports: its registration with onnxruntime, the choice of kernels, and the
 * log-sum-exp of a row, which is computed for those who want it. */
#include "kernels.h"
#include "ops.h"

#define EXPORT __attribute__((visibility("default")))

const char *get_execution_provider(const OrtCustomOp *op) {
    return (void)op, "CPUExecutionProvider";
}
OrtCharacteristic get_required(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_REQUIRED;
}
int get_default_memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
int get_one(const OrtCustomOp *op) { return (void)op, 1; }
int get_any_version(const OrtCustomOp *op) { return (void)op, INT32_MAX; }

/* Whether sessions get the products; otherwise they run as the functions that a model carries. */
static int registers_products = 1;

EXPORT void gpt2flow_register(int products) { registers_products = products; }
EXPORT int gpt2flow_choose_kernels(const char *name) { return choose_kernels(name); }
EXPORT const char *gpt2flow_kernels_name(int index) { return kernels_name(index); }
EXPORT float gpt2flow_logsumexp(const float *row, int64_t columns) {
    return chosen_kernels()->logsumexp(row, columns);
}

/* Called by onnxruntime for each session, under this very name. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static const OrtCustomOp *const ops[] = {
        &attention_int8_op,     &attention_float32_op,  &norm_matmul_4_op, &norm_matmul_8_op,
        &norm_gelu_matmul_4_op, &norm_gelu_matmul_8_op, &matmul_add_4_op,  &matmul_add_8_op,
        &norm_head_4_op,        &norm_head_8_op,
    };
    const size_t count = registers_products ? sizeof ops / sizeof *ops : 2;
    OrtApi api = base->get_api(ORT_API_VERSION);
    OrtDomain *domain;
    if (!api) return NULL; /* too old; the functions run instead */
    OrtStatus *status = ORT_CALL(api, create_domain)("gpt2flow", &domain);
    for (size_t i = 0; !status && i < count; i++)
        status = ORT_CALL(api, add_operator)(domain, ops[i]);
    return status ? status : ORT_CALL(api, add_domain)(options, domain);
}
