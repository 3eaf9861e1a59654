/* A checked problem on its way through the pipeline: where the rows of its strided arrays are, and
 * single numbers in them. Knows nothing of how rows are computed, nor of threads. */
#ifndef XENT_JOB_H
#define XENT_JOB_H

#include "kernels.h"
#include "plan.h"
#include "xent.h"

#include <math.h>
#include <string.h>

/* The arrays with row strides, which a cursor walks together. */
enum xent_job_array {
    LOGITS,
    VALUES,
    TARGET,
    UPSTREAM,
    LSE_IN,
    OF_OPTIONS, /* from here on they are absent without options */
    MASK = OF_OPTIONS,
    LABELS, /* the probabilities */
    INDICES,
    ROW_WEIGHT,
    CURVATURE,
    DIRECTION,
    ARRAYS
};

struct xent_job {
    const struct xent_problem *problem;
    const struct xent_row_kernels *kernels; /* of the problem's dtype */
    const struct xent_finish_kernels *finish;
    xent_turn *turn;
    struct xent_plan plan;
    /* The numbers that kernels work on: float, unless the logits are double. */
    size_t itemsize;
    bool single;

    const struct xent_options *options; /* NULL: none */
    const void *class_weight;           /* as the kernels want them, or NULL */
    double denominator;                 /* of a mean, else 1 */

    /* What follows from the problem and is asked for every block. Logits and values are in place if
     * they lie in their arrays as the kernels want them: contiguous, and nothing is to be done;
     * they are read in place if only a softcap is. */
    bool reads_in_place, loads_in_place, stores_in_place;
    bool caps;            /* there is a softcap */
    bool rounds_in_place; /* values would be, but for their being halves */
    bool second;          /* derivatives are asked for; there are options then */
    bool keeps_largest;   /* apart from the others, for want of a target */
    bool dense_labels;    /* labels are distributions over all classes, */
    bool listed_labels;   /* or over those that they list, as a target is that is not kept apart */
    bool shares;          /* every class gets a share of a row's label */
    /* The logits are a shard of which statistics are noted, or of rows that are known as a whole.
     */
    bool notes_shard, knows_whole;
    size_t offset; /* the number of the first class; 0 if it is no shard */
    struct xent_request request;

    /* The rows are the cells of `shape` in C order: the problem's, in as few dimensions as the
     * arrays allow, and at least one. */
    size_t rows, dims, shape[XENT_MAX_ROW_DIMS];
    struct {
        char *data; /* NULL: absent */
        ptrdiff_t strides[XENT_MAX_ROW_DIMS];
    } arrays[ARRAYS];

    char *memory; /* the workspaces of all members, one after the other */
    size_t workspace_size;
};

/* In its place: what is returned is copied, five kilobytes of it. */
void xent_make_job(const struct xent_problem *problem, struct xent_job *job);

/* In place of a row's target, where it has none. */
#define XENT_NO_CLASS SIZE_MAX

static inline size_t xent_smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Zero times infinity is zero. */
static inline double xent_weighed(double coefficient, double x) {
    return coefficient != 0 ? coefficient * x : 0;
}

static inline bool xent_has(const struct xent_job *job, enum xent_job_array array) {
    return job->arrays[array].data != NULL;
}

/* The dtype of the kernels' numbers. */
static inline enum xent_dtype xent_working_dtype(const struct xent_job *job) {
    return job->single ? XENT_F32 : XENT_F64;
}

/* ---- Rows --------------------------------------------------------------------------------------
 */

/* Where a row is: its byte offset into every array. */
struct xent_place {
    ptrdiff_t offset[ARRAYS];
};

/* A place that can move, with its index along every row dimension. */
struct xent_cursor {
    struct xent_place place;
    size_t index[XENT_MAX_ROW_DIMS];
};

/* Likewise in its place. */
void xent_at_row(const struct xent_job *job, size_t row, struct xent_cursor *at);

/* Moves on by so many rows, or none. */
void xent_advance(struct xent_cursor *at, const struct xent_job *job, size_t rows);

/* The rows from this one on that lie along the last dimension, a constant stride apart. */
static inline size_t xent_rows_in_line(const struct xent_cursor *at, const struct xent_job *job) {
    return job->shape[job->dims - 1] - at->index[job->dims - 1];
}

static inline ptrdiff_t xent_stride(const struct xent_job *job, enum xent_job_array array) {
    return job->arrays[array].strides[job->dims - 1];
}

static inline char *xent_address(const struct xent_job *job, enum xent_job_array array,
                                 const struct xent_place *at) {
    return job->arrays[array].data + at->offset[array];
}

