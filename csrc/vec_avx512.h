/* AVX-512 F: one 64-byte vector. */
#ifndef XENT_VEC_AVX512_H
#define XENT_VEC_AVX512_H

#include <immintrin.h>

#include "vec.h"

#define XENT_DEFINE(prefix, real, vector, suffix, to_bits, from_bits, shift, mantissa_bits)        \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return _mm512_set1_##suffix(x); }                   \
    XENT_INLINE vector prefix##_load(const real *p) { return _mm512_loadu_##suffix(p); }           \
    XENT_INLINE void prefix##_store(real *p, vector x) { _mm512_storeu_##suffix(p, x); }           \
    XENT_INLINE void prefix##_stream(real *p, vector x) { _mm512_stream_##suffix(p, x); }          \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return _mm512_add_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return _mm512_sub_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return _mm512_mul_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_max(vector x, vector y) { return _mm512_max_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return _mm512_fmadd_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return _mm512_fnmadd_##suffix(x, y, z);                                                    \
    }                                                                                              \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return from_bits(shift(to_bits(x), mantissa_bits));                                        \
    }

XENT_DEFINE(f32, float, __m512, ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_slli_epi32, 23)
XENT_DEFINE(f64, double, __m512d, pd, _mm512_castpd_si512, _mm512_castsi512_pd, _mm512_slli_epi64,
            52)
#undef XENT_DEFINE

#endif
