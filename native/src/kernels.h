/* Choice of the kernels for this processor. */
#ifndef GPT2FLOW_KERNELS_H
#define GPT2FLOW_KERNELS_H

#include "attention.h"
#include "matmul.h"

/* Return the log-sum-exp of a row of `columns` numbers. */
typedef float LogSumExp(const float *row, int64_t columns);

/* The kernels of one name, which the processor can run. */
typedef struct {
    const char *name;
    const AttentionKernel *attention;
    const MatmulKernel *matmul;
    LogSumExp *logsumexp;
} Kernels;

/* Return the chosen kernels: the best ones, or those last chosen by name. */
const Kernels *chosen_kernels(void);

/* Return the name of the kernels at an index, the best ones first; NULL beyond the last. */
const char *kernels_name(int index);

/* Choose kernels for the sessions to come. Return 0, or -1 if this processor cannot run them. */
int choose_kernels(const char *name);

#endif
