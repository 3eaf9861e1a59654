/* The C API of xent: softmax cross-entropy and its gradient over strided arrays of logits.
 *
 * This file is all a C program needs; it knows nothing of Python. Describe the work in a
 * `struct xent_problem` and hand it to `xent_run`. Every check comes first: when the status is not
 * XENT_OK, nothing has been written. Strides are in bytes and may be zero (inputs) or negative. No
 * alignment is asked of what a `char *` points to; all else is aligned as its type is. Results
 * share no memory with what is read, nor with each other; but `values`, or `curvature`, may be the
 * logits themselves, of the same dtype and strides. */
#ifndef XENT_H
#define XENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NumPy arrays have at most 64 dimensions, one of which holds the classes. */
enum { XENT_MAX_ROW_DIMS = 63 };

/* Classes reduced at once: 16 KiB of f32, half of an L1 cache, in which they stay from the first
 * look to the second; half as many pay for a block's beginning and end twice as often. A row's bits
 * depend on it. */
enum { XENT_BLOCK = 4096 };

enum xent_status {
    XENT_OK = 0,
    XENT_TARGET_OUT_OF_RANGE, /* problem.bad_row says in which row, and bad_label which of it */
    XENT_NO_MEMORY,
    XENT_UNKNOWN_ISA,     /* XENT_ISA names no instruction set xent has */
    XENT_UNSUPPORTED_ISA, /* ... or one this machine or build cannot run */
    XENT_BAD_PROBLEM      /* a field is out of its documented range */
};

enum xent_dtype { XENT_F32, XENT_F64, XENT_F16, XENT_BF16 };

/* The width and sign of integer targets. */
enum xent_int { XENT_I8, XENT_I16, XENT_I32, XENT_I64, XENT_U8, XENT_U16, XENT_U32, XENT_U64 };

/* What is written to `values`, an array with a class axis like the logits'. */
enum xent_values {
    XENT_NO_VALUES,
    XENT_GRADIENT,    /* (q_j - [j = target]) * upstream, or what it is with options */
    XENT_SOFTMAX,     /* q_j */
    XENT_LOG_SOFTMAX, /* x_j - lse */
    XENT_PRODUCT      /* the Hessian of `upstream` times the loss, times `vector` */
};

/* What is written to `curvature`; with h_j = upstream * W q_j (1 - q_j) (dz_j/dx_j)^2, W being the
 * sum of w_j t_j v. */
enum xent_curvature {
    XENT_EXACT,   /* the diagonal of the Hessian: h_j and what z_loss and softcap add */
    XENT_XGBOOST, /* max(2 h_j, 1e-16) in rows that count */
    XENT_LIGHTGBM /* K' / (K' - 1) h_j, and h_j where K' is 1 */
};

/* The base address of an array and its stride along every row dimension. */
struct xent_array {
    char *data; /* NULL: absent */
    const ptrdiff_t *row_strides;
};

/* A distribution over the classes of every row, in place of one class. */
struct xent_labels {
    struct xent_array probabilities;
    ptrdiff_t probabilities_stride; /* from one class to the next */
    enum xent_dtype dtype;
    bool swapped; /* the bytes are in the other order */
    /* If present, the probabilities are of `listed` classes only, whose indices these are. */
    struct xent_array indices;
    ptrdiff_t indices_stride;
    enum xent_int index_type;
    size_t listed;
    bool spread_tail; /* what the listed classes lack of one goes to the others, evenly */
};

/* What logits are multiplied by, and what is divided by it, has to be a float. */
#define XENT_LEAST_SCALE 1e-30
#define XENT_MOST_SCALE 1e30

/* What may be asked beyond the plain loss. With z the transformed logits, t the distribution of the
 * labels, w the weights of the classes and v that of the row, all of a row:
 *
 *     z_j = scale * x_j, or softcap * tanh(scale * x_j / softcap); -inf where a class is masked
 *     t_j = (1 - label_smoothing) * t_j + label_smoothing / K', K' classes not being masked
 *     lse = ln sum_j exp(z_j), q_j = exp(z_j - lse)
 *     loss = v * (sum_j w_j t_j (lse - z_j) + z_loss * lse^2)
 *
 * Rows do not count that have the label `ignored` or the weight zero: their loss and gradient are
 * zero whatever their logits are. */
struct xent_options {
    double scale;           /* from XENT_LEAST_SCALE to XENT_MOST_SCALE */
    double softcap;         /* likewise; 0: none */
    struct xent_array mask; /* bytes: zero where a class is masked */
    ptrdiff_t mask_stride;

    struct xent_labels labels; /* where there is no `target` */
    double label_smoothing;    /* from 0 to 1 */
    double z_loss;             /* >= 0 */

    const double *class_weight;   /* `classes` numbers >= 0, or NULL: all 1 */
    struct xent_array row_weight; /* double, >= 0; absent: all 1 */
    bool ignores;
    int64_t ignored; /* as the bits of a label of 64 bits, if it `ignores` */
};

/* What else there is to know of a row's prediction. Each array has one number for each row, in C
 * order, or top_k numbers for each row; NULL: not wanted. Classes are in order of their logits, the
 * largest first, and of two that are equal the first is first; a softcap does not change it. A row
 * whose lse is no number has NaN, and -1 for a class or a rank. */
struct xent_evaluation {
    double *log_prob; /* ln q of the target */
    double *entropy;  /* -sum_j q_j ln q_j */
    int64_t *argmax;  /* the first class */
    int64_t *rank;    /* how many classes are before the target */
    size_t top_k;
    double *top_log_probs; /* ln q of the first classes; both arrays are there if top_k > 0 */
    int64_t *top_classes;  /* where there are no more that are not masked: -1, and -inf */
};

