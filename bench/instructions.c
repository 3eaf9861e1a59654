/* Runs one problem so many times: what bench/instructions.py counts the instructions of.
 *
 *     instructions DTYPE OUTER CLASSES INNER OPERATION REPETITIONS
 *
 * The logits lie as OUTER x CLASSES x INNER: rows of contiguous classes have INNER 1, Fortran order
 * OUTER 1. */
#include "xent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS = 7 };

struct operation {
    const char *name;
    enum xent_values output;
    bool has_target, in_place, from_lse;
    double label_smoothing, softcap;
    bool evaluates, curves;
    bool has_probabilities; /* in place of the target */
};

static const struct operation OPERATIONS[] = {
    {"forward", XENT_NO_VALUES, .has_target = true},
    {"fused", XENT_GRADIENT, .has_target = true},
    {"in_place", XENT_GRADIENT, .has_target = true, .in_place = true},
    {"backward", XENT_GRADIENT, .has_target = true, .from_lse = true},
    {"smoothing", XENT_GRADIENT, .has_target = true, .label_smoothing = 0.1},
    {"softcap", XENT_GRADIENT, .has_target = true, .softcap = 30},
    {"soft_forward", XENT_NO_VALUES, .has_probabilities = true},
    {"soft", XENT_GRADIENT, .has_probabilities = true},
    {"second", XENT_GRADIENT, .has_target = true, .curves = true},
    {"second_smoothing", XENT_GRADIENT, .has_target = true, .curves = true, .label_smoothing = 0.1},
    {"softmax", XENT_SOFTMAX, .has_target = false},
    {"log_softmax", XENT_LOG_SOFTMAX, .has_target = false},
    {"evaluate", XENT_NO_VALUES, .has_target = true, .evaluates = true},
};

static const struct operation *operation_of(const char *name) {
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof OPERATIONS[0]; i++)
        if (!strcmp(name, OPERATIONS[i].name))
            return &OPERATIONS[i];
    return NULL;
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        exit(1);
    return memory;
}

/* Between -8 and 8, from the linear congruential generator of Numerical Recipes. */
static double random_logit(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state / 268435456.0 - 8;
}

/* The bits of a float rounded to bfloat16, or to float16, towards zero; what is subnormal there is
 * zero. */
static uint16_t half_of(float x, enum xent_dtype dtype) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (dtype == XENT_BF16)
        return (uint16_t)(bits >> 16);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff, smallest = 113u << 23;
    return (uint16_t)(sign | (magnitude < smallest ? 0 : (magnitude >> 13) - (112u << 10)));
}

static void fill(void *logits, enum xent_dtype dtype, size_t count) {
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        const double x = random_logit(&state);
        if (dtype == XENT_F64)
            ((double *)logits)[i] = x;
        else if (dtype == XENT_F32)
            ((float *)logits)[i] = (float)x;
        else
            ((uint16_t *)logits)[i] = half_of((float)x, dtype);
    }
}

static const struct dtype {
    const char *name;
    enum xent_dtype dtype;
    size_t size;
} DTYPES[] = {
    {"f16", XENT_F16, 2}, {"bf16", XENT_BF16, 2}, {"f32", XENT_F32, 4}, {"f64", XENT_F64, 8}};

static const struct dtype *dtype_of(const char *name) {
    for (size_t i = 0; i < sizeof DTYPES / sizeof DTYPES[0]; i++)
        if (!strcmp(name, DTYPES[i].name))
            return &DTYPES[i];
    return NULL;
}

