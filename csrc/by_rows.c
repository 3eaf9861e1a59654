/* Rows one after the other, each in blocks of contiguous classes. Knows neither the instruction set
 * nor how threads are made. */
#include "evaluate.h"
#include "finish.h"
#include "options.h"
#include "parallel.h"
#include "regimes.h"
#include "second.h"
#include "shards.h"

#include <math.h>
#include <stdatomic.h>

struct block {
    size_t begin, size; /* in classes */
};

static size_t count_blocks(const struct xent_job *job) {
    return (job->problem->classes + XENT_BLOCK - 1) / XENT_BLOCK;
}

static struct block block_at(const struct xent_job *job, size_t index) {
    const size_t begin = index * XENT_BLOCK, left = job->problem->classes - begin;
    return (struct block){begin, left < XENT_BLOCK ? left : XENT_BLOCK};
}

/* ---- One thread's own memory ----------------------------------------------------------------- */

/* What a row is merged from: blocks, in order of their classes. */
struct parts {
    struct xent_sum *sums;   /* and room for as many of single classes, with notes */
    struct xent_note *notes; /* NULL without options and with a target */
    size_t count;
};

/* What is kept of a row between reduce and emit. */
struct row_space {
    struct parts blocks; /* those of the logits */
    char *exps; /* of every class, see move_from; NULL where nothing is emitted from them */
    struct xent_factor *factors; /* of every block's; likewise */
    char *slopes; /* of every class, with softcap; NULL where no gradient needs them */
    struct xent_listed listed;
    struct xent_finding *findings; /* of every block; NULL but for an evaluation */
};

/* Two batches of rows, because one is emitted while the next is reduced. */
struct workspace {
    struct xent_rows *scalars[2];
    struct row_space rows[2 * XENT_ROWS];
    size_t spaces;               /* so many of them: one for each row, or one for all */
    struct parts whole;          /* of a row of which the logits are a shard */
    struct xent_load_space load; /* a block; not used where logits load in place, */
    char *store;                 /* nor this where values are stored so */
    char *peaks;                 /* of the block that is reduced next */
    char *labels, *labels_out;   /* of the block that is reduced, and of that which is emitted */
    struct xent_evaluation_space evaluation;
    char *bent, *vector;    /* blocks for second derivatives, and of the vector */
    struct xent_edge *edge; /* of what is streamed */
};

/* Rows that are reduced before they are finished together: the scalars of one take nearly as long
 * as those of a vector. Where they are emitted, two batches of exponentials have to stay in the L2
 * cache; beside many classes the scalars do not weigh. */
static size_t batch_size(const struct xent_job *job) {
    const size_t emitted = count_blocks(job) == 1 ? 8 : 1;
    return xent_has(job, VALUES) ? emitted : XENT_ROWS;
}

enum { PAGE = 4096 };

/* Whether blocks have notes. */
static bool takes_notes(const struct xent_job *job) {
    return job->options || job->keeps_largest || job->notes_shard || job->knows_whole;
}

/* Whether what is emitted goes to the values themselves; beside a vector, the gradient does not. */
static bool emits_in_place(const struct xent_job *job) {
    return job->stores_in_place && job->problem->output != XENT_PRODUCT;
}

/* The sizes of the parts of a workspace. */
struct layout {
    size_t spaces, scalars, sums, notes, exps, factors, slopes, listed;
    size_t whole_sums, whole_notes;
    size_t load, lows, store, peaks, labels, bent, vector;
    size_t findings, terms, uncapped, best, edge;
};

static struct layout layout_of(const struct xent_job *job) {
    const struct xent_problem *problem = job->problem;
    const bool from_exps = xent_has(job, VALUES) && problem->output != XENT_LOG_SOFTMAX;
    const bool gathers = !job->loads_in_place;
    const bool scatters = xent_has(job, VALUES) && !emits_in_place(job);
    const bool notes = takes_notes(job);
    const size_t block = xent_whole_lines(XENT_BLOCK * job->itemsize);
    const size_t row = xent_whole_lines(problem->classes * job->itemsize);
    const bool slopes = job->caps && (xent_has(job, VALUES) || job->notes_shard);
    const size_t listed = xent_listed_labels(job);
    const struct xent_evaluation *evaluation = problem->evaluation;
    const size_t findings = evaluation ? count_blocks(job) * sizeof(struct xent_finding) : 0;
    const size_t whole = job->knows_whole ? problem->statistics->blocks : 0;
    return (struct layout){
        .spaces = xent_has(job, VALUES) ? 2 * batch_size(job) : 1,
        .scalars = xent_whole_lines(sizeof(struct xent_rows)),
        .sums = xent_whole_lines((notes ? 2 : 1) * count_blocks(job) * sizeof(struct xent_sum)),
        .notes = notes ? xent_whole_lines(count_blocks(job) * sizeof(struct xent_note)) : 0,
        .exps = from_exps ? row + PAGE : 0,
        .factors = from_exps ? xent_whole_lines(count_blocks(job) * sizeof(struct xent_factor)) : 0,
        .slopes = slopes ? row : 0,
        .listed = xent_whole_lines(listed * sizeof(size_t)),
        .whole_sums = xent_whole_lines(2 * whole * sizeof(struct xent_sum)),
        .whole_notes = xent_whole_lines(whole * sizeof(struct xent_note)),
        .load = gathers ? block : 0,
        .lows = job->caps ? block : 0,
        .store = scatters ? block : 0,
        .peaks = job->keeps_largest && !gathers ? block / XENT_PEAK : 0,
        .labels = job->dense_labels ? block : 0,
        .bent = job->second ? block : 0,
        .vector = xent_has(job, DIRECTION) ? block : 0,
        .findings = xent_whole_lines(findings),
        .terms = evaluation && evaluation->entropy ? block + PAGE : 0,
        .uncapped = evaluation && job->caps && !job->reads_in_place ? block : 0,
        .best = xent_whole_lines(xent_size_of_best(job)),
        .edge = job->plan.stream ? xent_whole_lines(sizeof(struct xent_edge)) : 0,
    };
}

