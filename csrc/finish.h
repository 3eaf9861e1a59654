/* The scalars of a row, in double: the formulas of softmax cross-entropy are here. */
#ifndef XENT_FINISH_H
#define XENT_FINISH_H

#include "kernels.h"

#include <stdbool.h>

/* A row's sums of exponentials, in units of `2^exponent * e^shift`. */
struct xent_row {
    double others; /* over the classes other than the target */
    double target; /* exp of the target's logit alone, so that `others` never cancels against it */
    double exponent, shift;
    double target_logit;
};

/* A number `(value + low) * 2^exponent`. */
struct xent_scaled {
    double value, low, exponent;
};

/* The row whose blocks have these sums. A row without a target has all classes in `others`. */
struct xent_row xent_merge(const struct xent_sum *blocks, size_t count);
struct xent_row xent_merge_with_target(const struct xent_sum *blocks, size_t count,
                                       double target_logit);

/* -ln q_c = ln(1 + others / e_c) */
double xent_row_loss(const struct xent_row *row);

/* ln(sum of e^x) */
double xent_row_lse(const struct xent_row *row);

/* What the row's unit is multiplied by to give `upstream * softmax`: upstream over the row's own
 * sum, or upstream * e^-lse for a given lse. */
struct xent_scaled xent_row_scale(const struct xent_row *row, double upstream);
struct xent_scaled xent_row_scale_by_lse(const struct xent_row *row, double upstream, double lse);

/* The gradient at the target, (q_c - 1) * upstream = -others * scale. */
double xent_target_gradient(const struct xent_row *row, struct xent_scaled scale);

/* What a block's exponentials are multiplied by. */
struct xent_factor xent_block_factor(const struct xent_row *row, const struct xent_sum *block,
                                     struct xent_scaled scale, bool single);

#endif
