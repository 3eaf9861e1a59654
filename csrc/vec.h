/* What the vector headers share. A vector header defines, for the prefixes f32 and f64, a 64-byte
 * vector `vec` and these operations on it; rows.inc.h is written in them alone.
 *
 *   set1 load store add sub mul
 *   stream           store past the caches if the instruction set can; p is aligned to 64 bytes
 *   max(x, y)        y where either is NaN
 *   fma(x, y, z)     x * y + z, rounded once where the instruction set can
 *   fnma(x, y, z)    z - x * y, likewise
 *   to_exponent(x)   the low bits of x's representation moved up to the exponent field
 */
#ifndef XENT_VEC_H
#define XENT_VEC_H

#include <stdint.h>
#include <string.h>

#define XENT_INLINE static inline __attribute__((always_inline))

enum { f32_LANES = 16, f64_LANES = 8 };

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#endif
