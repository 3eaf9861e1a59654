/* Vectors of floats stored as halves, for AVX2 and AVX-512. These define as_f16 and as_bf16, and
 * numbers_as_bf16 for vectors without a NaN. */
#ifndef XENT_VEC_HALVES_AVX_H
#define XENT_VEC_HALVES_AVX_H

#include <immintrin.h>

#include "vec.h"

XENT_INLINE void f32_to_f16(char *p, f32_vec x) {
    _mm256_storeu_si256((__m256i *)(void *)p, as_f16(x));
}

XENT_INLINE void f32_to_bf16(char *p, f32_vec x) {
    _mm256_storeu_si256((__m256i *)(void *)p, as_bf16(x));
}

XENT_INLINE void put_halves(char *p, __m256i halves, bool stream) {
    if (stream) {
        _mm256_stream_si256((__m256i *)(void *)p, halves);
    } else {
        _mm256_storeu_si256((__m256i *)(void *)p, halves);
    }
}

XENT_INLINE void f32_put_f16(char *p, f32_vec x, bool stream) { put_halves(p, as_f16(x), stream); }

XENT_INLINE void f32_put_bf16(char *p, f32_vec x, bool stream) {
    put_halves(p, numbers_as_bf16(x), stream);
}

#endif
