/* Operators RowQuantMatMul4 and 8 (a layer's product) and RowQuantHead4 and 8 (logits). */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "ops.h"
#include "tensor.h"

enum { X, WEIGHTS, SCALES, BIAS, ZEROS, INPUTS, IDS = BIAS };
/* Rows are quantized in one thread up to this many numbers: waking the others takes longer. */
enum { FEW_NUMBERS = 16384 };

typedef struct {
    OrtApi api;
    const MatmulKernel *kernel;
    Matrix matrix; /* its sizes; each run sets the data */
    int64_t inputs;
    int is_head;
} Node;

/* One run: the rows, and where the products go. */
typedef struct {
    const Node *node;
    Matrix matrix;
    const float *x;
    Rows rows;
    float *out;
    const int64_t *ids; /* a head's, or NULL for all columns */
    int64_t count;      /* number of ids */
    float *panels;      /* with ids: [count][rows][PANEL] */
} Work;

static int is_head(const OrtCustomOp *op) { return op == &head_4_op || op == &head_8_op; }
static int bits_of(const OrtCustomOp *op) {
    return op == &matmul_4_op || op == &head_4_op ? 4 : 8;
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtKernelInfo *info, void **to) {
    Node *node = calloc(1, sizeof *node);
    if (!node) return invalid(api, "RowQuantMatMul: out of memory");
    node->api = api;
    node->kernel = chosen_kernels()->matmul;
    node->is_head = is_head(op);
    Matrix *matrix = &node->matrix;
    matrix->bits = bits_of(op);
    OrtStatus *status = ORT_CALL(api, get_int_attribute)(info, "K", &node->inputs);
    if (!status) status = ORT_CALL(api, get_int_attribute)(info, "N", &matrix->columns);
    if (!status) status = ORT_CALL(api, get_int_attribute)(info, "block_size", &matrix->block_size);
    const int64_t size = matrix->block_size;
    if (!status && size != 16 && size != 32 && size != 64 && size != 128)
        status = invalid(api, "RowQuantMatMul: block_size must be 16, 32, 64 or 128");
    if (!status && (node->inputs < 1 || matrix->columns < 1))
        status = invalid(api, "RowQuantMatMul: K and N must be positive");
    if (status) {
        free(node);
        return status;
    }
    matrix->blocks = (node->inputs + size - 1) / size;
    *to = node;
    return NULL;
}

/* Return an error unless the shapes fit together. */
static OrtStatus *check_shapes(const Node *node, const Tensor *in) {
    const Matrix *matrix = &node->matrix;
    const int64_t panels = (matrix->columns + PANEL - 1) / PANEL;
    const int64_t steps = matrix->block_size * matrix->bits / 32;
    const int64_t weights[] = {panels, matrix->blocks, steps, PANEL, 4};
    const int64_t scales[] = {panels, matrix->blocks, PANEL};
    if (in[X].rank != 2 || in[X].shape[1] != node->inputs)
        return invalid(node->api, "RowQuantMatMul: x must be [rows, K]");
    if (!has_shape(in + WEIGHTS, 5, weights))
        return invalid(node->api, "RowQuantMatMul: weights must be [panels, blocks, steps, 48, 4]");
    if (!has_shape(in + SCALES, 3, scales))
        return invalid(node->api, "RowQuantMatMul: scales must be [panels, blocks, 48]");
    if (in[ZEROS].data && (matrix->bits != 4 || !has_shape(in + ZEROS, 3, scales)))
        return invalid(node->api,
                       "RowQuantMatMul: zero_points must be [panels, blocks, 48], of 4 bits");
    if (!node->is_head && in[BIAS].data && in[BIAS].count != matrix->columns)
        return invalid(node->api, "RowQuantMatMul: bias must be [N]");
    if (!node->is_head) return NULL;
    if (in[IDS].rank != 1) return invalid(node->api, "RowQuantHead: ids must be [ids]");
    const int64_t *ids = in[IDS].data;
    for (int64_t i = 0; i < in[IDS].count; i++)
        if (ids[i] < 0 || ids[i] >= matrix->columns)
            return invalid(node->api, "RowQuantHead: an id is outside the vocabulary");
    return NULL;
}

static void quantize_row(void *data, size_t row) {
    Work *work = data;
    const float *values = work->x + (int64_t)row * work->node->inputs;
    work->node->kernel->quantize(&work->matrix, values, work->node->inputs, &work->rows,
                                 (int64_t)row);
}

static void multiply_panel(void *data, size_t panel) {
    const Work *work = data;
    work->node->kernel->multiply(&work->matrix, &work->rows, (int64_t)panel,
                                 work->out + (int64_t)panel * PANEL, work->matrix.columns);
}

