/* How a problem is divided. Knows shapes, thresholds and how many threads there
 * are, and neither data nor how threads are made. */
#include "plan.h"

#include "cache.h"
#include "fresh.h"
#include "kernels.h"
#include "team_size.h"

/* Work is counted in logits of long rows, of which one thread reduces some 2000 in a microsecond.
 * The scalars of a row, and its way through a tile, take as long as so many more. */
static const double WORK_OF_ROW = 24;

/* To wake a thread takes its caller 5 us, and as long again passes until it comes: where it sleeps,
 * a second one loses up to a tenth of 25 us of work and gains from 35 us on; where it is awake it
 * gains from 7 us on. */
static const double WORK_PER_THREAD = 3 << 13;

/* A row is worth dividing when every thread gets more than one block of it. */
static const size_t BLOCKS_PER_THREAD = 2;

/* Values larger than this leave the caches before anyone reads them: writing past the caches saves
 * reading the lines first, a third of the traffic. */
static const double STREAM_FROM = 8 << 20;

/* How many threads so much work is worth, of those there are. Asking for them takes a while, too.
 */
static size_t team_for(const struct xent_problem *problem, double work) {
    if (work < 2 * WORK_PER_THREAD) {
        return 1;
    }
    const int most = xent_team_size(problem->threads);
    const double worth = work / WORK_PER_THREAD;
    return worth < (double)most ? (size_t)worth : (size_t)most;
}

/* The lines of a page that comes with the write are in the caches, for the kernel has just cleared
 * them. An allocator's own data may lie beside the first row: ask for the one in the middle. */
static bool in_fresh_pages(const struct xent_problem *problem) {
    const char *row = problem->values.data;
    for (size_t dim = 0; dim < problem->row_dims; dim++) {
        row += (ptrdiff_t)(problem->row_shape[dim] / 2) * problem->values.row_strides[dim];
    }
    return xent_is_fresh(row);
}

/* Classes: a tail's shares are added one by one to what a tile has of a row. */
static const size_t MOST_WITH_TAIL = 24;

/* Whether rows that lie side by side can have these options. */
static bool lanes_take(const struct xent_problem *problem) {
    const struct xent_options *options = problem->options;
    const bool second = problem->curvature.data || problem->vector.data;
    const bool labels = problem->target.data || options->labels.probabilities.data;
    if (options->labels.spread_tail && problem->classes > MOST_WITH_TAIL) {
        return false;
    }
    if (options->softcap > 0) { /* an evaluation ranks the logits as they are before it, too */
        return labels && !problem->evaluation && !second;
    }
    return labels || xent_only_transform(options);
}

/* Of more classes a row by itself is as fast, for it fills the vectors; of doubles, which are half
 * as many in a vector, from fewer on. One to four rows would be faster by themselves from 128 on,
 * but a row's bits depend on this, and may not on how many there are. */
static size_t most_in_lanes(const struct xent_problem *problem) {
    return problem->dtype == XENT_F64 ? 128 : XENT_TILE_CLASSES;
}

static bool takes_lanes(const struct xent_problem *problem) {
    return problem->classes <= most_in_lanes(problem) &&
           (!problem->options || lanes_take(problem)) && !problem->statistics;
}

/* Whether rows lie side by side in an array, and their classes do not: the last of the dimensions
 * that have several decides. */
static bool are_side_by_side(const struct xent_problem *problem, const struct xent_array *array,
                             ptrdiff_t class_stride, size_t itemsize) {
    size_t last = problem->row_dims;
    while (last > 0 && problem->row_shape[last - 1] == 1) {
        last--;
    }
    const ptrdiff_t item = (ptrdiff_t)itemsize;
    return array->data && last > 0 && array->row_strides[last - 1] == item && class_stride != item;
}

static size_t size_of_value(const struct xent_problem *problem) {
    return xent_size_of(xent_dtype_of_values(problem, problem->wide_values));
}

/* A group is a problem of its own, which is not worth while for fewer rows: to gather those that
 * are in a line, class by class, takes no longer. Of more classes not even half a line of each
 * stays in a cache until the other half's turn. */
static const size_t LEAST_ROWS_TURNED = 16, MOST_CLASSES_TURNED = 1 << 20;

static bool takes_groups(const struct xent_problem *problem, size_t rows_in_line) {
    const size_t logit = xent_size_of(problem->dtype), value = size_of_value(problem);
    return !problem->statistics && rows_in_line >= LEAST_ROWS_TURNED &&
           problem->classes <= MOST_CLASSES_TURNED &&
           (are_side_by_side(problem, &problem->logits, problem->logits_stride, logit) ||
            are_side_by_side(problem, &problem->values, problem->values_stride, value));
}

static bool streams(const struct xent_problem *problem, double logits) {
    const size_t itemsize = size_of_value(problem);
    const bool in_place = problem->values.data == problem->logits.data; /* the lines are there */
    /* A tile's columns can be streamed as well. */
    const bool contiguous = takes_lanes(problem) || problem->values_stride == (ptrdiff_t)itemsize;
    return problem->values.data && contiguous && !in_place &&
           logits * (double)itemsize >= STREAM_FROM && !in_fresh_pages(problem);
}

/* Bytes: an L1 cache that has room for a block, for the next, which is looked at, for what is
 * fetched beyond it, and for the lines that are written meanwhile. Two blocks of doubles are more.
 */
static const long L1_TO_FETCH_INTO = 48 << 10;

static bool fetches_near(const struct xent_problem *problem) {
    return problem->dtype != XENT_F64 && xent_l1_cache() >= L1_TO_FETCH_INTO;
}

struct xent_plan xent_plan(const struct xent_problem *problem, size_t rows, size_t rows_in_line) {
    const size_t blocks = (problem->classes + XENT_BLOCK - 1) / XENT_BLOCK;
    const double logits = (double)rows * (double)problem->classes;
    size_t team = team_for(problem, logits + (double)rows * WORK_OF_ROW);

    /* Rows are shared where they are many, because then nobody waits within a row; those that are
     * evaluated always are, because what is found in a block saves work in the next. */
    size_t sharing_columns = blocks / BLOCKS_PER_THREAD;
    sharing_columns = sharing_columns < team ? sharing_columns : team;
    const bool by_columns = rows < team && sharing_columns > rows && !problem->evaluation;
    team = by_columns ? sharing_columns : team < rows ? team : rows;

    enum xent_regime regime = by_columns ? XENT_BY_COLUMNS : XENT_BY_ROWS;
    if (takes_lanes(problem)) {
        regime = XENT_BY_LANES;
    } else if (!by_columns && takes_groups(problem, rows_in_line)) {
        regime = XENT_BY_GROUPS;
    }
    return (struct xent_plan){
        .regime = regime,
        .threads = team > 1 ? (int)team : 1,
        .stream = streams(problem, logits),
        .fetch_near = fetches_near(problem),
    };
}