size_t xent_rows_workspace(const struct xent_job *job) {
    const struct layout size = layout_of(job);
    const size_t space = size.sums + size.notes + size.exps + size.factors + size.slopes +
                         4 * size.listed + size.findings;
    return 2 * size.scalars + size.spaces * space + size.whole_sums + size.whole_notes + size.load +
           size.lows + size.store + size.peaks + 2 * size.labels + size.bent + size.vector +
           size.terms + size.uncapped + size.best + size.edge;
}

/* The next part of a workspace. */
static void *take(char **p, size_t size) {
    char *const part = *p;
    *p += size;
    return size ? part : NULL;
}

/* In its place, because a copy of all that there is room for takes longer than a short call. */
static void divide_workspace(const struct xent_job *job, int member, struct workspace *work) {
    const struct layout size = layout_of(job);
    char *p = xent_workspace(job, member);
    for (int i = 0; i < 2; i++) {
        work->scalars[i] = take(&p, size.scalars);
    }
    work->spaces = size.spaces;
    for (size_t i = 0; i < size.spaces; i++) {
        struct row_space *const space = &work->rows[i];
        space->blocks.sums = take(&p, size.sums);
        space->blocks.notes = take(&p, size.notes);
        space->blocks.count = count_blocks(job);
        space->exps = take(&p, size.exps);
        space->factors = take(&p, size.factors);
        space->slopes = take(&p, size.slopes);
        space->listed.class = take(&p, size.listed);
        space->listed.coefficient = take(&p, size.listed);
        space->listed.logit = take(&p, size.listed);
        space->listed.weight = take(&p, size.listed);
        space->listed.count = 0;
        space->findings = take(&p, size.findings);
    }
    if (job->knows_whole) {
        work->whole.sums = take(&p, size.whole_sums);
        work->whole.notes = take(&p, size.whole_notes);
        work->whole.count = job->problem->statistics->blocks;
    }
    work->load = (struct xent_load_space){.u = take(&p, size.load), .low = take(&p, size.lows)};
    work->store = take(&p, size.store);
    work->peaks = take(&p, size.peaks);
    work->labels = take(&p, size.labels);
    work->labels_out = take(&p, size.labels);
    work->bent = take(&p, size.bent);
    work->vector = take(&p, size.vector);
    work->evaluation = (struct xent_evaluation_space){
        .terms = take(&p, size.terms),
        .uncapped = take(&p, size.uncapped),
        .best = take(&p, size.best),
    };
    work->edge = take(&p, size.edge);
    if (work->edge) {
        work->edge->at = NULL;
        work->edge->filled = 0;
    }
}

/* A load that shares its low address bits with a store just before it waits for that store. So the
 * exponentials are moved away from the logits, modulo a page: by a quarter of it in one batch and
 * by three in the next, which is reduced while the first is emitted. */
static char *move_from(char *exps, const char *logits, size_t distance) {
    const uintptr_t wanted = (uintptr_t)logits + distance;
    return exps + (wanted - (uintptr_t)exps) % PAGE / XENT_CACHE_LINE * XENT_CACHE_LINE;
}

/* ---- load -> reduce -> finish -> emit ----------------------------------------------------------
 */

/* A row on its way through the pipeline. */
struct row {
    struct xent_place at;
    struct row_space *space;
    char *exps;          /* the space's, moved */
    struct parts merged; /* the same blocks, or those of the whole row, once it is merged */
    struct xent_rows *scalars;
    size_t lane;   /* of the scalars */
    bool counts;   /* else its logits are not read, and its values are zero */
    size_t target; /* the class that is kept out of the sum; XENT_NO_CLASS: none */
    struct xent_coefficients shares; /* with options */
    struct xent_label label;         /* for an evaluation */
    struct xent_second second;
};

/* A row of one of the two batches. It is filled where it stays: what is copied as a whole right
 * after its parts were written has to wait for them. */
static void begin_row(const struct xent_job *job, const struct xent_place *at,
                      struct workspace *work, size_t batch, size_t lane, struct row *row) {
    row->at = *at;
    row->space = &work->rows[work->spaces > 1 ? batch * batch_size(job) + lane : 0];
    row->exps = row->space->exps;
    if (row->exps) {
        const size_t distance = (batch * 2 + 1) * (PAGE / 4);
        row->exps = move_from(row->exps, xent_address(job, LOGITS, at), distance);
    }
    row->scalars = work->scalars[batch];
    row->lane = lane;
    row->counts = !job->options || xent_row_weight(job, at) != 0;
    row->target = XENT_NO_CLASS; /* or else found while the blocks are reduced */
    row->merged = job->knows_whole ? work->whole : row->space->blocks;
    if (row->counts && xent_has(job, TARGET)) {
        row->target = xent_read_class(job, at) - job->offset; /* which wraps where it is before */
    }
    if (job->problem->evaluation) {
        row->label = xent_read_label(job, at);
    }
}

static bool block_has(struct block block, size_t class) {
    return class - block.begin < block.size; /* the difference wraps where class is before */
}

/* The block that is reduced after this one, if its largest class can be found on the way: the next
 * of the row, or the first of the next row, which may be NULL. */
static const void *block_ahead(const struct xent_job *job, const struct row *row, size_t index,
                               const struct xent_place *next_row) {
    const size_t next = index + 1 < count_blocks(job) ? index + 1 : 0;
    const struct xent_place *at = next > 0 ? &row->at : next_row;
    if (!at || !job->loads_in_place || block_at(job, next).size != block_at(job, index).size) {
        return NULL;
    }
    return xent_logits_at(job, at, block_at(job, next).begin);
}

/* The largest class of a block, found while it was loaded or the block before was reduced. It
 * counts unless it may be the target, which is not among the classes of the sum. One of these goes
 * from block to block, where it is, because a copy would wait for the parts just written. */
struct found {
    bool known;
    double max;
    const void *peaks; /* of all its classes, or NULL */
    double record;     /* the largest class of the row's blocks before, for an evaluation */
};

/* The largest of the classes but `skip`. */
static double largest_but(const struct xent_job *job, const struct xent_logits *logits,
                          struct block block, size_t skip, const struct found *found) {
    const char *const u = logits->u;
    if (found->known &&
        (skip == XENT_NO_CLASS || xent_real(job, u + skip * job->itemsize) < found->max)) {
        return found->max;
    }
    return job->kernels->largest(u, block.size, skip, found->peaks);
}

