/* The portable baseline: four 16-byte vectors of the compiler's own, which every target of gcc and
 * clang can compile (SSE2 on x86-64). There is no fused multiply-add, so `fma` rounds twice,
 * `product_error` splits its factors (Dekker 1971), and `times_sum` multiplies in more than the
 * working precision. */
#ifndef XENT_VEC_SCALAR_H
#define XENT_VEC_SCALAR_H

#include "halves.h"
#include "vec.h"

enum { XENT_IN_STEP = false, XENT_FUSED = false, XENT_MASKS = false };

#define XENT_DEFINE(prefix, real, integer, mantissa_bits, split, wide)                             \
    typedef real prefix##_vec __attribute__((vector_size(16)));                                    \
    typedef integer prefix##_bits __attribute__((vector_size(16)));                                \
    XENT_INLINE prefix##_vec prefix##_set1(real x) { return (prefix##_vec){0} + x; }               \
    XENT_INLINE prefix##_vec prefix##_load(const real *p) {                                        \
        prefix##_vec r;                                                                            \
        memcpy(&r, p, sizeof r);                                                                   \
        return r;                                                                                  \
    }                                                                                              \
    XENT_INLINE void prefix##_store(real *p, prefix##_vec x) { memcpy(p, &x, sizeof x); }          \
    XENT_INLINE void prefix##_stream(real *p, prefix##_vec x) { prefix##_store(p, x); }            \
    XENT_INLINE prefix##_vec prefix##_add(prefix##_vec x, prefix##_vec y) { return x + y; }        \
    XENT_INLINE prefix##_vec prefix##_sub(prefix##_vec x, prefix##_vec y) { return x - y; }        \
    XENT_INLINE prefix##_vec prefix##_mul(prefix##_vec x, prefix##_vec y) { return x * y; }        \
    XENT_INLINE prefix##_vec prefix##_div(prefix##_vec x, prefix##_vec y) { return x / y; }        \
    XENT_INLINE prefix##_vec prefix##_less(prefix##_vec a, prefix##_vec b, prefix##_vec x,         \
                                           prefix##_vec y) {                                       \
        const prefix##_bits less = (prefix##_bits)(a < b);                                         \
        return (prefix##_vec)((less & (prefix##_bits)x) | (~less & (prefix##_bits)y));             \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_equal(prefix##_vec a, prefix##_vec b, prefix##_vec x,        \
                                            prefix##_vec y) {                                      \
        const prefix##_bits equal = (prefix##_bits)(a == b);                                       \
        return (prefix##_vec)((equal & (prefix##_bits)x) | (~equal & (prefix##_bits)y));           \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_max(prefix##_vec x, prefix##_vec y) {                        \
        return prefix##_less(y, x, x, y);                                                          \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_fma(prefix##_vec x, prefix##_vec y, prefix##_vec z) {        \
        return x * y + z;                                                                          \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_fms(prefix##_vec x, prefix##_vec y, prefix##_vec z) {        \
        return x * y - z;                                                                          \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_product_error(prefix##_vec x, prefix##_vec y,                \
                                                    prefix##_vec p) {                              \
        const prefix##_vec x_split = x * (split), x_high = x_split - (x_split - x);                \
        const prefix##_vec y_split = y * (split), y_high = y_split - (y_split - y);                \
        const prefix##_vec x_low = x - x_high, y_low = y - y_high;                                 \
        return ((x_high * y_high - p) + x_high * y_low + x_low * y_high) + x_low * y_low;          \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_fnma(prefix##_vec x, prefix##_vec y, prefix##_vec z) {       \
        return z - x * y;                                                                          \
    }                                                                                              \
    XENT_INLINE uint32_t prefix##_which_less(prefix##_vec a, prefix##_vec b) {                     \
        const prefix##_bits less = (prefix##_bits)(a < b);                                         \
        uint32_t which = 0;                                                                        \
        for (int i = 0; i < (int)(sizeof(prefix##_vec) / sizeof(real)); i++) {                     \
            which |= (uint32_t)(less[i] & 1) << i;                                                 \
        }                                                                                          \
        return which;                                                                              \
    }                                                                                              \
    XENT_INLINE bool prefix##_any_less(prefix##_vec a, prefix##_vec b) {                           \
        const prefix##_bits less = (prefix##_bits)(a < b);                                         \
        uint64_t halves[2];                                                                        \
        memcpy(halves, &less, sizeof less);                                                        \
        return (halves[0] | halves[1]) != 0;                                                       \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_to_exponent(prefix##_vec x) {                                \
        return (prefix##_vec)((prefix##_bits)x << (mantissa_bits));                                \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_exponent(prefix##_vec x) {                                   \
        const prefix##_bits field = (prefix##_bits)x >> (mantissa_bits) & wide##_FIELD;            \
        return (prefix##_vec)(field | wide##_INTEGER) - wide##_INTEGER_BIAS;                       \
    }                                                                                              \
    XENT_INLINE prefix##_vec prefix##_mantissa(prefix##_vec x) {                                   \
        return (prefix##_vec)(((prefix##_bits)x & wide##_BELOW_EXPONENT) | wide##_ONE);            \
    }

XENT_DEFINE(f32x4, float, uint32_t, 23, 0x1p12f + 1, f32)
XENT_DEFINE(f64x2, double, uint64_t, 52, 0x1p27 + 1, f64)
#undef XENT_DEFINE

XENT_INLINE double f64x2_largest_lane(f64x2_vec x) { return x[0] > x[1] ? x[0] : x[1]; }
XENT_INLINE float f32x4_largest_lane(f32x4_vec x) {
    const float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
}

XENT_INLINE f32x4_vec f32x4_times_sum(f32x4_vec x, f32x4_vec a, f32x4_vec b) {
    typedef double doubles __attribute__((vector_size(32)));
    const doubles sum = __builtin_convertvector(a, doubles) + __builtin_convertvector(b, doubles);
    return __builtin_convertvector(__builtin_convertvector(x, doubles) * sum, f32x4_vec);
}

XENT_INLINE f64x2_vec f64x2_times_sum(f64x2_vec x, f64x2_vec a, f64x2_vec b) {
    const f64x2_vec product = x * a, rest = f64x2_product_error(x, a, product) + x * b;
    const f64x2_vec size = f64x2_max(-rest, rest), infinity = f64x2_set1(__builtin_inf());
    return product + f64x2_less(size, infinity, rest, f64x2_set1(0)); /* none beside an infinity */
}

XENT_INLINE f32x4_vec f32x4_power(f32x4_vec y, f32x4_vec table_low, f32x4_vec table_high) {
    typedef int32_t integers __attribute__((vector_size(16)));
    float table[8], entry[4];
    f32x4_store(table, table_low);
    f32x4_store(table + 4, table_high);
    const f32x4_bits steps = (f32x4_bits)y;
    for (int i = 0; i < 4; i++) {
        entry[i] = table[steps[i] % 8];
    }
    const integers power = (integers)((steps << 20) + (f32x4_bits)f32x4_load(entry));
    return (f32x4_vec)(power & (power > 0));
}

/* Whole vectors: of a pair that is converted number by number, gcc 12 takes what was stored for
 * what it was before it was rounded. */
typedef float f32x2_vec __attribute__((vector_size(2 * sizeof(float))));

XENT_INLINE f64x2_vec f64x2_of_floats(const float *p) {
    f32x2_vec floats;
    memcpy(&floats, p, sizeof floats);
    return __builtin_convertvector(floats, f64x2_vec);
}

XENT_INLINE void f64x2_to_floats(float *p, f64x2_vec x) {
    const f32x2_vec floats = __builtin_convertvector(x, f32x2_vec);
    memcpy(p, &floats, sizeof floats);
}

typedef uint16_t f32x4_halves __attribute__((vector_size(4 * sizeof(uint16_t))));

/* As float_of_f16. */
XENT_INLINE f32x4_vec f32x4_of_f16(const char *p) {
    f32x4_halves halves;
    memcpy(&halves, p, sizeof halves);
    const f32x4_bits half = __builtin_convertvector(halves, f32x4_bits);
    const f32x4_bits magnitude = (half & 0x7fff) << 13, sign = (half & 0x8000) << 16;
    const f32x4_bits scaled = (f32x4_bits)((f32x4_vec)magnitude * 0x1p112f);
    const f32x4_bits is_none = (f32x4_bits)(magnitude >= 0x0f800000);
    return (f32x4_vec)((scaled & ~is_none) | ((magnitude | 0x7f800000) & is_none) | sign);
}

XENT_INLINE f32x4_vec f32x4_of_bf16(const char *p) {
    f32x4_halves halves;
    memcpy(&halves, p, sizeof halves);
    return (f32x4_vec)(__builtin_convertvector(halves, f32x4_bits) << 16);
}

XENT_INLINE void f32x4_to_f16(char *p, f32x4_vec x) {
    uint16_t halves[4];
    for (int i = 0; i < 4; i++) {
        halves[i] = f16_of_float(x[i]);
    }
    memcpy(p, halves, sizeof halves);
}

/* As bf16_of_float. */
XENT_INLINE void f32x4_to_bf16(char *p, f32x4_vec x) {
    const f32x4_bits bits = (f32x4_bits)x, is_none = (f32x4_bits)(x != x);
    const f32x4_bits rounded = bits + 0x7fff + (bits >> 16 & 1);
    const f32x4_bits all = (rounded & ~is_none) | ((bits | 0x400000) & is_none);
    const f32x4_halves halves = __builtin_convertvector(all >> 16, f32x4_halves);
    memcpy(p, &halves, sizeof halves);
}

#include "vec_quarters.h"

#endif
