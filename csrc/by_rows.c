/* Rows one after the other, each in blocks of contiguous classes. Knows neither the instruction set
 * nor how threads are made. */
#include "finish.h"
#include "parallel.h"
#include "regimes.h"

#include <math.h>
#include <stdatomic.h>

struct block {
    size_t begin, size; /* in classes */
};

static size_t count_blocks(const struct xent_job *job) {
    return (job->problem->classes + XENT_BLOCK - 1) / XENT_BLOCK;
}

static struct block block_at(const struct xent_job *job, size_t index) {
    const size_t begin = index * XENT_BLOCK, left = job->problem->classes - begin;
    return (struct block){begin, left < XENT_BLOCK ? left : XENT_BLOCK};
}

/* ---- One thread's own memory ----------------------------------------------------------------- */

/* What is kept of a row between reduce and emit. */
struct row_space {
    struct xent_sum *sums; /* of every block */
    char *exps; /* of every class, see place_exps; NULL where nothing is emitted from them */
};

/* Two batches of rows, because one is emitted while the next is reduced. */
struct workspace {
    struct xent_rows *scalars[2];
    struct row_space rows[2 * XENT_ROWS];
    size_t spaces;      /* so many of them */
    char *load, *store; /* one block each; not used where logits or values are contiguous */
};

/* Rows that are reduced before they are finished together: the scalars of one take nearly as long
 * as those of a vector. Where they are emitted, two batches of exponentials have to stay in the L2
 * cache; beside many classes the scalars do not weigh. */
static size_t batch_size(const struct xent_job *job) {
    const size_t emitted = count_blocks(job) == 1 ? 8 : 1;
    return xent_has(job, VALUES) ? emitted : XENT_ROWS;
}

enum { PAGE = 4096 };

/* The sizes of the parts of a workspace. */
struct layout {
    size_t spaces, scalars, sums, exps, load, store;
};

static struct layout layout_of(const struct xent_job *job) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = problem->output == XENT_GRADIENT || problem->output == XENT_SOFTMAX;
    const bool gathers = !xent_is_contiguous(job, problem->logits_stride);
    const bool scatters = xent_has(job, VALUES) && !xent_is_contiguous(job, problem->values_stride);
    const size_t block = xent_whole_lines(XENT_BLOCK * job->itemsize);
    return (struct layout){
        .spaces = xent_has(job, VALUES) ? 2 * batch_size(job) : 1,
        .scalars = xent_whole_lines(sizeof(struct xent_rows)),
        .sums = xent_whole_lines(count_blocks(job) * sizeof(struct xent_sum)),
        .exps = from_exps ? xent_whole_lines(problem->classes * job->itemsize) + PAGE : 0,
        .load = gathers ? block : 0,
        .store = scatters ? block : 0,
    };
}

size_t xent_rows_workspace(const struct xent_job *job) {
    const struct layout size = layout_of(job);
    return 2 * size.scalars + size.spaces * (size.sums + size.exps) + size.load + size.store;
}

static struct workspace workspace_of(const struct xent_job *job, int member) {
    const struct layout size = layout_of(job);
    struct workspace work;
    char *p = xent_workspace(job, member);
    for (int i = 0; i < 2; i++) {
        work.scalars[i] = (struct xent_rows *)(void *)p;
        p += size.scalars;
    }
    work.spaces = size.spaces;
    for (size_t i = 0; i < size.spaces; i++) {
        work.rows[i].sums = (struct xent_sum *)(void *)p;
        p += size.sums;
        work.rows[i].exps = size.exps ? p : NULL;
        p += size.exps;
    }
    work.load = p;
    work.store = p + size.load;
    return work;
}

/* A load that shares its low address bits with a store just before it waits for that store. So the
 * exponentials are moved away from the logits, modulo a page: by a quarter of it in one batch and
 * by three in the next, which is reduced while the first is emitted. */
