/* The kernel table: what every instruction set provides, for each dtype. Kernels work on one
 * contiguous block of classes, allocate nothing, keep no state and know nothing of threads. */
#ifndef XENT_KERNELS_H
#define XENT_KERNELS_H

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

/* Every kernel, as KERNEL(name, result, arguments): the table, the prototypes and the tests all
 * come from this list, so a kernel cannot exist unreached. TYPE is float or double. */
#define XENT_KERNELS(KERNEL, TYPE)                                                                 \
    /* The largest class but `skip` (>= n: none), -inf if there is none; NaNs do not count. */     \
    KERNEL(largest, TYPE, (const TYPE *x, size_t n, size_t skip))                                  \
    /* Sum of exp over the classes but `skip`, of which `max` is the largest; the terms go to      \
     * `exps` unless NULL, scaled like the sum. On the way, finds the largest of the n classes at  \
     * `ahead` unless NULL, so that memory is read evenly. */                                      \
    KERNEL(reduce, struct xent_sum,                                                                \
           (const TYPE *x, size_t n, size_t skip, TYPE max, TYPE *exps, const TYPE *ahead,         \
            TYPE *ahead_max))                                                                      \
    /* out = exps * factor; out may be exps. */                                                    \
    KERNEL(emit, void, (const TYPE *exps, size_t n, struct xent_factor factor, TYPE *out))         \
    /* The same, past the caches; out is not exps. Other threads see it after a fence. */          \
    KERNEL(emit_stream, void, (const TYPE *exps, size_t n, struct xent_factor factor, TYPE *out))  \
    /* out = (x - high) - low; out may be x. */                                                    \
    KERNEL(emit_shifted, void, (const TYPE *x, size_t n, double high, double low, TYPE *out))

#define XENT_KERNEL_FIELD(name, result, arguments) result(*name) arguments;

struct xent_kernels {
    const char *isa;
    struct {
        XENT_KERNELS(XENT_KERNEL_FIELD, float)
    } f32;
    struct {
        XENT_KERNELS(XENT_KERNEL_FIELD, double)
    } f64;
};

extern const struct xent_kernels xent_kernels_scalar;
extern const struct xent_kernels xent_kernels_avx2;
extern const struct xent_kernels xent_kernels_avx512;
extern const struct xent_kernels xent_kernels_neon;

#endif
