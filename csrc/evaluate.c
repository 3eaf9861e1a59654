/* Predictions of rows, from what is found in their blocks. */
#include "evaluate.h"

#include "finish.h"

#include <math.h>

struct xent_label xent_read_label(const struct xent_job *job, const struct xent_place *at) {
    if (!xent_has(job, TARGET)) {
        return (struct xent_label){XENT_NO_CLASS, -INFINITY};
    }
    const size_t class = xent_read_class(job, at);
    return (struct xent_label){class, xent_read_uncapped(job, at, class)};
}

/* ---- The first classes -------------------------------------------------------------------------
 */

struct candidate {
    double logit;
    size_t class;
};

/* A heap: of the candidates at i, 2i + 1 and 2i + 2, that at i is the last. So its root is the last
 * of all, the next that gives way. */
struct xent_best {
    size_t count;
    struct candidate heap[];
};

static bool is_before(struct candidate a, struct candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.class < b.class);
}

/* So many are listed at the most. */
static size_t most_listed(const struct xent_job *job) {
    const struct xent_evaluation *wanted = job->problem->evaluation;
    const size_t top_k = wanted ? wanted->top_k : 0, classes = job->problem->classes;
    return xent_smaller(top_k, classes);
}

size_t xent_size_of_best(const struct xent_job *job) {
    const size_t most = most_listed(job);
    return most ? sizeof(struct xent_best) + most * sizeof(struct candidate) : 0;
}

void xent_forget(struct xent_best *best) {
    if (best) {
        best->count = 0;
    }
}

