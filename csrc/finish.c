/* Fills the lanes that finish works on, and writes out what it has found. */
#include "finish.h"

#include "evaluate.h"
#include "fixed.h"

#include <math.h>

static void read_doubles(const struct xent_job *job, enum xent_job_array array,
                         const struct xent_place *at, size_t n, double *to) {
    const char *p = xent_address(job, array, at);
    for (size_t i = 0; i < n; i++) {
        to[i] = xent_read_double(p);
        p += xent_stride(job, array);
    }
}

void xent_take_rows(const struct xent_job *job, const struct xent_place *at, size_t n,
                    struct xent_rows *rows, size_t lane) {
    if (!xent_has(job, VALUES)) {
        return;
    }
    const enum xent_values output = job->problem->output;
    const bool derivatives = output == XENT_GRADIENT || output == XENT_PRODUCT;
    const double scale = derivatives && job->options ? job->options->scale : 1;
    const double divisor = derivatives ? job->denominator : 1; /* 0: no row counts */
    if (xent_has(job, UPSTREAM)) {
        read_doubles(job, UPSTREAM, at, n, rows->upstream + lane);
        const double factor = divisor > 0 ? scale / divisor : 0;
        for (size_t i = lane; i < lane + n; i++) {
            rows->upstream[i] *= factor;
        }
    } else {
        const double upstream = job->problem->upstream_scalar;
        const double same = divisor > 0 ? upstream * scale / divisor : 0;
        for (size_t i = lane; i < lane + n; i++) {
            rows->upstream[i] = same;
        }
    }
    if (xent_has(job, LSE_IN)) {
        read_doubles(job, LSE_IN, at, n, rows->lse_in + lane);
    }
}

/* The same in fixed point, with more and more digits. */
static double exact_lse(const struct xent_job *job, const struct xent_place *at) {
    struct xent_near_one near_one;
    for (int bits = 192;; bits = bits < XENT_MOST_BITS / 2 ? 2 * bits : XENT_MOST_BITS) {
        struct xent_fixed_sum sum = {.bits = bits};
        for (size_t class = 0; class < job->problem->classes; class++) {
            xent_fixed_add_exp(&sum, xent_read_logit(job, at, class));
        }
        if (xent_fixed_near_one(&sum, &near_one) || bits == XENT_MOST_BITS) {
            return job->finish->log_near_one(&near_one);
        }
    }
}

/* An lse that has been formed to some 100 bits of the largest logit. The products of scaled logits,
 * and capped ones, are not known to so many. */
static double exact_if_lost(const struct xent_job *job, size_t row, double largest, double lse) {
    const struct xent_options *options = job->options;
    const double lost = job->single ? 0x1p-64 : 0x1p-40;
    const bool exact = !options || (options->scale == 1 && options->softcap == 0);
    if (!exact || !(fabs(lse) < lost * fabs(largest))) {
        return lse;
    }
    struct xent_cursor at;
    xent_at_row(job, row, &at);
    return exact_lse(job, &at.place);
}

static double precise_lse(const struct xent_job *job, const struct xent_place *at, size_t row) {
    const size_t classes = job->problem->classes;
    enum { AT_ONCE = 1024 }; /* classes: what a thread's stack has room for */
    double u[AT_ONCE], low[AT_ONCE], largest = -INFINITY;
    const struct xent_load_space space = {(char *)u, (char *)low, NULL};
    struct xent_near_one sum = {0};
    for (size_t begin = 0; begin < classes; begin += AT_ONCE) {
        const size_t size = xent_smaller(classes - begin, AT_ONCE);
        const struct xent_logits logits = xent_load(job, at, begin, size, &space);
        job->kernels->sum_near_one(&logits, size, &sum);
        largest = fmax(largest, job->kernels->largest(logits.u, size, XENT_NO_CLASS, NULL));
    }
    return exact_if_lost(job, row, largest, job->finish->log_near_one(&sum));
}

/* Rows of few classes whose lse is near zero, so many at once. */
struct few {
    size_t count, row[XENT_ROWS_AT_ONCE];
    double largest[XENT_ROWS_AT_ONCE];
    double z[XENT_TILE_CLASSES][XENT_ROWS_AT_ONCE];
};

static void add_row(const struct xent_job *job, const struct xent_place *at, size_t row,
                    struct few *few) {
    const size_t i = few->count++, classes = job->problem->classes;
    double u[XENT_TILE_CLASSES], low[XENT_TILE_CLASSES], largest = -INFINITY; /* or floats */
    const struct xent_load_space space = {(char *)u, (char *)low, NULL};
    const struct xent_logits logits = xent_load(job, at, 0, classes, &space);
    const char *const highs = logits.u, *const lows = logits.low;
    for (size_t k = 0; k < classes; k++) {
        const double x = xent_real(job, highs + k * job->itemsize);
        const double rest = lows ? xent_real(job, lows + k * job->itemsize) : 0;
        few->z[k][i] = logits.scale * (x + rest);
        largest = fmax(largest, x);
    }
    few->row[i] = row;
    few->largest[i] = largest;
}

/* Finds their lse, and forgets them. */
static void finish_few(const struct xent_job *job, struct few *few) {
    double lse[XENT_ROWS_AT_ONCE];
    for (size_t k = 0; k < job->problem->classes; k++) {
        for (size_t i = few->count; i < XENT_ROWS_AT_ONCE; i++) {
            few->z[k][i] = 0;
        }
    }
    job->finish->lse_near_zero(few->z[0], job->problem->classes, lse);
    for (size_t i = 0; i < few->count; i++) {
        job->problem->lse[few->row[i]] = exact_if_lost(job, few->row[i], few->largest[i], lse[i]);
    }
    few->count = 0;
}

/* Near zero, where it is the logarithm of a sum near one, an lse has few digits of its own: there
 * the sum is formed again, more precisely. */
static void make_precise(const struct xent_job *job, const struct xent_rows *rows, size_t first,
                         size_t count) {
    const double near_zero = 0.5;
    struct xent_cursor at;
    size_t row = 0; /* that the cursor is at, once any is near */
    bool any = false;
    struct few few;
    few.count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(fabs(rows->lse[i]) < near_zero)) {
            continue;
        }
        if (any) {
            xent_advance(&at, job, first + i - row);
        } else {
            xent_at_row(job, first + i, &at);
        }
        any = true;
        row = first + i;
        if (job->options && xent_row_weight(job, &at.place) == 0) {
            continue; /* whatever its logits are */
        }
        if (job->problem->classes > XENT_TILE_CLASSES) {
            job->problem->lse[row] = precise_lse(job, &at.place, row);
            continue;
        }
        add_row(job, &at.place, row, &few);
        if (few.count == XENT_ROWS_AT_ONCE) {
            finish_few(job, &few);
        }
    }
    if (few.count > 0) {
        finish_few(job, &few);
    }
}

void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count) {
    const struct xent_problem *problem = job->problem;
    job->finish->finish(rows, count, &job->request);
    if (problem->loss) {
        memcpy(problem->loss + first, rows->loss, count * sizeof *rows->loss);
    }
    if (problem->evaluation) {
        xent_finish_evaluation(job, rows, first, count);
    }
    if (problem->lse) {
        memcpy(problem->lse + first, rows->lse, count * sizeof *rows->lse);
    }
    if (problem->lse && !job->knows_whole) { /* else the logits of whole rows may not be here */
        make_precise(job, rows, first, count);
    }
}
