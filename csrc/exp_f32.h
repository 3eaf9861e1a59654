/* The constants of exp for float. e^x = 2^(n/8) * (1 + p): the powers of 2^(1/8) come from a table,
 * and p = r + r^2 q(r), q being the minimax polynomial of (e^r - 1 - r) / r^2 on |r| <= ln(2)/16
 * and a little more for the relative error of e^r, which is 2^-32.3. */
#ifndef XENT_EXP_F32_H
#define XENT_EXP_F32_H

#include <float.h>

static const float f32_exp_poly[] = {0x1p-1f, 0x1.555ccp-3f, 0x1.5547bcp-5f};

/* The powers are all multiplied by one number, of which one power is 2^64, f32_ONE_WITH_HEADROOM:
 * of all such numbers it is that by which the floats are nearest, within 0.05 * 2^-24. A power less
 * j/8 has the representation that is left of it when j * 2^20 is taken away: see power in vec.h.
 * Twice, because a vector is as long. */
static const float f32_POWERS[16] = {
    0x1.16747cp+0f, 0x1.0fa848p+0f, 0x1.0b2404p+0f, 0x1.091c8ap+0f, 0x1.09cb7cp+0f, 0x1.0d6fb4p+0f,
    0x1.144dbcp+0f, 0x1.1eb052p+0f, 0x1.16747cp+0f, 0x1.0fa848p+0f, 0x1.0b2404p+0f, 0x1.091c8ap+0f,
    0x1.09cb7cp+0f, 0x1.0d6fb4p+0f, 0x1.144dbcp+0f, 0x1.1eb052p+0f,
};

enum { f32_STEPS = 8 }; /* to a factor of two */
/* The exponents, n / STEPS, of which power makes one and zero. */
enum { f32_AT_ONE = 0, f32_AT_ZERO = -128 };
/* Whether a mask makes zero of what exponentials that count as zero are made from; else their
 * logits are held, an operation more where there are masks. */
enum { f32_ZEROES = XENT_MASKS };
XENT_INLINE f32_vec f32_if_any(f32_vec y, f32_vec x) {
    return f32_ZEROES ? f32_zero_below(y, f32_set1(f32_LEAST_POWER), x) : x;
}
XENT_INLINE f32_vec f32_step(f32_vec n) { return f32_power(n, f32_load(f32_POWERS)); }

static const float f32_LOG2_E = 0x1.715476p+0f;
/* ln(2) / 8 in two parts: the first has 9 bits, so that n times it is exact for |n| < 2^15. */
static const float f32_STEP_HIGH = 0x1.63p-4f, f32_STEP_LOW = -0x1.bd0106p-16f;

static const float f32_LARGEST = FLT_MAX;
static const float f32_ROUND = 0x1.8p23f; /* adding it leaves an integer in the low bits */
/* Exponentials are kept 2^64 times too large, so that they underflow 2^64 later. */
enum { f32_HEADROOM = 64 };
static const double f32_ONE_WITH_HEADROOM = 0x1.16747bf7c5b81p64;
/* More than any exponential of a block: see add_exp in sum.inc.h. */
static const double f32_START = 0x1p65;
/* From here on the largest logit is subtracted first: every x whose exponential is not zero, 132
 * below at the most, is within 2x of it. */
static const float f32_SHIFT_FROM = 272.0f;

#endif
