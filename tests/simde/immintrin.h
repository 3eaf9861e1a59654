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

#endif
