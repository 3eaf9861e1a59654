/* What the second derivatives of a row are made of, and which of them is asked for. Knows nothing
 * of regimes or threads. */
#ifndef XENT_SECOND_H
#define XENT_SECOND_H

#include "job.h"

/* With q, slope, tanh and G (the gradient) of a class, what is asked for is
 *
 *     max(floor, slope^2 (by q (1 - q) + square q^2) + G by_tanh tanh)
 *
 * or, u being the vector's component and mean the sum of q slope u over the row,
 *
 *     slope (by q (slope u - mean) + square q mean) + G by_tanh tanh u */
struct xent_second {
    double by, square, floor, by_tanh;
    double mean, mean_of_others; /* the second without the class kept apart */
};

/* Both without slopes; `away` is u - mean. */
static inline double xent_curvature_in_z(double by, double square, double q, double others) {
    return by * q * others + square * q * q;
}

static inline double xent_product_in_z(double by, double square, double q, double away,
                                       double mean) {
    return by * q * away + square * q * mean;
}

/* `unmasked` counts classes, for LightGBM. */
struct xent_second xent_second_of(const struct xent_job *job, const struct xent_rows *rows,
                                  size_t lane, double unmasked);
/* Those of n lanes; `floor` is the same for all. */
void xent_second_of_rows(const struct xent_job *job, const struct xent_rows *rows, size_t lane,
                         size_t n, const double *unmasked, double *by, double *square);
double xent_curvature_floor(const struct xent_job *job);
/* Whether `square` may be other than zero. */
bool xent_bends_square(const struct xent_job *job);

/* A class by itself; `away` is slope u - mean, and both are of a vector only. */
struct xent_point {
    double q, others; /* 1 - q */
    double slope, tanh, gradient;
    double component, away;
};

double xent_second_at(const struct xent_job *job, const struct xent_second *second,
                      const struct xent_point *at);

#endif
