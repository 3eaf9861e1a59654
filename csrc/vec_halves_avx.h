/* Eight floats as halves with AVX2 and F16C, for AVX2 and AVX-512. */
#ifndef XENT_VEC_HALVES_AVX_H
#define XENT_VEC_HALVES_AVX_H

#include <immintrin.h>

#include "vec.h"

XENT_INLINE void eight_to_f16(const float *from, void *p) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)p, halves);
}

/* As bf16_of_float. */
XENT_INLINE void eight_to_bf16(const float *from, void *p) {
    const __m256 x = _mm256_loadu_ps(from);
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half_way = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_add_epi32(bits, half_way);
    const __m256i no_number = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_none = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256i halves =
        _mm256_srli_epi32(_mm256_blendv_epi8(rounded, no_number, _mm256_castps_si256(is_none)), 16);
    const __m128i low = _mm256_castsi256_si128(halves), high = _mm256_extracti128_si256(halves, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(low, high));
}

#endif
