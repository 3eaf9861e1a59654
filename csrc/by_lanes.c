/* Rows side by side in the lanes of vectors, a group of them at a time, in a tile of its own. Knows
 * neither the instruction set nor how threads are made. */
#include "finish.h"
#include "parallel.h"
#include "regimes.h"

#include <math.h>
#include <stdatomic.h>

/* One thread's own memory. */
struct workspace {
    char tile[XENT_TILE_CLASSES * XENT_TILE_ROW];
    struct xent_rows rows;
    struct xent_factors factors;
    size_t target[XENT_ROWS];
};

size_t xent_lanes_workspace(const struct xent_job *job) {
    (void)job;
    return xent_whole_lines(sizeof(struct workspace));
}

static size_t lanes(const struct xent_job *job) { return XENT_TILE_ROW / job->itemsize; }

/* Rows in a line, and where they are. */
struct group {
    struct xent_place at;
    size_t first, count;
};

static struct xent_place place_in(const struct xent_job *job, const struct group *group, size_t i) {
    struct xent_place at = group->at;
    for (int a = 0; a < ARRAYS; a++) {
        at.offset[a] += (ptrdiff_t)i * xent_stride(job, (enum xent_job_array)a);
    }
    return at;
}

static char *cell(const struct xent_job *job, struct workspace *work, size_t class, size_t lane) {
    return work->tile + class * XENT_TILE_ROW + lane * job->itemsize;
}

/* The class of every lane that is kept out of the sum of the others. */
static void find_targets(const struct xent_job *job, const struct group *group,
                         struct workspace *work) {
    const bool of_largest = job->problem->output == XENT_LOG_SOFTMAX;
    const char *p = xent_has(job, TARGET) ? xent_address(job, TARGET, &group->at) : NULL;
    for (size_t i = 0; i < group->count; i++) {
        work->target[i] = XENT_NO_CLASS;
        if (p) {
            work->target[i] = (size_t)xent_read_class(p, job->problem->target_type);
            p += xent_stride(job, TARGET);
        }
        double largest = -INFINITY;
        for (size_t k = 0; of_largest && k < job->problem->classes; k++) {
            const double logit = xent_read_logit(job, cell(job, work, k, i));
            if (logit > largest || (k == 0 && logit == largest)) {
                largest = logit;
                work->target[i] = k;
            }
        }
    }
}

/* Takes the targets out of the tile: their exponentials become zero. */
static void take_targets(const struct xent_job *job, const struct group *group,
                         struct workspace *work) {
    for (size_t i = 0; i < group->count; i++) {
        const struct xent_place at = place_in(job, group, i);
        xent_take_row(job, &at, work->target[i], &work->rows, i);
        if (work->target[i] != XENT_NO_CLASS) {
            xent_write_value(job, cell(job, work, work->target[i], i), -INFINITY);
        }
    }
}

static void put_targets(const struct xent_job *job, const struct group *group,
                        struct workspace *work, const double *values) {
    for (size_t i = 0; i < group->count; i++) {
        if (work->target[i] != XENT_NO_CLASS) {
            xent_write_value(job, cell(job, work, work->target[i], i), values[i]);
        }
    }
}

/* The values take the place of what reduce has left in the tile.
 * log q_j = (x_j - x_m) - loss_m with x_m the largest: both are negative, so nothing cancels. */
static void emit(const struct xent_job *job, const struct group *group, struct workspace *work) {
    const size_t classes = job->problem->classes;
    if (job->problem->output == XENT_LOG_SOFTMAX) {
        put_targets(job, group, work, work->rows.target_logit);
        job->kernels->lanes_emit_shifted(work->tile, classes, work->rows.target_logit,
                                         work->rows.loss);
        return;
    }
    job->finish->factors(&work->rows, lanes(job), job->single, &work->factors);
    job->kernels->lanes_emit(work->tile, classes, &work->factors);
    put_targets(job, group, work, work->rows.target_gradient);
}

static void run_group(const struct xent_job *job, const struct group *group,
                      struct workspace *work) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = problem->output == XENT_GRADIENT || problem->output == XENT_SOFTMAX;
    job->kernels->lanes_load(xent_address(job, LOGITS, &group->at), xent_stride(job, LOGITS),
                             problem->logits_stride, group->count, problem->classes, work->tile);
    find_targets(job, group, work);
    take_targets(job, group, work);
    job->kernels->lanes_reduce(work->tile, problem->classes, from_exps, &work->rows);
    xent_finish_rows(job, &work->rows, group->first, group->count);
    if (xent_has(job, VALUES)) {
        emit(job, group, work);
        job->kernels->lanes_store(work->tile, xent_address(job, VALUES, &group->at),
                                  xent_stride(job, VALUES), problem->values_stride, group->count,
                                  problem->classes, job->plan.stream);
    }
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* How many rows the next group has: a tile of them, or fewer up to the end of a line, or up to
 * where rows that lie side by side are aligned. */
static size_t group_size(const struct xent_job *job, const struct xent_cursor *at, size_t left) {
    const enum xent_job_array array = xent_has(job, VALUES) ? VALUES : LOGITS;
    size_t size = lanes(job);
    if (xent_stride(job, array) == (ptrdiff_t)job->itemsize) {
        const uintptr_t address = (uintptr_t)xent_address(job, array, &at->place);
        size -= address % XENT_TILE_ROW / job->itemsize;
    }
    return smaller(size, smaller(xent_rows_in_line(at, job), left));
}

static void run_lanes(void *context, int member, int team) {
    const struct xent_job *job = context;
    struct workspace *work = (struct workspace *)(void *)xent_workspace(job, member);
    const struct xent_range range = xent_share(job->rows, member, team);
    struct xent_cursor at = xent_at_row(job, range.begin);
    memset(&work->rows, 0, sizeof work->rows); /* lanes without a row are computed, too */
    size_t row = range.begin;
    while (row < range.end) {
        const struct group group = {at.place, row, group_size(job, &at, range.end - row)};
        run_group(job, &group, work);
        xent_advance(&at, job, group.count);
        row += group.count;
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

void xent_run_lanes(struct xent_job *job) { xent_parallel(job->plan.threads, run_lanes, job); }
