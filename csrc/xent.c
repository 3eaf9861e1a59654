/* The entry point: check, plan, run. Knows neither the instruction set nor how threads are made. */
#include "xent.h"

#include "dispatch.h"
#include "job.h"
#include "options.h"
#include "parallel.h"
#include "regimes.h"
#include "total.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Of a whole row. */
static size_t count_classes(const struct xent_job *job) {
    return job->knows_whole ? job->problem->statistics->classes : job->problem->classes;
}

/* A search for the first row whose target is no class. */
struct target_check {
    const struct xent_job *job;
    atomic_size_t bad_row; /* SIZE_MAX: none so far */
};

static bool is_ignored(const struct xent_job *job, size_t class) {
    return job->options && job->options->ignores && xent_has(job, TARGET) &&
           class == (size_t)job->options->ignored;
}

/* The first of n targets that is no class; n: all are. */
static size_t find_bad(const struct xent_job *job, const size_t *class, size_t n) {
    const size_t classes = count_classes(job);
    size_t below = 0; /* its sign is set if any class, or what is left to the last one, has it */
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i++) {
        below |= class[i] | (classes - 1 - class[i]);
    }
    for (size_t i = 0; below > SIZE_MAX / 2 && i < n; i++) {
        if (class[i] >= classes && !is_ignored(job, class[i])) {
            return i;
        }
    }
    return n;
}

static void check_share(void *context, int member, int team) {
    enum { MANY = 256 };
    struct target_check *const check = context;
    const struct xent_job *const job = check->job;
    const struct xent_range range = xent_share(job->rows, member, team);
    struct xent_cursor at;
    xent_at_row(job, range.begin, &at);
    for (size_t row = range.begin, n; row < range.end; row += n) {
        size_t buffer[MANY];
        n = xent_smaller(xent_smaller(xent_rows_in_line(&at, job), MANY), range.end - row);
        const char *const target = xent_address(job, TARGET, &at.place);
        const size_t *const class = xent_find_classes(job, target, n, buffer);
        const size_t bad = find_bad(job, class, n);
        if (bad < n) {
            size_t first = atomic_load(&check->bad_row);
            while (row + bad < first &&
                   !atomic_compare_exchange_weak(&check->bad_row, &first, row + bad)) {
            }
            return;
        }
        xent_advance(&at, job, n);
    }
}

/* Every target, before anything is written. Where they are many, each thread looks at most of those
 * that it will read later: the others are in another's caches. */
static enum xent_status check_targets(const struct xent_job *job, size_t *bad_row) {
    const size_t many = 1 << 14;
    struct target_check check = {job, SIZE_MAX};
    xent_parallel(job->rows < many ? 1 : job->plan.threads, check_share, &check);
    if (check.bad_row == SIZE_MAX) {
        return XENT_OK;
    }
    *bad_row = check.bad_row;
    return XENT_TARGET_OUT_OF_RANGE;
}

/* And every class that a label lists. */
static enum xent_status check_listed(const struct xent_job *job, struct xent_problem *problem) {
    enum { MANY = 64 };
    const size_t listed = job->options->labels.listed;
    struct xent_cursor at;
    xent_at_row(job, 0, &at);
    for (size_t row = 0; row < job->rows; row++) {
        for (size_t begin = 0, n; begin < listed; begin += n) {
            size_t class[MANY];
            n = xent_smaller(listed - begin, MANY);
            xent_read_indices(job, &at.place, begin, n, class);
            const size_t bad = find_bad(job, class, n);
            if (bad < n) {
                problem->bad_row = row;
                problem->bad_label = begin + bad;
                return XENT_TARGET_OUT_OF_RANGE;
            }
        }
        xent_advance(&at, job, 1);
    }
    return XENT_OK;
}

static bool is_good_scale(double scale) {
    return scale >= XENT_LEAST_SCALE && scale <= XENT_MOST_SCALE;
}