/* Puts the candidate where the root was. */
static void sink(struct candidate *heap, size_t count, struct candidate candidate) {
    size_t at = 0;
    for (size_t child = 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && is_before(heap[child], heap[child + 1]);
        if (!is_before(candidate, heap[child])) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = candidate;
}

static void add(struct xent_best *best, size_t most, struct candidate candidate) {
    if (best->count == most) {
        if (is_before(candidate, best->heap[0])) {
            sink(best->heap, most, candidate);
        }
        return;
    }
    size_t at = best->count++;
    for (; at > 0 && is_before(best->heap[(at - 1) / 2], candidate); at = (at - 1) / 2) {
        best->heap[at] = best->heap[(at - 1) / 2];
    }
    best->heap[at] = candidate;
}

/* The first one first. */
static void sort(struct xent_best *best) {
    for (size_t left = best->count; left > 1; left--) {
        const struct candidate last = best->heap[0];
        sink(best->heap, left - 1, best->heap[left - 1]);
        best->heap[left - 1] = last;
    }
}

/* A number so that at least as many classes of a block are above it as are listed, and few more. */
static double bound_of(const struct xent_job *job, const char *u, size_t size, const void *peaks,
                       size_t most) {
    if (most > XENT_PARTS || size < 2 * XENT_PARTS) {
        return -INFINITY;
    }
    const double last = job->kernels->bound_of_first(u, size, most, peaks);
    return job->single ? (double)nextafterf((float)last, -INFINITY) : nextafter(last, -INFINITY);
}

/* Classes come in order, so that one that is equal to the last of the list is after it. Almost
 * always nothing is found after the first blocks. */
static void list_block(const struct xent_job *job, const char *u, size_t begin, size_t size,
                       double largest, const void *peaks, struct xent_best *best) {
    const size_t most = most_listed(job);
    const double least = best->count < most ? bound_of(job, u, size, peaks, most) : -INFINITY;
    struct xent_found found;
    for (size_t i = 0; i < size;) {
        const double bound = best->count == most ? best->heap[0].logit : least;
        if (!(largest > bound)) {
            return;
        }
        i = job->kernels->find_above(u, size, i, bound, peaks, &found);
        for (size_t k = 0; k < found.count; k++) {
            const double logit = xent_real(job, u + found.classes[k] * job->itemsize);
            add(best, most, (struct candidate){logit, begin + found.classes[k]});
        }
    }
}

/* ---- Blocks ------------------------------------------------------------------------------------
 */

/* How many classes of a block are before the label: of those before it in the block also those that
 * are equal. */
static size_t count_before(const struct xent_job *job, const char *u, size_t begin, size_t size,
                           double largest, const struct xent_label *label) {
    if (!job->problem->evaluation->rank || largest < label->logit) {
        return 0;
    }
    const size_t earlier = label->class > begin ? xent_smaller(label->class - begin, size) : 0;
    return job->kernels->count_above(u, earlier, label->logit, true) +
           job->kernels->count_above(u + earlier * job->itemsize, size - earlier, label->logit,
                                     false);
}

struct xent_finding xent_look_at_block(const struct xent_job *job, const struct xent_place *at,
                                       size_t begin, size_t size, const struct xent_logits *logits,
                                       const void *peaks, const struct xent_note *note,
                                       const struct xent_label *label,
                                       const struct xent_evaluation_space *space) {
    const bool kept = note->kept != XENT_NO_CLASS;
    struct xent_finding finding = {kept ? note->logit : note->top, note->kept, 0, 0};
    const char *u = logits->u;
    if (job->caps) {
        u = xent_load_uncapped(job, at, begin, size, space->uncapped);
        peaks = NULL;
        finding.largest = job->kernels->largest(u, size, XENT_NO_CLASS, NULL);
        finding.argmax = begin + job->kernels->find(u, size, finding.largest, NULL);
    }
    finding.before = count_before(job, u, begin, size, finding.largest, label);
    if (space->best) {
        list_block(job, u, begin, size, finding.largest, peaks, space->best);
    }
    return finding;
}

/* ---- Rows --------------------------------------------------------------------------------------
 */

/* z_m - z, or so much that e^z is nothing beside e^z_m: then the product must not overflow. */
static double distance_below(double scale, double below) { return fmin(scale * below, 1e6); }

/* sum e^z * (z_m - z) over all classes, m being the one that is kept. */
static struct xent_sum sum_below(const struct xent_job *job, const struct xent_blocks *blocks,
                                 const struct xent_note *kept) {
    const double scale = job->request.scale;
    struct xent_sum *const sums = blocks->sums;
    size_t count = blocks->count;
    for (size_t i = 0; i < blocks->count; i++) {
        const struct xent_note *note = &blocks->notes[i];
        const double top = distance_below(scale, (kept->logit - note->top) + kept->low);
        const double from_top = sums[i].sum > 0 ? sums[i].sum * top : 0; /* else there is none */
        sums[i].sum = blocks->findings[i].spread + from_top;
        sums[i].low = 0;
        if (note != kept && note->kept != XENT_NO_CLASS) {
            const double below = (kept->logit - note->logit) + (kept->low - note->low);
            sums[count].sum = distance_below(scale, below);
            count++;
        }
    }
    return job->finish->merge(sums, count, scale);
}

static size_t find_argmax(const struct xent_blocks *blocks) {
    const struct xent_finding *first = &blocks->findings[0];
    for (size_t i = 1; i < blocks->count; i++) {
        if (blocks->findings[i].largest > first->largest) {
            first = &blocks->findings[i];
        }
    }
    return first->argmax;
}

static void write_list(const struct xent_job *job, const struct xent_place *at, size_t row,
                       struct xent_best *best) {
    const struct xent_evaluation *to = job->problem->evaluation;
    double *const logits = to->top_log_probs + row * to->top_k;
    int64_t *const classes = to->top_classes + row * to->top_k;
    sort(best);
    for (size_t i = 0; i < to->top_k; i++) {
        const bool listed = i < best->count;
        logits[i] = listed ? xent_read_logit(job, at, best->heap[i].class) : -INFINITY;
        classes[i] = listed ? (int64_t)best->heap[i].class : -1;
    }
    best->count = 0;
}

void xent_evaluate_row(const struct xent_job *job, const struct xent_place *at, size_t row,
                       const struct xent_label *label, const struct xent_blocks *blocks,
                       const struct xent_note *kept, struct xent_best *best, struct xent_rows *rows,
                       size_t lane) {
    const struct xent_evaluation *to = job->problem->evaluation;
    if (to->argmax) {
        to->argmax[row] = (int64_t)find_argmax(blocks);
    }
    if (to->rank) {
        size_t before = 0;
        for (size_t i = 0; i < blocks->count; i++) {
            before += blocks->findings[i].before;
        }
        to->rank[row] = (int64_t)before;
    }
    if (to->log_prob) {
        to->log_prob[row] = xent_read_logit(job, at, label->class);
    }
    if (best) {
        write_list(job, at, row, best);
    }
    if (to->entropy) {
        const struct xent_sum below = sum_below(job, blocks, kept);
        rows->below[lane] = below.sum;
        rows->below_exponent[lane] = below.exponent;
        rows->below_shift[lane] = below.shift;
    }
    rows->target_low[lane] = kept->low; /* without options, too */
}

/* The first classes one by one: each is taken out of the tile, and put back in the end. */
static void list_rows(const struct xent_job *job, size_t first, const struct xent_tile *tile) {
    const struct xent_evaluation *to = job->problem->evaluation;
    const size_t most = most_listed(job);
    double *const logits = to->top_log_probs + first * to->top_k;
    int64_t *const classes = to->top_classes + first * to->top_k;
    size_t class[XENT_ROWS];
    double logit[XENT_ROWS];
    for (size_t k = 0; k < to->top_k; k++) {
        if (k < most) {
            job->kernels->lanes_largest(tile, class);
            job->kernels->lanes_take(tile, class, logit);
        }
        for (size_t i = 0; i < tile->rows; i++) {
            logits[i * to->top_k + k] = k < most ? logit[i] : -INFINITY;
            classes[i * to->top_k + k] = k < most ? (int64_t)class[i] : -1;
        }
    }
    for (size_t k = most; k-- > 0;) { /* what was taken first last: -inf may be taken again */
        for (size_t i = 0; i < tile->rows; i++) {
            logit[i] = logits[i * to->top_k + k];
            class[i] = (size_t)classes[i * to->top_k + k];
        }
        job->kernels->lanes_put(tile, class, logit);
    }
}

void xent_look_at_rows(const struct xent_job *job, const struct xent_place *at, size_t first,
                       const struct xent_tile *logits) {
    const struct xent_evaluation *to = job->problem->evaluation;
    size_t label[XENT_ROWS];
    if (to->log_prob || to->rank) {
        xent_read_classes(job, xent_address(job, TARGET, at), logits->rows, label);
    }
    if (to->log_prob) {
        job->kernels->lanes_take(logits, label, to->log_prob + first);
        job->kernels->lanes_put(logits, label, to->log_prob + first);
    }
    if (to->rank) {
        job->kernels->lanes_before(logits, label, to->rank + first);
    }
    if (to->top_k > 0) {
        list_rows(job, first, logits);
    }
}

void xent_evaluate_rows(const struct xent_job *job, size_t first, const struct xent_tile *terms,
                        const struct xent_tile *logits, const size_t *kept,
                        struct xent_rows *rows) {
    const struct xent_evaluation *to = job->problem->evaluation;
    for (size_t i = 0; i < terms->rows; i++) {
        rows->target_low[i] = 0; /* without options, too */
        if (to->argmax) {
            to->argmax[first + i] = (int64_t)kept[i];
        }
    }
    if (to->entropy) {
        job->kernels->lanes_spread_terms(terms, logits, job->request.scale, rows);
        memcpy(rows->below_exponent, rows->exponent, sizeof rows->exponent);
        memcpy(rows->below_shift, rows->shift, sizeof rows->shift);
    }
}

/* ln q = (z - z_m) - loss_m, as in log_softmax: nothing cancels. */
static double log_prob_of(const struct xent_rows *rows, size_t lane, double logit, double scale) {
    const double below = (rows->target_logit[lane] - logit) + rows->target_low[lane];
    return -(rows->loss[lane] + scale * below);
}

void xent_finish_evaluation(const struct xent_job *job, struct xent_rows *rows, size_t first,
                            size_t count) {
    const struct xent_evaluation *to = job->problem->evaluation;
    const struct xent_request request = job->request;
    if (to->entropy) {
        job->finish->entropies(rows, count, &request);
    }
    for (size_t i = 0; i < count; i++) {
        const size_t row = first + i;
        const bool good = rows->lse[i] - rows->lse[i] == 0;
        if (to->log_prob) {
            const double log_prob = log_prob_of(rows, i, to->log_prob[row], request.scale);
            to->log_prob[row] = good ? log_prob : NAN;
        }
        if (to->entropy) {
            to->entropy[row] = good ? rows->entropy[i] : NAN;
        }
        if (to->argmax && !good) {
            to->argmax[row] = -1;
        }
        if (to->rank && !good) {
            to->rank[row] = -1;
        }
        for (size_t k = row * to->top_k; k < (row + 1) * to->top_k; k++) {
            const double log_prob = log_prob_of(rows, i, to->top_log_probs[k], request.scale);
            to->top_log_probs[k] = good ? log_prob : NAN;
            to->top_classes[k] = good && log_prob > -INFINITY ? to->top_classes[k] : -1;
        }
    }
}
