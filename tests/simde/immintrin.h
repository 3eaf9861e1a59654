/* AVX-512 for compilers that are told of AVX2 only: the intrinsics under their own names, computed
 * by SIMDe. Stands before the compiler's own header in the include path. */
#ifndef XENT_SIMDE_IMMINTRIN_H
#define XENT_SIMDE_IMMINTRIN_H

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* SIMDe 0.7.4 lacks the stores past the caches. */
#define _mm512_stream_ps(p, x) simde_mm512_storeu_ps(p, x)
#define _mm512_stream_pd(p, x) simde_mm512_storeu_pd(p, x)

/* Nor does it have the conversions between floats and doubles. */
static inline simde__m512d widened(__m256 x) {
    simde__m512d_private wide;
    wide.m256d[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    wide.m256d[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    return simde__m512d_from_private(wide);
}
static inline __m256 narrowed(simde__m512d x) {
    const simde__m512d_private wide = simde__m512d_to_private(x);
    return _mm256_set_m128(_mm256_cvtpd_ps(wide.m256d[1]), _mm256_cvtpd_ps(wide.m256d[0]));
}
#define _mm512_cvtps_pd(x) widened(x)
#define _mm512_cvtpd_ps(x) narrowed(x)

/* Nor those from halves and to them, */
static inline simde__m512 of_halves(__m256i halves) {
    simde__m512_private wide;
    wide.m256[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    wide.m256[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
    return simde__m512_from_private(wide);
}
static inline simde__m512i of_unsigned(__m256i halves) {
    simde__m512i_private wide;
    wide.m256i[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(halves));
    wide.m256i[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(halves, 1));
    return simde__m512i_from_private(wide);
}
static inline __m256i to_halves(simde__m512 x) {
    const simde__m512_private wide = simde__m512_to_private(x);
    return _mm256_set_m128i(_mm256_cvtps_ph(wide.m256[1], _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(wide.m256[0], _MM_FROUND_TO_NEAREST_INT));
}
static inline __m256i low_halves(simde__m512i x) {
    const simde__m512i_private wide = simde__m512i_to_private(x);
    simde__m256i_private halves;
    for (int i = 0; i < 16; i++)
        halves.u16[i] = (uint16_t)wide.u32[i];
    return simde__m256i_from_private(halves);
}
#define _mm512_cvtph_ps(x) of_halves(x)
#define _mm512_cvtps_ph(x, rounding) to_halves(x)
#define _mm512_cvtepu16_epi32(x) of_unsigned(x)
#define _mm512_cvtepi32_epi16(x) low_halves(x)

/* nor the loads and stores of some lanes, nor the largest lane. */
#define XENT_DEFINE(suffix, real, field, lanes, vector)                                            \
    static inline vector load_some_##suffix(vector rest, unsigned mask, const void *p) {           \
        vector##_private x = vector##_to_private(rest);                                            \
        for (int i = 0; i < lanes; i++)                                                            \
            x.field[i] = mask >> i & 1 ? ((const real *)p)[i] : x.field[i];                        \
        return vector##_from_private(x);                                                           \
    }                                                                                              \
    static inline void store_some_##suffix(void *p, unsigned mask, vector y) {                     \
        const vector##_private x = vector##_to_private(y);                                         \
        for (int i = 0; i < lanes; i++)                                                            \
            if (mask >> i & 1)                                                                     \
                ((real *)p)[i] = x.field[i];                                                       \
    }                                                                                              \
    static inline real largest_of_##suffix(vector y) {                                             \
        const vector##_private x = vector##_to_private(y);                                         \
        real largest = x.field[0];                                                                 \
        for (int i = 1; i < lanes; i++)                                                            \
            largest = x.field[i] > largest ? x.field[i] : largest;                                 \
        return largest;                                                                            \
    }
XENT_DEFINE(ps, float, f32, 16, simde__m512)
XENT_DEFINE(pd, double, f64, 8, simde__m512d)
#undef XENT_DEFINE
#define _mm512_mask_loadu_ps(rest, mask, p) load_some_ps(rest, mask, p)
#define _mm512_mask_loadu_pd(rest, mask, p) load_some_pd(rest, mask, p)
#define _mm512_mask_storeu_ps(p, mask, x) store_some_ps(p, mask, x)
#define _mm512_mask_storeu_pd(p, mask, x) store_some_pd(p, mask, x)
#define _mm512_reduce_max_ps(x) largest_of_ps(x)
#define _mm512_reduce_max_pd(x) largest_of_pd(x)

#endif
