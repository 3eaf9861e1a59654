/* Rows side by side in the lanes of vectors, a group of them at a time, in a tile of its own. Knows
 * neither the instruction set nor how threads are made. */
#include "evaluate.h"
#include "finish.h"
#include "options.h"
#include "parallel.h"
#include "regimes.h"
#include "second.h"

#include <math.h>
#include <stdatomic.h>

enum { VECTOR = 64 }; /* bytes, on every instruction set */

/* A tile of more than one vector of rows stays in half of the L1 cache, if there is no other beside
 * it. */
enum { TILE = 16384, VECTORS = XENT_ROWS * sizeof(float) / VECTOR };

/* The cells of a tile. */
struct cells {
    char bytes[XENT_TILE_CLASSES * VECTOR > TILE ? XENT_TILE_CLASSES * VECTOR : TILE];
};

/* Of logits that are capped: see `cap` in kernels.h. Slopes are there for values only. */
struct caps {
    struct xent_tile low_tile, slopes_tile;
    struct cells low, slopes;
};

/* One thread's own memory. The last five are there with options, for second derivatives, with a
 * softcap, for numbers that are not the kernels' own and for logits that are asked for beside their
 * terms only. */
struct workspace {
    struct cells cells;
    struct xent_rows rows;
    struct xent_factors factors;
    size_t target[XENT_ROWS];
    struct xent_edge edge; /* of the values, if they are streamed */
    struct weights *weights;
    struct second *second;
    struct caps *caps;
    char *passage, *logits;
};

/* Distributions over the classes, that of the class kept apart being zero in its tile. */
struct labels {
    struct xent_tile tile;
    double of_kept[XENT_ROWS], rest[XENT_ROWS], spread[XENT_ROWS];
    struct cells cells;
};

/* What options make of the rows. */
struct weights {
    double of_row[XENT_ROWS]; /* zero where the row does not count */
    bool all_count;
    bool marks; /* there are masked classes, whose terms have to be known */
    double counts[XENT_ROWS];
    struct xent_lanes_less less; /* what every class gets of a row's label, and its labels */
    struct labels labels;        /* if they are distributions */
};

/* For second derivatives the largest class is in the place of a target, and the target `label` is a
 * class as any other, of the coefficient `own`. The tile is of the curvature, or of the vector. */
struct second {
    struct xent_tile tile;
    struct cells cells;
    struct xent_edge edge;
    struct xent_lanes_bend bend;
    size_t label[XENT_ROWS];
    double own[XENT_ROWS], values[XENT_ROWS], ones[XENT_ROWS];
    double unmasked[XENT_ROWS], by[XENT_ROWS], square[XENT_ROWS];
};

/* Whether numbers that are read are the kernels' own; or those that are written. */
static bool are_own(const struct xent_job *job, enum xent_dtype dtype, bool swapped) {
    return dtype == xent_working_dtype(job) && !swapped;
}

/* A tile has room for labels that are listed, as distributions over all classes. */
static bool has_labels(const struct xent_job *job) { return xent_has(job, LABELS); }

static bool writes_own(const struct xent_job *job, bool wide) {
    return xent_working_dtype(job) == job->problem->dtype || wide;
}

/* The sizes of the parts of a workspace. */
struct layout {
    size_t weights, second, caps, passage, logits;
};

/* Whether logits may be asked for when they have become terms. */
static bool keeps_logits(const struct xent_job *job) {
    return job->shares || (job->problem->evaluation && job->problem->evaluation->entropy);
}

/* Whether any numbers are others than the kernels' own. */
static bool needs_passage(const struct xent_job *job) {
    const struct xent_problem *const problem = job->problem;
    const struct xent_labels *const labels = job->dense_labels ? &job->options->labels : NULL;
    return !are_own(job, problem->dtype, problem->swapped) || !writes_own(job, false) ||
           (labels && !are_own(job, labels->dtype, labels->swapped)) ||
           (xent_has(job, DIRECTION) &&
            !are_own(job, problem->vector_dtype, problem->vector_swapped));
}

static struct layout layout_of(const struct xent_job *job) {
    return (struct layout){
        .weights = job->options ? xent_whole_lines(sizeof(struct weights)) : 0,
        .second = job->second ? xent_whole_lines(sizeof(struct second)) : 0,
        .caps = job->caps ? xent_whole_lines(sizeof(struct caps)) : 0,
        .passage = needs_passage(job) ? sizeof(struct cells) : 0,
        .logits = keeps_logits(job) ? sizeof(struct cells) : 0,
    };
}

