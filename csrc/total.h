/* Sums over rows. */
#ifndef XENT_TOTAL_H
#define XENT_TOTAL_H

#include "kernels.h"

/* The sum of n numbers, divided. The order depends on n alone, and the sum itself may be beyond the
 * largest number. */
double xent_total(const struct xent_finish_kernels *kernels, const double *values, size_t n,
                  double divisor, int threads);

#endif
