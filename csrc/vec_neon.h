/* NEON (AArch64): four 16-byte hardware vectors. */
#ifndef XENT_VEC_NEON_H
#define XENT_VEC_NEON_H

#include <arm_neon.h>
#include <string.h>

/* max selects by comparison, because vmaxq returns NaN where either operand is. */
#define XENT_DEFINE_HW(prefix, real, vector, type, bits, mantissa_bits)                            \
    typedef vector prefix##_vec;                                                                   \
    static inline vector prefix##_set1(real a) { return vdupq_n_##type(a); }                       \
    static inline vector prefix##_load(const real *p) { return vld1q_##type(p); }                  \
    static inline void prefix##_store(real *p, vector a) { vst1q_##type(p, a); }                   \
    static inline vector prefix##_add(vector a, vector b) { return vaddq_##type(a, b); }           \
    static inline vector prefix##_sub(vector a, vector b) { return vsubq_##type(a, b); }           \
    static inline vector prefix##_mul(vector a, vector b) { return vmulq_##type(a, b); }           \
    static inline vector prefix##_max(vector a, vector b) {                                        \
        return vbslq_##type(vcgtq_##type(a, b), a, b);                                             \
    }                                                                                              \
    static inline vector prefix##_fma(vector a, vector b, vector c) {                              \
        return vfmaq_##type(c, a, b);                                                              \
    }                                                                                              \
    static inline vector prefix##_fnma(vector a, vector b, vector c) {                             \
        return vfmsq_##type(c, a, b);                                                              \
    }                                                                                              \
    static inline vector prefix##_to_exponent(vector a) {                                          \
        return vreinterpretq_##type##_##bits(                                                      \
            vshlq_n_##bits(vreinterpretq_##bits##_##type(a), mantissa_bits));                      \
    }

XENT_DEFINE_HW(hw_f32, float, float32x4_t, f32, u32, 23)
XENT_DEFINE_HW(hw_f64, double, float64x2_t, f64, u64, 52)

#undef XENT_DEFINE_HW
#endif