size_t xent_lanes_workspace(const struct xent_job *job) {
    const struct layout size = layout_of(job);
    return xent_whole_lines(sizeof(struct workspace)) + size.weights + size.second + size.caps +
           size.passage + size.logits;
}

/* Lanes without a row are computed, too. */
static struct workspace *workspace_of(const struct xent_job *job, int member) {
    char *const p = xent_workspace(job, member);
    struct workspace *const work = (struct workspace *)(void *)p;
    memset(&work->rows, 0, job->options ? sizeof work->rows : offsetof(struct xent_rows, loss));
    for (size_t i = 0; i < XENT_ROWS; i++) {
        work->rows.target_logit[i] = -INFINITY;
    }
    work->edge.at = NULL;
    work->edge.filled = 0;
    const struct layout size = layout_of(job);
    const size_t weights = xent_whole_lines(sizeof *work);
    const size_t second = weights + size.weights, caps = second + size.second;
    const size_t passage = caps + size.caps, logits = passage + size.passage;
    work->weights = job->options ? (struct weights *)(void *)(p + weights) : NULL;
    work->second = job->second ? (struct second *)(void *)(p + second) : NULL;
    work->caps = size.caps ? (struct caps *)(void *)(p + caps) : NULL;
    work->passage = size.passage ? p + passage : NULL;
    work->logits = size.logits ? p + logits : NULL;
    if (job->options) {
        memset(work->target, 0, sizeof work->target); /* in case rows have none */
        memset(&work->weights->less, 0, sizeof work->weights->less);
        work->weights->less.weights = job->options->class_weight;
    }
    if (job->second) {
        memset(work->second, 0, sizeof *work->second);
        for (size_t i = 0; i < XENT_ROWS; i++) {
            work->second->ones[i] = 1;
        }
    }
    return work;
}

/* The vectors of rows that a tile has room for. */
static size_t vectors(const struct xent_job *job) {
    const size_t fit = TILE / VECTOR / job->problem->classes;
    return fit < 1 ? 1 : fit < VECTORS ? fit : VECTORS;
}

/* Rows in a line, and where they are. */
struct group {
    const struct xent_place *at;
    size_t first;
    struct xent_tile tile;
};

static struct xent_cells cells_of(const struct xent_job *job, enum xent_job_array array,
                                  const struct group *group, ptrdiff_t class_stride) {
    return (struct xent_cells){xent_address(job, array, group->at), xent_stride(job, array),
                               class_stride};
}

/* log_softmax has its largest class in the place of a target; softmax and logsumexp have none. */
static bool has_target(const struct xent_job *job) {
    return xent_has(job, TARGET) || job->keeps_largest;
}

static char *line_of(const struct xent_tile *tile, size_t class) {
    return tile->cells + (ptrdiff_t)class * tile->pitch;
}

/* How numbers that are not the kernels' own get from an array to a buffer or back: in lines of
 * `size` numbers, in the order in which they lie there. */
struct passage {
    size_t lines, size;
    ptrdiff_t line_stride, stride; /* in the array */
    struct xent_cells cells;       /* of the buffer */
};

static ptrdiff_t length_of(ptrdiff_t stride) { return stride < 0 ? -stride : stride; }

static struct passage passage_of(const struct xent_job *job, const struct xent_cells *array,
                                 const struct xent_tile *tile, char *buffer) {
    const size_t rows = tile->rows, classes = tile->classes;
    const ptrdiff_t item = (ptrdiff_t)job->itemsize;
    const struct xent_cells by_rows = {buffer, (ptrdiff_t)classes * item, item};
    if (array->row_stride == (ptrdiff_t)classes * array->class_stride) {
        return (struct passage){1, rows * classes, 0, array->class_stride, by_rows};
    }
    if (length_of(array->row_stride) < length_of(array->class_stride)) {
        const struct xent_cells by_classes = {buffer, item, (ptrdiff_t)rows * item};
        return (struct passage){classes, rows, array->class_stride, array->row_stride, by_classes};
    }
    return (struct passage){rows, classes, array->row_stride, array->class_stride, by_rows};
}

static struct xent_cells read_cells(const struct xent_job *job, const struct xent_cells *array,
                                    enum xent_dtype dtype, bool swapped,
                                    const struct xent_tile *tile, char *buffer) {
    const struct passage passage = passage_of(job, array, tile, buffer);
    for (size_t i = 0; i < passage.lines; i++) {
        const struct xent_strided from = {array->data + (ptrdiff_t)i * passage.line_stride,
                                          passage.stride, dtype, swapped};
        job->kernels->read(&from, passage.size, buffer + i * passage.size * job->itemsize);
    }
    return passage.cells;
}

