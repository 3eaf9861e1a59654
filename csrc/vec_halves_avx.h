/* Vectors of floats stored as halves, for AVX2 and AVX-512, which define as_f16 and as_bf16. */
#ifndef XENT_VEC_HALVES_AVX_H
#define XENT_VEC_HALVES_AVX_H

#include <immintrin.h>

#include "vec.h"

#define XENT_DEFINE(name)                                                                          \
    XENT_INLINE void f32_to_##name(char *p, f32_vec x) {                                           \
        _mm256_storeu_si256((__m256i *)(void *)p, as_##name(x));                                   \
    }                                                                                              \
    XENT_INLINE void f32_stream_##name(char *p, f32_vec x) {                                       \
        _mm256_stream_si256((__m256i *)(void *)p, as_##name(x));                                   \
    }
XENT_DEFINE(f16)
XENT_DEFINE(bf16)
#undef XENT_DEFINE

#endif