static bool good_options(const struct xent_options *options) {
    const struct xent_labels *labels = &options->labels;
    return is_good_scale(options->scale) &&
           (options->softcap == 0 || is_good_scale(options->softcap)) &&
           options->label_smoothing >= 0 && options->label_smoothing <= 1 && options->z_loss >= 0 &&
           (!labels->indices.data || labels->probabilities.data) &&
           (!labels->spread_tail || labels->indices.data);
}

static bool is_good_evaluation(const struct xent_problem *problem) {
    const struct xent_evaluation *wanted = problem->evaluation;
    const struct xent_options *options = problem->options;
    const bool plain = !options || xent_only_transform(options);
    const bool of_target = wanted->log_prob || wanted->rank;
    return plain && problem->output == XENT_NO_VALUES && !problem->loss && !problem->lse_in.data &&
           (!of_target || problem->target.data) &&
           (wanted->top_k == 0 || (wanted->top_log_probs && wanted->top_classes));
}

static bool are_good_statistics(const struct xent_problem *problem) {
    const struct xent_statistics *statistics = problem->statistics;
    const struct xent_options *options = problem->options;
    const bool listed = options && options->labels.indices.data;
    const bool values = problem->output != XENT_NO_VALUES;
    const bool results = values || problem->loss || problem->lse;
    const bool gradient = problem->output == XENT_GRADIENT;
    if (problem->evaluation || problem->lse_in.data || problem->curvature.data) {
        return false;
    }
    if (statistics->noted) {
        return !statistics->whole && !results && problem->classes >= 1 &&
               listed == (statistics->noted_listed != NULL);
    }
    return statistics->whole && statistics->blocks >= 1 &&
           listed == (statistics->whole_listed != NULL) && gradient == values &&
           gradient == (problem->classes >= 1) && statistics->offset <= statistics->classes &&
           problem->classes <= statistics->classes - statistics->offset;
}

/* An enumeration of another library's or language's may hold any number. */
static bool is_type(enum xent_dtype dtype) { return (unsigned)dtype <= XENT_BF16; }
static bool is_int(enum xent_int type) { return (unsigned)type <= XENT_U64; }

static bool have_known_types(const struct xent_problem *problem) {
    const struct xent_labels *labels = problem->options ? &problem->options->labels : NULL;
    return is_type(problem->dtype) && (unsigned)problem->output <= XENT_PRODUCT &&
           (!problem->target.data || is_int(problem->target_type)) &&
           (!problem->vector.data || is_type(problem->vector_dtype)) &&
           (!problem->curvature.data || (unsigned)problem->curvature_kind <= XENT_LIGHTGBM) &&
           (!labels || !labels->probabilities.data || is_type(labels->dtype)) &&
           (!labels || !labels->indices.data || is_int(labels->index_type));
}

static enum xent_status check(const struct xent_problem *problem) {
    const struct xent_options *options = problem->options;
    const bool partly = problem->statistics != NULL;
    const bool values = problem->output != XENT_NO_VALUES;
    const bool product = problem->output == XENT_PRODUCT, curves = problem->curvature.data != NULL;
    const bool needs_target =
        problem->output == XENT_GRADIENT || product || (problem->loss && !partly);
    const bool labels = options && options->labels.probabilities.data;
    const bool good = problem->row_dims <= XENT_MAX_ROW_DIMS && (partly || problem->classes >= 1) &&
                      problem->threads >= 0 && (problem->logits.data || problem->classes == 0) &&
                      have_known_types(problem) && values == (problem->values.data != NULL) &&
                      (!needs_target || problem->target.data || labels) &&
                      !(labels && problem->target.data) &&
                      (!problem->loss_reduced || problem->loss) && problem->denominator >= 0 &&
                      product == (problem->vector.data != NULL) &&
                      (!curves || problem->output == XENT_GRADIENT) &&
                      !((curves || product) && (problem->lse_in.data || problem->loss)) &&
                      (!options || good_options(options)) &&
                      (!problem->evaluation || is_good_evaluation(problem)) &&
                      (!partly || are_good_statistics(problem));
    return good ? XENT_OK : XENT_BAD_PROBLEM;
}