/* Compute the logits of one id of a head, by its panel. A neighbour's panel is not computed anew:
 * the first id of a panel computes all ids beside it. */
static void multiply_ids(void *data, size_t index) {
    const Work *work = data;
    const int64_t first = (int64_t)index, panel = work->ids[first] / PANEL;
    if (first && work->ids[first - 1] / PANEL == panel) return;
    float *products = work->panels + first * work->rows.rows * PANEL;
    work->node->kernel->multiply(&work->matrix, &work->rows, panel, products, PANEL);
    for (int64_t i = first; i < work->count && work->ids[i] / PANEL == panel; i++)
        for (int64_t row = 0; row < work->rows.rows; row++)
            work->out[row * work->count + i] = products[row * PANEL + work->ids[i] % PANEL];
}

/* Quantize the rows, and multiply them. */
static OrtStatus *multiply(Work *work, OrtContext *context) {
    OrtApi api = work->node->api;
    const int64_t rows = work->rows.rows;
    const int many = rows * work->node->inputs > FEW_NUMBERS;
    OrtStatus *status = parallel_for(api, context, quantize_row, rows, many, work);
    if (status) return status;
    if (work->ids) return parallel_for(api, context, multiply_ids, work->count, 1, work);
    const int64_t panels = (work->matrix.columns + PANEL - 1) / PANEL;
    return parallel_for(api, context, multiply_panel, panels, 1, work);
}

/* Reserve the memory of a run: codes, scales, sums, and a head's panels. */
static void *reserve(Work *work) {
    const size_t rows = (size_t)work->rows.rows, blocks = (size_t)work->matrix.blocks;
    const size_t scales = rows * blocks * sizeof(float), sums = rows * blocks * sizeof(int32_t);
    const size_t panels = (size_t)work->count * rows * PANEL * sizeof(float);
    char *memory = malloc(scales + sums + panels + rows * blocks * (size_t)work->matrix.block_size);
    if (!memory) return NULL;
    work->rows.scales = (float *)memory;
    work->rows.sums = (int32_t *)(memory + scales);
    work->panels = (float *)(memory + scales + sums);
    work->rows.codes = (int8_t *)(memory + scales + sums + panels);
    return memory;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const Node *node = kernel;
    Tensor in[INPUTS];
    OrtStatus *status = read_inputs(node->api, context, in, INPUTS);
    if (!status) status = check_shapes(node, in);
    if (status) return status;
    Work work = {.node = node, .matrix = node->matrix, .x = in[X].data};
    work.matrix.weights = in[WEIGHTS].data;
    work.matrix.scales = in[SCALES].data;
    work.matrix.zeros = in[ZEROS].data;
    work.matrix.bias = node->is_head ? NULL : in[BIAS].data;
    work.rows.rows = in[X].shape[0];
    if (node->is_head && in[IDS].count) {
        work.ids = in[IDS].data;
        work.count = in[IDS].count;
    }
    const int64_t shape[] = {work.rows.rows, work.ids ? work.count : work.matrix.columns};
    status = make_output(node->api, context, 0, shape, 2, (void **)&work.out);
    if (status || !work.rows.rows) return status;
    void *memory = reserve(&work);
    if (!memory) return invalid(node->api, "RowQuantMatMul: out of memory");
    status = multiply(&work, context);
    free(memory);
    return status;
}

static const char *get_name(const OrtCustomOp *op) {
    if (is_head(op)) return bits_of(op) == 4 ? "RowQuantHead4" : "RowQuantHead8";
    return bits_of(op) == 4 ? "RowQuantMatMul4" : "RowQuantMatMul8";
}
static OrtElementType get_input_type(const OrtCustomOp *op, size_t index) {
    if (index == WEIGHTS || index == ZEROS) return ORT_UINT8;
    return index == IDS && is_head(op) ? ORT_INT64 : ORT_FLOAT;
}
static size_t get_input_count(const OrtCustomOp *op) { return (void)op, INPUTS; }
static OrtElementType get_output_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_FLOAT;
}
static size_t get_output_count(const OrtCustomOp *op) { return (void)op, 1; }
static OrtCharacteristic get_input_characteristic(const OrtCustomOp *op, size_t index) {
    return index == ZEROS || (index == BIAS && !is_head(op)) ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp matmul_4_op = OPERATOR(create, compute);
const OrtCustomOp matmul_8_op = OPERATOR(create, compute);
const OrtCustomOp head_4_op = OPERATOR(create, compute);
const OrtCustomOp head_8_op = OPERATOR(create, compute);