/* The class of a block that is kept out of its sum, as an index into it; the largest only if it is
 * larger than the record. */
static size_t kept_of_block(const struct xent_job *job, const struct row *row,
                            const struct xent_logits *logits, struct block block,
                            const struct found *found, double record) {
    if (!job->keeps_largest) {
        return block_has(block, row->target) ? row->target - block.begin : XENT_NO_CLASS;
    }
    const double largest = largest_but(job, logits, block, XENT_NO_CLASS, found);
    if (!(largest > record)) {
        return XENT_NO_CLASS;
    }
    const size_t class = job->kernels->find(logits->u, block.size, largest, found->peaks);
    return class < block.size ? class : XENT_NO_CLASS;
}

/* What a block has in common with the vector. */
static void note_vector(const struct xent_job *job, struct xent_note *note, const char *exps,
                        const char *slopes, struct block block, const char *vector) {
    size_t kept = XENT_NO_CLASS;
    if (note->kept != XENT_NO_CLASS) {
        kept = note->kept - block.begin;
        note->component = xent_real(job, vector + kept * job->itemsize);
    }
    note->dot = job->kernels->dot(exps, block.size, kept, slopes, vector);
}

/* Whether a block has masked classes, whose terms are negative. */
static bool is_marked(const struct xent_job *job, const struct row *row, size_t index) {
    return job->shares &&
           xent_has_masked(&row->space->blocks.notes[index], block_at(job, index).size);
}

/* Whether halves are reduced where they are, not by way of a buffer. */
static bool reduces_halves(const struct xent_job *job) {
    const struct xent_problem *problem = job->problem;
    return xent_is_half(problem->dtype) && !problem->swapped &&
           problem->logits_stride == (ptrdiff_t)sizeof(uint16_t) && !takes_notes(job) &&
           !xent_has(job, VALUES);
}

/* All that becomes of such a block. */
static void reduce_half_block(const struct xent_job *job, const struct row *row, size_t index,
                              struct xent_aside *aside) {
    const struct block block = block_at(job, index);
    const size_t skip = block_has(block, row->target) ? row->target - block.begin : XENT_NO_CLASS;
    const struct xent_strided from = {xent_logits_at(job, &row->at, block.begin), sizeof(uint16_t),
                                      job->problem->dtype, false};
    aside->exps = NULL;
    aside->source = from.data;
    aside->source_stride = sizeof(uint16_t);
    aside->near = job->plan.fetch_near;
    aside->beside = NULL;
    aside->beside_size = 0;
    aside->ahead_peaks = NULL;
    aside->keeps_skip = false;
    aside->spread = NULL;
    aside->below = NULL;
    job->kernels->reduce_halves(&from, block.size, skip, aside, &row->space->blocks.sums[index]);
}

/* Labels spread a block before it is reduced, or on the way: so that the memory is busy all the
 * time, those of the next block are fetched meanwhile, the first half as this one's are spread and
 * the second along with its logits; or all of them, where this one's are copies. */
static void fetch_labels(const struct xent_job *job, const struct row *row, struct block block,
                         struct xent_aside *aside) {
    aside->beside = NULL;
    aside->beside_size = 0;
    if (!job->dense_labels) {
        return;
    }
    const struct xent_labels *labels = &job->options->labels;
    const size_t size = xent_size_of(labels->dtype);
    if (labels->probabilities_stride == (ptrdiff_t)size) {
        const bool shared = labels->dtype == xent_working_dtype(job) && !labels->swapped;
        const size_t next = block.begin + block.size + (shared ? block.size / 2 : 0);
        aside->beside = xent_address(job, LABELS, &row->at) + next * size;
        aside->beside_size = shared ? size / 2 : size;
    }
}

static void reduce_block(const struct xent_job *job, const struct row *row,
                         const struct workspace *work, size_t index, struct found *found,
                         struct xent_aside *aside) {
    if (reduces_halves(job)) {
        reduce_half_block(job, row, index, aside);
        found->known = false;
        found->peaks = NULL;
        return;
    }
    const struct block block = block_at(job, index);
    const size_t offset = block.begin * job->itemsize;
    const struct row_space *space = row->space;
    struct xent_load_space load = work->load;
    load.slopes = space->slopes ? space->slopes + offset : NULL;
    const struct xent_logits logits = xent_load(job, &row->at, block.begin, block.size, &load);
    if (!isnan(logits.largest)) {
        found->known = true;
        found->max = logits.largest;
    }
    const double record = job->problem->evaluation && index > 0 ? found->record : -INFINITY;
    const size_t skip = kept_of_block(job, row, &logits, block, found, record);
    const bool keeps_largest = job->keeps_largest && skip != XENT_NO_CLASS;
    if (keeps_largest) {
        found->known = false; /* of the others it is not */
    }
    const double max = largest_but(job, &logits, block, skip, found);
    aside->exps = row->exps ? row->exps + offset : NULL;
    aside->source = xent_logits_at(job, &row->at, block.begin);
    aside->source_stride = job->problem->logits_stride;
    aside->near = job->plan.fetch_near;
    fetch_labels(job, row, block, aside);
    aside->ahead_peaks = work->peaks;
    /* A block's largest class gets its term, too, since usually another block has the row's
     * largest; but not for an entropy, whose terms are those of the sum. */
    aside->keeps_skip = job->keeps_largest && !work->evaluation.terms;
    struct xent_evaluation_space evaluation = work->evaluation;
    if (evaluation.terms) {
        evaluation.terms = move_from(evaluation.terms, logits.u, PAGE / 4);
        aside->exps = evaluation.terms;
    }
    struct xent_note *const note = space->blocks.notes ? &space->blocks.notes[index] : NULL;
    aside->spread = NULL;
    if (note) { /* before the next block takes the place of this one in the L1 cache */
        xent_note_block(job, &row->at, block.begin, block.size, &logits, load.slopes, skip, max,
                        work->labels, note, aside);
    }
    if (space->findings) {
        space->findings[index] = xent_look_at_block(job, &row->at, block.begin, block.size, &logits,
                                                    found->peaks, note, &row->label, &evaluation);
    }
    aside->below = evaluation.terms ? &space->findings[index].spread : NULL;
    job->kernels->reduce(&logits, block.size, skip, max, aside, &space->blocks.sums[index]);
    if (is_marked(job, row, index) && aside->exps) {
        job->kernels->mark(aside->exps, block.size, logits.u);
    }
    if (note && xent_has(job, DIRECTION)) {
        xent_load_vector(job, &row->at, block.begin, block.size, work->vector);
        note_vector(job, note, aside->exps, load.slopes, block, work->vector);
    }
    found->known = aside->ahead != NULL;
    found->max = aside->ahead_max;
    found->peaks = aside->ahead ? aside->ahead_peaks : NULL;
    found->record = keeps_largest ? space->blocks.notes[index].logit : record;
}

