/* The kernel table: what every instruction set provides, for each dtype. Kernels work on one
 * contiguous block of classes, allocate nothing, keep no state and know nothing of threads. */
#ifndef XENT_KERNELS_H
#define XENT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

/* Classes reduced at once: 8 KiB of f32, so that a block and its exponentials stay in the L1 cache
 * from the first look to the second. A row's bits depend on it. */
enum { XENT_BLOCK = 2048 };

/* `sum * 2^exponent * e^shift` is the sum of exp over a block. */
struct xent_sum {
    double sum;
    double exponent; /* an integer */
    double shift;    /* zero unless the logits are large, see docs/design.md */
};

/* A factor `(high + low) * post`, split so that it is carried to more than working precision. */
struct xent_factor {
    double high, low, post;
};

/* Terms that reduce has kept, on their way out: out = exps * factor. */
struct xent_emission {
    const void *exps; /* NULL: nothing to emit */
    void *out;
    struct xent_factor factor;
    bool stream; /* past the caches; out is not exps then, and other threads see it after a fence */
};

/* What reduce does on its way, so that memory is read and written while the arithmetic goes on. */
struct xent_aside {
    void *exps;                    /* gets the terms, scaled like the sum, unless NULL */
    const void *ahead;             /* as many classes as are reduced, or NULL */
    double ahead_max;              /* out: the largest of them, like `largest` without a skip */
    struct xent_emission emission; /* as many terms as are reduced; only with `exps` */
};

/* Every kernel, as KERNEL(name, result, arguments): the table, the prototypes and the tests all
 * come from this list, so a kernel cannot exist unreached. Arrays are of the table's dtype. */
#define XENT_KERNELS(KERNEL)                                                                       \
    /* The largest class but `skip` (>= n: none), -inf if there is none; NaNs do not count. */     \
    KERNEL(largest, double, (const void *logits, size_t n, size_t skip))                           \
    /* Sum of exp over the classes but `skip`, of which `max` is the largest. */                   \
    KERNEL(reduce, struct xent_sum,                                                                \
           (const void *logits, size_t n, size_t skip, double max, struct xent_aside *aside))      \
    KERNEL(emit, void, (const struct xent_emission *emission, size_t n))                           \
    /* out = (x - high) - low; out may be the logits. */                                           \
    KERNEL(emit_shifted, void, (const void *logits, size_t n, double high, double low, void *out))

#define XENT_KERNEL_FIELD(name, result, arguments) result(*name) arguments;

struct xent_row_kernels {
    XENT_KERNELS(XENT_KERNEL_FIELD)
};

struct xent_kernels {
    const char *isa;
    struct xent_row_kernels f32, f64;
};

extern const struct xent_kernels xent_kernels_scalar;
extern const struct xent_kernels xent_kernels_avx2;
extern const struct xent_kernels xent_kernels_avx512;
extern const struct xent_kernels xent_kernels_neon;

#endif
