/* Runs problems from standard input through the C core and writes the results to standard output,
 * so that tests reach a core that was built for another machine. Numbers are in the machine's own
 * representation: a `struct header`, then the arrays it announces; tests/cross.py is the other end.
 */
#include "xent.h"

#include <stdio.h>
#include <stdlib.h>

/* Eight bytes each, so that there is no padding. */
struct header {
    int64_t dtype, output, threads;
    int64_t rows, classes;
    int64_t size;                              /* in bytes, of the logits and of the values */
    int64_t offset, row_stride, class_stride;  /* in bytes, of both */
    int64_t has_target, has_upstream, has_lse; /* int64 or double each, one for each row */
    int64_t has_loss, has_options;
    int64_t has_class_weight; /* double, one for each class */
    int64_t has_labels,
        has_listed; /* double, one for each logit; or 2 classes and 2 doubles a row */
    int64_t evaluates, top_k;
    int64_t curvature_kind; /* or -1: none; else as many numbers as logits, contiguous */
    int64_t has_vector;     /* double, one for each logit */
    double scale, softcap, label_smoothing, z_loss; /* of the options */
};

static const ptrdiff_t STEP[1] = {8};

static void require(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "driver: %s\n", what);
        exit(1);
    }
}

static char *allocate(size_t size) {
    char *p = calloc(size ? size : 1, 1);
    require(p, "no memory");
    return p;
}

static char *read_array(size_t size) {
    char *p = allocate(size);
    require(fread(p, 1, size, stdin) == size, "the input ends within a problem");
    return p;
}

static struct xent_array read_column(bool present, size_t rows) {
    return (struct xent_array){present ? read_array(8 * rows) : NULL, STEP};
}

/* What is read for the options; they and their strides have to stay. */
struct options {
    struct xent_options options;
    ptrdiff_t row_stride, index_stride;
};

static void read_options(struct options *read, const struct header *header) {
    const size_t rows = (size_t)header->rows, classes = (size_t)header->classes, listed = 2;
    struct xent_options *const options = &read->options;
    options->scale = header->scale;
    options->softcap = header->softcap;
    options->label_smoothing = header->label_smoothing;
    options->z_loss = header->z_loss;
    if (header->has_class_weight) {
        options->class_weight = (double *)(void *)read_array(8 * classes);
    }
    struct xent_labels *const labels = &options->labels;
    labels->dtype = XENT_F64;
    labels->probabilities_stride = labels->indices_stride = 8;
    labels->index_type = XENT_I64;
    if (header->has_labels) {
        read->row_stride = (ptrdiff_t)(8 * classes);
        labels->probabilities =
            (struct xent_array){read_array(8 * rows * classes), &read->row_stride};
    } else if (header->has_listed) {
        read->row_stride = (ptrdiff_t)(8 * listed);
        labels->indices = (struct xent_array){read_array(8 * rows * listed), &read->row_stride};
        labels->probabilities =
            (struct xent_array){read_array(8 * rows * listed), &read->row_stride};
        labels->listed = listed;
        labels->spread_tail = true;
    }
}

static void free_options(const struct xent_options *options) {
    free((void *)(uintptr_t)options->class_weight);
    free(options->labels.probabilities.data), free(options->labels.indices.data);
}

static void write_array(const void *p, size_t size) {
    require(size == 0 || fwrite(p, 1, size, stdout) == size, "cannot write");
}

/* What is there beside values for second derivatives; the stride has to stay. */
struct second {
    ptrdiff_t curvature_stride, vector_stride;
    size_t size; /* in bytes, of the curvature */
};