/* Which note has the class that is kept apart: that of the target, or the first of the largest. */
static const struct xent_note *kept_of_row(const struct parts *blocks) {
    static const struct xent_note none = {.kept = XENT_NO_CLASS, .logit = -INFINITY, .slope = 1};
    const struct xent_note *kept = &none;
    for (size_t i = 0; i < blocks->count; i++) {
        const struct xent_note *note = &blocks->notes[i];
        if (note->kept != XENT_NO_CLASS && (kept == &none || note->logit > kept->logit)) {
            kept = note;
        }
    }
    return kept;
}

/* The term of the class that is kept out of a block's sum. It may be too large to be one of the
 * terms of the block. */
static struct xent_sum term_of_kept(const struct xent_note *note) {
    return (struct xent_sum){.sum = 1, .shift = note->logit + note->low};
}

/* Merges the sums of the blocks and, but for one, the classes that are kept out of them. */
static struct xent_sum merge_blocks(const struct xent_job *job, const struct parts *blocks,
                                    const struct xent_note *kept) {
    const double scale = job->request.scale;
    size_t count = blocks->count;
    for (size_t i = 0; kept && i < blocks->count; i++) {
        const struct xent_note *note = &blocks->notes[i];
        if (note != kept && note->kept != XENT_NO_CLASS) {
            blocks->sums[count++] = term_of_kept(note);
        }
    }
    return job->finish->merge(blocks->sums, count, scale);
}

/* Merges the row's blocks into its lane of the scalars, ready to be finished. Its index is that
 * among all rows, and `best` the list of its best classes. */
static void merge_row(const struct xent_job *job, struct row *row, size_t index,
                      struct xent_best *best) {
    struct xent_rows *const scalars = row->scalars;
    const size_t lane = row->lane;
    const struct parts *const blocks = &row->merged;
    const struct xent_listed_class *known = NULL;
    if (job->knows_whole) {
        xent_read_blocks(job, index, blocks->sums, blocks->notes);
        known = xent_known_listed(job, index);
    }
    const struct xent_note *kept = blocks->notes ? kept_of_row(blocks) : NULL;
    const struct xent_sum sum = merge_blocks(job, blocks, kept);
    scalars->others[lane] = sum.sum;
    scalars->others_low[lane] = sum.low;
    scalars->exponent[lane] = sum.exponent;
    scalars->shift[lane] = sum.shift;
    if (job->options) {
        row->shares = xent_take_coefficients(job, &row->at, blocks->notes, blocks->count, kept,
                                             known, &row->space->listed, scalars, lane);
    } else if (kept) {
        scalars->target_logit[lane] = kept->logit;
    } else {
        scalars->target_logit[lane] =
            row->target == XENT_NO_CLASS ? -INFINITY : xent_read_logit(job, &row->at, row->target);
    }
    row->target = kept ? kept->kept - job->offset : row->target;
    if (job->problem->evaluation) {
        const struct xent_blocks found = {blocks->notes, row->space->findings, blocks->sums,
                                          blocks->count};
        xent_evaluate_row(job, &row->at, index, &row->label, &found, kept, best, scalars, lane);
    }
    xent_take_rows(job, &row->at, 1, scalars, lane);
}

/* q of the class that a block keeps apart, where the row does not. */
static double share_of_kept(const struct xent_job *job, const struct row *row,
                            const struct xent_note *note) {
    const struct xent_sum term = term_of_kept(note);
    return job->finish->share(row->scalars, row->lane, &term, &job->request);
}

/* Whether a block keeps a class apart that the row does not. */
static bool keeps_another(const struct row *row, const struct xent_note *note) {
    return note->kept != XENT_NO_CLASS && note->kept != row->target;
}

/* What there is to know of a finished row for its second derivatives. */
static void take_second(const struct xent_job *job, struct row *row) {
    if (!job->second || !row->counts) {
        return;
    }
    const struct row_space *space = row->space;
    row->second = xent_second_of(job, row->scalars, row->lane, row->shares.unmasked);
    struct two sum = {0, 0};
    double of_kept = 0;
    for (size_t i = 0; xent_has(job, DIRECTION) && i < count_blocks(job); i++) {
        const struct xent_note *note = &space->blocks.notes[i];
        const double share =
            job->finish->share(row->scalars, row->lane, &space->blocks.sums[i], &job->request);
        sum = add_two(sum, (struct two){share * note->dot, 0});
        if (keeps_another(row, note)) {
            const double q = share_of_kept(job, row, note);
            sum = add_two(sum, (struct two){q * note->slope * note->component, 0});
        } else if (note->kept != XENT_NO_CLASS) {
            of_kept = row->scalars->share[row->lane] * note->slope * note->component;
        }
    }
    row->second.mean_of_others = sum.high + sum.low;
    row->second.mean = row->second.mean_of_others + of_kept;
}

/* A row that does not count has nothing but a target, of logit zero and weight zero. */
static void pass_over_row(const struct xent_job *job, const struct row *row) {
    struct xent_rows *const scalars = row->scalars;
    double *const zeros[] = {scalars->others,       scalars->others_low, scalars->exponent,
                             scalars->shift,        scalars->own,        scalars->rest,
                             scalars->target_logit, scalars->target_low, scalars->spread,
                             scalars->top,          scalars->square,     scalars->target_slope};
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++) {
        zeros[i][row->lane] = 0;
    }
    xent_take_rows(job, &row->at, 1, scalars, row->lane);
}

