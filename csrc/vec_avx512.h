/* AVX-512 F: one 64-byte hardware vector. */
#ifndef XENT_VEC_AVX512_H
#define XENT_VEC_AVX512_H

#include <immintrin.h>
#include <string.h>

#define XENT_DEFINE_HW(prefix, real, vector, suffix, to_bits, from_bits, shift, mantissa_bits)     \
    typedef vector prefix##_vec;                                                                   \
    static inline vector prefix##_set1(real a) { return _mm512_set1_##suffix(a); }                 \
    static inline vector prefix##_load(const real *p) { return _mm512_loadu_##suffix(p); }         \
    static inline void prefix##_store(real *p, vector a) { _mm512_storeu_##suffix(p, a); }         \
    static inline vector prefix##_add(vector a, vector b) { return _mm512_add_##suffix(a, b); }    \
    static inline vector prefix##_sub(vector a, vector b) { return _mm512_sub_##suffix(a, b); }    \
    static inline vector prefix##_mul(vector a, vector b) { return _mm512_mul_##suffix(a, b); }    \
    static inline vector prefix##_max(vector a, vector b) { return _mm512_max_##suffix(a, b); }    \
    static inline vector prefix##_fma(vector a, vector b, vector c) {                              \
        return _mm512_fmadd_##suffix(a, b, c);                                                     \
    }                                                                                              \
    static inline vector prefix##_fnma(vector a, vector b, vector c) {                             \
        return _mm512_fnmadd_##suffix(a, b, c);                                                    \
    }                                                                                              \
    static inline vector prefix##_to_exponent(vector a) {                                          \
        return from_bits(shift(to_bits(a), mantissa_bits));                                        \
    }

XENT_DEFINE_HW(hw_f32, float, __m512, ps, _mm512_castps_si512, _mm512_castsi512_ps,
               _mm512_slli_epi32, 23)
XENT_DEFINE_HW(hw_f64, double, __m512d, pd, _mm512_castpd_si512, _mm512_castsi512_pd,
               _mm512_slli_epi64, 52)

#undef XENT_DEFINE_HW
#endif
