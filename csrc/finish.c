/* Fills the lanes that finish works on, and writes out what it has found. */
#include "finish.h"

#include <math.h>

void xent_take_row(const struct xent_job *job, const struct xent_place *at, size_t target,
                   struct xent_rows *rows, size_t lane) {
    rows->target_logit[lane] = target == XENT_NO_CLASS ? -INFINITY : xent_logit(job, at, target);
    rows->upstream[lane] = xent_has(job, UPSTREAM)
                               ? xent_read_double(xent_address(job, UPSTREAM, at))
                               : job->problem->upstream_scalar;
    if (xent_has(job, LSE_IN)) {
        rows->lse_in[lane] = xent_read_double(xent_address(job, LSE_IN, at));
    }
}

/* Near zero, where it is the logarithm of a sum near one, an lse has few digits of its own: there
 * the sum is formed again, more precisely. */
static double precise_lse(const struct xent_job *job, size_t row) {
    const struct xent_cursor at = xent_at_row(job, row);
    const size_t classes = job->problem->classes;
    double buffer[XENT_BLOCK];
    struct two sum = {0, 0};
    for (size_t begin = 0; begin < classes; begin += XENT_BLOCK) {
        const size_t left = classes - begin, size = left < XENT_BLOCK ? left : XENT_BLOCK;
        job->kernels->sum_precisely(xent_load(job, &at.place, begin, size, (char *)buffer), size,
                                    &sum);
    }
    return job->finish->log_near_one(sum);
}

void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count) {
    const double near_zero = 0.5;
    const struct xent_problem *problem = job->problem;
    job->finish->finish(rows, count, xent_has(job, LSE_IN), job->single);
    if (problem->loss) {
        memcpy(problem->loss + first, rows->loss, count * sizeof *rows->loss);
    }
    for (size_t i = 0; problem->lse && i < count; i++) {
        const bool near = fabs(rows->lse[i]) < near_zero;
        problem->lse[first + i] = near ? precise_lse(job, first + i) : rows->lse[i];
    }
}
