/* The coefficients of rows with options, see xent.h for what they mean. */
#include "options.h"

#include "shards.h"

#include <math.h>

size_t xent_listed_labels(const struct xent_job *job) {
    const size_t listed = xent_has(job, INDICES) ? job->options->labels.listed : 1;
    return job->listed_labels ? listed : 0;
}

static bool ignores(const struct xent_job *job) {
    return job->options->ignores && xent_has(job, TARGET);
}

void xent_row_weights(const struct xent_job *job, const struct xent_place *at, size_t n,
                      const size_t *label, double *weights) {
    const ptrdiff_t stride = xent_stride(job, ROW_WEIGHT);
    const char *const given = xent_has(job, ROW_WEIGHT) ? xent_address(job, ROW_WEIGHT, at) : NULL;
    for (size_t i = 0; i < n; i++) {
        weights[i] = given ? xent_read_double(given + (ptrdiff_t)i * stride) : 1;
    }
    for (size_t i = 0; ignores(job) && i < n; i++) {
        weights[i] = label[i] == (size_t)job->options->ignored ? 0 : weights[i];
    }
}

double xent_row_weight(const struct xent_job *job, const struct xent_place *at) {
    const size_t label = ignores(job) ? xent_read_class(job, at) : 0;
    double weight;
    xent_row_weights(job, at, 1, &label, &weight);
    return weight;
}

enum { MANY = 256 }; /* rows that are looked at together */

/* How many rows have another label than that which is ignored. */
static double count_rows(const struct xent_job *job) {
    struct xent_cursor at;
    xent_at_row(job, 0, &at);
    size_t count = 0;
    for (size_t row = 0, n; row < job->rows; row += n) {
        size_t buffer[MANY];
        n = xent_smaller(xent_rows_in_line(&at, job), MANY);
        const size_t *const label =
            xent_find_classes(job, xent_address(job, TARGET, &at.place), n, buffer);
        for (size_t i = 0; i < n; i++) {
            count += label[i] != (size_t)job->options->ignored;
        }
        xent_advance(&at, job, n);
    }
    return (double)count;
}

/* The weights of rows times those of their labels; the label of a row without weight need not be a
 * class. */
static void weigh_by_class(const struct xent_job *job, size_t row, size_t n, const size_t *label,
                           double *weights) {
    const double *const of_class = job->options->class_weight;
    for (size_t i = 0; job->knows_whole && i < n; i++) {
        weights[i] = weights[i] != 0 ? weights[i] * xent_known_weight(job, row + i, label[i]) : 0;
    }
    for (size_t i = 0; !job->knows_whole && of_class && i < n; i++) {
        weights[i] = weights[i] != 0 ? weights[i] * of_class[label[i]] : 0;
    }
}

double xent_denominator(const struct xent_job *job) {
    if (!job->options || job->rows == 0) {
        return (double)job->rows;
    }
    /* Other shards' weights are known by their statistics alone. */
    const bool may_differ = job->options->class_weight || job->knows_whole;
    const bool same = !may_differ || !xent_has(job, TARGET);
    if (same && !xent_has(job, ROW_WEIGHT)) {
        return ignores(job) ? count_rows(job) : (double)job->rows;
    }
    /* So many sums that an addition need not wait for the last. */
    enum { SUMS = 4 };
    struct two sums[SUMS] = {{0, 0}};
    struct xent_cursor at;
    xent_at_row(job, 0, &at);
    for (size_t row = 0, n; row < job->rows; row += n) {
        size_t label[MANY];
        double weights[MANY];
        n = xent_smaller(xent_rows_in_line(&at, job), MANY);
        if (xent_has(job, TARGET)) {
            xent_read_classes(job, xent_address(job, TARGET, &at.place), n, label);
        }
        xent_row_weights(job, &at.place, n, label, weights);
        if (xent_has(job, TARGET)) {
            weigh_by_class(job, row, n, label, weights);
        }
        for (size_t i = 0; i < n; i++) {
            struct two *const sum = &sums[(row + i) % SUMS];
            *sum = add_two(*sum, (struct two){weights[i], 0});
        }
        xent_advance(&at, job, n);
    }
    const struct two sum = add_two(add_two(sums[0], sums[1]), add_two(sums[2], sums[3]));
    return sum.high + sum.low;
}

/* The class weights of a block, as the kernels want them. */
static const char *weights_of(const struct xent_job *job, size_t begin) {
    const char *const weights = job->class_weight;
    return weights ? weights + begin * job->itemsize : NULL;
}