static void write_cells(const struct xent_job *job, const struct xent_tile *tile,
                        const struct xent_cells *array, char *buffer, struct xent_edge *edge) {
    const struct passage passage = passage_of(job, array, tile, buffer);
    job->kernels->lanes_store(tile, &passage.cells, NULL);
    for (size_t i = 0; i < passage.lines; i++) {
        char *const line = array->data + (ptrdiff_t)i * passage.line_stride;
        for (size_t begin = 0; begin < passage.size; begin += XENT_BLOCK) {
            const size_t left = passage.size - begin, n = left < XENT_BLOCK ? left : XENT_BLOCK;
            const struct xent_strided to = {line + (ptrdiff_t)begin * passage.stride,
                                            passage.stride, job->problem->dtype, false};
            const char *const from = buffer + (i * passage.size + begin) * job->itemsize;
            job->kernels->write(from, n, &to, passage.lines == 1 ? edge : NULL);
        }
    }
}

static void store(const struct xent_job *job, const struct xent_tile *tile,
                  const struct xent_cells *array, bool wide, struct workspace *work,
                  struct xent_edge *edge) {
    edge = job->plan.stream ? edge : NULL;
    if (writes_own(job, wide)) {
        job->kernels->lanes_store(tile, array, edge);
    } else {
        write_cells(job, tile, array, work->passage, edge);
    }
}

static void load_cells(const struct xent_job *job, const struct xent_cells *array,
                       enum xent_dtype dtype, bool swapped, const struct xent_tile *tile,
                       char *passage) {
    if (are_own(job, dtype, swapped)) {
        job->kernels->lanes_load(tile, array);
        return;
    }
    const struct xent_cells read = read_cells(job, array, dtype, swapped, tile, passage);
    job->kernels->lanes_load(tile, &read);
}

/* All cells at once, also those without a row. */
static void cap(const struct xent_job *job, const struct xent_tile *tile, struct caps *caps) {
    const size_t cells = tile->classes * (size_t)tile->pitch / job->itemsize;
    const double scale = job->options->softcap, by = job->options->scale / scale;
    caps->low_tile = caps->slopes_tile = *tile;
    caps->low_tile.cells = caps->low.bytes;
    caps->slopes_tile.cells = caps->slopes.bytes;
    job->kernels->cap(tile->cells, cells, by, scale, tile->cells, caps->low.bytes,
                      xent_has(job, VALUES) ? caps->slopes.bytes : NULL);
}

/* The low parts of the logits; NULL: there are none. */
static const struct xent_tile *low_of(const struct workspace *work) {
    return work->caps ? &work->caps->low_tile : NULL;
}

static void load(const struct xent_job *job, const struct group *group, struct workspace *work) {
    const struct xent_problem *const problem = job->problem;
    const struct xent_tile *const tile = &group->tile;
    const struct xent_cells logits = cells_of(job, LOGITS, group, problem->logits_stride);
    load_cells(job, &logits, problem->dtype, problem->swapped, tile, work->passage);
    const char *mask = xent_has(job, MASK) ? xent_address(job, MASK, group->at) : NULL;
    for (size_t k = 0; mask && k < tile->classes; k++) {
        job->kernels->mask(line_of(tile, k), tile->rows, mask, xent_stride(job, MASK));
        mask += job->options->mask_stride;
    }
    if (work->caps) {
        cap(job, tile, work->caps);
    }
}

/* The weights of rows with labels, or with distributions. */
static void take_weights(const struct xent_job *job, const struct group *group, const size_t *label,
                         struct weights *weights) {
    weights->all_count = !job->options->ignores && !xent_has(job, ROW_WEIGHT);
    xent_row_weights(job, group->at, group->tile.rows, label, weights->of_row);
}

/* The labels and weights of the group's rows. */
static void take_labels(const struct xent_job *job, const struct group *group, size_t *label,
                        struct weights *weights) {
    const size_t rows = group->tile.rows;
    xent_read_classes(job, xent_address(job, TARGET, group->at), rows, label);
    if (!weights) {
        return;
    }
    take_weights(job, group, label, weights);
    for (size_t i = 0; !weights->all_count && i < rows; i++) {
        label[i] = weights->of_row[i] != 0 ? label[i] : 0; /* it need not be a class */
    }
}

/* A row whose label lists some classes, on its way to the tile of labels and to their sums. */
struct listed_row {
    const struct xent_tile *logits, *low, *labels;
    size_t row, kept;
    double top;
    double of_kept; /* the label of the class kept apart */
    struct two rest, spread;
};

