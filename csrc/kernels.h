/* The kernel table: what every instruction set provides, for each dtype. Kernels work on one
 * contiguous block of classes, allocate nothing, keep no state and know nothing of threads. */
#ifndef XENT_KERNELS_H
#define XENT_KERNELS_H

#include "double_double.h"
#include "xent.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { XENT_CACHE_LINE = 64 }; /* bytes, as many as a vector has */

/* Bytes, of halves half as many: what is read is fetched into the L2 cache this far ahead of that
 * which is looked at first, logits a block before their turn: the hardware fetches a page at most,
 * and a store that waits for its line behind loads from memory halves the speed. Or less far into
 * the L1 cache, see plan.c. */
enum { XENT_AHEAD = 16384, XENT_AHEAD_NEAR = 10240 };

/* Parts of a block that `bound_of_first` looks at. */
enum { XENT_PARTS = 32 };

/* Lines of a block that have a line of peaks: where each number is the largest of those in its
 * place. The last lines of a block may be fewer; a line that is not whole has no part in it. */
enum { XENT_PEAK = 16 };

/* Classes of a block, in order: no more than share a line of peaks. */
struct xent_found {
    size_t count, classes[XENT_PEAK * XENT_CACHE_LINE / sizeof(float)];
};

static inline bool xent_is_half(enum xent_dtype dtype) {
    return dtype == XENT_F16 || dtype == XENT_BF16;
}

/* Of values, or of the curvature, given whether these are wide. */
static inline enum xent_dtype xent_dtype_of_values(const struct xent_problem *problem, bool wide) {
    return wide ? XENT_F32 : problem->dtype;
}

static inline size_t xent_size_of(enum xent_dtype dtype) {
    const size_t narrow = xent_is_half(dtype) ? sizeof(uint16_t) : sizeof(float);
    return dtype == XENT_F64 ? sizeof(double) : narrow;
}

/* Numbers a constant stride apart. */
struct xent_strided {
    char *data;
    ptrdiff_t stride;
    enum xent_dtype dtype;
    bool swapped; /* the bytes are in the other order */
};

/* Contiguous logits z = scale * (u + low), in the table's dtype. */
struct xent_logits {
    const void *u, *low; /* low may be NULL: zero */
    double scale;
    double largest; /* u, if it is known, else NaN; NaNs do not count */
};

/* `(sum + low) * 2^exponent * e^(scale * shift)` is a sum of exp over classes. */
struct xent_sum {
    double sum, low; /* low is less than half a unit of sum's last place */
    double exponent; /* an integer */
    double shift;    /* zero unless the logits are large, see docs/design.md */
};

/* Coefficients c of the classes j, and how far their logits are below a `top` that is no less than
 * any: sum c, and sum c * (top - z) / scale. */
struct xent_spread {
    double mass, spread;
    double count; /* of classes that are not masked */
};

/* A sum of exponentials as ones + beside / 2^256, so that what it exceeds one by is not lost in the
 * one, nor below the smallest number. */
struct xent_near_one {
    double ones; /* an integer */
    struct two beside;
};

/* Rows that are finished together at the most, and those whose scalars are in one vector. */
enum { XENT_ROWS = 64, XENT_ROWS_AT_ONCE = 8 };

/* The most classes of rows that lie side by side. */
enum { XENT_TILE_CLASSES = 192 };

/* Rows side by side: row i of class k is REAL number i from `cells + k * pitch` on. The pitch is
 * whole vectors, whose lanes beyond the rows hold numbers that do not matter. */
struct xent_tile {
    char *cells;
    size_t rows, classes;
    ptrdiff_t pitch;
};

/* Where the same rows and classes are in an array. Passed by pointer: a copy of what has just been
 * written in parts would wait for these. */
struct xent_cells {
    char *data;
    ptrdiff_t row_stride, class_stride;
};

