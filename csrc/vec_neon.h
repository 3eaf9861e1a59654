/* AArch64 NEON: four 16-byte vectors. */
#ifndef XENT_VEC_NEON_H
#define XENT_VEC_NEON_H

#include <arm_neon.h>

#include "vec.h"

enum { XENT_IN_STEP = false, XENT_FUSED = true, XENT_MASKS = false };

typedef uint32x4_t u32_vec;
typedef uint64x2_t u64_vec;

/* vmaxq would return the NaN; the others return the second operand, so select. */
#define XENT_DEFINE(prefix, real, vector, suffix, bits, mantissa_bits, wide)                       \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return vdupq_n_##suffix(x); }                       \
    XENT_INLINE vector prefix##_load(const real *p) { return vld1q_##suffix(p); }                  \
    XENT_INLINE void prefix##_store(real *p, vector x) { vst1q_##suffix(p, x); }                   \
    XENT_INLINE void prefix##_stream(real *p, vector x) { prefix##_store(p, x); }                  \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return vaddq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return vsubq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return vmulq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_div(vector x, vector y) { return vdivq_##suffix(x, y); }           \
    XENT_INLINE vector prefix##_less(vector a, vector b, vector x, vector y) {                     \
        return vbslq_##suffix(vcltq_##suffix(a, b), x, y);                                         \
    }                                                                                              \
    XENT_INLINE vector prefix##_equal(vector a, vector b, vector x, vector y) {                    \
        return vbslq_##suffix(vceqq_##suffix(a, b), x, y);                                         \
    }                                                                                              \
    XENT_INLINE vector prefix##_max(vector x, vector y) { return prefix##_less(y, x, x, y); }      \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return vfmaq_##suffix(z, x, y);                                                            \
    }                                                                                              \
    XENT_INLINE vector prefix##_fms(vector x, vector y, vector z) {                                \
        return vfmaq_##suffix(vnegq_##suffix(z), x, y);                                            \
    }                                                                                              \
    XENT_INLINE vector prefix##_product_error(vector x, vector y, vector p) {                      \
        return prefix##_fms(x, y, p);                                                              \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return vfmsq_##suffix(z, x, y);                                                            \
    }                                                                                              \
    XENT_INLINE vector prefix##_times_sum(vector x, vector a, vector b) {                          \
        return prefix##_fma(x, a, prefix##_mul(x, b));                                             \
    }                                                                                              \
    XENT_INLINE uint32_t prefix##_which_less(vector a, vector b) {                                 \
        const bits##_vec less = vcltq_##suffix(a, b);                                              \
        uint32_t which = 0;                                                                        \
        for (int i = 0; i < (int)(sizeof(vector) / sizeof(real)); i++) {                           \
            which |= (uint32_t)(less[i] & 1) << i;                                                 \
        }                                                                                          \
        return which;                                                                              \
    }                                                                                              \
    XENT_INLINE bool prefix##_any_less(vector a, vector b) {                                       \
        const uint64x2_t less = (uint64x2_t)vcltq_##suffix(a, b);                                  \
        return (vgetq_lane_u64(less, 0) | vgetq_lane_u64(less, 1)) != 0;                           \
    }                                                                                              \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return vreinterpretq_##suffix##_##bits(                                                    \
            vshlq_n_##bits(vreinterpretq_##bits##_##suffix(x), mantissa_bits));                    \
    }                                                                                              \
    XENT_INLINE vector prefix##_exponent(vector x) {                                               \
        bits##_vec field = vshrq_n_##bits(vreinterpretq_##bits##_##suffix(x), mantissa_bits);      \
        field = vandq_##bits(field, vdupq_n_##bits(wide##_FIELD));                                 \
        field = vorrq_##bits(field, vdupq_n_##bits(wide##_INTEGER));                               \
        return vsubq_##suffix(vreinterpretq_##suffix##_##bits(field),                              \
                              vdupq_n_##suffix(wide##_INTEGER_BIAS));                              \
    }                                                                                              \
    XENT_INLINE vector prefix##_mantissa(vector x) {                                               \
        bits##_vec field = vreinterpretq_##bits##_##suffix(x);                                     \
        field = vandq_##bits(field, vdupq_n_##bits(wide##_BELOW_EXPONENT));                        \
        field = vorrq_##bits(field, vdupq_n_##bits(wide##_ONE));                                   \
        return vreinterpretq_##suffix##_##bits(field);                                             \
    }

XENT_DEFINE(f32x4, float, float32x4_t, f32, u32, 23, f32)
XENT_DEFINE(f64x2, double, float64x2_t, f64, u64, 52, f64)
#undef XENT_DEFINE

XENT_INLINE float f32x4_largest_lane(float32x4_t x) { return vmaxvq_f32(x); }
XENT_INLINE double f64x2_largest_lane(float64x2_t x) { return vmaxvq_f64(x); }

/* The four bytes of an entry are looked up one by one. */
XENT_INLINE float32x4_t f32x4_power(float32x4_t y, float32x4_t table_low, float32x4_t table_high) {
    const uint32x4_t steps = vreinterpretq_u32_f32(y), entry = vandq_u32(steps, vdupq_n_u32(7));
    const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), entry, 0x04040404);
    const uint8x16x2_t table = {
        {vreinterpretq_u8_f32(table_low), vreinterpretq_u8_f32(table_high)}};
    const uint8x16_t found = vqtbl2q_u8(table, vreinterpretq_u8_u32(bytes));
    const uint32x4_t power = vaddq_u32(vshlq_n_u32(steps, 20), vreinterpretq_u32_u8(found));
    return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_u32(power), vdupq_n_s32(0)));
}

XENT_INLINE float64x2_t f64x2_of_floats(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
XENT_INLINE void f64x2_to_floats(float *p, float64x2_t x) { vst1_f32(p, vcvt_f32_f64(x)); }

XENT_INLINE uint16x4_t load_halves(const char *p) {
    uint16_t halves[4];
    memcpy(halves, p, sizeof halves);
    return vld1_u16(halves);
}

XENT_INLINE float32x4_t f32x4_of_f16(const char *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(p)));
}

XENT_INLINE float32x4_t f32x4_of_bf16(const char *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(load_halves(p), 16));
}

XENT_INLINE void store_halves(char *p, uint16x4_t x) {
    uint16_t halves[4];
    vst1_u16(halves, x);
    memcpy(p, halves, sizeof halves);
}

XENT_INLINE void f32x4_to_f16(char *p, float32x4_t x) {
    store_halves(p, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}

/* As bf16_of_float. */
XENT_INLINE void f32x4_to_bf16(char *p, float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t no_number = vorrq_u32(bits, vdupq_n_u32(0x400000));
    store_halves(p, vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, no_number), 16));
}

#include "vec_quarters.h"

#endif
