/* The entry point: check, plan, run. Knows neither the instruction set nor how threads are made. */
#include "xent.h"

#include "dispatch.h"
#include "job.h"
#include "regimes.h"

#include <stdlib.h>

/* Every target, before anything is written. */
static enum xent_status check_targets(const struct xent_job *job, size_t *bad_row) {
    enum { MANY = 256 };
    const size_t classes = job->problem->classes;
    struct xent_cursor at = xent_at_row(job, 0);
    for (size_t row = 0, n; row < job->rows; row += n) {
        size_t class[MANY];
        const size_t in_line = xent_rows_in_line(&at, job);
        n = in_line < MANY ? in_line : MANY;
        xent_read_classes(job, xent_address(job, TARGET, &at.place), n, class);
        size_t largest = 0;
        for (size_t i = 0; i < n; i++) {
            largest = class[i] > largest ? class[i] : largest;
        }
        for (size_t i = 0; largest >= classes; i++) {
            if (class[i] >= classes) {
                *bad_row = row + i;
                return XENT_TARGET_OUT_OF_RANGE;
            }
        }
        xent_advance(&at, job, n);
    }
    return XENT_OK;
}

static enum xent_status check(const struct xent_problem *problem) {
    const bool values = problem->output != XENT_NO_VALUES;
    const bool needs_target = problem->output == XENT_GRADIENT || problem->loss;
    const bool good = problem->row_dims <= XENT_MAX_ROW_DIMS && problem->classes >= 1 &&
                      problem->threads >= 0 && problem->logits.data &&
                      values == (problem->values.data != NULL) &&
                      (!needs_target || problem->target.data) &&
                      (!(problem->loss_sum || problem->loss_mean) || problem->loss);
    return good ? XENT_OK : XENT_BAD_PROBLEM;
}

/* Everything is allocated here, before anything is written. */
static enum xent_status run(struct xent_job *job) {
    const bool by_lanes = job->plan.regime == XENT_BY_LANES;
    job->workspace_size = by_lanes ? xent_lanes_workspace(job) : xent_rows_workspace(job);
    job->memory = aligned_alloc(XENT_CACHE_LINE, job->workspace_size * (size_t)job->plan.threads);
    if (!job->memory) {
        return XENT_NO_MEMORY;
    }
    switch (job->plan.regime) {
    case XENT_BY_LANES:
        xent_run_lanes(job);
        break;
    case XENT_BY_ROWS:
        xent_run_rows(job);
        break;
    case XENT_BY_COLUMNS:
        xent_run_columns(job);
        break;
    }
    free(job->memory);
    return XENT_OK;
}

enum xent_status xent_run(struct xent_problem *problem) {
    enum xent_status status = check(problem);
    const struct xent_kernels *kernels = NULL;
    if (status == XENT_OK) {
        status = xent_select_kernels(&kernels);
    }
    if (status != XENT_OK) {
        return status;
    }
    struct xent_job job = xent_make_job(problem);
    job.kernels = job.single ? &kernels->f32 : &kernels->f64;
    job.finish = &kernels->finish;
    if (job.rows > 0) {
        if (xent_has(&job, TARGET)) {
            status = check_targets(&job, &problem->bad_row);
        }
        if (status == XENT_OK) {
            job.plan = xent_plan(problem, job.rows);
            status = run(&job);
        }
    }
    if (status == XENT_OK && problem->loss_sum) {
        *problem->loss_sum = kernels->finish.total(problem->loss, job.rows, 1);
    }
    if (status == XENT_OK && problem->loss_mean) {
        *problem->loss_mean = kernels->finish.total(problem->loss, job.rows, (double)job.rows);
    }
    return status;
}