/* The scalars of rows, lane by lane. */
struct xent_rows {
    /* in: the sum over the classes other than the target, as in xent_sum; the target's logit, -inf
     * where there is none; dl/dL; and, if it is to be used, the given lse */
    double others[XENT_ROWS], others_low[XENT_ROWS], exponent[XENT_ROWS], shift[XENT_ROWS];
    double target_logit[XENT_ROWS], upstream[XENT_ROWS], lse_in[XENT_ROWS];
    /* out: the units of `others` times (scale + scale_low) * 2^scale_exponent give upstream *
     * softmax */
    double loss[XENT_ROWS], lse[XENT_ROWS], target_gradient[XENT_ROWS];
    double scale[XENT_ROWS], scale_low[XENT_ROWS], scale_exponent[XENT_ROWS];
    /* in, only with options: the low part of the target's logit; the coefficients of the target and
     * of all other classes; sum c * (top - z) / scale over the others, and that top; the weight of
     * lse^2; and what the gradient at the target is multiplied by */
    double target_low[XENT_ROWS], own[XENT_ROWS], rest[XENT_ROWS], spread[XENT_ROWS];
    double top[XENT_ROWS], square[XENT_ROWS], target_slope[XENT_ROWS];
    /* in, only for `entropies`, where the target is the largest class: the sum of e^z * (z_m - z)
     * over the others, as in xent_sum; out: the entropy */
    double below[XENT_ROWS], below_exponent[XENT_ROWS], below_shift[XENT_ROWS];
    double entropy[XENT_ROWS];
    /* out, for second derivatives: the scale for an upstream of 1; q of the target, and 1 - q */
    double unit[XENT_ROWS], unit_low[XENT_ROWS], unit_exponent[XENT_ROWS];
    double share[XENT_ROWS], share_of_others[XENT_ROWS];
};

/* What the scale of a row's terms comes from, and with it the gradient at the target: nothing, for
 * there are none to write; the row's own sum, also where second derivatives are asked for, which
 * without options leave scale and gradient to their caller; or lse_in. */
enum xent_scale { XENT_NO_SCALE, XENT_BY_OWN_SUM, XENT_BY_GIVEN_LSE, XENT_FOR_SECOND };

/* What finish is asked for. */
struct xent_request {
    enum xent_scale by;
    bool single;  /* the logits are float */
    bool options; /* the coefficients are in use; else the target's is 1 and no others are */
    bool lse;     /* is to be given; always with options */
    double scale; /* of the logits, 1 without options */
};

/* A factor `(high + low) * post`, split so that it is carried to more than working precision. */
struct xent_factor {
    double high, low, post;
};

struct xent_factors {
    double high[XENT_ROWS], low[XENT_ROWS], post[XENT_ROWS];
};

/* Slopes are kept in this unit: those of a float are so small that they would lose their digits,
 * though what they are multiplied by makes them normal numbers again. */
#define XENT_SLOPE_UNIT 0x1p-64

/* What is subtracted from terms, besides a number: `labels` times a factor, weights times another.
 * Then they are multiplied by slopes. Each array may be NULL: nothing, or ones. */
struct xent_adjustment {
    const void *labels, *weights, *slopes;
    double by_labels, by_weights;
};

/* A line of the memory that two blocks share, until it can be stored past the caches as a whole: a
 * part of it would have to wait for the rest to be read. `at` is where it goes. */
struct xent_edge {
    char line[XENT_CACHE_LINE];
    char *at;
    size_t filled; /* of its bytes, the first; 0: there is none */
};

/* Stores what there is of the line, before anything there is read or written. */
static inline void xent_flush_edge(struct xent_edge *edge) {
    if (edge->filled > 0) {
        memcpy(edge->at, edge->line, edge->filled);
        edge->filled = 0;
    }
}

/* Terms that reduce has kept, on their way out: out = exps * factor - (labels * by_labels +
 * offset), but for one class, of which the value is given. Those of masked classes are negative, if
 * an adjustment needs to know them; they count as zero there, and no weight is subtracted from
 * them. */
struct xent_emission {
    const void *exps; /* NULL: nothing to emit */
    void *out;
    /* of out: the table's, or that of halves, where nothing is subtracted and the factor finite */
    enum xent_dtype dtype;
    struct xent_factor factor;
    double offset;
    const void *labels; /* of as many classes; NULL: none */
    double by_labels;   /* if there are any */
    size_t own;         /* the class with a value of its own; beyond the block: none */
    double own_value;
    bool stream; /* past the caches; out is not exps then, and other threads see it after a fence */
    struct xent_edge *edge; /* if they are streamed */
};

/* Second derivatives of a block on their way out, e being its terms; those of masked classes may be
 * negative and count as zero. With q = e * shares, and each of `slopes` and `gradient` 1 and 0
 * where it is NULL,
 *
 *     out = max(floor, slope^2 (e * by (1 - q) + e * square q) + gradient * by_tanh * tanh)
 *
 * or where there is a vector v
 *
 *     out = slope (e * by (slope v - mean) + e * square * mean) + gradient * by_tanh * tanh * v */
struct xent_bend {
    const void *exps;
    void *out;
    struct xent_factor shares, by, square;
    bool squares; /* else `square` is zero */
    double floor;
    const void *slopes, *gradient, *tanh; /* tanh beside a gradient; infinities count as one */
    double by_tanh;
    const void *vector; /* or NULL */
    double mean;
};

