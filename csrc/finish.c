/* Fills the lanes that finish works on, and writes out what it has found. */
#include "finish.h"

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

/* Near zero, where it is the logarithm of a sum near one, an lse has few digits of its own: there
 * the sum is formed again, more precisely. */
static double precise_lse(const struct xent_job *job, size_t row) {
    const struct xent_cursor at = xent_at_row(job, row);
    const size_t classes = job->problem->classes;
    double u[XENT_BLOCK], low[XENT_BLOCK], slopes[XENT_BLOCK];
    const struct xent_load_space space = {(char *)u, (char *)low, (char *)slopes};
    struct xent_near_one sum = {0};
    for (size_t begin = 0; begin < classes; begin += XENT_BLOCK) {
        const size_t left = classes - begin, size = left < XENT_BLOCK ? left : XENT_BLOCK;
        const struct xent_logits logits = xent_load(job, &at.place, begin, size, &space);
        job->kernels->sum_near_one(&logits, size, &sum);
    }
    return job->finish->log_near_one(&sum);
}

struct xent_request xent_request_of(const struct xent_job *job) {
    enum xent_scale own = xent_has(job, LSE_IN) ? XENT_BY_GIVEN_LSE : XENT_BY_OWN_SUM;
    own = xent_is_second(job) ? XENT_FOR_SECOND : own;
    const struct xent_options *options = job->options;
    double scale = options ? options->scale : 1;
    scale = options && options->softcap > 0 ? options->softcap : scale;
    return (struct xent_request){
        .by = xent_has(job, VALUES) ? own : XENT_NO_SCALE,
        .single = job->single,
        .options = options != NULL && job->plan.regime != XENT_BY_LANES,
        .scale = scale,
    };
}

void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count) {
    const double near_zero = 0.5;
    const struct xent_problem *problem = job->problem;
    const struct xent_request request = xent_request_of(job);
    job->finish->finish(rows, count, &request);
    if (problem->loss) {
        memcpy(problem->loss + first, rows->loss, count * sizeof *rows->loss);
    }
    for (size_t i = 0; problem->lse && i < count; i++) {
        const bool near = fabs(rows->lse[i]) < near_zero;
        problem->lse[first + i] = near ? precise_lse(job, first + i) : rows->lse[i];
    }
}