static double logit_of(const struct xent_job *job, const struct listed_row *to, size_t class) {
    const size_t offset = to->row * job->itemsize;
    const double low = to->low ? xent_real(job, line_of(to->low, class) + offset) : 0;
    return xent_real(job, line_of(to->logits, class) + offset) + low;
}

/* The sums are formed in double, where a tile of floats has the labels rounded. */
static void add_label(const struct xent_job *job, size_t class, double label,
                      struct listed_row *to) {
    if (class == to->kept) {
        to->of_kept += label;
        return;
    }
    char *const cell = line_of(to->labels, class) + to->row * job->itemsize;
    xent_set_real(job, cell, xent_real(job, cell) + label);
    const double c = label * xent_class_weight(job, class);
    if (c != 0) {
        to->rest = add_term(to->rest, c);
        to->spread = add_term(to->spread, c * (to->top - logit_of(job, to, class)));
    }
}

/* What the listed classes lack of one goes to those that are neither listed nor masked. */
static void share_tail(const struct xent_job *job, double tail, const bool *listed,
                       double kept_logit, struct listed_row *to) {
    bool shares[XENT_TILE_CLASSES];
    size_t count = 0;
    for (size_t k = 0; k < to->labels->classes; k++) {
        const double logit = k == to->kept ? kept_logit : logit_of(job, to, k);
        shares[k] = !listed[k] && !(logit == -INFINITY);
        count += shares[k];
    }
    for (size_t k = 0; k < to->labels->classes; k++) {
        if (shares[k]) {
            add_label(job, k, tail / (double)count, to);
        }
    }
}

static void take_listed(const struct xent_job *job, const struct xent_place *at, double kept_logit,
                        struct listed_row *to) {
    const struct xent_labels *const given = &job->options->labels;
    bool listed[XENT_TILE_CLASSES] = {false};
    size_t class[XENT_TILE_CLASSES], classes = 0;
    double label[XENT_TILE_CLASSES]; /* of each class that is listed */
    struct two sum = {0, 0};
    struct xent_listing listing;
    for (size_t begin = 0; begin < given->listed; begin += listing.count) {
        xent_read_listing(job, at, begin, &listing);
        for (size_t n = 0; n < listing.count; n++) {
            const size_t k = listing.class[n];
            if (!listed[k]) {
                listed[k] = true;
                class[classes++] = k;
                label[k] = 0;
            }
            label[k] += listing.probability[n];
            sum = add_term(sum, listing.probability[n]);
        }
    }
    for (size_t i = 0; i < classes; i++) {
        add_label(job, class[i], label[class[i]], to);
    }
    const double lacking = (1 - sum.high) - sum.low;
    if (given->spread_tail && lacking > 0) {
        share_tail(job, lacking, listed, kept_logit, to);
    }
}

/* The labels' tile, beside that of the logits. */
static struct labels *labels_beside(const struct xent_tile *tile, struct workspace *work) {
    struct labels *const labels = &work->weights->labels;
    labels->tile = *tile;
    labels->tile.cells = labels->cells.bytes;
    work->weights->less.labels = &labels->tile;
    return labels;
}

/* Labels that list classes, and what there is to know of them; the rows' tops are known. */
static void take_lists(const struct xent_job *job, const struct group *group,
                       struct workspace *work) {
    struct labels *const labels = labels_beside(&group->tile, work);
    struct xent_place at = *group->at;
    memset(labels->tile.cells, 0, labels->tile.classes * (size_t)labels->tile.pitch);
    for (size_t i = 0; i < group->tile.rows; i++) {
        struct listed_row row = {.logits = &group->tile,
                                 .low = low_of(work),
                                 .labels = &labels->tile,
                                 .row = i,
                                 .kept = work->target[i],
                                 .top = work->rows.top[i]};
        take_listed(job, &at, work->rows.target_logit[i], &row);
        labels->of_kept[i] = row.of_kept;
        labels->rest[i] = row.rest.high + row.rest.low;
        labels->spread[i] = row.spread.high + row.spread.low;
        at.offset[LABELS] += xent_stride(job, LABELS);
        at.offset[INDICES] += xent_stride(job, INDICES);
    }
}

