/* Rows that lie side by side in their arrays but do not go to a tile, most because they are too
 * long. A class of a row is far from the next one there, and shares its line with the same class of
 * the row's neighbours: so groups of rows are turned, as a matrix is, into buffers where each is
 * contiguous, and are a problem of their own there. Knows neither the instruction set nor how
 * threads are made. */
#include "parallel.h"
#include "regimes.h"

/* Bytes. A group has several lines of the memory of every class, for each is in another page, but
 * together no more than the L2 cache holds besides what is made of them. Of long rows half a line
 * of each has to do: the other half is still in a cache when its turn comes. */
enum { GROUP = 1 << 17, MOST_OF_CLASS = 4 * XENT_CACHE_LINE, LEAST_OF_CLASS = XENT_CACHE_LINE / 2 };

/* ---- The arrays with a class axis --------------------------------------------------------------
 */

/* How large a number of the array is, and how far the next class. */
struct axis {
    size_t itemsize; /* 0: the array has no classes, or others than the logits */
    ptrdiff_t stride;
};

static struct axis axis_of(const struct xent_job *job, enum xent_job_array array) {
    const struct xent_problem *problem = job->problem;
    const bool wide = array == VALUES ? problem->wide_values : problem->wide_curvature;
    const size_t value = xent_size_of(xent_dtype_of_values(problem, wide));
    switch (array) {
    case LOGITS:
        return (struct axis){xent_size_of(problem->dtype), problem->logits_stride};
    case VALUES:
        return (struct axis){value, problem->values_stride};
    case CURVATURE:
        return (struct axis){value, problem->curvature_stride};
    case DIRECTION:
        return (struct axis){xent_size_of(problem->vector_dtype), problem->vector_stride};
    case MASK:
        return (struct axis){1, job->options ? job->options->mask_stride : 1};
    case LABELS:
        if (job->dense_labels) {
            const struct xent_labels *labels = &job->options->labels;
            return (struct axis){xent_size_of(labels->dtype), labels->probabilities_stride};
        }
        break;
    default:
        break;
    }
    return (struct axis){0, 0};
}

/* Whether it has rows side by side, and their classes not. */
static bool is_turned(const struct xent_job *job, enum xent_job_array array) {
    const struct axis axis = axis_of(job, array);
    const ptrdiff_t item = (ptrdiff_t)axis.itemsize;
    return item > 0 && xent_has(job, array) && xent_stride(job, array) == item &&
           axis.stride != item;
}

/* The bytes that a group has of a class's logits. */
static size_t bytes_of_class(const struct xent_job *job) {
    size_t bytes = MOST_OF_CLASS;
    while (bytes > LEAST_OF_CLASS && bytes * job->problem->classes > GROUP) {
        bytes /= 2;
    }
    return bytes;
}

/* In rows: fewer where not every member would have a group. */
static size_t group_size(const struct xent_job *job) {
    const size_t team = (size_t)job->plan.threads, share = (job->rows + team - 1) / team;
    return xent_smaller(bytes_of_class(job) / xent_size_of(job->problem->dtype), share);
}

/* ---- One thread's own memory -------------------------------------------------------------------
 */

struct workspace {
    char *buffers[ARRAYS]; /* of the arrays that are turned; else NULL */
    char *rows;            /* for the group's own problem */
};

static struct workspace workspace_at(const struct xent_job *job, char *p) {
    struct workspace work = {.rows = p};
    for (enum xent_job_array array = 0; array < ARRAYS; array++) {
        const size_t itemsize = axis_of(job, array).itemsize;
        if (!is_turned(job, array)) {
            continue;
        }
        /* Values may take the place of logits, as they may where nothing is turned. */
        if (array == VALUES && work.buffers[LOGITS] && itemsize == axis_of(job, LOGITS).itemsize) {
            work.buffers[VALUES] = work.buffers[LOGITS];
            continue;
        }
        work.buffers[array] = work.rows;
        work.rows += xent_whole_lines(group_size(job) * job->problem->classes * itemsize);
    }
    return work;
}

