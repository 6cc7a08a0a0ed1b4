/* Operators of a product: RowQuantNormMatMul, RowQuantNormGeluMatMul and RowQuantMatMulAdd (layers),
 * and RowQuantNormHead (logits), each for 4 and for 8 bits. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "ops.h"
#include "tensor.h"

/* Inputs. The bias of a head is its ids; after it come gain and shift, or the residual, and at last
 * zero points, which are optional. */
enum { X, WEIGHTS, SCALES, BIAS, GAIN, SHIFT, RESIDUAL = GAIN, MOST_INPUTS = SHIFT + 2 };
/* Rows are quantized in one thread up to this many numbers: waking the others takes longer. */
enum { FEW_NUMBERS = 16384 };

/* What an operator does beside the product. */
typedef struct {
    const OrtCustomOp *op;
    const char *name;
    int bits, has_norm, is_gelu, has_residual, is_head;
} Kind;

static const Kind kinds[] = {
    {&norm_matmul_4_op, "RowQuantNormMatMul4", 4, 1, 0, 0, 0},
    {&norm_matmul_8_op, "RowQuantNormMatMul8", 8, 1, 0, 0, 0},
    {&norm_gelu_matmul_4_op, "RowQuantNormGeluMatMul4", 4, 1, 1, 0, 0},
    {&norm_gelu_matmul_8_op, "RowQuantNormGeluMatMul8", 8, 1, 1, 0, 0},
    {&matmul_add_4_op, "RowQuantMatMulAdd4", 4, 0, 0, 1, 0},
    {&matmul_add_8_op, "RowQuantMatMulAdd8", 8, 0, 0, 1, 0},
    {&norm_head_4_op, "RowQuantNormHead4", 4, 1, 0, 0, 1},
    {&norm_head_8_op, "RowQuantNormHead8", 8, 1, 0, 0, 1},
};

static const Kind *kind_of(const OrtCustomOp *op) {
    const Kind *kind = kinds;
    while (kind->op != op) kind++;
    return kind;
}

/* The index of the zero points, the last input. */
static size_t zeros_of(const Kind *kind) { return kind->has_norm ? SHIFT + 1 : RESIDUAL + 1; }

typedef struct {
    OrtApi api;
    const Kind *kind;
    const MatmulKernel *kernel;
    Matrix matrix; /* its sizes; each run sets the data */
    int64_t inputs;
    float epsilon;
} Node;

/* One run: the rows, and where the products go. */
typedef struct {
    const Node *node;
    Matrix matrix;
    Norm norm;
    Finish finish;
    const float *x;
    Rows rows;
    const int64_t *ids; /* a head's, or NULL for all columns */
    int64_t count;      /* number of ids */
    float *panels;      /* with ids: [count][rows][PANEL] */
} Work;

static OrtStatus *read_attributes(const OrtKernelInfo *info, Node *node) {
    Matrix *matrix = &node->matrix;
    OrtStatus *status = ORT_CALL(node->api, get_int_attribute)(info, "K", &node->inputs);
    if (!status) status = ORT_CALL(node->api, get_int_attribute)(info, "N", &matrix->columns);
    if (!status)
        status = ORT_CALL(node->api, get_int_attribute)(info, "block_size", &matrix->block_size);
    if (!status && node->kind->has_norm)
        status = ORT_CALL(node->api, get_float_attribute)(info, "epsilon", &node->epsilon);
    if (status) return status;
    const int64_t size = matrix->block_size;
    if (size != 16 && size != 32 && size != 64 && size != 128)
        return invalid(node->api, "RowQuant: block_size must be 16, 32, 64 or 128");
    if (node->inputs < 1 || matrix->columns < 1)
        return invalid(node->api, "RowQuant: K and N must be positive");
    matrix->blocks = (node->inputs + size - 1) / size;
    return NULL;
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtKernelInfo *info, void **to) {
    Node *node = calloc(1, sizeof *node);
    if (!node) return invalid(api, "RowQuant: out of memory");
    node->api = api;
    node->kind = kind_of(op);
    node->kernel = chosen_kernels()->matmul;
    node->matrix.bits = node->kind->bits;
    OrtStatus *status = read_attributes(info, node);
    if (status)
        free(node);
    else
        *to = node;
    return status;
}

static OrtStatus *check_matrix(const Node *node, const Tensor *in) {
    const Matrix *matrix = &node->matrix;
    const Tensor *zeros = in + zeros_of(node->kind);
    const int64_t panels = (matrix->columns + PANEL - 1) / PANEL;
    const int64_t steps = matrix->block_size * matrix->bits / 32;
    const int64_t weights[] = {panels, matrix->blocks, steps, PANEL, 4};
    const int64_t scales[] = {panels, matrix->blocks, PANEL};
    if (!has_shape(in + WEIGHTS, 5, weights))
        return invalid(node->api, "RowQuant: weights must be [panels, blocks, steps, 48, 4]");
    if (!has_shape(in + SCALES, 3, scales))
        return invalid(node->api, "RowQuant: scales must be [panels, blocks, 48]");
    if (zeros->data && (matrix->bits != 4 || !has_shape(zeros, 3, scales)))
        return invalid(node->api, "RowQuant: zero_points must be [panels, blocks, 48], of 4 bits");
    return NULL;
}

