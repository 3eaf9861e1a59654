/* AArch64 NEON: four 16-byte vectors. */
#ifndef XENT_VEC_NEON_H
#define XENT_VEC_NEON_H

#include <arm_neon.h>

#include "vec.h"

/* vmaxq would return the NaN; the others return the second operand, so select. */
#define XENT_DEFINE(prefix, real, vector, suffix, bits, mantissa_bits)                             \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return vdupq_n_##suffix(x); }                       \
    XENT_INLINE vector prefix##_load(const real *p) { return vld1q_##suffix(p); }                  \
    XENT_INLINE void prefix##_store(real *p, vector x) { vst1q_##suffix(p, x); }                   \
    XENT_INLINE void prefix##_stream(real *p, vector x) { prefix##_store(p, x); }                  \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return vaddq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return vsubq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return vmulq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_max(vector x, vector y) {                                          \
        return vbslq_##suffix(vcgtq_##suffix(x, y), x, y);                                         \
    }                                                                                              \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return vfmaq_##suffix(z, x, y);                                                            \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return vfmsq_##suffix(z, x, y);                                                            \
    }                                                                                              \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return vreinterpretq_##suffix##_##bits(                                                    \
            vshlq_n_##bits(vreinterpretq_##bits##_##suffix(x), mantissa_bits));                    \
    }

XENT_DEFINE(f32x4, float, float32x4_t, f32, u32, 23)
XENT_DEFINE(f64x2, double, float64x2_t, f64, u64, 52)
#undef XENT_DEFINE

#define REAL float
#define NARROW(name) JOIN(f32x4, name)
#define WIDE(name) JOIN(f32x8, name)
#define N 4
#include "vec_pair.inc.h"
#define NARROW(name) JOIN(f32x8, name)
#define WIDE(name) JOIN(f32, name)
#define N 8
#include "vec_pair.inc.h"
#undef REAL
#define REAL double
#define NARROW(name) JOIN(f64x2, name)
#define WIDE(name) JOIN(f64x4, name)
#define N 2
#include "vec_pair.inc.h"
#define NARROW(name) JOIN(f64x4, name)
#define WIDE(name) JOIN(f64, name)
#define N 4
#include "vec_pair.inc.h"
#undef REAL

#endif