/* ---- A group as a problem ----------------------------------------------------------------------
 */

/* Rows in a line. */
struct group {
    const struct xent_place *at;
    size_t first, rows;
};

/* The problem of a group, and what it points to. */
struct part {
    struct xent_problem problem;
    struct xent_options options;
    struct xent_evaluation evaluation;
    size_t rows;
    ptrdiff_t row_strides[ARRAYS];
};

/* An array of the part, and, if it has classes, their stride: where it is, or in its buffer. */
static struct xent_array array_of(const struct xent_job *job, const struct group *group,
                                  enum xent_job_array array, const struct workspace *work,
                                  struct part *part, ptrdiff_t *class_stride) {
    ptrdiff_t *const row_stride = &part->row_strides[array];
    if (work->buffers[array]) {
        const size_t itemsize = axis_of(job, array).itemsize;
        *class_stride = (ptrdiff_t)itemsize;
        *row_stride = (ptrdiff_t)(job->problem->classes * itemsize);
        return (struct xent_array){work->buffers[array], row_stride};
    }
    *row_stride = xent_stride(job, array);
    char *const data = xent_has(job, array) ? xent_address(job, array, group->at) : NULL;
    return (struct xent_array){data, row_stride};
}

static double *numbers_from(double *numbers, size_t n) { return numbers ? numbers + n : NULL; }

static int64_t *classes_from(int64_t *classes, size_t n) { return classes ? classes + n : NULL; }

static void take_options(const struct xent_job *job, const struct group *group,
                         const struct workspace *work, struct part *part) {
    struct xent_options *const to = &part->options;
    struct xent_labels *const labels = &to->labels;
    *to = *job->problem->options;
    to->mask = array_of(job, group, MASK, work, part, &to->mask_stride);
    labels->probabilities = array_of(job, group, LABELS, work, part, &labels->probabilities_stride);
    labels->indices = array_of(job, group, INDICES, work, part, NULL);
    to->row_weight = array_of(job, group, ROW_WEIGHT, work, part, NULL);
    part->problem.options = to;
}

static void take_evaluation(const struct xent_job *job, const struct group *group,
                            struct part *part) {
    struct xent_evaluation *const to = &part->evaluation;
    *to = *job->problem->evaluation;
    to->log_prob = numbers_from(to->log_prob, group->first);
    to->entropy = numbers_from(to->entropy, group->first);
    to->argmax = classes_from(to->argmax, group->first);
    to->rank = classes_from(to->rank, group->first);
    to->top_log_probs = numbers_from(to->top_log_probs, group->first * to->top_k);
    to->top_classes = classes_from(to->top_classes, group->first * to->top_k);
    part->problem.evaluation = to;
}

static void make_part(const struct xent_job *job, const struct group *group,
                      const struct workspace *work, struct part *part) {
    struct xent_problem *const to = &part->problem;
    *to = *job->problem;
    part->rows = group->rows;
    to->row_dims = 1;
    to->row_shape = &part->rows;
    to->logits = array_of(job, group, LOGITS, work, part, &to->logits_stride);
    to->values = array_of(job, group, VALUES, work, part, &to->values_stride);
    to->curvature = array_of(job, group, CURVATURE, work, part, &to->curvature_stride);
    to->vector = array_of(job, group, DIRECTION, work, part, &to->vector_stride);
    to->target = array_of(job, group, TARGET, work, part, NULL);
    to->upstream = array_of(job, group, UPSTREAM, work, part, NULL);
    to->lse_in = array_of(job, group, LSE_IN, work, part, NULL);
    to->loss = numbers_from(to->loss, group->first);
    to->lse = numbers_from(to->lse, group->first);
    if (to->options) {
        take_options(job, group, work, part);
    }
    if (to->evaluation) {
        take_evaluation(job, group, part);
    }
}

