/* What the library exports: its registration with onnxruntime, and the choice of kernels. */
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

/* Called by onnxruntime for each session, under this very name. */
EXPORT OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    static const OrtCustomOp *const others[] = {&attention_int8_op, &attention_float32_op,
                                                &logsumexp_op};
    static const OrtCustomOp *const products[] = {&matmul_4_op, &matmul_8_op, &head_4_op,
                                                  &head_8_op};
    OrtApi api = base->get_api(ORT_API_VERSION);
    OrtDomain *domain;
    if (!api) return NULL; /* too old; the functions run instead */
    OrtStatus *status = ORT_CALL(api, create_domain)("gpt2flow", &domain);
    for (size_t i = 0; !status && i < 3; i++)
        status = ORT_CALL(api, add_operator)(domain, others[i]);
    for (size_t i = 0; !status && registers_products && i < 4; i++)
        status = ORT_CALL(api, add_operator)(domain, products[i]);
    return status ? status : ORT_CALL(api, add_domain)(options, domain);
}
