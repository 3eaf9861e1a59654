/* clang-format off */
/* What the vector headers share. A vector header defines, for the prefixes f32 and f64, a 64-byte
 * vector `vec` and these operations on it; the kernels are written in them alone. XENT_IN_STEP says
 * whether there are registers for four vectors on their way to the sum: see rows.inc.h. XENT_FUSED
 * says whether fma rounds once, XENT_MASKS whether zero_below is no operation but the comparison,
 * one for all that it is used for.
 *
 *   set1 load store add sub mul div
 *   load_first(p, n, rest)  the first n lanes from memory, fewer than all, the others from rest
 *   store_first(p, n, x)    stores the first n lanes
 *   stream           store past the caches if the instruction set can; p is aligned to 64 bytes
 *   max(x, y)        y where either is NaN
 *   fma(x, y, z)     x * y + z, rounded once where the instruction set can
 *   fms(x, y, z)     x * y - z, likewise
 *   fnma(x, y, z)    z - x * y, likewise
 *   times_sum(x, a, b)  x * (a + b), rounded once but negligibly, where b is what a lacks by rounding
 *   product_error(x, y, p)  x * y - p exactly, where p is the rounded product
 *   less(a, b, x, y) x in the lanes where a < b, else y
 *   zero_below(a, b, x)  zero in the lanes where a < b, else x
 *   equal(a, b, x, y)  x in the lanes where a == b, else y
 *   any_less(a, b)   whether a < b in any lane
 *   which_less(a, b) the lanes where a < b, as bits from the lowest on
 *   largest_lane(x)  the largest lane, where all are numbers
 *   to_exponent(x)   the low bits of x's representation moved up to the exponent field
 *   power(y, table)  of f32 only: y - 0x1.8p23, an integer, as a power of 2^(1/8), given all eight
 *                    from one on less 0/8 to 7/8, twice; zero where y is below LEAST_POWER, but
 *                    without XENT_MASKS only down to 0x1.8p23 - 1024, where logits are held
 *   exponent(x)      the e of 2^e <= |x| < 2^(e + 1), as a number; of normal x
 *   mantissa(x)      x / 2^exponent(x)
 *   of_floats(p)     of f64 only: the doubles of as many floats
 *   to_floats(p, x)  of f64 only: stores as many floats, each rounded once
 *   of_f16(p), of_bf16  of f32 only: the floats of as many halves, anywhere
 *   to_f16(p, x), to_bf16  of f32 only: stores as many halves anywhere, each rounded once
 *   put_f16(p, x, stream), put_bf16  the same, but a NaN that arithmetic does not make may become
 *                    a number; past the caches if `stream`, where p is aligned to 32 bytes
 *   transpose(from, from_stride, to, to_stride)  a block of SQUARE by SQUARE, written row after row
 *                    (they may overlap), all read before; strides in bytes. Of u16, too: any 16 bits
 */
/* clang-format on */
#ifndef XENT_VEC_H
#define XENT_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define XENT_INLINE static inline __attribute__((always_inline))
/* The compiler moves no access to memory from one side to the other. */
#define XENT_BARRIER() __asm__ volatile("" ::: "memory")

enum { f32_LANES = 16, f64_LANES = 8 };

/* Numbers of a caller's array, which may be anywhere, for what reads or writes them singly. */
typedef float f32_some __attribute__((aligned(1), may_alias));
typedef double f64_some __attribute__((aligned(1), may_alias));

enum { u8_SQUARE = 8, u16_SQUARE = 8, f32_SQUARE = 8, f64_SQUARE = 4 };

/* Fields of the representations: the bits below the exponent, and what makes an integer in the low
 * bits that number plus a constant (2^23, 2^52), and that constant plus the exponent's bias. */
static const uint32_t f32_BELOW_EXPONENT = 0x807fffff, f32_ONE = 0x3f800000, f32_FIELD = 0xff;
static const uint32_t f32_INTEGER = 0x4b000000;
static const float f32_INTEGER_BIAS = 0x1p23f + 127;
static const uint64_t f64_BELOW_EXPONENT = 0x800fffffffffffff, f64_ONE = 0x3ff0000000000000;
static const uint64_t f64_FIELD = 0x7ff, f64_INTEGER = 0x4330000000000000;
static const double f64_INTEGER_BIAS = 0x1p52 + 1023;