/* What becomes of a row when its blocks are reduced: statistics, or what finish works on. */
static void conclude_row(const struct xent_job *job, struct row *row, size_t index,
                         struct xent_best *best) {
    const struct parts *const blocks = &row->space->blocks;
    if (job->notes_shard && row->counts) {
        xent_note_row(job, &row->at, index, blocks->sums, blocks->notes, blocks->count);
    } else if (job->notes_shard) {
        xent_note_nothing(job, index, blocks->count);
    } else if (row->counts) {
        merge_row(job, row, index, best);
    } else {
        pass_over_row(job, row);
    }
}

/* Whether the sum of the row is that of its only block, in the same units. */
static bool is_one_sum(const struct xent_job *job, const struct row *row) {
    const struct xent_rows *const scalars = row->scalars;
    const struct xent_sum *const block = &row->space->blocks.sums[0];
    return count_blocks(job) == 1 && scalars->exponent[row->lane] == block->exponent &&
           scalars->shift[row->lane] == block->shift;
}

/* The factors of so many rows that are finished, from the first lane on: of all blocks at once, or
 * of all rows where each is one block. */
static void take_factors(const struct xent_job *job, const struct row *rows, size_t count) {
    struct xent_factors factors;
    if (!rows->exps) {
        return;
    }
    if (count_blocks(job) == 1) {
        job->finish->factors(rows->scalars, count, job->single, &factors);
    }
    for (size_t i = 0; i < count; i++) {
        const struct row *const row = &rows[i];
        if (!row->counts) {
            continue;
        }
        if (is_one_sum(job, row)) {
            *row->space->factors =
                (struct xent_factor){factors.high[i], factors.low[i], factors.post[i]};
        } else {
            job->finish->block_factors(row->scalars, row->lane, row->space->blocks.sums,
                                       count_blocks(job), &job->request, row->space->factors);
        }
    }
}

/* The terms of a block on their way out, and what is subtracted from them, if it is not the same
 * for all. */
struct outlet {
    struct xent_emission emission;
    struct xent_adjustment adjustment; /* if it adjusts */
    bool adjusts;
    bool in_place; /* values go to their place, else to a buffer first */
};

static void *store_to(const struct xent_job *job, const struct row *row,
                      const struct workspace *work, struct block block,
                      const struct outlet *outlet) {
    if (!outlet->in_place) {
        return work->store;
    }
    const ptrdiff_t offset = (ptrdiff_t)block.begin * job->problem->values_stride;
    return xent_address(job, VALUES, &row->at) + offset;
}

/* Whether what there is to emit can be while the next block is reduced. */
static bool emits_along(const struct xent_job *job, const struct outlet *outlet) {
    return !outlet->adjusts && job->problem->output != XENT_PRODUCT;
}

/* Whether terms become halves on their way to their place: nothing is subtracted from them, and
 * they are numbers, as the factor is. */
static bool emits_halves(const struct xent_job *job, const struct outlet *outlet) {
    const struct xent_emission *const emission = &outlet->emission;
    return job->rounds_in_place && !job->second && emits_along(job, outlet) &&
           emission->offset == 0 && !emission->labels &&
           isfinite(emission->factor.high * emission->factor.post);
}

/* Whether the gradient at the target is emitted with the block; else it is written after it. */
static bool emits_own(const struct xent_job *job, const struct row *row,
                      const struct outlet *outlet, struct block block) {
    return outlet->emission.exps && emits_along(job, outlet) && outlet->in_place &&
           job->problem->output == XENT_GRADIENT && block_has(block, row->target);
}

/* What options subtract from the terms. */
static void subtract_options(const struct xent_job *job, const struct row *row,
                             const struct workspace *work, size_t index, struct outlet *outlet) {
    const struct block block = block_at(job, index);
    const size_t offset = block.begin * job->itemsize;
    const double upstream = row->scalars->upstream[row->lane];
    /* Infinity times zero is zero here. */
    const double share = row->shares.weights != 0 ? upstream * row->shares.weights : 0;
    const bool marked = is_marked(job, row, index), weighs = job->shares && job->class_weight;
    const char *const weights = job->class_weight ? (const char *)job->class_weight + offset : NULL;
    outlet->adjusts = row->space->slopes || marked || (job->dense_labels && weighs);
    if (!outlet->adjusts && job->dense_labels) {
        outlet->emission.labels =
            xent_load_weighed_labels(job, &row->at, block.begin, block.size, work->labels_out);
        outlet->emission.by_labels = upstream * row->shares.labels;
        outlet->emission.offset = share;
    } else if (!outlet->adjusts && weighs) {
        outlet->emission.labels = weights;
        outlet->emission.by_labels = share;
    } else {
        outlet->emission.offset = share;
    }
    if (outlet->adjusts) {
        outlet->adjustment = (struct xent_adjustment){
            .weights = weights,
            .slopes = row->space->slopes ? row->space->slopes + offset : NULL,
            .by_labels = upstream * row->shares.labels,
            .by_weights = share,
        };
    }
}

/* Only what is asked for is filled in: a store waits behind those that go past the caches. */
static void open_outlet(const struct xent_job *job, const struct row *row,
                        const struct workspace *work, size_t index, struct outlet *outlet) {
    outlet->emission.exps = NULL;
    outlet->adjusts = false;
    outlet->in_place = emits_in_place(job);
    if (!row->exps || !row->counts) {
        return;
    }
    const struct block block = block_at(job, index);
    const size_t offset = block.begin * job->itemsize;
    outlet->emission.exps = row->exps + offset;
    outlet->emission.factor = row->space->factors[index];
    outlet->emission.offset = 0;
    outlet->emission.labels = NULL;
    outlet->emission.own = XENT_NO_CLASS;
    outlet->emission.edge = work->edge;
    const enum xent_values output = job->problem->output;
    if (job->options && (output == XENT_GRADIENT || output == XENT_PRODUCT)) {
        subtract_options(job, row, work, index, outlet);
    }
    const bool halves = emits_halves(job, outlet);
    outlet->in_place |= halves;
    outlet->emission.dtype = halves ? job->problem->dtype : xent_working_dtype(job);
    outlet->emission.out = store_to(job, row, work, block, outlet);
    const size_t size = halves ? sizeof(uint16_t) : job->itemsize;
    outlet->emission.stream =
        job->plan.stream && outlet->in_place && (uintptr_t)outlet->emission.out % size == 0;
    if (emits_own(job, row, outlet, block)) {
        outlet->emission.own = row->target - block.begin;
        outlet->emission.own_value = row->scalars->target_gradient[row->lane];
    }
}