/* The same of distributions over all classes. */
static void take_distributions(const struct xent_job *job, const struct group *group,
                               struct workspace *work) {
    static const double zeros[XENT_ROWS];
    const struct xent_labels *const given = &job->options->labels;
    const struct xent_tile *const tile = &group->tile;
    struct xent_rows *const rows = &work->rows;
    struct labels *const labels = labels_beside(tile, work);
    const struct xent_cells given_labels =
        cells_of(job, LABELS, group, given->probabilities_stride);
    load_cells(job, &given_labels, given->dtype, given->swapped, &labels->tile, work->passage);
    job->kernels->lanes_take(&labels->tile, work->target, labels->of_kept);
    job->kernels->lanes_put(&labels->tile, work->target, zeros);
    job->kernels->lanes_spread(tile, low_of(work), &labels->tile, job->options->class_weight, rows,
                               work->weights->counts);
    memcpy(labels->rest, rows->rest, sizeof labels->rest);
    memcpy(labels->spread, rows->spread, sizeof labels->spread);
}

static void keep_logits(const struct xent_tile *tile, struct workspace *work) {
    memcpy(work->logits, tile->cells, tile->classes * (size_t)tile->pitch);
}

/* What is the target's of the rows' labels, and what there is once for a row. */
static void weigh_targets(const struct xent_job *job, size_t n, struct workspace *work) {
    const struct weights *const weights = work->weights;
    const double *const of_class = job->options->class_weight;
    const double *const of_kept = has_labels(job) ? weights->labels.of_kept : NULL;
    struct xent_rows *const rows = &work->rows;
    const bool elsewhere = job->second && !of_kept; /* the label is, see add_label_itself */
    memset(rows->own, 0, sizeof rows->own);
    for (size_t i = 0; !elsewhere && i < n; i++) {
        const double of_target = of_class ? of_class[work->target[i]] : 1;
        const double label = of_kept ? of_kept[i] * of_target : of_target;
        const double share = xent_label_share(job->options, weights->of_row[i]);
        rows->own[i] = xent_weighed(share, label);
    }
    for (size_t i = 0; i < n; i++) {
        rows->square[i] = weights->of_row[i] * job->options->z_loss;
    }
    for (size_t i = 0; !work->caps && i < n; i++) {
        rows->target_slope[i] = 1;
    }
}

/* What every class gets of them. */
static void add_shares(const struct xent_job *job, const struct xent_tile *tile,
                       struct workspace *work) {
    struct weights *const weights = work->weights;
    struct xent_rows *const rows = &work->rows;
    bool marks = false;
    for (size_t i = 0; i < tile->rows; i++) {
        const bool present = rows->target_logit[i] > -INFINITY;
        const double unmasked = weights->counts[i] + present;
        const double share = xent_class_share(job->options, weights->of_row[i], unmasked);
        const double of_target = xent_class_weight(job, work->target[i]);
        rows->own[i] += present ? share * of_target : 0;
        rows->rest[i] = xent_weighed(share, rows->rest[i]);
        rows->spread[i] = xent_weighed(share, rows->spread[i]);
        weights->less.offset[i] = share;
        marks |= unmasked < (double)tile->classes;
    }
    weights->marks = marks;
}

/* What other classes than the target have of them. */
static void add_labels(const struct xent_job *job, size_t n, struct workspace *work) {
    struct weights *const weights = work->weights;
    struct xent_rows *const rows = &work->rows;
    for (size_t i = 0; i < n; i++) {
        const double of_labels = xent_label_share(job->options, weights->of_row[i]);
        const double rest = xent_weighed(of_labels, weights->labels.rest[i]);
        const double spread = xent_weighed(of_labels, weights->labels.spread[i]);
        rows->rest[i] = job->shares ? rows->rest[i] + rest : rest;
        rows->spread[i] = job->shares ? rows->spread[i] + spread : spread;
        weights->less.by_labels[i] = of_labels;
    }
}

/* Where the largest class is kept apart, a label is that or another. */
static void add_label_itself(const struct xent_job *job, size_t n, struct workspace *work) {
    struct second *const second = work->second;
    struct xent_rows *const rows = &work->rows;
    for (size_t i = 0; i < n; i++) {
        const double share = xent_label_share(job->options, work->weights->of_row[i]);
        const double label = xent_weighed(share, xent_class_weight(job, second->label[i]));
        const bool kept = second->label[i] == work->target[i];
        second->own[i] = label;
        rows->own[i] += kept ? label : 0;
        rows->rest[i] = (job->shares ? rows->rest[i] : 0) + (kept ? 0 : label);
    }
}

