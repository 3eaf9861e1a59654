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

static void write_array(const void *p, size_t size) {
    require(fwrite(p, 1, size, stdout) == size, "cannot write");
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
    /* One more for the sum, so that what is written depends on the rows alone. */
    double *const losses = (double *)(void *)allocate(8 * (rows + 1));
    if (header->has_target) {
        problem.loss = losses;
        problem.loss_sum = losses + rows;
    }
    const int64_t status = (int64_t)xent_run(&problem);
    write_array(&status, sizeof status);
    write_array(values, size);
    write_array(losses, 8 * (rows + 1));
    write_array(problem.lse, 8 * rows);
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
