/* AVX-512 F: one 64-byte vector. */
#ifndef XENT_VEC_AVX512_H
#define XENT_VEC_AVX512_H

#include <immintrin.h>

#include "vec.h"

enum { XENT_IN_STEP = true, XENT_FUSED = true, XENT_MASKS = true };
#include "vec_transpose_avx.h"

XENT_INLINE __m512i set1_epi32(uint32_t x) { return _mm512_set1_epi32((int32_t)x); }
XENT_INLINE __m512i set1_epi64(uint64_t x) { return _mm512_set1_epi64((int64_t)x); }

#define XENT_DEFINE(prefix, real, vector, suffix, to_bits, from_bits, lane, mantissa_bits, mask)   \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return _mm512_set1_##suffix(x); }                   \
    XENT_INLINE vector prefix##_load(const real *p) { return _mm512_loadu_##suffix(p); }           \
    XENT_INLINE void prefix##_store(real *p, vector x) { _mm512_storeu_##suffix(p, x); }           \
    XENT_INLINE void prefix##_stream(real *p, vector x) { _mm512_stream_##suffix(p, x); }          \
    XENT_INLINE vector prefix##_load_first(const real *p, size_t n, vector rest) {                 \
        return _mm512_mask_loadu_##suffix(rest, (mask)((1u << n) - 1), p);                         \
    }                                                                                              \
    XENT_INLINE void prefix##_store_first(real *p, size_t n, vector x) {                           \
        _mm512_mask_storeu_##suffix(p, (mask)((1u << n) - 1), x);                                  \
    }                                                                                              \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return _mm512_add_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return _mm512_sub_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return _mm512_mul_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_div(vector x, vector y) { return _mm512_div_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_max(vector x, vector y) { return _mm512_max_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return _mm512_fmadd_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_fms(vector x, vector y, vector z) {                                \
        return _mm512_fmsub_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_product_error(vector x, vector y, vector p) {                      \
        return prefix##_fms(x, y, p);                                                              \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return _mm512_fnmadd_##suffix(x, y, z);                                                    \
    }                                                                                              \
    XENT_INLINE vector prefix##_times_sum(vector x, vector a, vector b) {                          \
        return prefix##_fma(x, a, prefix##_mul(x, b));                                             \
    }                                                                                              \
    XENT_INLINE vector prefix##_less(vector a, vector b, vector x, vector y) {                     \
        return _mm512_mask_blend_##suffix(_mm512_cmp_##suffix##_mask(a, b, _CMP_LT_OQ), y, x);     \
    }                                                                                              \
    XENT_INLINE vector prefix##_equal(vector a, vector b, vector x, vector y) {                    \
        return _mm512_mask_blend_##suffix(_mm512_cmp_##suffix##_mask(a, b, _CMP_EQ_OQ), y, x);     \
    }                                                                                              \
    XENT_INLINE vector prefix##_zero_below(vector a, vector b, vector x) {                         \
        return _mm512_maskz_mov_##suffix(_mm512_cmp_##suffix##_mask(a, b, _CMP_NLT_UQ), x);        \
    }                                                                                              \
    XENT_INLINE uint32_t prefix##_which_less(vector a, vector b) {                                 \
        return _mm512_cmp_##suffix##_mask(a, b, _CMP_LT_OQ);                                       \
    }                                                                                              \
    XENT_INLINE bool prefix##_any_less(vector a, vector b) {                                       \
        return prefix##_which_less(a, b) != 0;                                                     \
    }                                                                                              \
    XENT_INLINE real prefix##_largest_lane(vector x) { return _mm512_reduce_max_##suffix(x); }     \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return from_bits(_mm512_slli_##lane(to_bits(x), mantissa_bits));                           \
    }                                                                                              \
    XENT_INLINE vector prefix##_exponent(vector x) {                                               \
        __m512i field = _mm512_srli_##lane(to_bits(x), mantissa_bits);                             \
        field = _mm512_and_si512(field, set1_##lane(prefix##_FIELD));                              \
        field = _mm512_or_si512(field, set1_##lane(prefix##_INTEGER));                             \
        return prefix##_sub(from_bits(field), prefix##_set1(prefix##_INTEGER_BIAS));               \
    }                                                                                              \
    XENT_INLINE vector prefix##_mantissa(vector x) {                                               \
        const __m512i below = _mm512_and_si512(to_bits(x), set1_##lane(prefix##_BELOW_EXPONENT));  \
        return from_bits(_mm512_or_si512(below, set1_##lane(prefix##_ONE)));                       \
    }

XENT_DEFINE(f32, float, __m512, ps, _mm512_castps_si512, _mm512_castsi512_ps, epi32, 23, __mmask16)
XENT_DEFINE(f64, double, __m512d, pd, _mm512_castpd_si512, _mm512_castsi512_pd, epi64, 52, __mmask8)
#undef XENT_DEFINE

XENT_INLINE __m512 f32_power(__m512 y, __m512 table) {
    const __m512i steps = _mm512_castps_si512(y), whole = _mm512_slli_epi32(steps, 20);
    const __m512i entry = _mm512_castps_si512(_mm512_permutexvar_ps(steps, table));
    const __mmask16 any = _mm512_cmp_ps_mask(y, f32_set1(f32_LEAST_POWER), _CMP_NLT_UQ);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(any, whole, entry));
}

XENT_INLINE __m512 f32_of_f16(const char *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
XENT_INLINE __m512 f32_of_bf16(const char *p) {
    const __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

XENT_INLINE __m256i as_f16(__m512 x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

/* The upper half of the permutation is not looked at. */
XENT_INLINE __m256i high_halves(__m512i bits) {
    static const uint16_t from[32] = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(_mm512_loadu_si512(from), bits));
}

/* As bf16_of_float, in lanes of 32 bits, but for a NaN; the low halves are left as they are. */
XENT_INLINE __m512i rounded_to_bf16(__m512i bits) {
    const __mmask16 odd = _mm512_test_epi32_mask(bits, set1_epi32(0x10000));
    const __m512i half = _mm512_mask_blend_epi32(odd, set1_epi32(0x7fff), set1_epi32(0x8000));
    return _mm512_add_epi32(bits, half);
}

XENT_INLINE __m256i numbers_as_bf16(__m512 x) {
    return high_halves(rounded_to_bf16(_mm512_castps_si512(x)));
}

XENT_INLINE __m256i as_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x), quiet = set1_epi32(0x400000);
    const __mmask16 is_none = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return high_halves(_mm512_mask_or_epi32(rounded_to_bf16(bits), is_none, bits, quiet));
}
#include "vec_halves_avx.h"

XENT_INLINE __m512d f64_of_floats(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
XENT_INLINE void f64_to_floats(float *p, __m512d x) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(x)); }

#endif