/* The rows' coefficients, as xent_take_coefficients has them. */
static void take_coefficients(const struct xent_job *job, const struct group *group,
                              struct workspace *work) {
    const struct xent_tile *const tile = &group->tile;
    struct weights *const weights = work->weights;
    if (job->dense_labels) {
        take_distributions(job, group, work);
    }
    if (xent_counts_classes(job) || xent_has(job, INDICES)) {
        job->kernels->lanes_spread(tile, low_of(work), NULL, job->options->class_weight,
                                   &work->rows, weights->counts);
    }
    if (xent_has(job, INDICES)) {
        take_lists(job, group, work);
    }
    weights->marks = false;
    weigh_targets(job, tile->rows, work);
    if (job->shares) {
        add_shares(job, tile, work);
    }
    if (has_labels(job)) {
        add_labels(job, tile->rows, work);
    } else if (job->second) {
        add_label_itself(job, tile->rows, work);
    }
    if (weights->marks) {
        keep_logits(tile, work);
    }
}

/* The targets' low parts and slopes; what is left in the place of these is emitted to where the
 * targets' gradient is put. */
static void take_caps(const struct xent_job *job, size_t rows, struct workspace *work) {
    static const double zeros[XENT_ROWS];
    struct caps *const caps = work->caps;
    job->kernels->lanes_take(&caps->low_tile, work->target, work->rows.target_low);
    job->kernels->lanes_put(&caps->low_tile, work->target, zeros);
    if (!xent_has(job, VALUES)) {
        return;
    }
    job->kernels->lanes_take(&caps->slopes_tile, work->target, work->rows.target_slope);
    for (size_t i = 0; i < rows; i++) {
        work->rows.target_slope[i] *= XENT_SLOPE_UNIT;
    }
    work->weights->less.slopes = &caps->slopes_tile;
}

/* Takes the targets out of the tile, and whatever else of the group finish needs. */
static void take_rows(const struct xent_job *job, const struct group *group,
                      struct workspace *work) {
    if (xent_has(job, TARGET) && !job->problem->evaluation) {
        size_t *const label = job->second ? work->second->label : work->target;
        take_labels(job, group, label, work->weights);
    } else if (job->options) {
        take_weights(job, group, NULL, work->weights);
    }
    if (job->keeps_largest) {
        job->kernels->lanes_largest(&group->tile, work->target);
    }
    if (has_target(job)) {
        job->kernels->lanes_take(&group->tile, work->target, work->rows.target_logit);
    }
    if (work->caps) {
        take_caps(job, group->tile.rows, work);
    }
    if (job->options) {
        take_coefficients(job, group, work);
    }
    xent_take_rows(job, group->at, group->tile.rows, &work->rows, 0);
}

/* Rows that do not count have nothing but a target, of logit zero and weight zero. */
static void pass_over_rows(const struct group *group, struct workspace *work) {
    struct xent_rows *const rows = &work->rows;
    for (size_t i = 0; !work->weights->all_count && i < group->tile.rows; i++) {
        if (work->weights->of_row[i] == 0) {
            rows->others[i] = rows->others_low[i] = rows->exponent[i] = rows->shift[i] = 0;
            rows->target_logit[i] = rows->target_low[i] = 0;
        }
    }
}

static void clear_rows(const struct xent_job *job, const struct xent_tile *tile,
                       const struct weights *weights) {
    for (size_t i = 0; !weights->all_count && i < tile->rows; i++) {
        for (size_t k = 0; weights->of_row[i] == 0 && k < tile->classes; k++) {
            memset(line_of(tile, k) + i * job->itemsize, 0, job->itemsize);
        }
    }
}

/* Terms less what every class gets of a row's label, times slopes. */
static void emit_adjusted(const struct xent_job *job, const struct group *group,
                          struct workspace *work) {
    const struct xent_tile *const tile = &group->tile;
    struct weights *const weights = work->weights;
    const struct xent_tile logits = {work->logits, tile->rows, tile->classes, tile->pitch};
    for (size_t k = 0; weights->marks && k < tile->classes; k++) {
        job->kernels->mark(line_of(tile, k), tile->rows, line_of(&logits, k));
    }
    struct xent_lanes_less *const less = &weights->less;
    for (size_t i = 0; i < tile->rows; i++) {
        less->offset[i] = xent_weighed(less->offset[i], work->rows.upstream[i]);
        less->by_labels[i] = xent_weighed(less->by_labels[i], work->rows.upstream[i]);
    }
    job->kernels->lanes_emit_less(tile, &work->factors, less);
}

/* The values take the place of what reduce has left in the tile.
 * log q_j = (z_j - z_m) - loss_m with z_m the largest: both are negative, so nothing cancels. */