/* What is known of all rows holds for these. */
static void make_own_job(const struct xent_job *job, const struct part *part, char *memory,
                         struct xent_job *own) {
    xent_make_job(&part->problem, own);
    own->kernels = job->kernels;
    own->finish = job->finish;
    own->class_weight = job->class_weight;
    own->denominator = job->denominator;
    own->plan = (struct xent_plan){.regime = XENT_BY_ROWS, .threads = 1, .stream = false};
    own->memory = memory;
    own->workspace_size = 0;
}

size_t xent_groups_workspace(const struct xent_job *job) {
    struct xent_cursor at;
    xent_at_row(job, 0, &at);
    const struct group first = {.at = &at.place, .rows = group_size(job)};
    char *const anywhere = job->arrays[LOGITS].data; /* nothing is touched */
    const struct workspace work = workspace_at(job, anywhere);
    struct part part;
    make_part(job, &first, &work, &part);
    struct xent_job own;
    make_own_job(job, &part, NULL, &own);
    return (size_t)(work.rows - anywhere) + xent_whole_lines(xent_rows_workspace(&own));
}

/* ---- Turning, and what is between --------------------------------------------------------------
 */

static void turn_in(const struct xent_job *job, const struct group *group,
                    const struct workspace *work, enum xent_job_array array) {
    const struct axis axis = axis_of(job, array);
    const size_t classes = job->problem->classes;
    if (work->buffers[array]) {
        job->turn(axis.itemsize, xent_address(job, array, group->at), axis.stride,
                  work->buffers[array], (ptrdiff_t)(classes * axis.itemsize), classes, group->rows);
    }
}

static void turn_out(const struct xent_job *job, const struct group *group,
                     const struct workspace *work, enum xent_job_array array) {
    const struct axis axis = axis_of(job, array);
    const size_t classes = job->problem->classes;
    if (work->buffers[array]) {
        job->turn(axis.itemsize, work->buffers[array], (ptrdiff_t)(classes * axis.itemsize),
                  xent_address(job, array, group->at), axis.stride, group->rows, classes);
    }
}

static void run_group(const struct xent_job *job, const struct group *group,
                      const struct workspace *work) {
    turn_in(job, group, work, LOGITS);
    turn_in(job, group, work, MASK);
    turn_in(job, group, work, LABELS);
    turn_in(job, group, work, DIRECTION);
    struct part part;
    make_part(job, group, work, &part);
    struct xent_job own;
    make_own_job(job, &part, work->rows, &own);
    xent_run_rows(&own);
    turn_out(job, group, work, VALUES);
    turn_out(job, group, work, CURVATURE);
}

/* How many rows the next group has, of so many that are left: no more than up to the end of a line,
 * and where rows lie side by side it ends where the memory's lines do. */
static size_t rows_of_group(const struct xent_job *job, const struct xent_cursor *at, size_t left) {
    const enum xent_job_array array = xent_has(job, VALUES) ? VALUES : LOGITS;
    const uintptr_t address = (uintptr_t)xent_address(job, array, &at->place);
    const size_t line = xent_smaller(bytes_of_class(job), XENT_CACHE_LINE);
    const size_t itemsize = axis_of(job, array).itemsize;
    const size_t beyond = is_turned(job, array) ? address % line / itemsize : 0;
    const size_t most = bytes_of_class(job) / xent_size_of(job->problem->dtype) - beyond;
    const size_t size = xent_smaller(most, group_size(job));
    return xent_smaller(size, xent_smaller(xent_rows_in_line(at, job), left));
}

static void run_groups(void *context, int member, struct xent_ranges *ranges) {
    const struct xent_job *job = context;
    const struct workspace work = workspace_at(job, xent_workspace(job, member));
    struct xent_range range;
    while (xent_take_range(ranges, &range)) {
        struct xent_cursor at;
        xent_at_row(job, range.begin, &at);
        for (size_t row = range.begin, rows; row < range.end; row += rows) {
            rows = rows_of_group(job, &at, range.end - row);
            run_group(job, &(struct group){&at.place, row, rows}, &work);
            xent_advance(&at, job, rows);
        }
    }
}

void xent_run_groups(struct xent_job *job) {
    xent_parallel_ranges(job->plan.threads, job->rows, group_size(job), run_groups, job);
}