/* q of the class that a block keeps apart, and the row does not, times what is emitted with it. */
static double scaled_share_of_kept(const struct xent_job *job, const struct row *row,
                                   const struct xent_note *note) {
    const struct xent_sum term = term_of_kept(note);
    return job->finish->scaled_share(row->scalars, row->lane, &term, &job->request);
}

/* What is emitted there: the block's terms do not tell. */
static void emit_kept(const struct xent_job *job, const struct row *row, size_t index,
                      const struct outlet *outlet, char *out) {
    const struct xent_note *note = &row->space->blocks.notes[index];
    const double coefficient =
        row->shares.labels * note->label + row->shares.weights * note->weight;
    const double upstream = row->scalars->upstream[row->lane];
    const double value = scaled_share_of_kept(job, row, note) - xent_weighed(coefficient, upstream);
    if (outlet->in_place) {
        xent_write_value(job, &row->at, note->kept, value * note->slope);
    } else {
        const size_t offset = (note->kept - block_at(job, index).begin) * job->itemsize;
        xent_set_real(job, out + offset, value * note->slope);
    }
}

/* A class's term times a factor of its block: q, or the gradient's part of it. */
static double term_at(const struct xent_job *job, const struct row *row, size_t class,
                      const struct xent_factor *factor) {
    const double e = xent_real(job, row->exps + class * job->itemsize);
    return (e < 0 ? 0 : e) * (factor->high + factor->low) * factor->post; /* marked: masked */
}

/* The gradient at the k-th class that the label lists. */
static double gradient_at_listed(const struct xent_job *job, const struct row *row, size_t k,
                                 const struct outlet *outlet) {
    const size_t class = row->space->listed.class[k] - job->offset;
    const struct xent_note *note = &row->space->blocks.notes[class / XENT_BLOCK];
    const double q = class == note->kept ? scaled_share_of_kept(job, row, note)
                                         : term_at(job, row, class, &outlet->emission.factor);
    const double upstream = row->scalars->upstream[row->lane];
    const double value = q - xent_weighed(row->space->listed.coefficient[k], upstream);
    return value * xent_slope(job, row->space->slopes, class);
}

/* Whether the k-th class that the label lists is in the block, and not kept apart by the row. */
static bool lists(const struct xent_job *job, const struct row *row, size_t k, struct block block) {
    const size_t class = row->space->listed.class[k] - job->offset;
    return block_has(block, class) && class != row->target;
}

static void emit_listed(const struct xent_job *job, const struct row *row, struct block block,
                        const struct outlet *outlet) {
    for (size_t k = 0; k < row->space->listed.count; k++) {
        if (lists(job, row, k, block)) {
            const size_t class = row->space->listed.class[k] - job->offset;
            xent_write_value(job, &row->at, class, gradient_at_listed(job, row, k, outlet));
        }
    }
}

/* The class that a block keeps apart: if the row does, 1 - q would cancel. The gradient is that
 * which has been emitted. */
static struct xent_point point_at_kept(const struct xent_job *job, const struct row *row,
                                       const struct xent_note *note, const char *gradient) {
    const struct xent_rows *rows = row->scalars;
    const size_t lane = row->lane;
    const double vector = note->slope * note->component;
    struct xent_point point = {
        .slope = note->slope,
        .tanh = note->logit + note->low,
        .component = note->component,
    };
    if (keeps_another(row, note)) {
        point.q = share_of_kept(job, row, note);
        point.others = 1 - point.q;
        point.gradient = xent_real(job, gradient);
        point.away = vector - row->second.mean;
    } else {
        point.q = rows->share[lane];
        point.others = rows->share_of_others[lane];
        point.gradient = rows->target_gradient[lane];
        point.away = vector * point.others - row->second.mean_of_others;
    }
    return point;
}

/* With softcap the gradient is part of second derivatives, and where the label lists classes it is
 * another than the terms tell. */
static void bend_listed(const struct xent_job *job, const struct row *row, struct block block,
                        const struct outlet *outlet, const struct xent_bend *bend) {
    for (size_t k = 0; k < row->space->listed.count; k++) {
        if (!lists(job, row, k, block)) {
            continue;
        }
        const size_t class = row->space->listed.class[k];
        const size_t offset = (class - block.begin) * job->itemsize;
        const struct xent_note *note = &row->space->blocks.notes[class / XENT_BLOCK];
        const double q = class == note->kept ? share_of_kept(job, row, note)
                                             : term_at(job, row, class, &bend->shares);
        const char *const tanh = bend->tanh, *const vector = bend->vector;
        const double slope = xent_slope(job, row->space->slopes, class);
        const double component = vector ? xent_real(job, vector + offset) : 1;
        const struct xent_point point = {
            .q = q,
            .others = 1 - q,
            .slope = slope,
            .tanh = fmax(-1, fmin(1, xent_real(job, tanh + offset))), /* masked: -inf */
            .gradient = gradient_at_listed(job, row, k, outlet),
            .component = component,
            .away = slope * component - row->second.mean,
        };
        xent_set_real(job, (char *)bend->out + offset, xent_second_at(job, &row->second, &point));
    }
}

/* Second derivatives of a block: of its terms, and with softcap of its gradient, where that has
 * been emitted, and of its logits as they are loaded. */