static void ask_for_second(struct xent_problem *problem, struct second *second,
                           const struct header *header) {
    const size_t rows = (size_t)header->rows, classes = (size_t)header->classes;
    const size_t sizes[] = {
        [XENT_F32] = sizeof(float), [XENT_F64] = sizeof(double), [XENT_F16] = sizeof(uint16_t)};
    if (header->curvature_kind >= 0) {
        const size_t item = sizes[problem->dtype];
        second->size = rows * classes * item;
        second->curvature_stride = (ptrdiff_t)(classes * item);
        problem->curvature = (struct xent_array){allocate(second->size), &second->curvature_stride};
        problem->curvature_stride = (ptrdiff_t)item;
        problem->curvature_kind = (enum xent_curvature)header->curvature_kind;
    }
    if (header->has_vector) {
        second->vector_stride = (ptrdiff_t)(8 * classes);
        problem->vector =
            (struct xent_array){read_array(8 * rows * classes), &second->vector_stride};
        problem->vector_stride = 8;
        problem->vector_dtype = XENT_F64;
    }
}

static void run(const struct header *header) {
    const size_t rows = (size_t)header->rows, size = (size_t)header->size;
    const ptrdiff_t row_stride = (ptrdiff_t)header->row_stride;
    char *const logits = read_array(size), *const values = allocate(size);
    struct xent_problem problem = {
        .dtype = (enum xent_dtype)header->dtype,
        .output = (enum xent_values)header->output,
        .row_dims = 1,
        .row_shape = &rows,
        .classes = (size_t)header->classes,
        .logits = {logits + header->offset, &row_stride},
        .logits_stride = (ptrdiff_t)header->class_stride,
        .values = {header->output == XENT_NO_VALUES ? NULL : values + header->offset, &row_stride},
        .values_stride = (ptrdiff_t)header->class_stride,
        .target = read_column(header->has_target, rows),
        .target_type = XENT_I64,
        .upstream = read_column(header->has_upstream, rows),
        .upstream_scalar = 1,
        .lse_in = read_column(header->has_lse, rows),
        .lse = (double *)(void *)allocate(8 * rows),
        .threads = (int)header->threads,
    };
    struct options read = {0};
    if (header->has_options) {
        read_options(&read, header);
        problem.options = &read.options;
    }
    struct second second = {0};
    ask_for_second(&problem, &second, header);
    const size_t top = rows * (size_t)header->top_k;
    struct xent_evaluation evaluation = {0};
    if (header->evaluates) {
        evaluation = (struct xent_evaluation){
            .log_prob = (double *)(void *)allocate(8 * rows),
            .entropy = (double *)(void *)allocate(8 * rows),
            .argmax = (int64_t *)(void *)allocate(8 * rows),
            .rank = (int64_t *)(void *)allocate(8 * rows),
            .top_k = (size_t)header->top_k,
            .top_log_probs = (double *)(void *)allocate(8 * top),
            .top_classes = (int64_t *)(void *)allocate(8 * top),
        };
        problem.evaluation = &evaluation;
    }
    /* One more for the sum, so that what is written depends on the rows alone. */
    double *const losses = (double *)(void *)allocate(8 * (rows + 1));
    if (header->has_loss) {
        problem.loss = losses;
        problem.loss_reduced = losses + rows;
    }
    const int64_t status = (int64_t)xent_run(&problem);
    write_array(&status, sizeof status);
    write_array(values, size);
    write_array(losses, 8 * (rows + 1));
    write_array(problem.lse, 8 * rows);
    if (header->evaluates) {
        write_array(evaluation.log_prob, 8 * rows), write_array(evaluation.entropy, 8 * rows);
        write_array(evaluation.argmax, 8 * rows), write_array(evaluation.rank, 8 * rows);
        write_array(evaluation.top_log_probs, 8 * top),
            write_array(evaluation.top_classes, 8 * top);
        free(evaluation.log_prob), free(evaluation.entropy), free(evaluation.argmax);
        free(evaluation.rank), free(evaluation.top_log_probs), free(evaluation.top_classes);
    }
    write_array(problem.curvature.data, second.size);
    free(problem.curvature.data), free(problem.vector.data);
    free_options(&read.options);
    free(logits), free(values), free(losses), free(problem.lse);
    free(problem.target.data), free(problem.upstream.data), free(problem.lse_in.data);
}

int main(void) {
    struct header header;
    while (fread(&header, sizeof header, 1, stdin) == 1) {
        run(&header);
    }
    return 0;
}
