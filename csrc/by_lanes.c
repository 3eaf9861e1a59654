/* Rows side by side in the lanes of vectors, a group of them at a time, in a tile of its own. Knows
 * neither the instruction set nor how threads are made. */
#include "finish.h"
#include "parallel.h"
#include "regimes.h"

#include <math.h>
#include <stdatomic.h>

enum { VECTOR = 64 }; /* bytes, on every instruction set */

/* A tile of more than one vector of rows stays in half of the L1 cache. */
enum { TILE = 16384, VECTORS = XENT_ROWS * sizeof(float) / VECTOR };

/* One thread's own memory. */
struct workspace {
    char cells[XENT_TILE_CLASSES * VECTOR > TILE ? XENT_TILE_CLASSES * VECTOR : TILE];
    struct xent_rows rows;
    struct xent_factors factors;
    size_t target[XENT_ROWS];
};

size_t xent_lanes_workspace(const struct xent_job *job) {
    (void)job;
    return xent_whole_lines(sizeof(struct workspace));
}

/* The vectors of rows that a tile has room for. */
static size_t vectors(const struct xent_job *job) {
    const size_t fit = TILE / VECTOR / job->problem->classes;
    return fit < 1 ? 1 : fit < VECTORS ? fit : VECTORS;
}

/* Rows in a line, and where they are. */
struct group {
    struct xent_place at;
    size_t first;
    struct xent_tile tile;
};

static struct xent_cells cells_of(const struct xent_job *job, enum xent_job_array array,
                                  const struct group *group, ptrdiff_t class_stride) {
    return (struct xent_cells){xent_address(job, array, &group->at), xent_stride(job, array),
                               class_stride};
}

/* log_softmax has its largest class in the place of a target; softmax and logsumexp have none. */
static bool has_target(const struct xent_job *job) {
    return xent_has(job, TARGET) || job->problem->output == XENT_LOG_SOFTMAX;
}

/* Takes the targets out of the tile, and whatever else of the group finish needs. */
static void take_rows(const struct xent_job *job, const struct group *group,
                      struct workspace *work) {
    if (xent_has(job, TARGET)) {
        xent_read_classes(job, xent_address(job, TARGET, &group->at), group->tile.rows,
                          work->target);
    } else if (has_target(job)) {
        job->kernels->lanes_largest(&group->tile, work->target);
    }
    if (has_target(job)) {
        job->kernels->lanes_take(&group->tile, work->target, work->rows.target_logit);
    }
    xent_take_rows(job, &group->at, group->tile.rows, &work->rows, 0);
}

/* The values take the place of what reduce has left in the tile.
 * log q_j = (x_j - x_m) - loss_m with x_m the largest: both are negative, so nothing cancels. */
static void emit(const struct xent_job *job, const struct group *group, struct workspace *work) {
    if (job->problem->output == XENT_LOG_SOFTMAX) {
        job->kernels->lanes_put(&group->tile, work->target, work->rows.target_logit);
        job->kernels->lanes_emit_shifted(&group->tile, work->rows.target_logit, work->rows.loss);
        return;
    }
    job->finish->factors(&work->rows, group->tile.rows, job->single, &work->factors);
    job->kernels->lanes_emit(&group->tile, &work->factors);
    if (has_target(job)) {
        job->kernels->lanes_put(&group->tile, work->target, work->rows.target_gradient);
    }
}

static void run_group(const struct xent_job *job, const struct group *group,
                      struct workspace *work) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = problem->output == XENT_GRADIENT || problem->output == XENT_SOFTMAX;
    job->kernels->lanes_load(&group->tile, cells_of(job, LOGITS, group, problem->logits_stride));
    take_rows(job, group, work);
    job->kernels->lanes_reduce(&group->tile, from_exps, &work->rows);
    xent_finish_rows(job, &work->rows, group->first, group->tile.rows);
    if (xent_has(job, VALUES)) {
        emit(job, group, work);
        job->kernels->lanes_store(
            &group->tile, cells_of(job, VALUES, group, problem->values_stride), job->plan.stream);
    }
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* How many rows the next group has: a tile of them, or fewer up to the end of a line, or up to
 * where rows that lie side by side are aligned. */
static size_t group_size(const struct xent_job *job, const struct xent_cursor *at, size_t left) {
    const enum xent_job_array array = xent_has(job, VALUES) ? VALUES : LOGITS;
    size_t size = vectors(job) * VECTOR / job->itemsize;
    if (xent_stride(job, array) == (ptrdiff_t)job->itemsize) {
        const uintptr_t address = (uintptr_t)xent_address(job, array, &at->place);
        size -= address % VECTOR / job->itemsize;
    }
    return smaller(size, smaller(xent_rows_in_line(at, job), left));
}

static void run_lanes(void *context, int member, int team) {
    const struct xent_job *job = context;
    struct workspace *work = (struct workspace *)(void *)xent_workspace(job, member);
    const struct xent_range range = xent_share(job->rows, member, team);
    struct xent_cursor at = xent_at_row(job, range.begin);
    /* Lanes without a row are computed, too. */
    memset(&work->rows, 0, offsetof(struct xent_rows, loss));
    for (size_t i = 0; i < XENT_ROWS; i++) {
        work->rows.target_logit[i] = -INFINITY;
    }
    for (size_t row = range.begin, rows; row < range.end; row += rows) {
        rows = group_size(job, &at, range.end - row);
        const size_t pitch = (rows * job->itemsize + VECTOR - 1) / VECTOR * VECTOR;
        const struct xent_tile tile = {work->cells, rows, job->problem->classes, (ptrdiff_t)pitch};
        run_group(job, &(struct group){at.place, row, tile}, work);
        xent_advance(&at, job, rows);
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

void xent_run_lanes(struct xent_job *job) { xent_parallel(job->plan.threads, run_lanes, job); }
