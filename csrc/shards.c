/* Statistics of rows' blocks, written to arrays and read from them. */
#include "shards.h"

static struct xent_block block_of(const struct xent_sum *sum, const struct xent_note *note,
                                  size_t offset) {
    return (struct xent_block){
        .kept = note->kept != XENT_NO_CLASS ? (int64_t)(offset + note->kept) : -1,
        .logit = note->logit,
        .logit_low = note->low,
        .slope = note->slope,
        .label = note->label,
        .weight = note->weight,
        .top = note->top,
        .sum = sum->sum,
        .low = sum->low,
        .exponent = sum->exponent,
        .shift = sum->shift,
        .label_mass = note->labels.mass,
        .label_spread = note->labels.spread,
        .weight_mass = note->weights.mass,
        .weight_spread = note->weights.spread,
        .unmasked = note->weights.count,
    };
}

static struct xent_sum sum_of(const struct xent_block *block) {
    return (struct xent_sum){block->sum, block->low, block->exponent, block->shift};
}

static struct xent_note note_of(const struct xent_block *block) {
    return (struct xent_note){
        .kept = block->kept >= 0 ? (size_t)block->kept : XENT_NO_CLASS,
        .logit = block->logit,
        .low = block->logit_low,
        .slope = block->slope,
        .label = block->label,
        .weight = block->weight,
        .top = block->top,
        .labels = {.mass = block->label_mass, .spread = block->label_spread},
        .weights = {block->weight_mass, block->weight_spread, block->unmasked},
    };
}

static struct xent_listed_class *noted_listed(const struct xent_job *job, size_t row) {
    struct xent_listed_class *const listed = job->problem->statistics->noted_listed;
    return listed ? listed + row * xent_listed_labels(job) : NULL;
}

static struct xent_listed_class find_listed(const struct xent_job *job, const struct xent_place *at,
                                            size_t class) {
    const size_t here = class - job->offset; /* the difference wraps where class is before */
    if (here >= job->problem->classes) {
        return (struct xent_listed_class){.weight = -1};
    }
    return (struct xent_listed_class){xent_read_logit(job, at, here), xent_class_weight(job, here)};
}

void xent_note_row(const struct xent_job *job, const struct xent_place *at, size_t row,
                   const struct xent_sum *sums, const struct xent_note *notes, size_t count) {
    struct xent_block *const blocks = job->problem->statistics->noted + row * count;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = block_of(&sums[i], &notes[i], job->offset);
    }
    struct xent_listed_class *const listed = noted_listed(job, row);
    for (size_t k = 0; k < xent_listed_labels(job); k++) {
        size_t class;
        xent_read_indices(job, at, k, 1, &class);
        listed[k] = find_listed(job, at, class);
    }
}

void xent_note_nothing(const struct xent_job *job, size_t row, size_t count) {
    struct xent_block *const blocks = job->problem->statistics->noted + row * count;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = (struct xent_block){.kept = -1};
    }
    struct xent_listed_class *const listed = noted_listed(job, row);
    for (size_t k = 0; k < xent_listed_labels(job); k++) {
        listed[k] = (struct xent_listed_class){.weight = -1};
    }
}

static const struct xent_block *whole_row(const struct xent_job *job, size_t row) {
    const struct xent_statistics *statistics = job->problem->statistics;
    return statistics->whole + row * statistics->blocks;
}

void xent_read_blocks(const struct xent_job *job, size_t row, struct xent_sum *sums,
                      struct xent_note *notes) {
    const struct xent_block *blocks = whole_row(job, row);
    for (size_t i = 0; i < job->problem->statistics->blocks; i++) {
        sums[i] = sum_of(&blocks[i]);
        notes[i] = note_of(&blocks[i]);
    }
}

const struct xent_listed_class *xent_known_listed(const struct xent_job *job, size_t row) {
    const struct xent_listed_class *listed = job->problem->statistics->whole_listed;
    return listed ? listed + row * xent_listed_labels(job) : NULL;
}

double xent_known_weight(const struct xent_job *job, size_t row, size_t label) {
    const struct xent_block *blocks = whole_row(job, row);
    size_t i = 0;
    while (i < job->problem->statistics->blocks && blocks[i].kept != (int64_t)label) {
        i++;
    }
    return i < job->problem->statistics->blocks ? blocks[i].label : 0;
}
