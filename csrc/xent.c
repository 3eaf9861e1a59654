/* The entry point: check, plan, run. Carries the rows of strided arrays through
 * load -> reduce -> finish -> emit; knows neither the instruction set nor how threads are made. */
#include "xent.h"

#include "dispatch.h"
#include "finish.h"
#include "kernels.h"
#include "parallel.h"
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The arrays with row strides that a cursor walks together. */
enum array { LOGITS, VALUES, TARGET, UPSTREAM, LSE_IN, ARRAYS };

struct job {
    const struct xent_problem *problem;
    const struct xent_kernels *kernels;
    struct xent_plan plan;
    struct xent_array arrays[ARRAYS];
    size_t rows, blocks, itemsize;
    char *memory; /* the workspaces of all members, one after the other */
    size_t sums_size, exps_size, buffer_size;
};

/* ---- Rows of strided arrays ------------------------------------------------------------------ */

/* A row, as an index along every row dimension and a byte offset into every array. */
struct cursor {
    size_t index[XENT_MAX_ROW_DIMS];
    ptrdiff_t offset[ARRAYS];
};

static void move(struct cursor *at, const struct job *job, size_t dim, ptrdiff_t steps) {
    for (int a = 0; a < ARRAYS; a++) {
        if (job->arrays[a].data) {
            at->offset[a] += steps * job->arrays[a].row_strides[dim];
        }
    }
}

static struct cursor at_row(const struct job *job, size_t row) {
    struct cursor at = {.offset = {0}};
    for (size_t dim = job->problem->row_dims; dim-- > 0;) {
        at.index[dim] = row % job->problem->row_shape[dim];
        row /= job->problem->row_shape[dim];
        move(&at, job, dim, (ptrdiff_t)at.index[dim]);
    }
    return at;
}

static void next_row(struct cursor *at, const struct job *job) {
    for (size_t dim = job->problem->row_dims; dim-- > 0;) {
        move(at, job, dim, 1);
        if (++at->index[dim] < job->problem->row_shape[dim]) {
            return;
        }
        move(at, job, dim, -(ptrdiff_t)at->index[dim]);
        at->index[dim] = 0;
    }
}

static char *address(const struct job *job, enum array a, const struct cursor *at) {
    return job->arrays[a].data + at->offset[a];
}

/* ---- Single numbers, of any alignment -------------------------------------------------------- */

