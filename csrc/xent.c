/* The entry point: check, plan, run. Carries the rows of strided arrays through
 * load -> reduce -> finish -> emit; knows neither the instruction set nor how threads are made. */
#include "xent.h"

#include "dispatch.h"
#include "kernels.h"
#include "parallel.h"
#include "plan.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The arrays with row strides that a cursor walks together. */
enum array { LOGITS, VALUES, TARGET, UPSTREAM, LSE_IN, ARRAYS };

struct job {
    const struct xent_problem *problem;
    const struct xent_row_kernels *kernels; /* of the problem's dtype */
    const struct xent_finish_kernels *finish;
    struct xent_plan plan;
    struct xent_array arrays[ARRAYS];
    size_t rows, blocks, itemsize;
    char *memory; /* the workspaces of all members, one after the other */
    size_t sums_size, exps_size, load_size, store_size, workspace_size;
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

static bool is_contiguous(const struct job *job, ptrdiff_t stride) {
    return stride == (ptrdiff_t)job->itemsize;
}

static struct block block_at(const struct job *job, size_t index) {
    const size_t begin = index * XENT_BLOCK, left = job->problem->classes - begin;
    return (struct block){begin, left < XENT_BLOCK ? left : XENT_BLOCK};
}

/* ---- One thread's own memory ----------------------------------------------------------------- */

/* What is kept of a row between reduce and emit. */
struct row_space {
    struct xent_rows *scalars; /* of which this row is the first */
    struct xent_sum *sums;     /* of every block */
    char *exps; /* of every class, see place_exps; NULL where nothing is emitted from them */
};

/* Two rows, because one is emitted while the next is reduced. */
struct workspace {
    struct row_space rows[2];
    char *load, *store; /* one block each; not used where logits or values are contiguous */
};

enum { CACHE_LINE = 64, PAGE = 4096 };

static size_t whole_lines(size_t size) { return (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }

/* False if there is no memory. Everything is allocated here, before anything is written. */
static bool allocate_workspaces(struct job *job) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = problem->output == XENT_GRADIENT || problem->output == XENT_SOFTMAX;
    const bool stores = problem->output != XENT_NO_VALUES;
    const size_t block_size = whole_lines(XENT_BLOCK * job->itemsize);
    job->sums_size =
        whole_lines(sizeof(struct xent_rows)) + whole_lines(job->blocks * sizeof(struct xent_sum));
    job->exps_size = from_exps ? whole_lines(problem->classes * job->itemsize) + PAGE : 0;
    job->load_size = is_contiguous(job, problem->logits_stride) ? 0 : block_size;
    job->store_size = !stores || is_contiguous(job, problem->values_stride) ? 0 : block_size;
    job->workspace_size = 2 * (job->sums_size + job->exps_size) + job->load_size + job->store_size;
    job->memory = aligned_alloc(CACHE_LINE, job->workspace_size * (size_t)job->plan.threads);
    return job->memory != NULL;
}

static struct workspace workspace_of(const struct job *job, int member) {
    char *p = job->memory + job->workspace_size * (size_t)member;
    struct workspace work;
    work.load = p;
    work.store = p += job->load_size;
    p += job->store_size;
    for (int i = 0; i < 2; i++) {
        work.rows[i].scalars = (struct xent_rows *)(void *)p;
        work.rows[i].sums = (struct xent_sum *)(void *)(p + whole_lines(sizeof(struct xent_rows)));
        work.rows[i].exps = job->exps_size ? p + job->sums_size : NULL;
        p += job->sums_size + job->exps_size;
    }
    return work;
}

/* A load that shares its low address bits with a store just before it waits for that store. So the
 * exponentials are moved away from the logits, modulo a page: by a quarter of it in one row and by
 * three in the next, which is reduced while the first is emitted. */
static struct row_space place_exps(struct row_space space, const char *logits, size_t row_index) {
    if (space.exps) {
        const uintptr_t wanted = (uintptr_t)logits + (row_index % 2 * 2 + 1) * (PAGE / 4);
        space.exps += (wanted - (uintptr_t)space.exps) % PAGE / CACHE_LINE * CACHE_LINE;
    }
    return space;
}

/* ---- load -> reduce -> finish -> emit ----------------------------------------------------------
 */

static bool has_target(const struct job *job) { return job->arrays[TARGET].data != NULL; }

static bool has_values(const struct job *job) { return job->problem->output != XENT_NO_VALUES; }

/* A block's logits, contiguous: where they are, or gathered. */
static const void *load(const struct job *job, char *buffer, const struct cursor *at,
                        struct block block) {
    const ptrdiff_t stride = job->problem->logits_stride;
    const char *p = address(job, LOGITS, at) + (ptrdiff_t)block.begin * stride;
    if (is_contiguous(job, stride)) {
        return p;
    }
    copy_strided(buffer, (ptrdiff_t)job->itemsize, p, stride, block.size, job->itemsize);
    return buffer;
}

/* A row on its way through the pipeline. */
struct row {
    struct cursor at;
    struct row_space space;
    size_t target; /* the class that is kept out of the sum of the others; SIZE_MAX: none */
};

static double logit_of(const struct job *job, const struct cursor *at, size_t class) {
    const char *p = address(job, LOGITS, at) + (ptrdiff_t)class * job->problem->logits_stride;
    return read_real(p, job->problem->dtype);
}

/* The first of the largest logits; SIZE_MAX if all are NaN. */
static size_t largest_of(const struct job *job, const struct cursor *at, char *buffer) {
    double largest = -INFINITY;
    for (size_t i = 0; i < job->blocks; i++) {
        const struct block block = block_at(job, i);
        const void *x = load(job, buffer, at, block);
        const double m = job->kernels->largest(x, block.size, SIZE_MAX);
        largest = m > largest ? m : largest;
    }
    for (size_t class = 0; class < job->problem->classes; class++) {
        if (logit_of(job, at, class) == largest) {
            return class;
        }
    }
    return SIZE_MAX;
}

static struct row begin_row(const struct job *job, const struct cursor *at,
                            const struct workspace *work, size_t index) {
    struct row row = {.at = *at, .target = SIZE_MAX};
    row.space = place_exps(work->rows[index % 2], address(job, LOGITS, at), index);
    if (has_target(job)) {
        row.target = (size_t)read_class(address(job, TARGET, at), job->problem->target_type);
    } else if (job->problem->output == XENT_LOG_SOFTMAX) {
        row.target = largest_of(job, at, work->load);
    }
    return row;
}

static bool block_has(struct block block, size_t class) {
    return class - block.begin < block.size; /* the difference wraps where class is before */
}

/* The block that is reduced after this one, if its largest class can be found on the way: the next
 * of the row, or the first of the next row, which may be NULL. */
static const void *block_ahead(const struct job *job, const struct row *row, size_t index,
                               const struct cursor *next_row) {
    const size_t next = index + 1 < job->blocks ? index + 1 : 0;
    const struct cursor *at = next > 0 ? &row->at : next_row;
    if (!at || !is_contiguous(job, job->problem->logits_stride) ||
        block_at(job, next).size != block_at(job, index).size) {
        return NULL;
    }
    return load(job, NULL, at, block_at(job, next));
}

/* The largest class of a block, found while the block before was reduced. It counts unless it may
 * be the target, which is not among the classes of the sum. */
struct found {
    bool known;
    double max;
};

static double largest_of_block(const struct job *job, const struct row *row, const void *x,
                               struct block block, size_t skip, struct found found) {
    if (found.known && (skip == SIZE_MAX || logit_of(job, &row->at, row->target) < found.max)) {
        return found.max;
    }
    return job->kernels->largest(x, block.size, skip);
}

static struct found reduce_block(const struct job *job, const struct row *row, char *buffer,
                                 size_t index, struct found found, struct xent_aside aside) {
    const struct block block = block_at(job, index);
    const void *x = load(job, buffer, &row->at, block);
    const size_t skip = block_has(block, row->target) ? row->target - block.begin : SIZE_MAX;
    const double max = largest_of_block(job, row, x, block, skip, found);
    aside.exps = row->space.exps ? row->space.exps + block.begin * job->itemsize : NULL;
    row->space.sums[index] = job->kernels->reduce(x, block.size, skip, max, &aside);
    return (struct found){aside.ahead != NULL, aside.ahead_max};
}

/* The row's lse. Near zero, the logarithm of a sum near one, it has few digits of its own right:
 * there the sum is formed again, more precisely. */
static double lse_of(const struct job *job, const struct workspace *work, const struct row *row,
                     double lse) {
    const double near = 0.5;
    if (!(fabs(lse) < near)) {
        return lse;
    }
    struct two sum = {0, 0};
    for (size_t i = 0; i < job->blocks; i++) {
        const struct block block = block_at(job, i);
        job->kernels->sum_precisely(load(job, work->load, &row->at, block), block.size, &sum);
    }
    return job->finish->log_near_one(sum);
}

/* Merges the row's blocks, and writes its loss and lse. */
static void finish_row(const struct job *job, const struct workspace *work, const struct row *row,
                       size_t row_index) {
    const struct xent_problem *problem = job->problem;
    const struct cursor *at = &row->at;
    struct xent_rows *scalars = row->space.scalars;
    const struct xent_sum sum = job->finish->merge(row->space.sums, job->blocks);
    scalars->others[0] = sum.sum;
    scalars->others_low[0] = sum.low;
    scalars->exponent[0] = sum.exponent;
    scalars->shift[0] = sum.shift;
    scalars->target_logit[0] = row->target == SIZE_MAX ? -INFINITY : logit_of(job, at, row->target);
    scalars->upstream[0] = job->arrays[UPSTREAM].data
                               ? read_real(address(job, UPSTREAM, at), XENT_F64)
                               : problem->upstream_scalar;
    const bool by_lse = job->arrays[LSE_IN].data != NULL;
    if (by_lse) {
        scalars->lse_in[0] = read_real(address(job, LSE_IN, at), XENT_F64);
    }
    job->finish->finish(scalars, 1, by_lse, problem->dtype == XENT_F32);
    if (problem->loss) {
        problem->loss[row_index] = scalars->loss[0];
    }
    if (problem->lse) {
        problem->lse[row_index] = lse_of(job, work, row, scalars->lse[0]);
    }
}

static char *values_of(const struct job *job, const struct row *row, size_t class) {
    return address(job, VALUES, &row->at) + (ptrdiff_t)class * job->problem->values_stride;
}

/* Where a block's values go first: to their place, or to a buffer if that is strided. */
static void *store_to(const struct job *job, const struct row *row, char *buffer,
                      struct block block) {
    const bool direct = is_contiguous(job, job->problem->values_stride);
    return direct ? values_of(job, row, block.begin) : buffer;
}

/* A block of upstream * softmax; nothing for log_softmax. */
static struct xent_emission emission_of(const struct job *job, const struct row *row,
                                        const struct workspace *work, size_t index) {
    if (!row->space.exps) {
        return (struct xent_emission){.exps = NULL};
    }
    const struct block block = block_at(job, index);
    const bool single = job->problem->dtype == XENT_F32;
    return (struct xent_emission){
        .exps = row->space.exps + block.begin * job->itemsize,
        .out = store_to(job, row, work->store, block),
        .factor = job->finish->factor(row->space.scalars, 0, &row->space.sums[index], single),
        .stream = job->plan.stream,
    };
}

/* What is left of a block once its emission is done.
 * log q_j = (x_j - x_m) - loss_m with x_m the largest: both are negative, so nothing cancels. */
static void complete_block(const struct job *job, const struct row *row,
                           const struct workspace *work, size_t index) {
    const struct xent_problem *problem = job->problem;
    const struct block block = block_at(job, index);
    void *const out = store_to(job, row, work->store, block);
    if (problem->output == XENT_LOG_SOFTMAX) {
        const void *x = load(job, work->load, &row->at, block);
        job->kernels->emit_shifted(x, block.size, row->space.scalars->target_logit[0],
                                   row->space.scalars->loss[0], out);
    }
    if (out == work->store) {
        copy_strided(values_of(job, row, block.begin), problem->values_stride, out,
                     (ptrdiff_t)job->itemsize, block.size, job->itemsize);
    }
    if (problem->output == XENT_GRADIENT && block_has(block, row->target)) {
        write_real(values_of(job, row, row->target), problem->dtype,
                   row->space.scalars->target_gradient[0]);
    }
}

static void emit_block(const struct job *job, const struct row *row, const struct workspace *work,
                       size_t index) {
    const struct xent_emission emission = emission_of(job, row, work, index);
    if (emission.exps) {
        job->kernels->emit(&emission, block_at(job, index).size);
    }
    complete_block(job, row, work, index);
}

/* ---- Teams -------------------------------------------------------------------------------------
 */

/* A row is emitted while the next one is reduced, block by block, so that the memory writes the one
 * while it reads the other. */
static void run_rows(void *context, int member, int team) {
    const struct job *job = context;
    const struct workspace work = workspace_of(job, member);
    const struct xent_range range = xent_share(job->rows, member, team);
    struct cursor at = at_row(job, range.begin);
    struct row rows[2];
    const struct row *last = NULL;
    struct found found = {0};
    for (size_t index = range.begin; index < range.end; index++) {
        struct row *row = &rows[index % 2];
        *row = begin_row(job, &at, &work, index);
        next_row(&at, job);
        for (size_t i = 0; i < job->blocks; i++) {
            struct xent_aside aside = {
                .ahead = block_ahead(job, row, i, index + 1 < range.end ? &at : NULL),
            };
            if (last) {
                aside.emission = emission_of(job, last, &work, i);
            }
            found = reduce_block(job, row, work.load, i, found, aside);
            if (last) {
                complete_block(job, last, &work, i);
            }
        }
        finish_row(job, &work, row, index);
        last = has_values(job) ? row : NULL;
    }
    for (size_t i = 0; last && i < job->blocks; i++) {
        emit_block(job, last, &work, i);
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

/* One row, whose blocks a team shares. */
struct columns {
    const struct job *job;
    struct row row;
    size_t index;
};

static void reduce_columns(void *context, int member, int team) {
    const struct columns *columns = context;
    const struct job *job = columns->job;
    const struct workspace work = workspace_of(job, member);
    const struct xent_range blocks = xent_share(job->blocks, member, team);
    struct found found = {0};
    for (size_t i = blocks.begin; i < blocks.end; i++) {
        const void *ahead = block_ahead(job, &columns->row, i, NULL);
        found = reduce_block(job, &columns->row, work.load, i, found,
                             (struct xent_aside){.ahead = i + 1 < blocks.end ? ahead : NULL});
    }
}

static void emit_columns(void *context, int member, int team) {
    const struct columns *columns = context;
    const struct job *job = columns->job;
    const struct workspace work = workspace_of(job, member);
    const struct xent_range blocks = xent_share(job->blocks, member, team);
    for (size_t i = blocks.begin; i < blocks.end; i++) {
        emit_block(job, &columns->row, &work, i);
    }
    atomic_thread_fence(memory_order_seq_cst);
}

static void finish_columns(void *context, int member, int team) {
    (void)team;
    const struct columns *columns = context;
    const struct workspace work = workspace_of(columns->job, member);
    finish_row(columns->job, &work, &columns->row, columns->index);
}

static void run_columns(struct job *job) {
    const struct workspace work = workspace_of(job, 0);
    struct columns columns = {.job = job};
    struct cursor at = at_row(job, 0);
    for (; columns.index < job->rows; columns.index++) {
        columns.row = begin_row(job, &at, &work, columns.index);
        xent_parallel(job->plan.threads, reduce_columns, &columns);
        xent_parallel(1, finish_columns, &columns);
        if (has_values(job)) {
            xent_parallel(job->plan.threads, emit_columns, &columns);
        }
        next_row(&at, job);
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
    const struct xent_kernels *kernels = NULL;
    enum xent_status status = check(problem);
    if (status == XENT_OK) {
        status = xent_select_kernels(&kernels);
    }
    if (status == XENT_OK && has_target(&job)) {
        status = check_targets(&job, &problem->bad_row);
    }
    if (status != XENT_OK) {
        return status;
    }
    job.kernels = problem->dtype == XENT_F32 ? &kernels->f32 : &kernels->f64;
    job.finish = &kernels->finish;
    if (job.rows == 0) {
        if (problem->loss_sum) {
            *problem->loss_sum = 0;
        }
        return XENT_OK;
    }
    job.plan = xent_plan(problem, job.rows);
    if (!allocate_workspaces(&job)) {
        return XENT_NO_MEMORY;
    }
    if (job.plan.by_columns) {
        run_columns(&job);
    } else {
        xent_parallel(job.plan.threads, run_rows, &job);
    }
    if (problem->loss_sum) {
        *problem->loss_sum = job.finish->total(problem->loss, job.rows);
    }
    free(job.memory);
    return XENT_OK;
}