/* What a block of XENT_BLOCK classes, or the last of fewer, leaves of a row: all that the row's
 * loss, lse and gradient need of it. With z = s * (u + low), s being the softcap or else the scale,
 * a sum of e^z is (sum + low) * 2^exponent * e^(s * shift). The coefficients of the class `kept`
 * are t_j w_j of a distribution, else w_j, and w_j again, but 0 if it is masked. All sums are over
 * the other classes; those of coefficients are sum c_j and sum c_j (top - u_j - low_j), with c_j =
 * t_j w_j for `labels` and c_j = w_j, where a class is not masked, for `weights`. What options do
 * not need is zero. */
struct xent_block {
    int64_t kept; /* the label, or the first of the largest if labels are distributions; -1: none */
    double logit, logit_low, slope; /* of it: u, low, and dz/dx / scale */
    double label, weight;           /* its coefficients */
    double top;                     /* the largest u of the others */
    double sum, low, exponent, shift;
    double label_mass, label_spread;
    double weight_mass, weight_spread;
    double unmasked; /* how many of the others are not masked */
};

/* A class that a label lists: u + low, and w. The weight is -1 where the class is in another shard.
 */
struct xent_listed_class {
    double logit, weight;
};

/* The logits are a shard of their rows, which have more classes. Labels are numbers of all classes;
 * arrays with a class axis, and class weights, have the shard's. */
struct xent_statistics {
    size_t offset; /* the number of the shard's first class */
    /* Either the statistics of the shard are wanted, and nothing else: of every row, in C order,
     * its blocks, from the shard's first class on, and the classes that its label lists. */
    struct xent_block *noted;
    struct xent_listed_class *noted_listed;
    /* Or those of whole rows are there: for losses and lse, with no logits, the problem's `classes`
     * being 0, nor labels, if they are of all classes; or for the gradient of the shard. An lse
     * that is below one half is as accurate as one half is, for want of the logits. */
    const struct xent_block *whole; /* of every row, `blocks` in order of their classes */
    const struct xent_listed_class *whole_listed;
    size_t blocks, classes; /* in a whole row */
};

struct xent_problem {
    enum xent_dtype dtype; /* of the logits */
    bool swapped;          /* the bytes of the logits are in the other order */
    bool wide_values; /* the values of logits of 16 bits are float; else of the logits' dtype */
    enum xent_values output;
    size_t row_dims; /* <= XENT_MAX_ROW_DIMS; the rows are all the cells of row_shape, C order */
    const size_t *row_shape;
    size_t classes; /* >= 1, but see xent_statistics */

    struct xent_array logits;
    ptrdiff_t logits_stride; /* from one class to the next */
    struct xent_array values;
    ptrdiff_t values_stride;

    /* Beside the gradient; without `lse_in` and `loss`. */
    struct xent_array curvature;
    ptrdiff_t curvature_stride;
    enum xent_curvature curvature_kind;
    bool wide_curvature; /* as wide_values */

    struct xent_array vector; /* for XENT_PRODUCT; without `lse_in` and `loss` */
    ptrdiff_t vector_stride;
    enum xent_dtype vector_dtype;
    bool vector_swapped;

    struct xent_array target; /* absent, as labels are, for softmax and log_softmax */
    enum xent_int target_type;

    struct xent_array upstream; /* double, dl/dL of every row; absent: `upstream_scalar` for all */
    double upstream_scalar;
    struct xent_array lse_in; /* double: the normaliser to use in place of the row's own */

    double *loss;         /* rows doubles, C order, or NULL */
    double *loss_reduced; /* one double, the sum in a fixed order, or NULL; needs `loss` */
    /* Whether that sum and the upstream gradient are divided by the denominator: by the one given,
     * or if that is 0 by the sum of v * w_target over the rows that count, or of v if labels are
     * distributions; by the number of rows without options. If nothing counts, the mean is NaN and
     * derivatives are 0. A mean may be finite where the sum is not. */
    bool mean;
    double denominator;
    double *lse; /* rows doubles, C order, or NULL; 0 of rows that do not count */

    /* NULL, or a scale of 1 and nothing else: none; but with statistics of whole rows only NULL is
     * none, for what other shards have is not known */
    const struct xent_options *options;
    /* NULL: none; else there are neither values nor losses, and of the options what makes z of x */
    const struct xent_evaluation *evaluation;
    const struct xent_statistics *statistics; /* NULL: the logits are whole rows */

    int threads; /* the largest team, within OMP_THREAD_LIMIT; 0: see xent_available_threads */

    size_t bad_row, bad_label; /* out: what a status speaks of */
};

enum xent_status xent_run(struct xent_problem *problem);

/* The instruction set in use ("scalar", "avx2", "avx512", "neon"), chosen at the first call. */
enum xent_status xent_isa(const char **name);
/* Whether this machine and build can run the instruction set of that name. */
enum xent_status xent_isa_supported(const char *name);

/* The largest team that a problem gets that leaves the choice to xent, at this moment: what was set
 * below, or else OMP_NUM_THREADS, but no more than there are processors that this thread may run
 * on, than control groups grant time for, and than OMP_THREAD_LIMIT. All but the processors are
 * read once, when the library is loaded. */
int xent_available_threads(void);
/* Takes the place of OMP_NUM_THREADS; 0 takes that back. */
void xent_set_num_threads(int threads);
/* "pthreads", or "none": what makes the threads in this build. */
const char *xent_threading(void);

#endif
