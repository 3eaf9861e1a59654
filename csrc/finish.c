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
    if (xent_has(job, UPSTREAM)) {
        read_doubles(job, UPSTREAM, at, n, rows->upstream + lane);
    } else {
        for (size_t i = lane; i < lane + n; i++) {
            rows->upstream[i] = job->problem->upstream_scalar;
        }
    }
    const enum xent_values output = job->problem->output;
    if (job->options && (output == XENT_GRADIENT || output == XENT_PRODUCT)) {
        const double factor =
            job->denominator > 0 ? job->options->scale / job->denominator : 0; /* no row counts */
        for (size_t i = lane; i < lane + n; i++) {
            rows->upstream[i] *= factor;
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

/* Near zero, where it is the logarithm of a sum near one, an lse has few digits of its own: there
 * the sum is formed again, more precisely: first to some 100 bits of the largest logit. */
static double precise_lse(const struct xent_job *job, size_t row) {
    const double lost = job->single ? 0x1p-64 : 0x1p-40;
    const struct xent_cursor at = xent_at_row(job, row);
    const size_t classes = job->problem->classes;
    enum { AT_ONCE = 1024 }; /* classes: what a thread's stack has room for */
    double u[AT_ONCE], low[AT_ONCE], largest = -INFINITY;
    const struct xent_load_space space = {(char *)u, (char *)low, NULL};
    struct xent_near_one sum = {0};
    for (size_t begin = 0; begin < classes; begin += AT_ONCE) {
        const size_t left = classes - begin, size = left < AT_ONCE ? left : AT_ONCE;
        const struct xent_logits logits = xent_load(job, &at.place, begin, size, &space);
        job->kernels->sum_near_one(&logits, size, &sum);
        largest = fmax(largest, job->kernels->largest(logits.u, size, XENT_NO_CLASS, NULL));
    }
    const double lse = job->finish->log_near_one(&sum);
    /* Logits that are scaled or capped are rounded themselves. */
    const struct xent_options *options = job->options;
    const bool exact = !options || (options->scale == 1 && options->softcap == 0);
    return exact && fabs(lse) < lost * fabs(largest) ? exact_lse(job, &at.place) : lse;
}

void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count) {
    const double near_zero = 0.5;
    const struct xent_problem *problem = job->problem;
    job->finish->finish(rows, count, &job->request);
    if (problem->loss) {
        memcpy(problem->loss + first, rows->loss, count * sizeof *rows->loss);
    }
    if (problem->evaluation) {
        xent_finish_evaluation(job, rows, first, count);
    }
    for (size_t i = 0; problem->lse && i < count; i++) {
        /* The logits of whole rows may not be here. */
        const bool near = fabs(rows->lse[i]) < near_zero && !job->knows_whole;
        problem->lse[first + i] = near ? precise_lse(job, first + i) : rows->lse[i];
    }
}
