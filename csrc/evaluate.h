/* What else there is to know of a row's prediction: its first classes, where the label is among
 * them, the entropy. Knows nothing of regimes or threads.
 *
 * Logits are compared as they are before the softcap, which rounds different ones to the same. */
#ifndef XENT_EVALUATE_H
#define XENT_EVALUATE_H

#include "options.h"

/* The target of a row; XENT_NO_CLASS: none. */
struct xent_label {
    size_t class;
    double logit;
};

/* What is found in a block. */
struct xent_finding {
    /* The largest logit, -inf if there is none; and the first class that has it, if no block before
     * has one as large. */
    double largest;
    size_t argmax;
    size_t before; /* classes that are before the label */
    double spread; /* the sum of e^z * (top - z) over what is in the block's sum, in its unit */
};

/* The first classes of those that have been looked at, in no particular order. */
struct xent_best;

/* A thread's own memory; each is there if it is needed. */
struct xent_evaluation_space {
    char *terms;    /* of a block: room for reduce, where an entropy is asked for */
    char *uncapped; /* a block, with softcap; not used where logits are read in place */
    struct xent_best *best;
};

/* The blocks of a row; of `sums` there are as many again, for the classes that are kept apart. */
struct xent_blocks {
    const struct xent_note *notes;
    const struct xent_finding *findings;
    struct xent_sum *sums;
    size_t count;
};

struct xent_label xent_read_label(const struct xent_job *job, const struct xent_place *at);

size_t xent_size_of_best(const struct xent_job *job);
/* Empties the list; NULL: there is none. */
void xent_forget(struct xent_best *best);

/* `peaks` are those of the block, or NULL, `note` is its note, and the first classes go to the
 * list: blocks come in order. What is spread is not known yet. */
struct xent_finding xent_look_at_block(const struct xent_job *job, const struct xent_place *at,
                                       size_t begin, size_t size, const struct xent_logits *logits,
                                       const void *peaks, const struct xent_note *note,
                                       const struct xent_label *label,
                                       const struct xent_evaluation_space *space);

/* Writes what is known before the row is finished: classes and ranks, and logits in place of their
 * log-probabilities. The lane gets what the entropy needs, for which the sums, merged before, are
 * used up; the list is emptied. `kept` is the note of the block that has the largest class. */
void xent_evaluate_row(const struct xent_job *job, const struct xent_place *at, size_t row,
                       const struct xent_label *label, const struct xent_blocks *blocks,
                       const struct xent_note *kept, struct xent_best *best, struct xent_rows *rows,
                       size_t lane);

/* The same of rows side by side, the first of which has that index: of their logits, and of the
 * terms that reduce has left of all but `kept`, with the logits as they were. The terms are there
 * for the entropy only. */
void xent_look_at_rows(const struct xent_job *job, const struct xent_place *at, size_t first,
                       const struct xent_tile *logits);
void xent_evaluate_rows(const struct xent_job *job, size_t first, const struct xent_tile *terms,
                        const struct xent_tile *logits, const size_t *kept, struct xent_rows *rows);

/* Completes so many rows that are finished, the first of which has that index. */
void xent_finish_evaluation(const struct xent_job *job, struct xent_rows *rows, size_t first,
                            size_t count);

#endif