/* The class weights as the kernels want them. */
static void convert_weights(struct xent_job *job, char *to) {
    const struct xent_strided from = {(char *)(uintptr_t)job->options->class_weight, sizeof(double),
                                      XENT_F64, false};
    job->kernels->read(&from, job->problem->classes, to);
    job->class_weight = to;
}

/* Everything is allocated here, before anything is written. */
static enum xent_status run(struct xent_job *job) {
    static size_t (*const workspace_of[])(const struct xent_job *) = {
        [XENT_BY_LANES] = xent_lanes_workspace,
        [XENT_BY_ROWS] = xent_rows_workspace,
        [XENT_BY_GROUPS] = xent_groups_workspace,
        [XENT_BY_COLUMNS] = xent_rows_workspace};
    static void (*const run_by[])(struct xent_job *) = {[XENT_BY_LANES] = xent_run_lanes,
                                                        [XENT_BY_ROWS] = xent_run_rows,
                                                        [XENT_BY_GROUPS] = xent_run_groups,
                                                        [XENT_BY_COLUMNS] = xent_run_columns};
    const bool weights = job->options && job->options->class_weight;
    const size_t shared = weights ? xent_whole_lines(job->problem->classes * job->itemsize) : 0;
    job->workspace_size = workspace_of[job->plan.regime](job);
    /* What glibc's aligned_alloc cuts off at the ends keeps the rest from being used again. */
    const size_t size = job->workspace_size * (size_t)job->plan.threads + shared;
    char *const memory = malloc(size + XENT_CACHE_LINE);
    if (!memory) {
        return XENT_NO_MEMORY;
    }
    char *const aligned = memory + XENT_CACHE_LINE - (uintptr_t)memory % XENT_CACHE_LINE;
    job->memory = aligned + shared;
    if (weights) {
        convert_weights(job, aligned);
    }
    run_by[job->plan.regime](job);
    free(memory);
    return XENT_OK;
}

static enum xent_status check_labels(const struct xent_job *job, struct xent_problem *problem) {
    if (job->rows == 0 || job->notes_shard) {
        return XENT_OK; /* how many classes there are is known when shards are merged */
    }
    if (xent_has(job, TARGET)) {
        return check_targets(job, &problem->bad_row);
    }
    return xent_has(job, INDICES) ? check_listed(job, problem) : XENT_OK;
}

static enum xent_status run_in_default_environment(struct xent_problem *problem) {
    enum xent_status status = check(problem);
    const struct xent_kernels *kernels = NULL;
    if (status == XENT_OK) {
        status = xent_select_kernels(&kernels);
    }
    if (status != XENT_OK) {
        return status;
    }
    struct xent_job job;
    xent_make_job(problem, &job);
    job.kernels = job.single ? &kernels->f32 : &kernels->f64;
    job.finish = &kernels->finish;
    job.turn = kernels->turn;
    job.plan = xent_plan(problem, job.rows, job.shape[job.dims - 1]);
    status = check_labels(&job, problem);
    if (status == XENT_OK && problem->mean && !job.notes_shard) {
        const double given = problem->denominator;
        job.denominator = given > 0 ? given : xent_denominator(&job);
    }
    if (status == XENT_OK && job.rows > 0) {
        status = run(&job);
    }
    if (status == XENT_OK && problem->loss_reduced) {
        const double by = job.denominator; /* NaN is the mean of nothing */
        *problem->loss_reduced =
            by > 0 ? xent_total(job.finish, problem->loss, job.rows, by, job.plan.threads) : NAN;
    }
    return status;
}

/* The caller may have switched on flushing to zero or another rounding. */
enum xent_status xent_run(struct xent_problem *problem) {
    const xent_environment before = xent_set_default_environment();
    const enum xent_status status = run_in_default_environment(problem);
    xent_set_environment(before);
    return status;
}