static void bend_block(const struct xent_job *job, const struct row *row,
                       const struct workspace *work, size_t index, const void *gradient,
                       const struct outlet *outlet, const struct xent_logits *logits) {
    const struct block block = block_at(job, index);
    const size_t offset = block.begin * job->itemsize;
    const struct xent_second *second = &row->second;
    const struct xent_rows *rows = row->scalars;
    const struct xent_sum *sum = &row->space->blocks.sums[index];
    const bool caps = second->by_tanh != 0;
    const char *const vector = xent_has(job, DIRECTION) ? work->vector : NULL;
    if (vector) {
        xent_load_vector(job, &row->at, block.begin, block.size, work->vector);
    }
    struct xent_bend bend = {
        .exps = row->exps + offset,
        .out = work->bent,
        .shares = job->finish->share_factor(rows, row->lane, 1, sum, &job->request),
        .by = job->finish->share_factor(rows, row->lane, second->by, sum, &job->request),
        .squares = second->square != 0,
        .floor = second->floor,
        .slopes = row->space->slopes ? row->space->slopes + offset : NULL,
        .gradient = caps ? gradient : NULL,
        .tanh = caps ? logits->u : NULL,
        .by_tanh = second->by_tanh,
        .vector = vector,
        .mean = second->mean,
    };
    if (bend.squares) {
        bend.square =
            job->finish->share_factor(rows, row->lane, second->square, sum, &job->request);
    }
    job->kernels->bend(&bend, block.size);
    const struct xent_note *note = &row->space->blocks.notes[index];
    if (note->kept != XENT_NO_CLASS) {
        const size_t kept = (note->kept - block.begin) * job->itemsize;
        const struct xent_point point =
            point_at_kept(job, row, note, (const char *)gradient + kept);
        xent_set_real(job, work->bent + kept, xent_second_at(job, second, &point));
    }
    if (caps) {
        bend_listed(job, row, block, outlet, &bend);
    }
}

/* Stores what the last block left of its last line. */
static void end_edge(const struct workspace *work) {
    if (work->edge) {
        xent_flush_edge(work->edge);
    }
}

/* What is left of a block once its emission is done.
 * log q_j = (z_j - z_m) - loss_m with z_m the largest: both are negative, so nothing cancels. */
static void complete_block(const struct xent_job *job, const struct row *row,
                           const struct workspace *work, size_t index,
                           const struct outlet *outlet) {
    const struct xent_problem *problem = job->problem;
    const struct block block = block_at(job, index);
    void *const out = store_to(job, row, work, block, outlet);
    struct xent_logits capped = {.u = NULL};
    if (job->second && row->counts && row->second.by_tanh != 0) { /* before values replace them */
        struct xent_load_space load = work->load;
        load.slopes = row->space->slopes + block.begin * job->itemsize;
        capped = xent_load(job, &row->at, block.begin, block.size, &load);
    }
    if (!row->counts) {
        memset(out, 0, block.size * job->itemsize);
    } else if (problem->output == XENT_LOG_SOFTMAX) {
        const struct xent_logits logits =
            xent_load(job, &row->at, block.begin, block.size, &work->load);
        job->kernels->emit_shifted(&logits, block.size, row->scalars->target_logit[row->lane],
                                   row->scalars->loss[row->lane], out);
    } else if (outlet->adjusts) {
        struct xent_adjustment by = outlet->adjustment;
        if (job->dense_labels) {
            by.labels =
                xent_load_weighed_labels(job, &row->at, block.begin, block.size, work->labels_out);
        }
        job->kernels->emit_adjusted(&outlet->emission, &by, block.size);
    }
    if (row->counts && row->exps && job->keeps_largest &&
        keeps_another(row, &row->space->blocks.notes[index])) {
        end_edge(work);
        emit_kept(job, row, index, outlet, out);
    }
    if (job->second) {
        end_edge(work);
        if (row->counts) {
            bend_block(job, row, work, index, out, outlet, &capped);
        } else {
            memset(work->bent, 0, block.size * job->itemsize);
        }
        const enum xent_job_array to = problem->output == XENT_PRODUCT ? VALUES : CURVATURE;
        xent_store(job, to, &row->at, block.begin, block.size, work->bent, NULL);
    }
    if (out == work->store && problem->output != XENT_PRODUCT) {
        xent_store(job, VALUES, &row->at, block.begin, block.size, out, work->edge);
    }
    if (problem->output == XENT_GRADIENT && row->counts) {
        if (row->space->listed.count > 0) {
            end_edge(work);
            emit_listed(job, row, block, outlet);
        }
        if (block_has(block, row->target) && !emits_own(job, row, outlet, block)) {
            end_edge(work);
            xent_write_value(job, &row->at, row->target, row->scalars->target_gradient[row->lane]);
        }
    }
}

static void emit_block(const struct xent_job *job, const struct row *row,
                       const struct workspace *work, size_t index) {
    struct outlet outlet;
    open_outlet(job, row, work, index, &outlet);
    if (outlet.emission.exps && emits_along(job, &outlet)) {
        job->kernels->emit(&outlet.emission, block_at(job, index).size);
    }
    complete_block(job, row, work, index, &outlet);
}

static void emit_row(const struct xent_job *job, const struct row *row,
                     const struct workspace *work) {
    for (size_t i = 0; i < count_blocks(job); i++) {
        emit_block(job, row, work, i);
    }
}

/* Reduces a block of one row while that of another, which may be NULL, is emitted. */
static void reduce_beside(const struct xent_job *job, const struct row *row, const struct row *last,
                          const struct workspace *work, size_t index, struct found *found,
                          struct xent_aside *aside) {
    aside->emission = NULL;
    if (!last) {
        reduce_block(job, row, work, index, found, aside);
        return;
    }
    struct outlet outlet;
    open_outlet(job, last, work, index, &outlet);
    if (outlet.emission.exps && emits_along(job, &outlet)) {
        aside->emission = &outlet.emission;
    }
    reduce_block(job, row, work, index, found, aside);
    complete_block(job, last, work, index, &outlet);
}

/* ---- Teams -------------------------------------------------------------------------------------
 */

/* A member's way through the rows. */
struct walk {
    const struct xent_job *job;
    struct xent_ranges *ranges;
    size_t row, end; /* of a range */
    struct xent_cursor at;
};

static bool take_range(struct walk *walk) {
    struct xent_range range;
    if (!xent_take_range(walk->ranges, &range)) {
        return false;
    }
    if (walk->end > 0 && range.begin == walk->row) {
        xent_advance(&walk->at, walk->job, 1);
    } else {
        xent_at_row(walk->job, range.begin, &walk->at);
    }
    walk->row = range.begin;
    walk->end = range.end;
    return true;
}