static void emit(const struct xent_job *job, const struct group *group, struct workspace *work) {
    if (job->problem->output == XENT_LOG_SOFTMAX) {
        job->kernels->lanes_put(&group->tile, work->target, work->rows.target_logit);
        job->kernels->lanes_emit_shifted(&group->tile, job->request.scale, work->rows.target_logit,
                                         work->rows.loss);
        return;
    }
    job->finish->factors(&work->rows, group->tile.rows, job->single, &work->factors);
    if (job->shares || has_labels(job) || work->caps) {
        emit_adjusted(job, group, work);
    } else {
        job->kernels->lanes_emit(&group->tile, &work->factors);
    }
    if (has_target(job)) {
        job->kernels->lanes_put(&group->tile, work->target, work->rows.target_gradient);
    }
    if (work->weights) {
        clear_rows(job, &group->tile, work->weights);
    }
}

/* What the rows' terms are multiplied by. */
static void take_second(const struct xent_job *job, size_t n, struct workspace *work) {
    struct second *const second = work->second;
    struct xent_lanes_bend *const bend = &second->bend;
    const struct xent_rows *const rows = &work->rows;
    for (size_t i = 0; xent_counts_classes(job) && i < n; i++) {
        const bool present = rows->target_logit[i] > -INFINITY;
        second->unmasked[i] = work->weights->counts[i] + present;
    }
    xent_second_of_rows(job, rows, 0, n, second->unmasked, second->by, second->square);
    bend->squares = xent_bends_square(job);
    bend->floor = xent_curvature_floor(job);
    job->finish->share_factors(rows, n, second->ones, job->single, &bend->shares);
    job->finish->share_factors(rows, n, second->by, job->single, &bend->by);
    if (bend->squares) {
        job->finish->share_factors(rows, n, second->square, job->single, &bend->square);
    }
}

/* The largest class's, of which the terms do not tell. */
static void put_second(const struct xent_job *job, const struct xent_tile *tile,
                       struct workspace *work) {
    struct second *const second = work->second;
    job->kernels->lanes_put(tile, work->target, second->values);
    clear_rows(job, tile, work->weights);
}

static void emit_curvature(const struct xent_job *job, const struct xent_tile *tile,
                           struct workspace *work) {
    struct second *const second = work->second;
    job->kernels->lanes_bend(tile, &second->bend, &second->tile, false);
    const double *const q = work->rows.share, *const others = work->rows.share_of_others;
    const double floor = second->bend.floor;
    for (size_t i = 0; i < tile->rows; i++) {
        const double h = xent_curvature_in_z(second->by[i], second->square[i], q[i], others[i]);
        second->values[i] = h < floor ? floor : h;
    }
    put_second(job, &second->tile, work);
}

/* The product with the vector takes the place of the vector. At the largest class u - mean is
 * u (1 - q) less the mean of the others, so that it does not cancel. */
static void emit_product(const struct xent_job *job, const struct xent_tile *tile,
                         struct workspace *work) {
    static const double zeros[XENT_ROWS];
    struct second *const second = work->second;
    const struct xent_factors *const shares = &second->bend.shares;
    double component[XENT_ROWS], dot[XENT_ROWS] = {0};
    job->kernels->lanes_take(&second->tile, work->target, component);
    job->kernels->lanes_put(&second->tile, work->target, zeros);
    job->kernels->lanes_dot(tile, &second->tile, dot);
    for (size_t i = 0; i < tile->rows; i++) {
        const double q = work->rows.share[i], others = work->rows.share_of_others[i];
        const double of_others =
            (dot[i] * shares->high[i] + dot[i] * shares->low[i]) * shares->post[i];
        const double mean = of_others + q * component[i];
        second->bend.mean[i] = mean;
        second->values[i] = xent_product_in_z(second->by[i], second->square[i], q,
                                              component[i] * others - of_others, mean);
    }
    job->kernels->lanes_bend(tile, &second->bend, &second->tile, true);
    put_second(job, &second->tile, work);
}

/* The gradient at the label, where that is not the largest class. */
static void subtract_labels(const struct xent_job *job, const struct xent_tile *tile,
                            struct workspace *work) {
    struct second *const second = work->second;
    job->kernels->lanes_take(tile, second->label, second->values);
    for (size_t i = 0; i < tile->rows; i++) {
        const bool kept = work->target[i] == second->label[i];
        const double label = xent_weighed(second->own[i], work->rows.upstream[i]);
        second->values[i] -= kept ? 0 : label;
    }
    job->kernels->lanes_put(tile, second->label, second->values);
}

