/* The scalars of rows on their way between the arrays and the kernels that know the formulas. */
#ifndef XENT_FINISH_H
#define XENT_FINISH_H

#include "job.h"

/* The lanes from `lane` on get what finish needs of n rows in a line beside their sums and their
 * targets' logits, for the values if there are any. */
void xent_take_rows(const struct xent_job *job, const struct xent_place *at, size_t n,
                    struct xent_rows *rows, size_t lane);

/* Finishes so many lanes, which are the rows from `first` on, and writes their loss and lse. */
void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count);

#endif