/* Whether there is another row. */
static inline bool move_on(struct walk *walk) {
    if (++walk->row >= walk->end) {
        return take_range(walk);
    }
    xent_advance(&walk->at, walk->job, 1);
    return true;
}

/* Consecutive rows, which are finished together. */
struct batch {
    size_t first, count;
    struct row *rows;
};

static void finish_batch(const struct xent_job *job, const struct batch *batch) {
    if (job->notes_shard) {
        return;
    }
    xent_finish_rows(job, batch->rows->scalars, batch->first, batch->count);
    take_factors(job, batch->rows, batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        take_second(job, &batch->rows[i]);
    }
}

/* The rows of a batch from one on. */
static void emit_batch(const struct xent_job *job, const struct batch *batch, size_t begin,
                       const struct workspace *work) {
    for (size_t i = begin; xent_has(job, VALUES) && i < batch->count; i++) {
        emit_row(job, &batch->rows[i], work);
    }
}

/* All blocks of a row, beside those of another, which may be NULL; `next` is the place of the row
 * after it, or NULL. */
static inline void reduce_row(const struct xent_job *job, const struct row *row,
                              const struct row *last, const struct xent_place *next,
                              const struct workspace *work, struct found *found) {
    if (!row->counts) {
        if (last) {
            emit_row(job, last, work);
        }
        found->known = false;
        found->peaks = NULL;
        return;
    }
    for (size_t i = 0; i < count_blocks(job); i++) {
        struct xent_aside aside;
        aside.ahead = block_ahead(job, row, i, next);
        reduce_beside(job, row, last, work, i, found, &aside);
    }
}

/* A batch of rows is emitted while the next one is reduced, block by block, so that the memory
 * writes the one while it reads the other. */
static void run_rows(void *context, int member, struct xent_ranges *ranges) {
    const struct xent_job *job = context;
    struct workspace work;
    divide_workspace(job, member, &work);
    const size_t size = batch_size(job);
    struct walk walk = {.job = job, .ranges = ranges};
    struct row rows[2 * XENT_ROWS];
    struct batch batches[2] = {{.rows = rows}, {.rows = rows + size}};
    size_t now = 0; /* the batch that is reduced; the other is emitted */
    struct found found = {0};
    xent_forget(work.evaluation.best);
    for (bool more = move_on(&walk); more;) {
        struct batch *const batch = &batches[now], *const last = &batches[1 - now];
        const size_t index = walk.row, lane = batch->count++;
        struct row *const row = &batch->rows[lane];
        batch->first = index - lane;
        begin_row(job, &walk.at.place, &work, now, lane, row);
        more = move_on(&walk);
        const bool emits = xent_has(job, VALUES) && lane < last->count;
        reduce_row(job, row, emits ? &last->rows[lane] : NULL, more ? &walk.at.place : NULL, &work,
                   &found);
        conclude_row(job, row, index, work.evaluation.best);
        if (batch->count == size || !more || walk.row != index + 1) {
            finish_batch(job, batch);
            emit_batch(job, last, batch->count, &work);
            last->count = 0;
            now = 1 - now;
        }
    }
    emit_batch(job, &batches[1 - now], 0, &work);
    end_edge(&work);
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

void xent_run_rows(struct xent_job *job) {
    xent_parallel_ranges(job->plan.threads, job->rows, 1, run_rows, job);
}

/* ---- Rows whose blocks a team shares -----------------------------------------------------------
 */

/* In every stage a row is reduced while the one before it is emitted, as in run_rows. */
struct columns {
    const struct xent_job *job;
    struct workspace work; /* of the rows; members have their own for a block */
    struct xent_cursor at; /* of the row that is reduced */
    struct row rows[2];
};

static void begin_columns(struct columns *columns, size_t index) {
    begin_row(columns->job, &columns->at.place, &columns->work, index % 2, 0,
              &columns->rows[index % 2]); /* each is finished by itself */
}

static void run_column_blocks(void *context, int member, size_t stage, struct xent_parts *parts) {
    const struct columns *columns = context;
    const struct xent_job *job = columns->job;
    struct workspace work;
    divide_workspace(job, member, &work);
    const struct row *row = stage < job->rows ? &columns->rows[stage % 2] : NULL;
    const bool emits = stage > 0 && xent_has(job, VALUES);
    const struct row *last = emits ? &columns->rows[(stage - 1) % 2] : NULL;
    struct found found = {0};
    for (size_t i = xent_take_part(parts), next; i != XENT_NO_PART; i = next) {
        next = xent_take_part(parts);
        const bool reduces = row && row->counts;
        if (!reduces && last) {
            emit_block(job, last, &work, i);
        }
        if (!reduces) {
            continue;
        }
        struct xent_aside aside;
        aside.ahead = next == i + 1 ? block_ahead(job, row, i, NULL) : NULL;
        reduce_beside(job, row, last, &work, i, &found, &aside);
    }
    end_edge(&work);
    atomic_thread_fence(memory_order_seq_cst); /* what went past the caches is there for all */
}

static void between_columns(void *context, size_t stage) {
    struct columns *columns = context;
    const struct xent_job *job = columns->job;
    if (stage >= job->rows) {
        return;
    }
    struct row *row = &columns->rows[stage % 2];
    conclude_row(job, row, stage, NULL);
    if (!job->notes_shard) {
        xent_finish_rows(job, row->scalars, stage, 1);
        take_factors(job, row, 1);
    }
    take_second(job, row);
    if (stage + 1 < job->rows) {
        xent_advance(&columns->at, job, 1);
        begin_columns(columns, stage + 1);
    }
}

void xent_run_columns(struct xent_job *job) {
    struct columns columns;
    columns.job = job;
    divide_workspace(job, 0, &columns.work);
    xent_at_row(job, 0, &columns.at);
    begin_columns(&columns, 0);
    const struct xent_stages stages = {
        .count = job->rows + xent_has(job, VALUES),
        .parts = count_blocks(job),
        .work = run_column_blocks,
        .between = between_columns,
    };
    xent_parallel_stages(job->plan.threads, &stages, &columns);
}