/* Both derivatives, or the product alone. Returns where the values are. */
static const struct xent_tile *emit_second(const struct xent_job *job, const struct group *group,
                                           struct workspace *work) {
    struct second *const second = work->second;
    const struct xent_problem *const problem = job->problem;
    const struct xent_tile *const tile = &group->tile;
    second->tile = *tile;
    second->tile.cells = second->cells.bytes;
    take_second(job, tile->rows, work);
    if (xent_has(job, DIRECTION)) {
        const struct xent_cells vector = cells_of(job, DIRECTION, group, problem->vector_stride);
        load_cells(job, &vector, problem->vector_dtype, problem->vector_swapped, &second->tile,
                   work->passage);
        emit_product(job, tile, work);
        return &second->tile;
    }
    emit_curvature(job, tile, work);
    const struct xent_cells curvature = cells_of(job, CURVATURE, group, problem->curvature_stride);
    store(job, &second->tile, &curvature, problem->wide_curvature, work, &second->edge);
    emit(job, group, work);
    if (xent_has(job, TARGET)) {
        subtract_labels(job, tile, work);
    }
    return tile;
}

static void run_group(const struct xent_job *job, const struct group *group,
                      struct workspace *work) {
    const struct xent_problem *problem = job->problem;
    const struct xent_evaluation *const evaluation = problem->evaluation;
    const bool emits = xent_has(job, VALUES) && problem->output != XENT_LOG_SOFTMAX;
    const bool from_exps = emits || (evaluation && evaluation->entropy);
    load(job, group, work);
    if (evaluation) {
        xent_look_at_rows(job, group->at, group->first, &group->tile);
        if (evaluation->entropy) {
            keep_logits(&group->tile, work);
        }
    }
    take_rows(job, group, work);
    job->kernels->lanes_reduce(&group->tile, low_of(work), job->request.scale, from_exps,
                               &work->rows);
    if (job->options) {
        pass_over_rows(group, work);
    }
    if (evaluation) {
        const struct xent_tile *const tile = &group->tile;
        const struct xent_tile logits = {work->logits, tile->rows, tile->classes, tile->pitch};
        xent_evaluate_rows(job, group->first, tile, &logits, work->target, &work->rows);
    }
    xent_finish_rows(job, &work->rows, group->first, group->tile.rows);
    if (xent_has(job, VALUES)) {
        const struct xent_tile *values = &group->tile;
        if (job->second) {
            values = emit_second(job, group, work);
        } else {
            emit(job, group, work);
        }
        const struct xent_cells cells = cells_of(job, VALUES, group, problem->values_stride);
        store(job, values, &cells, problem->wide_values, work, &work->edge);
    }
}

/* How many rows the next group has: a tile of them, or fewer up to the end of a line, or up to
 * where rows that lie side by side are aligned. */
static size_t group_size(const struct xent_job *job, const struct xent_cursor *at, size_t left) {
    const enum xent_job_array array = xent_has(job, VALUES) ? VALUES : LOGITS;
    size_t size = vectors(job) * VECTOR / job->itemsize;
    if (xent_stride(job, array) == (ptrdiff_t)job->itemsize) {
        const uintptr_t address = (uintptr_t)xent_address(job, array, &at->place);
        size -= address % VECTOR / job->itemsize;
    }
    return xent_smaller(size, xent_smaller(xent_rows_in_line(at, job), left));
}

static void run_lanes(void *context, int member, struct xent_ranges *ranges) {
    const struct xent_job *job = context;
    struct workspace *const work = workspace_of(job, member);
    struct xent_range range;
    while (xent_take_range(ranges, &range)) {
        struct xent_cursor at;
        xent_at_row(job, range.begin, &at);
        for (size_t row = range.begin, rows; row < range.end; row += rows) {
            rows = group_size(job, &at, range.end - row);
            const size_t pitch = (rows * job->itemsize + VECTOR - 1) / VECTOR * VECTOR;
            const struct xent_tile tile = {work->cells.bytes, rows, job->problem->classes,
                                           (ptrdiff_t)pitch};
            run_group(job, &(struct group){&at.place, row, tile}, work);
            xent_advance(&at, job, rows);
        }
    }
    xent_flush_edge(&work->edge);
    if (work->second) {
        xent_flush_edge(&work->second->edge);
    }
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

void xent_run_lanes(struct xent_job *job) {
    const size_t tile = vectors(job) * VECTOR / job->itemsize;
    xent_parallel_ranges(job->plan.threads, job->rows, tile, run_lanes, job);
}
