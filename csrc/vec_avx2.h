/* AVX2 and FMA: two 32-byte hardware vectors. */
#ifndef XENT_VEC_AVX2_H
#define XENT_VEC_AVX2_H

#include <immintrin.h>
#include <string.h>

#define XENT_DEFINE_HW(prefix, real, vector, suffix, to_bits, from_bits, shift, mantissa_bits)     \
    typedef vector prefix##_vec;                                                                   \
    static inline vector prefix##_set1(real a) { return _mm256_set1_##suffix(a); }                 \
    static inline vector prefix##_load(const real *p) { return _mm256_loadu_##suffix(p); }         \
    static inline void prefix##_store(real *p, vector a) { _mm256_storeu_##suffix(p, a); }         \
    static inline vector prefix##_add(vector a, vector b) { return _mm256_add_##suffix(a, b); }    \
    static inline vector prefix##_sub(vector a, vector b) { return _mm256_sub_##suffix(a, b); }    \
    static inline vector prefix##_mul(vector a, vector b) { return _mm256_mul_##suffix(a, b); }    \
    static inline vector prefix##_max(vector a, vector b) { return _mm256_max_##suffix(a, b); }    \
    static inline vector prefix##_fma(vector a, vector b, vector c) {                              \
        return _mm256_fmadd_##suffix(a, b, c);                                                     \
    }                                                                                              \
    static inline vector prefix##_fnma(vector a, vector b, vector c) {                             \
        return _mm256_fnmadd_##suffix(a, b, c);                                                    \
    }                                                                                              \
    static inline vector prefix##_to_exponent(vector a) {                                          \
        return from_bits(shift(to_bits(a), mantissa_bits));                                        \
    }

XENT_DEFINE_HW(hw_f32, float, __m256, ps, _mm256_castps_si256, _mm256_castsi256_ps,
               _mm256_slli_epi32, 23)
XENT_DEFINE_HW(hw_f64, double, __m256d, pd, _mm256_castpd_si256, _mm256_castsi256_pd,
               _mm256_slli_epi64, 52)

#undef XENT_DEFINE_HW
#endif
