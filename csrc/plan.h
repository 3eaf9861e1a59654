/* How a problem is divided: the one place that chooses. A row's bits depend on whether it is
 * computed in lanes, and so on the number of classes, the dtype and what is asked for, and on
 * nothing else here. */
#ifndef XENT_PLAN_H
#define XENT_PLAN_H

#include "xent.h"

enum xent_regime {
    XENT_BY_LANES,  /* threads share rows, which lie side by side in vectors */
    XENT_BY_ROWS,   /* threads share rows, which come one after the other */
    XENT_BY_GROUPS, /* the same of rows that lie side by side in their array: groups are turned */
    XENT_BY_COLUMNS /* threads share the blocks of one row, then of the next */
};

struct xent_plan {
    enum xent_regime regime;
    int threads;
    bool stream;     /* write values past the caches */
    bool fetch_near; /* fetch the logits of rows into the L1 cache, not the L2 */
};

/* Whether options make z of x, and nothing else. */
static inline bool xent_only_transform(const struct xent_options *options) {
    return !options->labels.probabilities.data && !options->class_weight &&
           !options->row_weight.data && !options->ignores && options->label_smoothing == 0 &&
           options->z_loss == 0;
}

/* Whether all is as without options: then a row has the same bits, and takes as long. */
static inline bool xent_say_nothing(const struct xent_options *options) {
    return xent_only_transform(options) && options->scale == 1 && options->softcap == 0 &&
           !options->mask.data;
}

/* Of the rows so many lie along the last dimension, a constant stride apart. */
struct xent_plan xent_plan(const struct xent_problem *problem, size_t rows, size_t rows_in_line);

#endif
