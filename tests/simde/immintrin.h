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

#endif