static struct row_space place_exps(struct row_space space, const char *logits, size_t batch) {
    if (space.exps) {
        const uintptr_t wanted = (uintptr_t)logits + (batch % 2 * 2 + 1) * (PAGE / 4);
        space.exps += (wanted - (uintptr_t)space.exps) % PAGE / XENT_CACHE_LINE * XENT_CACHE_LINE;
    }
    return space;
}

/* ---- load -> reduce -> finish -> emit ----------------------------------------------------------
 */

/* A row on its way through the pipeline. */
struct row {
    struct xent_place at;
    struct row_space space;
    struct xent_rows *scalars;
    size_t lane;   /* of the scalars */
    size_t target; /* the class that is kept out of the sum of the others; XENT_NO_CLASS: none */
};

/* The first of the largest logits; XENT_NO_CLASS if all are NaN. */
static size_t largest_of(const struct xent_job *job, const struct xent_place *at, char *buffer) {
    double largest = -INFINITY;
    for (size_t i = 0; i < count_blocks(job); i++) {
        const struct block block = block_at(job, i);
        const void *x = xent_load(job, at, block.begin, block.size, buffer);
        const double m = job->kernels->largest(x, block.size, XENT_NO_CLASS);
        largest = m > largest ? m : largest;
    }
    for (size_t class = 0; class < job->problem->classes; class++) {
        if (xent_logit(job, at, class) == largest) {
            return class;
        }
    }
    return XENT_NO_CLASS;
}

