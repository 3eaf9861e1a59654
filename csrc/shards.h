/* Statistics of shards on their way between their arrays and the pipeline. Knows nothing of
 * formulas, regimes or threads. */
#ifndef XENT_SHARDS_H
#define XENT_SHARDS_H

#include "options.h"

/* Writes what is known of the row of that index once its blocks are reduced. */
void xent_note_row(const struct xent_job *job, const struct xent_place *at, size_t row,
                   const struct xent_sum *sums, const struct xent_note *notes, size_t count);

/* The same for a row that does not count. */
void xent_note_nothing(const struct xent_job *job, size_t row, size_t count);

/* Reads the blocks of a whole row. */
void xent_read_blocks(const struct xent_job *job, size_t row, struct xent_sum *sums,
                      struct xent_note *notes);

/* What is known of the classes that the whole row's label lists; NULL if there are none. */
const struct xent_listed_class *xent_known_listed(const struct xent_job *job, size_t row);

/* The weight of the class that is the whole row's label. */
double xent_known_weight(const struct xent_job *job, size_t row, size_t label);

#endif
