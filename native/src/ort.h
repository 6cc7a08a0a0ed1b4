/* The part of onnxruntime's C interface that a custom operator needs.
 *
 * No package of onnxruntime ships its header, so that part is declared here: the members of OrtApi
 * by their index, which never changes (OrtApi only grows at its end), and OrtCustomOp as it is
 * since version 18. `tests/native/test_abi.py` holds the declarations to the running library. */
#ifndef GPT2FLOW_ORT_H
#define GPT2FLOW_ORT_H

#include <stddef.h>
#include <stdint.h>

enum { ORT_API_VERSION = 18 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtContext OrtContext;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtDomain OrtDomain;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtShape OrtShape;
typedef void *const *OrtApi;

typedef enum { ORT_FLOAT = 1, ORT_UINT8 = 2, ORT_INT8 = 3, ORT_INT64 = 7 } OrtElementType;
typedef enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1 } OrtCharacteristic;
enum { ORT_INVALID_ARGUMENT = 2 };

typedef struct {
    OrtApi (*get_api)(uint32_t version);
    const char *(*get_version)(void);
} OrtApiBase;

typedef struct OrtCustomOp OrtCustomOp;
struct OrtCustomOp {
    uint32_t version;
    void *create_kernel_v1;
    const char *(*get_name)(const OrtCustomOp *);
    const char *(*get_execution_provider)(const OrtCustomOp *);
    OrtElementType (*get_input_type)(const OrtCustomOp *, size_t);
    size_t (*get_input_count)(const OrtCustomOp *);
    OrtElementType (*get_output_type)(const OrtCustomOp *, size_t);
    size_t (*get_output_count)(const OrtCustomOp *);
    void *compute_v1;
    void (*destroy_kernel)(void *);
    OrtCharacteristic (*get_input_characteristic)(const OrtCustomOp *, size_t);
    OrtCharacteristic (*get_output_characteristic)(const OrtCustomOp *, size_t);
    int (*get_input_memory_type)(const OrtCustomOp *, size_t);
    int (*get_variadic[4])(const OrtCustomOp *);
    OrtStatus *(*create_kernel)(const OrtCustomOp *, OrtApi, const OrtKernelInfo *, void **);
    OrtStatus *(*compute)(void *, OrtContext *);
    void *infer_shapes;
    int (*get_start_version)(const OrtCustomOp *);
    int (*get_end_version)(const OrtCustomOp *);
    void *in_place[4];
};

/* The functions of OrtApi, as `ORT_CALL(api, name)(arguments)`. */
#define ORT_CALL(api, name) ((ort_##name *)(api)[ORT_##name])

enum {
    ORT_create_status = 0,
    ORT_create_domain = 26,
    ORT_add_operator = 27,
    ORT_add_domain = 28,
    ORT_get_data = 51,
    ORT_get_rank = 61,
    ORT_get_dimensions = 62,
    ORT_get_shape = 65,
    ORT_get_float_attribute = 85,
    ORT_get_int_attribute = 86,
    ORT_get_input = 90,
    ORT_get_output = 91,
    ORT_release_shape = 99,
    ORT_parallel_for = 274,
};

typedef OrtStatus *ort_create_status(int code, const char *message);
typedef OrtStatus *ort_create_domain(const char *name, OrtDomain **);
typedef OrtStatus *ort_add_operator(OrtDomain *, const OrtCustomOp *);
typedef OrtStatus *ort_add_domain(OrtSessionOptions *, OrtDomain *);
typedef OrtStatus *ort_get_data(OrtValue *, void **);
typedef OrtStatus *ort_get_rank(const OrtShape *, size_t *);
typedef OrtStatus *ort_get_dimensions(const OrtShape *, int64_t *, size_t);
typedef OrtStatus *ort_get_shape(const OrtValue *, OrtShape **);
typedef OrtStatus *ort_get_float_attribute(const OrtKernelInfo *, const char *, float *);
typedef OrtStatus *ort_get_int_attribute(const OrtKernelInfo *, const char *, int64_t *);
typedef OrtStatus *ort_get_input(const OrtContext *, size_t, const OrtValue **);
typedef OrtStatus *ort_get_output(OrtContext *, size_t, const int64_t *, size_t, OrtValue **);
typedef void ort_release_shape(OrtShape *);
typedef OrtStatus *ort_parallel_for(const OrtContext *, void (*)(void *, size_t), size_t total,
                                    size_t batches, void *);

#endif
