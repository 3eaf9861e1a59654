/* The scalars of rows on their way between the arrays and the kernels that know the formulas. */
#ifndef XENT_FINISH_H
#define XENT_FINISH_H

#include "job.h"

/* Lane `lane` gets what finish needs of a row beside its sum; the target may be XENT_NO_CLASS. */
void xent_take_row(const struct xent_job *job, const struct xent_place *at, size_t target,
                   struct xent_rows *rows, size_t lane);

/* Finishes so many lanes, which are the rows from `first` on, and writes their loss and lse. */
void xent_finish_rows(const struct xent_job *job, struct xent_rows *rows, size_t first,
                      size_t count);

#define XENT_NO_CLASS SIZE_MAX

#endif
