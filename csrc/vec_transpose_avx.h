/* Transposed blocks with AVX's shuffles, for AVX2 and AVX-512: each of the steps interleaves two
 * rows by units twice as large as the one before. */
#ifndef XENT_VEC_TRANSPOSE_AVX_H
#define XENT_VEC_TRANSPOSE_AVX_H

#include <immintrin.h>

#include "vec.h"

XENT_INLINE void f32_transpose(const char *from, ptrdiff_t from_stride, char *to,
                               ptrdiff_t to_stride) {
    __m256 row[8], pair[8], quad[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        row[i] = _mm256_loadu_ps((const float *)(const void *)(from + i * from_stride));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        quad[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
        quad[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
        quad[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
        quad[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256 low = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
        _mm256_storeu_ps((float *)(void *)(to + i * to_stride), low);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256 high = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
        _mm256_storeu_ps((float *)(void *)(to + (i + 4) * to_stride), high);
    }
}

XENT_INLINE void u16_transpose(const char *from, ptrdiff_t from_stride, char *to,
                               ptrdiff_t to_stride) {
    __m128i row[8], pair[8], quad[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        row[i] = _mm_loadu_si128((const __m128i *)(const void *)(from + i * from_stride));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm_unpacklo_epi16(row[i], row[i + 1]);
        pair[i + 1] = _mm_unpackhi_epi16(row[i], row[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        quad[i] = _mm_unpacklo_epi32(pair[i], pair[i + 2]);
        quad[i + 1] = _mm_unpackhi_epi32(pair[i], pair[i + 2]);
        quad[i + 2] = _mm_unpacklo_epi32(pair[i + 1], pair[i + 3]);
        quad[i + 3] = _mm_unpackhi_epi32(pair[i + 1], pair[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        char *const first = to + 2 * i * to_stride;
        const __m128i even = _mm_unpacklo_epi64(quad[i], quad[i + 4]);
        const __m128i odd = _mm_unpackhi_epi64(quad[i], quad[i + 4]);
        _mm_storeu_si128((__m128i *)(void *)first, even);
        _mm_storeu_si128((__m128i *)(void *)(first + to_stride), odd);
    }
}

XENT_INLINE void f64_transpose(const char *from, ptrdiff_t from_stride, char *to,
                               ptrdiff_t to_stride) {
    __m256d row[4], pair[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        row[i] = _mm256_loadu_pd((const double *)(const void *)(from + i * from_stride));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
        pair[i] = _mm256_unpacklo_pd(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_pd(row[i], row[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m256d low = _mm256_permute2f128_pd(pair[i], pair[i + 2], 0x20);
        _mm256_storeu_pd((double *)(void *)(to + i * to_stride), low);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m256d high = _mm256_permute2f128_pd(pair[i], pair[i + 2], 0x31);
        _mm256_storeu_pd((double *)(void *)(to + (i + 2) * to_stride), high);
    }
}

#endif
