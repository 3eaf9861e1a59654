/* AVX2 and FMA: two 32-byte vectors. */
#ifndef XENT_VEC_AVX2_H
#define XENT_VEC_AVX2_H

#include <immintrin.h>

#include "vec.h"

enum { XENT_IN_STEP = false, XENT_FUSED = true, XENT_MASKS = false };
#include "vec_transpose_avx.h"

XENT_INLINE __m256i set1_epi32(uint32_t x) { return _mm256_set1_epi32((int32_t)x); }
XENT_INLINE __m256i set1_epi64(uint64_t x) { return _mm256_set1_epi64x((int64_t)x); }

#define XENT_DEFINE(prefix, real, vector, suffix, to_bits, from_bits, lane, mantissa_bits, wide)   \
    typedef vector prefix##_vec;                                                                   \
    XENT_INLINE vector prefix##_set1(real x) { return _mm256_set1_##suffix(x); }                   \
    XENT_INLINE vector prefix##_load(const real *p) { return _mm256_loadu_##suffix(p); }           \
    XENT_INLINE void prefix##_store(real *p, vector x) { _mm256_storeu_##suffix(p, x); }           \
    XENT_INLINE void prefix##_stream(real *p, vector x) { _mm256_stream_##suffix(p, x); }          \
    XENT_INLINE vector prefix##_add(vector x, vector y) { return _mm256_add_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_sub(vector x, vector y) { return _mm256_sub_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_mul(vector x, vector y) { return _mm256_mul_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_div(vector x, vector y) { return _mm256_div_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_max(vector x, vector y) { return _mm256_max_##suffix(x, y); }      \
    XENT_INLINE vector prefix##_fma(vector x, vector y, vector z) {                                \
        return _mm256_fmadd_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_fms(vector x, vector y, vector z) {                                \
        return _mm256_fmsub_##suffix(x, y, z);                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_product_error(vector x, vector y, vector p) {                      \
        return prefix##_fms(x, y, p);                                                              \
    }                                                                                              \
    XENT_INLINE vector prefix##_fnma(vector x, vector y, vector z) {                               \
        return _mm256_fnmadd_##suffix(x, y, z);                                                    \
    }                                                                                              \
    XENT_INLINE vector prefix##_times_sum(vector x, vector a, vector b) {                          \
        return prefix##_fma(x, a, prefix##_mul(x, b));                                             \
    }                                                                                              \
    XENT_INLINE vector prefix##_less(vector a, vector b, vector x, vector y) {                     \
        return _mm256_blendv_##suffix(y, x, _mm256_cmp_##suffix(a, b, _CMP_LT_OQ));                \
    }                                                                                              \
    XENT_INLINE vector prefix##_equal(vector a, vector b, vector x, vector y) {                    \
        return _mm256_blendv_##suffix(y, x, _mm256_cmp_##suffix(a, b, _CMP_EQ_OQ));                \
    }                                                                                              \
    XENT_INLINE uint32_t prefix##_which_less(vector a, vector b) {                                 \
        return (uint32_t)_mm256_movemask_##suffix(_mm256_cmp_##suffix(a, b, _CMP_LT_OQ));          \
    }                                                                                              \
    XENT_INLINE bool prefix##_any_less(vector a, vector b) {                                       \
        return prefix##_which_less(a, b) != 0;                                                     \
    }                                                                                              \
    XENT_INLINE vector prefix##_to_exponent(vector x) {                                            \
        return from_bits(_mm256_slli_##lane(to_bits(x), mantissa_bits));                           \
    }                                                                                              \
    XENT_INLINE vector prefix##_exponent(vector x) {                                               \
        __m256i field = _mm256_srli_##lane(to_bits(x), mantissa_bits);                             \
        field = _mm256_and_si256(field, set1_##lane(wide##_FIELD));                                \
        field = _mm256_or_si256(field, set1_##lane(wide##_INTEGER));                               \
        return prefix##_sub(from_bits(field), prefix##_set1(wide##_INTEGER_BIAS));                 \
    }                                                                                              \
    XENT_INLINE vector prefix##_mantissa(vector x) {                                               \
        const __m256i below = _mm256_and_si256(to_bits(x), set1_##lane(wide##_BELOW_EXPONENT));    \
        return from_bits(_mm256_or_si256(below, set1_##lane(wide##_ONE)));                         \
    }

XENT_DEFINE(f32x8, float, __m256, ps, _mm256_castps_si256, _mm256_castsi256_ps, epi32, 23, f32)
XENT_DEFINE(f64x4, double, __m256d, pd, _mm256_castpd_si256, _mm256_castsi256_pd, epi64, 52, f64)
#undef XENT_DEFINE

XENT_INLINE float f32x8_largest_lane(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

XENT_INLINE double f64x4_largest_lane(__m256d x) {
    const __m128d m = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_max_sd(m, _mm_unpackhi_pd(m, m)));
}

XENT_INLINE __m256 f32x8_power(__m256 y, __m256 table) {
    const __m256i steps = _mm256_castps_si256(y);
    const __m256i entry = _mm256_castps_si256(_mm256_permutevar8x32_ps(table, steps));
    const __m256i power = _mm256_add_epi32(_mm256_slli_epi32(steps, 20), entry);
    return _mm256_castsi256_ps(_mm256_max_epi32(power, _mm256_setzero_si256()));
}

XENT_INLINE __m256 f32x8_of_f16(const char *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
XENT_INLINE __m256 f32x8_of_bf16(const char *p) {
    const __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

XENT_INLINE __m256d f64x4_of_floats(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
XENT_INLINE void f64x4_to_floats(float *p, __m256d x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x)); }

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
XENT_DEFINE_FLOATS(f64, f64x4, 4)
XENT_DEFINE_OF_HALVES(f32, f32x8, 8)
XENT_DEFINE_POWER(f32, f32x8, table.a, table.b)

XENT_INLINE __m256i as_f16(f32_vec x) {
    return _mm256_set_m128i(_mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
}

/* As bf16_of_float, in lanes of 32 bits, but for a NaN, and before it is shifted. */
XENT_INLINE __m256i rounded_to_bf16(__m256i bits) {
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(bits, set1_epi32(0x7fff)), odd);
}

/* The pack interleaves the quarters of both. */
XENT_INLINE __m256i high_halves(__m256i a, __m256i b) {
    const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    return _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
}

/* All sixteen at once, their upper halves those of a and b in turn: of the lower halves every one
 * above 0x8000 rounds up, and that itself if the upper one is odd. */
XENT_INLINE __m256i numbers_as_bf16(f32_vec x) {
    const __m256i a = _mm256_castps_si256(x.a), b = _mm256_castps_si256(x.b);
    const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
    const __m256i lower = _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
    const __m256i even = _mm256_andnot_si256(upper, _mm256_set1_epi16(1));
    const __m256i up = _mm256_srli_epi16(_mm256_subs_epu16(lower, even), 15);
    const __m256i in_turn = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                             0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i quarters = _mm256_shuffle_epi8(_mm256_add_epi16(upper, up), in_turn);
    return _mm256_permute4x64_epi64(quarters, _MM_SHUFFLE(3, 1, 2, 0));
}

XENT_INLINE __m256i bits_to_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x), quiet = set1_epi32(0x400000);
    const __m256i is_none = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded_to_bf16(bits), _mm256_or_si256(bits, quiet), is_none);
}

XENT_INLINE __m256i as_bf16(f32_vec x) { return high_halves(bits_to_bf16(x.a), bits_to_bf16(x.b)); }
#include "vec_halves_avx.h"

/* Ones, and as many zeros: the mask of the first n lanes begins n before the zeros. */
static const int32_t f32_FIRST[2 * f32_LANES] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                 -1, -1, -1, -1, -1, -1, -1, -1};
static const int64_t f64_FIRST[2 * f64_LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};

#define XENT_DEFINE(prefix, real, suffix, cast)                                                    \
    XENT_INLINE prefix##_vec prefix##_load_first(const real *p, size_t n, prefix##_vec rest) {     \
        enum { HALF = prefix##_LANES / 2 };                                                        \
        const void *const first = prefix##_FIRST + prefix##_LANES - n;                             \
        const __m256i *const mask = first;                                                         \
        const __m256i a = _mm256_loadu_si256(mask), b = _mm256_loadu_si256(mask + 1);              \
        return (prefix##_vec){                                                                     \
            _mm256_blendv_##suffix(rest.a, _mm256_maskload_##suffix(p, a), cast(a)),               \
            _mm256_blendv_##suffix(rest.b, _mm256_maskload_##suffix(p + HALF, b), cast(b))};       \
    }
XENT_DEFINE(f32, float, ps, _mm256_castsi256_ps)
XENT_DEFINE(f64, double, pd, _mm256_castsi256_pd)
#undef XENT_DEFINE

/* A masked store takes longer than one to the stack. */
XENT_DEFINE_STORE_FIRST(f32, float)
XENT_DEFINE_STORE_FIRST(f64, double)

#endif