/* The same of rows side by side, without slopes and gradient. */
struct xent_lanes_bend {
    struct xent_factors shares, by, square;
    bool squares;
    double floor;
    double mean[XENT_ROWS]; /* beside a vector */
};

/* What is subtracted from the terms of rows side by side: (offset + labels * by_labels) * weights,
 * the weights being ones where they are NULL. Marked terms count as zero, and no offset is
 * subtracted from them. Then they are multiplied by slopes. */
struct xent_lanes_less {
    double offset[XENT_ROWS], by_labels[XENT_ROWS];
    const struct xent_tile *labels, *slopes; /* or NULL */
    const double *weights;
};

/* What reduce does on its way, so that memory is read and written while the arithmetic goes on. */
struct xent_aside {
    void *exps;              /* gets the terms, scaled like the sum, unless NULL */
    bool keeps_skip;         /* that of `skip`, too; else it is zero */
    const void *ahead;       /* as many classes as are reduced, or NULL */
    double ahead_max;        /* out: the largest of them, like `largest` without a skip */
    void *ahead_peaks;       /* gets their peaks, unless NULL */
    const char *source;      /* where the classes were loaded from, to fetch what comes later */
    ptrdiff_t source_stride; /* bytes to the next class */
    bool near;               /* rather into the L1 cache; else the L2 */
    const char *beside;      /* what else to fetch meanwhile, or NULL: */
    size_t beside_size;      /* so many bytes for each class */
    const struct xent_emission *emission; /* of as many terms, or NULL; only with `exps` */
    /* gets what `spread` gives of these labels and weights, unless NULL; without both, nothing is
     * emitted with labels then. With them it may be or not. */
    struct xent_spread *spread;
    const void *labels, *weights; /* beside `spread` only */
    /* gets the sum of e * scale * (max - u - low) over the terms, in the unit of their sum, unless
     * NULL; then `exps` is room for the terms, and nothing is emitted. A term of zero adds nothing.
     */
    double *below;
};

/* Every kernel, as KERNEL(name, result, arguments): the table's members and what fills them come
 * from this list. Arrays are of the table's dtype. */