/* The last of which the representation is not negative: what is below counts as zero. */
static const float f32_LEAST_POWER = 0x1.8p23f - 127 * 8;

/* transpose for instruction sets without one of their own. */
#define XENT_DEFINE_TRANSPOSE(prefix, real)                                                        \
    XENT_INLINE void prefix##_transpose(const char *from, ptrdiff_t from_stride, char *to,         \
                                        ptrdiff_t to_stride) {                                     \
        real block[prefix##_SQUARE][prefix##_SQUARE];                                              \
        for (ptrdiff_t i = 0; i < prefix##_SQUARE; i++) {                                          \
            for (ptrdiff_t j = 0; j < prefix##_SQUARE; j++) {                                      \
                memcpy(&block[j][i], from + i * from_stride + j * (ptrdiff_t)sizeof(real),         \
                       sizeof(real));                                                              \
            }                                                                                      \
        }                                                                                          \
        for (ptrdiff_t j = 0; j < prefix##_SQUARE; j++) {                                          \
            memcpy(to + j * to_stride, block[j], sizeof block[j]);                                 \
        }                                                                                          \
    }

/* load_first and store_first likewise, for instruction sets without one of their own. */
#define XENT_DEFINE_LOAD_FIRST(prefix, real)                                                       \
    XENT_INLINE prefix##_vec prefix##_load_first(const real *p, size_t n, prefix##_vec rest) {     \
        real lanes[prefix##_LANES];                                                                \
        prefix##_store(lanes, rest);                                                               \
        memcpy(lanes, p, n * sizeof(real));                                                        \
        return prefix##_load(lanes);                                                               \
    }
#define XENT_DEFINE_STORE_FIRST(prefix, real)                                                      \
    XENT_INLINE void prefix##_store_first(real *p, size_t n, prefix##_vec x) {                     \
        real lanes[prefix##_LANES];                                                                \
        prefix##_store(lanes, x);                                                                  \
        memcpy(p, lanes, n * sizeof(real));                                                        \
    }

/* of_floats and to_floats of a pair of vectors of n lanes each. */
#define XENT_DEFINE_FLOATS(wide, narrow, n)                                                        \
    XENT_INLINE wide##_vec wide##_of_floats(const float *p) {                                      \
        return (wide##_vec){narrow##_of_floats(p), narrow##_of_floats(p + (n))};                   \
    }                                                                                              \
    XENT_INLINE void wide##_to_floats(float *p, wide##_vec x) {                                    \
        narrow##_to_floats(p, x.a);                                                                \
        narrow##_to_floats(p + (n), x.b);                                                          \
    }

/* of_f16 and of_bf16 likewise. */
#define XENT_DEFINE_OF_HALVES(wide, narrow, n)                                                     \
    XENT_INLINE wide##_vec wide##_of_f16(const char *p) {                                          \
        return (wide##_vec){narrow##_of_f16(p), narrow##_of_f16(p + (n) * sizeof(uint16_t))};      \
    }                                                                                              \
    XENT_INLINE wide##_vec wide##_of_bf16(const char *p) {                                         \
        return (wide##_vec){narrow##_of_bf16(p), narrow##_of_bf16(p + (n) * sizeof(uint16_t))};    \
    }

/* And to_f16 or to_bf16. */
#define XENT_DEFINE_TO_HALVES(wide, narrow, n, name)                                               \
    XENT_INLINE void wide##_to_##name(char *p, wide##_vec x) {                                     \
        narrow##_to_##name(p, x.a);                                                                \
        narrow##_to_##name(p + (n) * sizeof(uint16_t), x.b);                                       \
    }

/* power of a pair of vectors, each with the tables given. */
#define XENT_DEFINE_POWER(wide, narrow, table_a, table_b)                                          \
    XENT_INLINE wide##_vec wide##_power(wide##_vec y, wide##_vec table) {                          \
        return (wide##_vec){narrow##_power(y.a, table_a), narrow##_power(y.b, table_b)};           \
    }

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#endif