/* The stride says that neighbours lie side by side. */
static inline bool xent_is_contiguous(const struct xent_job *job, ptrdiff_t stride) {
    return stride == (ptrdiff_t)job->itemsize;
}

/* Room for a block on its way to the kernels; unused where logits load in place. */
struct xent_load_space {
    char *u, *low, *slopes; /* the last two with softcap only; no slopes: NULL */
};

/* `size` logits of a row from the class `begin` on, contiguous: where they are, or in the space. */
struct xent_logits xent_load_to(const struct xent_job *job, const struct xent_place *at,
                                size_t begin, size_t size, const struct xent_load_space *space);

/* Where a row's logits are from that class on. */
static inline char *xent_logits_at(const struct xent_job *job, const struct xent_place *at,
                                   size_t class) {
    return xent_address(job, LOGITS, at) + (ptrdiff_t)class * job->problem->logits_stride;
}

static inline struct xent_logits xent_load(const struct xent_job *job, const struct xent_place *at,
                                           size_t begin, size_t size,
                                           const struct xent_load_space *space) {
    if (job->loads_in_place) {
        return (struct xent_logits){xent_logits_at(job, at, begin), NULL, job->request.scale, NAN};
    }
    return xent_load_to(job, at, begin, size, space);
}

/* The same before the softcap and the scale: where they are, or in the buffer. */
const void *xent_load_uncapped(const struct xent_job *job, const struct xent_place *at,
                               size_t begin, size_t size, char *buffer);
double xent_read_uncapped(const struct xent_job *job, const struct xent_place *at, size_t class);

/* The logit of one class, as it would be loaded: u + low. */
double xent_read_logit(const struct xent_job *job, const struct xent_place *at, size_t class);

/* As many probabilities of the labels, or of those that are listed; likewise. */
const void *xent_load_labels(const struct xent_job *job, const struct xent_place *at, size_t begin,
                             size_t size, char *buffer);

/* The components of the vector. */
void xent_load_vector(const struct xent_job *job, const struct xent_place *at, size_t begin,
                      size_t size, char *buffer);

/* The opposite of xent_load for a buffer of VALUES or CURVATURE, wherever it is. */
void xent_store(const struct xent_job *job, enum xent_job_array array, const struct xent_place *at,
                size_t begin, size_t size, const char *buffer, struct xent_edge *edge);

/* ---- Single numbers, of any alignment ----------------------------------------------------------
 */

static inline double xent_read_double(const char *p) {
    double x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* One number of the kernels' dtype as double, and of a double. */
static inline double xent_real(const struct xent_job *job, const void *p) {
    if (job->single) {
        float x;
        memcpy(&x, p, sizeof x);
        return (double)x;
    }
    return xent_read_double(p);
}

static inline void xent_set_real(const struct xent_job *job, void *p, double value) {
    if (job->single) {
        const float x = (float)value;
        memcpy(p, &x, sizeof x);
    } else {
        memcpy(p, &value, sizeof value);
    }
}

/* The logit of one class; where logits load in place. */
static inline double xent_logit(const struct xent_job *job, const struct xent_place *at,
                                size_t class) {
    return xent_real(job, xent_logits_at(job, at, class));
}

/* The slope of a class, given those of a block or row; one without softcap, where they are NULL. */
static inline double xent_slope(const struct xent_job *job, const char *slopes, size_t class) {
    return slopes ? xent_real(job, slopes + class * job->itemsize) * XENT_SLOPE_UNIT : 1;
}

void xent_write_value(const struct xent_job *job, const struct xent_place *at, size_t class,
                      double value);

/* The classes of n targets in a line; a negative one becomes larger than any number of classes. */
void xent_read_classes(const struct xent_job *job, const char *target, size_t n, size_t *class);

/* The same, where they are if they are contiguous and of 64 bits, else in the buffer. */
const size_t *xent_find_classes(const struct xent_job *job, const char *target, size_t n,
                                size_t *buffer);

/* As xent_read_classes, of the classes that a row's label lists, from one on. */
void xent_read_indices(const struct xent_job *job, const struct xent_place *at, size_t begin,
                       size_t n, size_t *class);

static inline size_t xent_read_class(const struct xent_job *job, const struct xent_place *at) {
    size_t class;
    xent_read_classes(job, xent_address(job, TARGET, at), 1, &class);
    return class;
}

/* ---- Memory of a thread's own ------------------------------------------------------------------
 */

static inline size_t xent_whole_lines(size_t size) {
    return (size + XENT_CACHE_LINE - 1) / XENT_CACHE_LINE * XENT_CACHE_LINE;
}

static inline char *xent_workspace(const struct xent_job *job, int member) {
    return job->memory + job->workspace_size * (size_t)member;
}

#endif