static double read_real(const char *p, enum xent_dtype dtype) {
    if (dtype == XENT_F32) {
        float x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    double x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void write_real(char *p, enum xent_dtype dtype, double value) {
    if (dtype == XENT_F32) {
        const float x = (float)value;
        memcpy(p, &x, sizeof x);
    } else {
        memcpy(p, &value, sizeof value);
    }
}

/* The class; a negative one becomes larger than any number of classes. */
static uint64_t read_class(const char *p, enum xent_int type) {
#define XENT_READ(enumerator, integer)                                                             \
    case enumerator: {                                                                             \
        integer v;                                                                                 \
        memcpy(&v, p, sizeof v);                                                                   \
        return (uint64_t)v;                                                                        \
    }
    switch (type) {
        XENT_READ(XENT_I8, int8_t)
        XENT_READ(XENT_I16, int16_t)
        XENT_READ(XENT_I32, int32_t)
        XENT_READ(XENT_I64, int64_t)
        XENT_READ(XENT_U8, uint8_t)
        XENT_READ(XENT_U16, uint16_t)
        XENT_READ(XENT_U32, uint32_t)
        XENT_READ(XENT_U64, uint64_t)
    }
#undef XENT_READ
    return UINT64_MAX;
}

/* ---- load and store: a block of a strided row as contiguous numbers, and back ------------------
 */

static void copy_strided(char *to, ptrdiff_t to_stride, const char *from, ptrdiff_t from_stride,
                         size_t n, size_t itemsize) {
    for (size_t i = 0; i < n; i++) {
        memcpy(to, from, itemsize);
        to += to_stride;
        from += from_stride;
    }
}

struct block {
    size_t begin, size; /* in classes */
};

static struct block block_at(const struct job *job, size_t index) {
    const size_t begin = index * XENT_BLOCK, left = job->problem->classes - begin;
    return (struct block){begin, left < XENT_BLOCK ? left : XENT_BLOCK};
}

/* ---- One thread's own memory ----------------------------------------------------------------- */

struct workspace {
    struct xent_sum *sums; /* of every block of a row */
    char *exps;            /* of every class of a row; NULL where nothing is emitted from them */
    char *buffer;          /* one block; NULL where logits and values are contiguous */
};

enum { CACHE_LINE = 64 };

static size_t whole_lines(size_t size) { return (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }

/* False if there is no memory. Everything is allocated here, before anything is written. */
static bool allocate_workspaces(struct job *job) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = problem->output == XENT_GRADIENT || problem->output == XENT_SOFTMAX;
    const ptrdiff_t itemsize = (ptrdiff_t)job->itemsize;
    const bool contiguous =
        problem->logits_stride == itemsize &&
        (problem->output == XENT_NO_VALUES || problem->values_stride == itemsize);
    job->sums_size = whole_lines(job->blocks * sizeof(struct xent_sum));
    job->exps_size = from_exps ? whole_lines(problem->classes * job->itemsize) : 0;
    job->buffer_size = contiguous ? 0 : whole_lines(XENT_BLOCK * job->itemsize);
    const size_t size = job->sums_size + job->exps_size + job->buffer_size;
    job->memory = aligned_alloc(CACHE_LINE, size * (size_t)job->plan.threads);
    return job->memory != NULL;
}

static struct workspace workspace_of(const struct job *job, int member) {
    const size_t size = job->sums_size + job->exps_size + job->buffer_size;
    char *own = job->memory + size * (size_t)member;
    char *row = job->plan.by_columns ? job->memory : own; /* columns of one row: one set of sums */
    return (struct workspace){
        .sums = (struct xent_sum *)(void *)row,
        .exps = job->exps_size ? row + job->sums_size : NULL,
        .buffer = job->buffer_size ? own + job->sums_size + job->exps_size : NULL,
    };
}

/* ---- load -> reduce -> finish -> emit ----------------------------------------------------------
 */

static bool has_target(const struct job *job) { return job->arrays[TARGET].data != NULL; }

static size_t target_of(const struct job *job, const struct cursor *at) {
    return (size_t)read_class(address(job, TARGET, at), job->problem->target_type);
}

/* A block's logits, contiguous: where they are, or gathered. */
static const void *load(const struct job *job, const struct workspace *work,
                        const struct cursor *at, struct block block) {
    const ptrdiff_t stride = job->problem->logits_stride;
    const char *p = address(job, LOGITS, at) + (ptrdiff_t)block.begin * stride;
    if (stride == (ptrdiff_t)job->itemsize) {
        return p;
    }
    copy_strided(work->buffer, (ptrdiff_t)job->itemsize, p, stride, block.size, job->itemsize);
    return work->buffer;
}

static void reduce_block(const struct job *job, const struct workspace *work,
                         const struct cursor *at, size_t index) {
    const struct block block = block_at(job, index);
    const void *x = load(job, work, at, block);
    /* In every other block than the target's, the difference is beyond the block's size. */
    const size_t skip = has_target(job) ? target_of(job, at) - block.begin : SIZE_MAX;
    void *exps = work->exps ? work->exps + block.begin * job->itemsize : NULL;
    work->sums[index] = job->problem->dtype == XENT_F32
                            ? job->kernels->f32.reduce(x, block.size, skip, exps)
                            : job->kernels->f64.reduce(x, block.size, skip, exps);
}

/* What `emit` needs of a finished row. */
struct emission {
    struct xent_row row;
    struct xent_scaled scale;
    double lse;
};

/* Writes the row's loss and lse. */
static struct emission finish(const struct job *job, const struct workspace *work,
                              const struct cursor *at, size_t row_index) {
    const struct xent_problem *problem = job->problem;
    struct emission done = {.lse = NAN};
    if (has_target(job)) {
        const char *logit =
            address(job, LOGITS, at) + (ptrdiff_t)target_of(job, at) * problem->logits_stride;
        done.row =
            xent_merge_with_target(work->sums, job->blocks, read_real(logit, problem->dtype));
    } else {
        done.row = xent_merge(work->sums, job->blocks);
    }
    if (problem->loss) {
        problem->loss[row_index] = xent_row_loss(&done.row);
    }
    if (problem->lse || problem->output == XENT_LOG_SOFTMAX) {
        done.lse = xent_row_lse(&done.row);
    }
    if (problem->lse) {
        problem->lse[row_index] = done.lse;
    }
    if (work->exps) {
        const double upstream = job->arrays[UPSTREAM].data
                                    ? read_real(address(job, UPSTREAM, at), XENT_F64)
                                    : problem->upstream_scalar;
        done.scale = job->arrays[LSE_IN].data
                         ? xent_row_scale_by_lse(&done.row, upstream,
                                                 read_real(address(job, LSE_IN, at), XENT_F64))
                         : xent_row_scale(&done.row, upstream);
    }
    return done;
}

/* Writes a block of upstream * softmax, or of log_softmax. */
static void emit_block(const struct job *job, const struct workspace *work, const struct cursor *at,
                       const struct emission *done, size_t index) {
    const struct xent_problem *problem = job->problem;
    const bool single = problem->dtype == XENT_F32;
    const ptrdiff_t stride = problem->values_stride;
    const struct block block = block_at(job, index);
    char *values = address(job, VALUES, at) + (ptrdiff_t)block.begin * stride;
    const bool contiguous = stride == (ptrdiff_t)job->itemsize;
    void *out = contiguous ? values : work->buffer;

    if (problem->output == XENT_LOG_SOFTMAX) {
        const void *x = load(job, work, at, block);
        const double high = single ? (double)(float)done->lse : done->lse;
        const double low = done->lse - high;
        single ? job->kernels->f32.emit_shifted(x, block.size, high, low, out)
               : job->kernels->f64.emit_shifted(x, block.size, high, low, out);
    } else {
        const void *exps = work->exps + block.begin * job->itemsize;
        const struct xent_factor factor =
            xent_block_factor(&done->row, &work->sums[index], done->scale, single);
        single ? job->kernels->f32.emit(exps, block.size, factor, out)
               : job->kernels->f64.emit(exps, block.size, factor, out);
    }
    if (!contiguous) {
        copy_strided(values, stride, out, (ptrdiff_t)job->itemsize, block.size, job->itemsize);
    }
    if (has_target(job) && target_of(job, at) - block.begin < block.size) {
        values += (ptrdiff_t)(target_of(job, at) - block.begin) * stride;
        write_real(values, problem->dtype, xent_target_gradient(&done->row, done->scale));
    }
}

/* ---- Teams -------------------------------------------------------------------------------------
 */

static void run_rows(void *context, int member, int team) {
    const struct job *job = context;
    const struct workspace work = workspace_of(job, member);
    const struct xent_range rows = xent_share(job->rows, member, team);
    struct cursor at = at_row(job, rows.begin);
    for (size_t row = rows.begin; row < rows.end; row++) {
        for (size_t i = 0; i < job->blocks; i++) {
            reduce_block(job, &work, &at, i);
        }
        const struct emission done = finish(job, &work, &at, row);
        for (size_t i = 0; i < job->blocks && job->problem->output != XENT_NO_VALUES; i++) {
            emit_block(job, &work, &at, &done, i);
        }
        next_row(&at, job);
    }
}

/* One row, whose blocks a team shares. */
struct columns {
    const struct job *job;
    struct cursor at;
    struct emission done;
};

static void reduce_columns(void *context, int member, int team) {
    const struct columns *row = context;
    const struct workspace work = workspace_of(row->job, member);
    const struct xent_range blocks = xent_share(row->job->blocks, member, team);
    for (size_t i = blocks.begin; i < blocks.end; i++) {
        reduce_block(row->job, &work, &row->at, i);
    }
}

static void emit_columns(void *context, int member, int team) {
    const struct columns *row = context;
    const struct workspace work = workspace_of(row->job, member);
    const struct xent_range blocks = xent_share(row->job->blocks, member, team);
    for (size_t i = blocks.begin; i < blocks.end; i++) {
        emit_block(row->job, &work, &row->at, &row->done, i);
    }
}

static void run_columns(struct job *job) {
    const struct workspace work = workspace_of(job, 0);
    struct columns row = {.job = job, .at = at_row(job, 0)};
    for (size_t i = 0; i < job->rows; i++) {
        xent_parallel(job->plan.threads, reduce_columns, &row);
        row.done = finish(job, &work, &row.at, i);
        if (job->problem->output != XENT_NO_VALUES) {
            xent_parallel(job->plan.threads, emit_columns, &row);
        }
        next_row(&row.at, job);
    }
}

/* ---- The whole ---------------------------------------------------------------------------------
 */

static size_t count_rows(const struct xent_problem *problem) {
    size_t rows = 1;
    for (size_t dim = 0; dim < problem->row_dims; dim++) {
        rows *= problem->row_shape[dim];
    }
    return rows;
}

/* Every target, before anything is written. */
static enum xent_status check_targets(const struct job *job, size_t *bad_row) {
    struct cursor at = {.offset = {0}};
    for (size_t row = 0; row < job->rows; row++) {
        const uint64_t class = read_class(address(job, TARGET, &at), job->problem->target_type);
        if (class >= job->problem->classes) {
            *bad_row = row;
            return XENT_TARGET_OUT_OF_RANGE;
        }
        next_row(&at, job);
    }
    return XENT_OK;
}

static enum xent_status check(const struct xent_problem *problem) {
    const bool values = problem->output != XENT_NO_VALUES;
    const bool needs_target = problem->output == XENT_GRADIENT || problem->loss;
    const bool good =
        problem->row_dims <= XENT_MAX_ROW_DIMS && problem->classes >= 1 && problem->threads >= 1 &&
        problem->logits.data && values == (problem->values.data != NULL) &&
        (!needs_target || problem->target.data) && (!problem->loss_sum || problem->loss);
    return good ? XENT_OK : XENT_BAD_PROBLEM;
}

/* Pairwise, so that the error grows with log(n), and in an order that depends on n alone. */
static double sum_of(const double *values, size_t n) {
    enum { FEW = 64 };
    if (n > FEW) {
        return sum_of(values, n / 2) + sum_of(values + n / 2, n - n / 2);
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += values[i];
    }
    return sum;
}

enum xent_status xent_run(struct xent_problem *problem) {
    struct job job = {
        .problem = problem,
        .arrays = {[LOGITS] = problem->logits,
                   [VALUES] = problem->values,
                   [TARGET] = problem->target,
                   [UPSTREAM] = problem->upstream,
                   [LSE_IN] = problem->lse_in},
        .rows = count_rows(problem),
        .blocks = (problem->classes + XENT_BLOCK - 1) / XENT_BLOCK,
        .itemsize = problem->dtype == XENT_F32 ? sizeof(float) : sizeof(double),
    };
    enum xent_status status = check(problem);
    if (status == XENT_OK) {
        status = xent_select_kernels(&job.kernels);
    }
    if (status == XENT_OK && has_target(&job)) {
        status = check_targets(&job, &problem->bad_row);
    }
    if (status != XENT_OK) {
        return status;
    }
    if (job.rows == 0) {
        if (problem->loss_sum) {
            *problem->loss_sum = 0;
        }
        return XENT_OK;
    }
    job.plan = xent_plan(job.rows, problem->classes, problem->threads);
    if (!allocate_workspaces(&job)) {
        return XENT_NO_MEMORY;
    }
    if (job.plan.by_columns) {
        run_columns(&job);
    } else {
        xent_parallel(job.plan.threads, run_rows, &job);
    }
    if (problem->loss_sum) {
        *problem->loss_sum = sum_of(problem->loss, job.rows);
    }
    free(job.memory);
    return XENT_OK;
}