void xent_note_block(const struct xent_job *job, const struct xent_place *at, size_t begin,
                     size_t size, const struct xent_logits *logits, const char *slopes, size_t kept,
                     double top, char *labels, struct xent_note *note, struct xent_aside *aside) {
    if (job->notes_shard) { /* all of it is written */
        *note = (struct xent_note){.logit = -INFINITY, .slope = 1};
    }
    note->kept = XENT_NO_CLASS;
    note->top = top;
    const char *const u = logits->u, *const low = logits->low;
    if (kept != XENT_NO_CLASS) {
        note->kept = begin + kept;
        note->logit = xent_real(job, u + kept * job->itemsize);
        note->low = low ? xent_real(job, low + kept * job->itemsize) : 0;
        note->slope = xent_slope(job, slopes, kept);
        const double weight = xent_class_weight(job, note->kept);
        note->weight = note->logit > -INFINITY ? weight : 0;
        note->label = job->keeps_largest ? 0 : weight;
    }
    aside->weights = weights_of(job, begin);
    aside->labels = NULL;
    aside->spread = xent_counts_classes(job) ? &note->weights : NULL;
    if (!job->dense_labels) {
        return;
    }
    if (aside->spread) { /* there is one on the way, of the labels */
        job->kernels->spread(logits, size, kept, top, NULL, aside->weights, aside->spread);
    }
    const char *const t = xent_load_labels(job, at, begin, size, labels);
    aside->labels = t;
    aside->spread = &note->labels;
    if (kept != XENT_NO_CLASS) {
        note->label = xent_real(job, t + kept * job->itemsize);
        note->label *= xent_class_weight(job, note->kept);
    }
}

bool xent_has_masked(const struct xent_note *note, size_t size) {
    const bool counted = note->kept != XENT_NO_CLASS && note->logit > -INFINITY;
    return note->weights.count + counted < (double)size;
}

const void *xent_load_weighed_labels(const struct xent_job *job, const struct xent_place *at,
                                     size_t begin, size_t size, char *buffer) {
    const void *labels = xent_load_labels(job, at, begin, size, buffer);
    if (!job->class_weight) {
        return labels;
    }
    if (labels != buffer) {
        memcpy(buffer, labels, size * job->itemsize);
    }
    job->kernels->multiply(buffer, size, weights_of(job, begin));
    return buffer;
}

/* ---- The classes that a label lists ------------------------------------------------------------
 */

/* Takes a class that is listed for the first time. */
static void add_listed(const struct xent_job *job, const struct xent_place *at, size_t class,
                       const struct xent_listed_class *known, struct xent_listed *listed) {
    const size_t k = listed->count++;
    listed->class[k] = class;
    listed->coefficient[k] = 0;
    listed->logit[k] = known ? known->logit : xent_read_logit(job, at, class);
    listed->weight[k] = known ? known->weight : xent_class_weight(job, class);
}

void xent_read_listing(const struct xent_job *job, const struct xent_place *at, size_t begin,
                       struct xent_listing *listing) {
    double buffer[XENT_LISTED_AT_ONCE];
    listing->count = xent_smaller(job->options->labels.listed - begin, XENT_LISTED_AT_ONCE);
    xent_read_indices(job, at, begin, listing->count, listing->class);
    const char *const p = xent_load_labels(job, at, begin, listing->count, (char *)buffer);
    for (size_t i = 0; i < listing->count; i++) {
        listing->probability[i] = xent_real(job, p + i * job->itemsize);
    }
}

/* Each class once, with the sum of its probabilities; returns what all lack of one. */
static double read_listed(const struct xent_job *job, const struct xent_place *at,
                          const struct xent_listed_class *known, struct xent_listed *listed) {
    if (xent_has(job, TARGET)) {
        listed->count = 0;
        add_listed(job, at, xent_read_class(job, at), NULL, listed);
        listed->coefficient[0] = 1;
        return 0;
    }
    struct two sum = {0, 0};
    listed->count = 0;
    struct xent_listing listing;
    for (size_t begin = 0; begin < job->options->labels.listed; begin += listing.count) {
        xent_read_listing(job, at, begin, &listing);
        for (size_t i = 0; i < listing.count; i++) {
            const double probability = listing.probability[i];
            const size_t class = listing.class[i];
            size_t k = 0;
            while (k < listed->count && listed->class[k] != class) {
                k++;
            }
            if (k == listed->count) {
                add_listed(job, at, class, known ? &known[begin + i] : NULL, listed);
            }
            listed->coefficient[k] += probability;
            sum = add_term(sum, probability);
        }
    }
    return (1 - sum.high) - sum.low;
}

/* ---- Rows --------------------------------------------------------------------------------------
 */

/* Whether other classes than the one that is kept apart may have coefficients. */
static bool has_others(const struct xent_job *job) {
    return job->dense_labels || job->listed_labels || job->shares || job->knows_whole;
}

/* Sums over the classes that are not kept apart. */
struct sums {
    double top;
    struct two rest, spread;
};

/* A class, or the mean of several, `below` the top. */
static void add_class(struct sums *sums, double coefficient, double below) {
    if (coefficient != 0) {
        sums->rest = add_term(sums->rest, coefficient);
        sums->spread = add_term(sums->spread, coefficient * below);
    }
}