/* The n-th row that is worked on. */
static struct row begin_row(const struct xent_job *job, const struct xent_place *at,
                            const struct workspace *work, size_t n) {
    const size_t batch = n / batch_size(job);
    struct row row = {
        .at = *at,
        .space = place_exps(work->rows[n % work->spaces], xent_address(job, LOGITS, at), batch),
        .scalars = work->scalars[batch % 2],
        .lane = n % batch_size(job),
        .target = XENT_NO_CLASS,
    };
    if (xent_has(job, TARGET)) {
        row.target = xent_read_class(job, at);
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
static const void *block_ahead(const struct xent_job *job, const struct row *row, size_t index,
                               const struct xent_place *next_row) {
    const size_t next = index + 1 < count_blocks(job) ? index + 1 : 0;
    const struct xent_place *at = next > 0 ? &row->at : next_row;
    if (!at || !xent_is_contiguous(job, job->problem->logits_stride) ||
        block_at(job, next).size != block_at(job, index).size) {
        return NULL;
    }
    return xent_load(job, at, block_at(job, next).begin, 0, NULL);
}

/* The largest class of a block, found while the block before was reduced. It counts unless it may
 * be the target, which is not among the classes of the sum. */
struct found {
    bool known;
    double max;
};

static double largest_of_block(const struct xent_job *job, const struct row *row, const void *x,
                               struct block block, size_t skip, struct found found) {
    if (found.known &&
        (skip == XENT_NO_CLASS || xent_logit(job, &row->at, row->target) < found.max)) {
        return found.max;
    }
    return job->kernels->largest(x, block.size, skip);
}

static struct found reduce_block(const struct xent_job *job, const struct row *row, char *buffer,
                                 size_t index, struct found found, struct xent_aside aside) {
    const struct block block = block_at(job, index);
    const void *x = xent_load(job, &row->at, block.begin, block.size, buffer);
    const size_t skip = block_has(block, row->target) ? row->target - block.begin : XENT_NO_CLASS;
    const double max = largest_of_block(job, row, x, block, skip, found);
    aside.exps = row->space.exps ? row->space.exps + block.begin * job->itemsize : NULL;
    row->space.sums[index] = job->kernels->reduce(x, block.size, skip, max, &aside);
    return (struct found){aside.ahead != NULL, aside.ahead_max};
}

/* Merges the row's blocks into its lane of the scalars, ready to be finished. */
static void merge_row(const struct xent_job *job, const struct row *row) {
    struct xent_rows *const scalars = row->scalars;
    const size_t lane = row->lane;
    const struct xent_sum sum = job->finish->merge(row->space.sums, count_blocks(job));
    scalars->others[lane] = sum.sum;
    scalars->others_low[lane] = sum.low;
    scalars->exponent[lane] = sum.exponent;
    scalars->shift[lane] = sum.shift;
    scalars->target_logit[lane] =
        row->target == XENT_NO_CLASS ? -INFINITY : xent_logit(job, &row->at, row->target);
    xent_take_rows(job, &row->at, 1, scalars, lane);
}

static char *values_of(const struct xent_job *job, const struct row *row, size_t class) {
    return xent_address(job, VALUES, &row->at) + (ptrdiff_t)class * job->problem->values_stride;
}

/* Where a block's values go first: to their place, or to a buffer if that is strided. */
static void *store_to(const struct xent_job *job, const struct row *row, char *buffer,
                      struct block block) {
    const bool direct = xent_is_contiguous(job, job->problem->values_stride);
    return direct ? values_of(job, row, block.begin) : buffer;
}

/* A block of upstream * softmax; nothing for log_softmax. */
static struct xent_emission emission_of(const struct xent_job *job, const struct row *row,
                                        const struct workspace *work, size_t index) {
    if (!row->space.exps) {
        return (struct xent_emission){.exps = NULL};
    }
    const struct block block = block_at(job, index);
    return (struct xent_emission){
        .exps = row->space.exps + block.begin * job->itemsize,
        .out = store_to(job, row, work->store, block),
        .factor =
            job->finish->factor(row->scalars, row->lane, &row->space.sums[index], job->single),
        .stream = job->plan.stream,
    };
}

/* What is left of a block once its emission is done.
 * log q_j = (x_j - x_m) - loss_m with x_m the largest: both are negative, so nothing cancels. */
static void complete_block(const struct xent_job *job, const struct row *row,
                           const struct workspace *work, size_t index) {
    const struct xent_problem *problem = job->problem;
    const struct block block = block_at(job, index);
    void *const out = store_to(job, row, work->store, block);
    if (problem->output == XENT_LOG_SOFTMAX) {
        const void *x = xent_load(job, &row->at, block.begin, block.size, work->load);
        job->kernels->emit_shifted(x, block.size, row->scalars->target_logit[row->lane],
                                   row->scalars->loss[row->lane], out);
    }
    if (out == work->store) {
        xent_store(job, &row->at, block.begin, block.size, out);
    }
    if (problem->output == XENT_GRADIENT && block_has(block, row->target)) {
        xent_write_value(job, values_of(job, row, row->target),
                         row->scalars->target_gradient[row->lane]);
    }
}

static void emit_block(const struct xent_job *job, const struct row *row,
                       const struct workspace *work, size_t index) {
    const struct xent_emission emission = emission_of(job, row, work, index);
    if (emission.exps) {
        job->kernels->emit(&emission, block_at(job, index).size);
    }
    complete_block(job, row, work, index);
}

/* ---- Teams -------------------------------------------------------------------------------------
 */

/* A batch of rows is emitted while the next one is reduced, block by block, so that the memory
 * writes the one while it reads the other. */
static void run_rows(void *context, int member, int team) {
    const struct xent_job *job = context;
    const struct workspace work = workspace_of(job, member);
    const struct xent_range range = xent_share(job->rows, member, team);
    const size_t count = range.end - range.begin, batch = batch_size(job);
    const bool emits = xent_has(job, VALUES);
    struct xent_cursor at = xent_at_row(job, range.begin);
    struct row rows[2 * XENT_ROWS];
    struct found found = {0};
    for (size_t n = 0; n < count; n++) {
        struct row *const row = &rows[n % (2 * batch)];
        const struct row *last = emits && n >= batch ? &rows[(n - batch) % (2 * batch)] : NULL;
        *row = begin_row(job, &at.place, &work, n);
        xent_advance(&at, job, 1);
        for (size_t i = 0; i < count_blocks(job); i++) {
            struct xent_aside aside = {
                .ahead = block_ahead(job, row, i, n + 1 < count ? &at.place : NULL),
            };
            if (last) {
                aside.emission = emission_of(job, last, &work, i);
            }
            found = reduce_block(job, row, work.load, i, found, aside);
            if (last) {
                complete_block(job, last, &work, i);
            }
        }
        merge_row(job, row);
        if (row->lane + 1 == batch || n + 1 == count) {
            xent_finish_rows(job, row->scalars, range.begin + n - row->lane, row->lane + 1);
        }
    }
    for (size_t n = count > batch ? count - batch : 0; emits && n < count; n++) {
        for (size_t i = 0; i < count_blocks(job); i++) {
            emit_block(job, &rows[n % (2 * batch)], &work, i);
        }
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

void xent_run_rows(struct xent_job *job) { xent_parallel(job->plan.threads, run_rows, job); }

/* ---- Rows whose blocks a team shares -----------------------------------------------------------
 */

/* In every stage a row is reduced while the one before it is emitted, as in run_rows. */
struct columns {
    const struct xent_job *job;
    struct workspace work; /* of the rows; members have their own for a block */
    struct xent_cursor at; /* of the row that is reduced */
    struct row rows[2];
};

static void begin_columns(struct columns *columns, size_t index) {
    const size_t n = xent_has(columns->job, VALUES) ? index : 0; /* each is finished by itself */
    columns->rows[index % 2] = begin_row(columns->job, &columns->at.place, &columns->work, n);
}

static void begin_first_column(void *context, int member, int team) {
    (void)member, (void)team;
    begin_columns(context, 0);
}

static void run_column_blocks(void *context, int member, size_t stage, struct xent_parts *parts) {
    const struct columns *columns = context;
    const struct xent_job *job = columns->job;
    const struct workspace work = workspace_of(job, member);
    const struct row *row = stage < job->rows ? &columns->rows[stage % 2] : NULL;
    const bool emits = stage > 0 && xent_has(job, VALUES);
    const struct row *last = emits ? &columns->rows[(stage - 1) % 2] : NULL;
    struct found found = {0};
    for (size_t i = xent_take_part(parts), next; i != XENT_NO_PART; i = next) {
        next = xent_take_part(parts);
        struct xent_aside aside = {.ahead = NULL};
        if (row && next == i + 1) {
            aside.ahead = block_ahead(job, row, i, NULL);
        }
        if (row && last) {
            aside.emission = emission_of(job, last, &work, i);
        }
        if (row) {
            found = reduce_block(job, row, work.load, i, found, aside);
        }
        if (row && last) {
            complete_block(job, last, &work, i);
        } else if (last) {
            emit_block(job, last, &work, i);
        }
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

static void between_columns(void *context, size_t stage) {
    struct columns *columns = context;
    const struct xent_job *job = columns->job;
    if (stage >= job->rows) {
        return;
    }
    const struct row *row = &columns->rows[stage % 2];
    merge_row(job, row);
    xent_finish_rows(job, row->scalars, stage, 1);
    if (stage + 1 < job->rows) {
        xent_advance(&columns->at, job, 1);
        begin_columns(columns, stage + 1);
    }
}

void xent_run_columns(struct xent_job *job) {
    struct columns columns = {.job = job, .work = workspace_of(job, 0), .at = xent_at_row(job, 0)};
    xent_parallel(1, begin_first_column, &columns); /* in the default environment */
    const struct xent_stages stages = {
        .count = job->rows + xent_has(job, VALUES),
        .parts = count_blocks(job),
        .work = run_column_blocks,
        .between = between_columns,
    };
    xent_parallel_stages(job->plan.threads, &stages, &columns);
}