#define XENT_KERNELS(KERNEL)                                                                       \
    /* The largest class but `skip` (>= n: none), -inf if there is none; NaNs do not count. Here   \
     * and below, peaks may be NULL: not known. */                                                 \
    KERNEL(largest, double, (const void *logits, size_t n, size_t skip, const void *peaks))        \
    /* A lower bound of the count-th largest class: the count-th largest of what are the largest   \
     * of so many interleaved parts. Equal ones count once, which only lowers it; -inf if there    \
     * are too few. NaNs do not count. */                                                          \
    KERNEL(bound_of_first, double,                                                                 \
           (const void *logits, size_t n, size_t count, const void *peaks))                        \
    /* The first class that has the largest u; n if none has it. */                                \
    KERNEL(find, size_t, (const void *logits, size_t n, double largest, const void *peaks))        \
    /* The classes whose u is above the bound, of the first that share a line of peaks and have    \
     * any, from `begin` on, where such a line begins; returns where to go on, n at the end. */    \
    KERNEL(find_above, size_t,                                                                     \
           (const void *logits, size_t n, size_t begin, double bound, const void *peaks,           \
            struct xent_found *found))                                                             \
    /* How many are above it, or at it if `at` is set; for a block at the most. */                 \
    KERNEL(count_above, size_t, (const void *logits, size_t n, double bound, bool at))             \
    /* Sum of exp over the classes but `skip`, of which `max` is the largest. */                   \
    KERNEL(reduce, void,                                                                           \
           (const struct xent_logits *logits, size_t n, size_t skip, double max,                   \
            struct xent_aside *aside, struct xent_sum *sum))                                       \
    /* The same of contiguous halves in native byte order, of which nobody knows the largest; no   \
     * terms are kept, and nothing is looked at ahead. */                                          \
    KERNEL(reduce_halves, void,                                                                    \
           (const struct xent_strided *from, size_t n, size_t skip, struct xent_aside *aside,      \
            struct xent_sum *sum))                                                                 \
    KERNEL(emit, void, (const struct xent_emission *emission, size_t n))                           \
    KERNEL(emit_adjusted, void,                                                                    \
           (const struct xent_emission *emission, const struct xent_adjustment *by, size_t n))     \
    /* Of the classes but `skip`, no larger than `top`. A class of c = 0 adds nothing, and no      \
     * masked one does without `labels`; else c = labels * weights, both of which may be NULL. */  \
    KERNEL(spread, void,                                                                           \
           (const struct xent_logits *logits, size_t n, size_t skip, double top,                   \
            const void *labels, const void *weights, struct xent_spread *result))                  \
    /* Adds e^z over the block to `sum`; for z below 300. */                                       \
    KERNEL(sum_near_one, void,                                                                     \
           (const struct xent_logits *logits, size_t n, struct xent_near_one *sum))                \
    /* out = scale * (u - high) - low; out may be u. */                                            \
    KERNEL(emit_shifted, void,                                                                     \
           (const struct xent_logits *logits, size_t n, double high, double low, void *out))       \
    /* Numbers of any dtype, stride and byte order become contiguous ones of the table's. Returns  \
     * the largest. */                                                                             \
    KERNEL(read, double, (const struct xent_strided *from, size_t n, void *to))                    \
    /* The opposite, in native byte order, of a block at the most; past the caches, if there is an \
     * edge and they stay contiguous. */                                                           \
    KERNEL(write, void,                                                                            \
           (const void *from, size_t n, const struct xent_strided *to, struct xent_edge *edge))    \
    /* -inf where the mask is zero. */                                                             \
    KERNEL(mask, void, (void *logits, size_t n, const char *mask, ptrdiff_t stride))               \
    /* Marks the terms of masked classes: they become negative. */                                 \
    KERNEL(mark, void, (void *exps, size_t n, const void *logits))                                 \
    /* u + low = tanh(by * logits), which keeps infinities, to be multiplied by scale; slope =     \
     * 1 - (u + low)^2, in its unit, if it is not NULL; u may be where the logits are. */          \
    KERNEL(                                                                                        \
        cap, void,                                                                                 \
        (const void *logits, size_t n, double by, double scale, void *u, void *low, void *slope))  \
    KERNEL(multiply, void, (void *x, size_t n, const void *by))                                    \
    /* Of the classes but `skip`: terms, without their headroom, times slopes (or NULL) times the  \
     * vector. */                                                                                  \
    KERNEL(dot, double,                                                                            \
           (const void *exps, size_t n, size_t skip, const void *slopes, const void *vector))      \
    KERNEL(bend, void, (const struct xent_bend *bend, size_t n))                                   \
    KERNEL(lanes_load, void, (const struct xent_tile *tile, const struct xent_cells *logits))      \
    /* The first of every row's largest classes. */                                                \
    KERNEL(lanes_largest, void, (const struct xent_tile *tile, size_t *target))                    \
    /* Reads every row's target, and masks it with -inf; puts another number there. */             \
    KERNEL(lanes_take, void, (const struct xent_tile *tile, const size_t *target, double *logits)) \
    KERNEL(lanes_put, void,                                                                        \
           (const struct xent_tile *tile, const size_t *target, const double *values))             \
    /* How many classes of every row are before its target: larger, or as large and of a lower     \
     * number. */                                                                                  \
    KERNEL(lanes_before, void,                                                                     \
           (const struct xent_tile *tile, const size_t *target, int64_t *before))                  \
    /* The sums over all classes, `scale` times the logits, of which the low parts may be NULL:    \
     * zeros; the terms take the logits' place if `keep`. */                                       \
    KERNEL(lanes_reduce, void,                                                                     \
           (const struct xent_tile *tile, const struct xent_tile *low, double scale, bool keep,    \
            struct xent_rows *rows))                                                               \
    KERNEL(lanes_emit, void, (const struct xent_tile *tile, const struct xent_factors *factors))   \
    /* The classes of every row that are not masked: their `top`, their sum of weights (or of      \
     * ones) as `rest`, that of weights * (top - z) as `spread`, and how many they are; or with    \
     * labels, which may be of masked classes, the sums of labels * weights likewise. */           \
    KERNEL(lanes_spread, void,                                                                     \
           (const struct xent_tile *tile, const struct xent_tile *low,                             \
            const struct xent_tile *labels, const double *weights, struct xent_rows *rows,         \
            double *counts))                                                                       \
    /* What reduce gives as `below`: of terms, and of logits that are no larger than               \
     * `target_logit`. */                                                                          \
    KERNEL(lanes_spread_terms, void,                                                               \
           (const struct xent_tile *terms, const struct xent_tile *logits, double scale,           \
            struct xent_rows *rows))                                                               \
    /* As lanes_emit, but less what `less` says. */                                                \
    KERNEL(lanes_emit_less, void,                                                                  \
           (const struct xent_tile *tile, const struct xent_factors *factors,                      \
            const struct xent_lanes_less *less))                                                   \
    /* What terms give goes to `out`; of a `product` it takes the place of the vector there. */    \
    KERNEL(lanes_bend, void,                                                                       \
           (const struct xent_tile *terms, const struct xent_lanes_bend *bend,                     \
            const struct xent_tile *out, bool product))                                            \
    /* Sums of terms, with their headroom, times the vector. */                                    \
    KERNEL(lanes_dot, void,                                                                        \
           (const struct xent_tile *terms, const struct xent_tile *vector, double *dots))          \
    KERNEL(lanes_emit_shifted, void,                                                               \
           (const struct xent_tile *tile, double scale, const double *high, const double *low))    \
    KERNEL(                                                                                        \
        lanes_store, void,                                                                         \
        (const struct xent_tile *tile, const struct xent_cells *values, struct xent_edge *edge))