int main(int argc, char **argv) {
    const struct operation *operation = argc == ARGUMENTS ? operation_of(argv[5]) : NULL;
    const struct dtype *type = argc == ARGUMENTS ? dtype_of(argv[1]) : NULL;
    if (!operation || !type) {
        fprintf(stderr, "usage: %s f16|bf16|f32|f64 OUTER CLASSES INNER OPERATION REPETITIONS\n",
                argv[0]);
        return 2;
    }
    const enum xent_dtype dtype = type->dtype;
    const size_t itemsize = type->size;
    const size_t outer = strtoul(argv[2], NULL, 10), classes = strtoul(argv[3], NULL, 10),
                 inner = strtoul(argv[4], NULL, 10), rows = outer * inner;

    void *logits = allocate(rows * classes, itemsize);
    fill(logits, dtype, rows * classes);
    int64_t *target = allocate(rows, sizeof *target);
    for (size_t i = 0; i < rows; i++)
        target[i] = (int64_t)(i * 7 % classes);
    double *lse_in = allocate(rows, sizeof *lse_in); /* any number: 0 */
    float *probabilities =
        allocate(operation->has_probabilities ? rows * classes : 0, sizeof(float));
    for (size_t i = 0; operation->has_probabilities && i < rows * classes; i++)
        probabilities[i] = 1 / (float)classes;

    /* A dimension of size 1 is left out, as NumPy's caller would have it. */
    const size_t shape[] = {outer, inner};
    const ptrdiff_t strides[] = {(ptrdiff_t)(classes * inner * itemsize), (ptrdiff_t)itemsize};
    const ptrdiff_t row_strides[] = {(ptrdiff_t)(inner * sizeof(double)), sizeof(double)};
    const size_t first = outer == 1 && inner != 1, dims = outer != 1 && inner != 1 ? 2 : 1;

    char *values = operation->in_place ? logits : allocate(rows * classes, itemsize);
    struct xent_problem problem = {
        .dtype = dtype,
        .output = operation->output,
        .row_dims = dims,
        .row_shape = shape + first,
        .classes = classes,
        .logits = {logits, strides + first},
        .logits_stride = (ptrdiff_t)(inner * itemsize),
        .values = {operation->output == XENT_NO_VALUES ? NULL : values, strides + first},
        .values_stride = (ptrdiff_t)(inner * itemsize),
        .curvature = {operation->curves ? allocate(rows * classes, itemsize) : NULL,
                      strides + first},
        .curvature_stride = (ptrdiff_t)(inner * itemsize),
        .target = {operation->has_target ? (char *)target : NULL, row_strides + first},
        .target_type = XENT_I64,
        .upstream_scalar = 1,
        .mean = true,
        .lse_in = {operation->from_lse ? (char *)lse_in : NULL, row_strides + first},
        .threads = 1,
    };
    struct xent_options options = {
        .scale = 1, .label_smoothing = operation->label_smoothing, .softcap = operation->softcap};
    const ptrdiff_t of_floats[] = {(ptrdiff_t)(classes * inner * sizeof(float)), sizeof(float)};
    if (operation->has_probabilities) {
        options.labels = (struct xent_labels){
            .probabilities = {(char *)probabilities, of_floats + first},
            .probabilities_stride = (ptrdiff_t)(inner * sizeof(float)),
            .dtype = XENT_F32,
        };
    }
    problem.options = &options;
    const struct xent_evaluation evaluation = {
        .log_prob = allocate(rows, sizeof *evaluation.log_prob),
        .entropy = allocate(rows, sizeof *evaluation.entropy),
        .argmax = allocate(rows, sizeof *evaluation.argmax),
        .rank = allocate(rows, sizeof *evaluation.rank),
    };
    problem.evaluation = operation->evaluates ? &evaluation : NULL;
    double loss_sum;
    const bool has_labels = operation->has_target || operation->has_probabilities;
    const bool wants_loss = !operation->from_lse && !operation->evaluates && !operation->curves;
    if (has_labels && wants_loss) {
        problem.loss = allocate(rows, sizeof *problem.loss);
        problem.loss_reduced = &loss_sum;
    }
    for (long repetition = strtol(argv[6], NULL, 10); repetition > 0; repetition--) {
        const enum xent_status status = xent_run(&problem);
        if (status != XENT_OK) {
            fprintf(stderr, "xent_run: status %d\n", (int)status);
            return 1;
        }
    }
    return 0; /* the memory is the system's again */
}
