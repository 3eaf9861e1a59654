/* What options make of rows: the weights of rows and the coefficients of their classes, which
 * finish and emit work with. Knows nothing of regimes or threads. */
#ifndef XENT_OPTIONS_H
#define XENT_OPTIONS_H

#include "job.h"

/* What is noted of a block beside its sum, where the row has options or no target. */
struct xent_note {
    size_t kept;              /* the class that is not in the sum, or XENT_NO_CLASS */
    double logit, low, slope; /* of it, if there is one */
    double label, weight; /* its coefficients, likewise; the first of the largest only with dense
                             labels, the second zero if it is masked */
    double top;           /* the largest logit of the other classes */
    /* Of the other classes: where labels are dense, and where every class gets a share. */
    struct xent_spread labels, weights;
    /* the vector's product with the other classes' terms, and its component at `kept` */
    double dot, component;
};

/* The classes that a row's label lists, each once: c_j, their logits and weights. */
struct xent_listed {
    size_t count;
    size_t *class;
    double *coefficient, *logit, *weight;
};

/* c_j = labels * t_j w_j + weights * w_j; the second where a class is not masked. */
struct xent_coefficients {
    double labels, weights;
    double unmasked; /* classes; counted where something depends on it */
};

/* The two of a row of weight v, of whose classes so many are not masked. */
static inline double xent_label_share(const struct xent_options *options, double weight) {
    return weight * (1 - options->label_smoothing);
}

static inline double xent_class_share(const struct xent_options *options, double weight,
                                      double unmasked) {
    const double smoothing = options->label_smoothing;
    return smoothing > 0 && unmasked > 0 ? weight * smoothing / unmasked : 0;
}

/* Whether it has to be known how many classes of a row are not masked. */
static inline bool xent_counts_classes(const struct xent_job *job) {
    return job->shares || (job->second && job->problem->curvature_kind == XENT_LIGHTGBM);
}

/* v, the weight of a row with options: zero if the row does not count. */
double xent_row_weight(const struct xent_job *job, const struct xent_place *at);
/* Those of n rows in a line, whose labels are known if there are any. */
void xent_row_weights(const struct xent_job *job, const struct xent_place *at, size_t n,
                      const size_t *label, double *weights);

static inline double xent_class_weight(const struct xent_job *job, size_t class) {
    const double *const weights = job->options ? job->options->class_weight : NULL;
    return weights ? weights[class] : 1;
}

/* The sum that a mean is divided by. */
double xent_denominator(const struct xent_job *job);

/* How many classes labels list: a target is one, where it is not kept apart. */
size_t xent_listed_labels(const struct xent_job *job);

/* Some of what a row's label lists, from `begin` on. */
enum { XENT_LISTED_AT_ONCE = 64 };
struct xent_listing {
    size_t count, class[XENT_LISTED_AT_ONCE];
    double probability[XENT_LISTED_AT_ONCE];
};

void xent_read_listing(const struct xent_job *job, const struct xent_place *at, size_t begin,
                       struct xent_listing *listing);

/* Notes of a block what its row's coefficients need: `top` and `kept`, an index into the block or
 * XENT_NO_CLASS, are noted with the rest. The note is written where it stays: a copy of what was
 * just written in parts would wait for the stores, also those past the caches. What reduce is to
 * add to it is said aside. */
void xent_note_block(const struct xent_job *job, const struct xent_place *at, size_t begin,
                     size_t size, const struct xent_logits *logits, const char *slopes, size_t kept,
                     double top, char *labels, struct xent_note *note, struct xent_aside *aside);

/* Whether some of a block's classes are masked, where every class gets a share. */
bool xent_has_masked(const struct xent_note *note, size_t size);

/* t_j w_j of a block. */
const void *xent_load_weighed_labels(const struct xent_job *job, const struct xent_place *at,
                                     size_t begin, size_t size, char *buffer);

/* The lane gets the row's coefficients, which are also returned; `kept` is the note of the block
 * that has the class kept apart, and `listed` gets the listed classes. What is `known` of these, if
 * it is not NULL, is not read from the logits. */
struct xent_coefficients
xent_take_coefficients(const struct xent_job *job, const struct xent_place *at,
                       const struct xent_note *notes, size_t count, const struct xent_note *kept,
                       const struct xent_listed_class *known, struct xent_listed *listed,
                       struct xent_rows *rows, size_t lane);

#endif