/* What follows from the sums, whatever the dtype of the logits. */
#define XENT_FINISH_KERNELS(KERNEL)                                                                \
    /* The sum over a row, from those of its blocks, in a fixed order. */                          \
    KERNEL(merge, struct xent_sum, (const struct xent_sum *blocks, size_t count, double scale))    \
    /* The scalars of so many rows. */                                                             \
    KERNEL(finish, void,                                                                           \
           (struct xent_rows * rows, size_t count, const struct xent_request *request))            \
    /* -sum q ln q of so many rows that are finished. */                                           \
    KERNEL(entropies, void,                                                                        \
           (struct xent_rows * rows, size_t count, const struct xent_request *request))            \
    /* ln of the sum, as accurate as is what it exceeds one by. */                                 \
    KERNEL(log_near_one, double, (const struct xent_near_one *sum))                                \
    /* ln of the sums of e^z of eight rows, as accurate: z has one class of all of them after the  \
     * other. */                                                                                   \
    KERNEL(lse_near_zero, void, (const double *z, size_t classes, double *lse))                    \
    /* What the terms of so many of a row's blocks are multiplied by. */                           \
    KERNEL(block_factors, void,                                                                    \
           (const struct xent_rows *rows, size_t row, const struct xent_sum *blocks, size_t count, \
            const struct xent_request *request, struct xent_factor *factors))                      \
    /* For a multiple of softmax, after XENT_FOR_SECOND. */                                        \
    KERNEL(share_factor, struct xent_factor,                                                       \
           (const struct xent_rows *rows, size_t row, double by, const struct xent_sum *block,     \
            const struct xent_request *request))                                                   \
    /* The scales themselves, in units of the block's sum. */                                      \
    KERNEL(scaled_share, double,                                                                   \
           (const struct xent_rows *rows, size_t row, const struct xent_sum *block,                \
            const struct xent_request *request))                                                   \
    KERNEL(share, double,                                                                          \
           (const struct xent_rows *rows, size_t row, const struct xent_sum *block,                \
            const struct xent_request *request))                                                   \
    KERNEL(share_factors, void,                                                                    \
           (const struct xent_rows *rows, size_t count, const double *by, bool single,             \
            struct xent_factors *factors))                                                         \
    /* The same of so many rows' own sums. */                                                      \
    KERNEL(                                                                                        \
        factors, void,                                                                             \
        (const struct xent_rows *rows, size_t count, bool single, struct xent_factors *factors))   \
    /* The sum of n numbers times `unit`, in a fixed order. */                                     \
    KERNEL(add_up, struct two, (const double *values, size_t n, double unit))

#define XENT_KERNEL_FIELD(name, result, arguments) result(*name) arguments;

struct xent_row_kernels {
    XENT_KERNELS(XENT_KERNEL_FIELD)
};

struct xent_finish_kernels {
    XENT_FINISH_KERNELS(XENT_KERNEL_FIELD)
};

/* to[j][i] = from[i][j], of numbers of 1, 2, 4 or 8 bytes: `count` lines of `size` contiguous
 * numbers become `size` lines of `count`. The strides are from one line to the next. */
typedef void xent_turn(size_t itemsize, const char *from, ptrdiff_t from_stride, char *to,
                       ptrdiff_t to_stride, size_t count, size_t size);

struct xent_kernels {
    const char *isa;
    struct xent_row_kernels f32, f64;
    struct xent_finish_kernels finish;
    xent_turn *turn;
};

extern const struct xent_kernels xent_kernels_scalar;
extern const struct xent_kernels xent_kernels_avx2;
extern const struct xent_kernels xent_kernels_avx512;
extern const struct xent_kernels xent_kernels_neon;

#endif
