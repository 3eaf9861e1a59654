/* The 16-bit floating-point formats, number by number. */
#ifndef XENT_HALVES_H
#define XENT_HALVES_H

#include "vec.h"

XENT_INLINE float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

XENT_INLINE uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* IEEE 754's 16-bit format has 5 bits of exponent, biased by 15, and 10 of fraction. Taken for a
 * float's high bits a number is 2^-112 times itself, subnormal numbers included. */
XENT_INLINE float float_of_f16(uint16_t half) {
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000)
                                                                       << 16;
    const float scaled = float_of_bits(magnitude) * 0x1p112f;
    const uint32_t no_number = magnitude | 0x7f800000;
    const uint32_t bits = magnitude >= 0x0f800000 ? no_number : bits_of_float(scaled);
    return float_of_bits(bits | sign);
}

/* Rounds to nearest, ties to even. Adding a power of two rounds at the last place that the result
 * has: ten bits below the number's leading one, or 2^-24 among the subnormals. */
XENT_INLINE uint16_t f16_of_float(float x) {
    const uint32_t bits = bits_of_float(x), magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 16 & 0x8000;
    const float subnormal = float_of_bits(magnitude) + 0.5f; /* whose last place is 2^-24 */
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1); /* may carry upwards */
    uint32_t half = magnitude < 0x38800000 ? bits_of_float(subnormal) - 0x3f000000
                                           : (rounded >> 13) - (112u << 10);
    half = magnitude >= 0x477ff000 ? 0x7c00 : half; /* half way beyond the largest */
    half = magnitude > 0x7f800000 ? 0x7e00 : half;  /* NaN */
    return (uint16_t)(half | sign);
}

/* bfloat16 is the high half of a float. */
XENT_INLINE float float_of_bf16(uint16_t half) { return float_of_bits((uint32_t)half << 16); }

XENT_INLINE uint16_t bf16_of_float(float x) {
    const uint32_t bits = bits_of_float(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const uint32_t no_number = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? no_number : rounded);
}

#endif