/* Return an error unless the shapes fit together, and the ids exist. */
static OrtStatus *check_inputs(const Node *node, const Tensor *in) {
    const int64_t columns = node->matrix.columns;
    if (in[X].rank != 2 || in[X].shape[1] != node->inputs)
        return invalid(node->api, "RowQuant: x must be [rows, K]");
    if (node->kind->has_norm && !has_shape(in + GAIN, 1, &node->inputs))
        return invalid(node->api, "RowQuant: the norm's weight must be [K]");
    if (node->kind->has_norm && !has_shape(in + SHIFT, 1, &node->inputs))
        return invalid(node->api, "RowQuant: the norm's bias must be [K]");
    const int64_t products[] = {in[X].shape[0], columns};
    if (node->kind->has_residual && !has_shape(in + RESIDUAL, 2, products))
        return invalid(node->api, "RowQuant: residual must be [rows, N]");
    if (!node->kind->is_head && !has_shape(in + BIAS, 1, &columns))
        return invalid(node->api, "RowQuant: bias must be [N]");
    if (!node->kind->is_head) return NULL;
    if (in[BIAS].rank != 1) return invalid(node->api, "RowQuant: ids must be [ids]");
    const int64_t *ids = in[BIAS].data;
    for (int64_t i = 0; i < in[BIAS].count; i++)
        if (ids[i] < 0 || ids[i] >= columns)
            return invalid(node->api, "RowQuant: an id is outside the vocabulary");
    return NULL;
}

static void quantize_row(void *data, size_t row) {
    Work *work = data;
    const int64_t inputs = work->node->inputs;
    work->node->kernel->quantize(&work->matrix, &work->norm, work->x + (int64_t)row * inputs,
                                 inputs, &work->rows, (int64_t)row);
}

static void multiply_panel(void *data, size_t panel) {
    const Work *work = data;
    const int64_t column = (int64_t)panel * PANEL;
    Finish finish = work->finish;
    finish.out += column;
    if (finish.bias) finish.bias += column;
    if (finish.residual) finish.residual += column;
    work->node->kernel->multiply(&work->matrix, &work->rows, (int64_t)panel, &finish);
}

/* Compute the logits of one id of a head, by its panel. A neighbour's panel is not computed anew:
 * the first id of a panel computes all ids beside it. */
static void multiply_ids(void *data, size_t index) {
    const Work *work = data;
    const int64_t first = (int64_t)index, panel = work->ids[first] / PANEL;
    if (first && work->ids[first - 1] / PANEL == panel) return;
    float *products = work->panels + first * work->rows.rows * PANEL;
    const Finish finish = {.out = products, .stride = PANEL};
    work->node->kernel->multiply(&work->matrix, &work->rows, panel, &finish);
    for (int64_t i = first; i < work->count && work->ids[i] / PANEL == panel; i++)
        for (int64_t row = 0; row < work->rows.rows; row++)
            work->finish.out[row * work->count + i] = products[row * PANEL + work->ids[i] % PANEL];
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

static Work make_work(const Node *node, const Tensor *in) {
    const Kind *kind = node->kind;
    Work work = {.node = node, .matrix = node->matrix, .x = in[X].data};
    work.matrix.weights = in[WEIGHTS].data;
    work.matrix.scales = in[SCALES].data;
    work.matrix.zeros = in[zeros_of(kind)].data;
    if (kind->has_norm) work.norm = (Norm){in[GAIN].data, in[SHIFT].data, node->epsilon};
    work.rows.rows = in[X].shape[0];
    work.finish.is_gelu = kind->is_gelu;
    work.finish.residual = kind->has_residual ? in[RESIDUAL].data : NULL;
    if (!kind->is_head)
        work.finish.bias = in[BIAS].data;
    else if (in[BIAS].count) {
        work.ids = in[BIAS].data;
        work.count = in[BIAS].count;
    }
    work.finish.stride = work.ids ? work.count : node->matrix.columns;
    return work;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const Node *node = kernel;
    Tensor in[MOST_INPUTS];
    OrtStatus *status = read_inputs(node->api, context, in, zeros_of(node->kind) + 1);
    if (!status) status = check_matrix(node, in);
    if (!status) status = check_inputs(node, in);
    if (status) return status;
    Work work = make_work(node, in);
    const int64_t shape[] = {work.rows.rows, work.finish.stride};
    status = make_output(node->api, context, 0, shape, 2, (void **)&work.finish.out);
    if (status || !work.rows.rows) return status;
    void *memory = reserve(&work);
    if (!memory) return invalid(node->api, "RowQuant: out of memory");
    status = multiply(&work, context);
    free(memory);
    return status;
}

static const char *get_name(const OrtCustomOp *op) { return kind_of(op)->name; }
static OrtElementType get_input_type(const OrtCustomOp *op, size_t index) {
    if (index == WEIGHTS || index == zeros_of(kind_of(op))) return ORT_UINT8;
    return index == BIAS && kind_of(op)->is_head ? ORT_INT64 : ORT_FLOAT;
}
static size_t get_input_count(const OrtCustomOp *op) { return zeros_of(kind_of(op)) + 1; }
static OrtElementType get_output_type(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_FLOAT;
}
static size_t get_output_count(const OrtCustomOp *op) { return (void)op, 1; }
static OrtCharacteristic get_input_characteristic(const OrtCustomOp *op, size_t index) {
    return index == zeros_of(kind_of(op)) ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp norm_matmul_4_op = OPERATOR(create, compute);
const OrtCustomOp norm_matmul_8_op = OPERATOR(create, compute);
const OrtCustomOp norm_gelu_matmul_4_op = OPERATOR(create, compute);
const OrtCustomOp norm_gelu_matmul_8_op = OPERATOR(create, compute);
const OrtCustomOp matmul_add_4_op = OPERATOR(create, compute);
const OrtCustomOp matmul_add_8_op = OPERATOR(create, compute);
const OrtCustomOp norm_head_4_op = OPERATOR(create, compute);
const OrtCustomOp norm_head_8_op = OPERATOR(create, compute);