static void add_block(struct sums *sums, double factor, const struct xent_spread *spread,
                      double top) {
    if (factor != 0 && (spread->mass != 0 || spread->spread != 0)) {
        sums->rest = add_term(sums->rest, factor * spread->mass);
        sums->spread = add_term(sums->spread, factor * spread->spread);
        if (top > -INFINITY && spread->mass != 0) {
            sums->spread = add_term(sums->spread, factor * spread->mass * (sums->top - top));
        }
    }
}

static double count_unmasked(const struct xent_job *job, const struct xent_note *notes,
                             size_t count) {
    double unmasked = 0;
    for (size_t i = 0; xent_counts_classes(job) && i < count; i++) {
        unmasked += notes[i].weights.count;
        unmasked += notes[i].kept != XENT_NO_CLASS && notes[i].logit > -INFINITY;
    }
    return unmasked;
}

/* Shares of every class, of the smoothing and of the tail, are times this. */
static double shared_weight(const struct xent_listed *listed, size_t k) {
    return listed->logit[k] > -INFINITY ? listed->weight[k] : 0;
}

/* What each of the other classes gets of that which the listed ones lack of one. */
static double share_of_tail(const struct xent_job *job, double unmasked, double lacking,
                            const struct xent_listed *listed) {
    double others = unmasked;
    for (size_t k = 0; k < listed->count; k++) {
        others -= listed->logit[k] > -INFINITY;
    }
    return job->options->labels.spread_tail && others > 0 && lacking > 0 ? lacking / others : 0;
}

/* The largest logit but that of `kept`. */
static double top_of(const struct xent_note *notes, size_t count, const struct xent_note *kept) {
    double top = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        top = fmax(top, notes[i].top);
        if (&notes[i] != kept && notes[i].kept != XENT_NO_CLASS) {
            top = fmax(top, notes[i].logit + notes[i].low);
        }
    }
    return top;
}

struct xent_coefficients
xent_take_coefficients(const struct xent_job *job, const struct xent_place *at,
                       const struct xent_note *notes, size_t count, const struct xent_note *kept,
                       const struct xent_listed_class *known, struct xent_listed *listed,
                       struct xent_rows *rows, size_t lane) {
    const struct xent_options *options = job->options;
    const double weight = xent_row_weight(job, at);
    const double unmasked = count_unmasked(job, notes, count);
    struct xent_coefficients c = {
        .labels = xent_label_share(options, weight),
        .weights = xent_class_share(options, weight, unmasked),
        .unmasked = unmasked,
    };

    struct sums sums = {.top = has_others(job) ? top_of(notes, count, kept) : -INFINITY};
    double own = c.labels; /* without a label, or where it is listed */
    if (job->dense_labels || job->knows_whole || (xent_has(job, TARGET) && !job->keeps_largest)) {
        own *= kept->label;
    }
    if (job->listed_labels) {
        const double lacking = read_listed(job, at, known, listed);
        const double smoothed = c.weights;
        const double tail = c.labels * share_of_tail(job, unmasked, lacking, listed);
        c.weights += tail;
        own = c.weights * kept->weight;
        for (size_t k = 0; k < listed->count; k++) {
            /* Never their difference: a share may be 1e14 times what is listed. */
            const double label = c.labels * listed->coefficient[k] * listed->weight[k];
            const double shared = shared_weight(listed, k);
            listed->coefficient[k] = label + smoothed * shared;
            if (listed->class[k] == kept->kept) {
                own = listed->coefficient[k];
            } else {
                const double top = sums.top > -INFINITY ? sums.top : 0;
                add_class(&sums, label, top - listed->logit[k]);
                add_class(&sums, -tail * shared, top - listed->logit[k]);
            }
        }
    } else {
        own += c.weights * kept->weight;
    }
    for (size_t i = 0; has_others(job) && i < count; i++) {
        const struct xent_note *note = &notes[i];
        if (job->dense_labels || job->knows_whole) {
            add_block(&sums, c.labels, &note->labels, note->top);
        }
        if (job->shares) {
            add_block(&sums, c.weights, &note->weights, note->top);
        }
        if (note != kept && note->kept != XENT_NO_CLASS) {
            add_class(&sums, c.labels * note->label + c.weights * note->weight,
                      sums.top - (note->logit + note->low));
        }
    }
    rows->own[lane] = own;
    rows->rest[lane] = sums.rest.high + sums.rest.low;
    rows->spread[lane] = sums.spread.high + sums.spread.low;
    rows->top[lane] = sums.top > -INFINITY ? sums.top : 0;
    rows->square[lane] = weight * options->z_loss;
    rows->target_logit[lane] = kept->logit;
    rows->target_low[lane] = kept->low;
    rows->target_slope[lane] = kept->slope;
    return c;
}
