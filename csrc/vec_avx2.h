/* AVX2 and FMA: two 32-byte vectors. */
#ifndef XENT_VEC_AVX2_H
#define XENT_VEC_AVX2_H

#include <immintrin.h>

#include "vec.h"

#define XENT_DEFINE(prefix, real, vector, suffix, to_bits, from_bits, shift, mantissa_bits)        \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return _mm256_set1_##suffix(x); }                   \
    XENT_INLINE vector prefix##_load(const real *p) { return _mm256_loadu_##suffix(p); }           \
    XENT_INLINE void prefix##_store(real *p, vector x) { _mm256_storeu_##suffix(p, x); }           \
    XENT_INLINE void prefix##_stream(real *p, vector x) { _mm256_stream_##suffix(p, x); }          \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return _mm256_add_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return _mm256_sub_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return _mm256_mul_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_max(vector x, vector y) { return _mm256_max_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return _mm256_fmadd_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return _mm256_fnmadd_##suffix(x, y, z);                                                    \
    }                                                                                              \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return from_bits(shift(to_bits(x), mantissa_bits));                                        \
    }

XENT_DEFINE(f32x8, float, __m256, ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_slli_epi32,
            23)
XENT_DEFINE(f64x4, double, __m256d, pd, _mm256_castpd_si256, _mm256_castsi256_pd, _mm256_slli_epi64,
            52)
#undef XENT_DEFINE

#define REAL float
#define NARROW(name) JOIN(f32x8, name)
#define WIDE(name) JOIN(f32, name)
#define N 8
#include "vec_pair.inc.h"
#undef REAL
#define REAL double
#define NARROW(name) JOIN(f64x4, name)
#define WIDE(name) JOIN(f64, name)
#define N 4
#include "vec_pair.inc.h"
#undef REAL

#endif
