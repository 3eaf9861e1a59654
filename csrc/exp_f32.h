/* The constants of exp for float. q(r) is the minimax polynomial of (e^r - 1 - r) / r^2 on
 * |r - LEAN| <= ln(2)/2 + 0.003 for the relative error of e^r, which is 2^-28.2. */
#ifndef XENT_EXP_F32_H
#define XENT_EXP_F32_H

#include <float.h>

static const float f32_exp_poly[] = {0x1.000006p-1f, 0x1.5554d2p-3f, 0x1.55440ap-5f, 0x1.11f62ep-7f,
                                     0x1.7fb74p-10f};

/* r is from -0.288 to 0.406, so that r + t, e^r - 1, is in (-1/4, 1/2): beyond -1/4 a float's
 * rounding is as large as up to 1/2, but for an e^r that is half as large. */
static const float f32_LEAN = 0.0589f;

static const float f32_LOG2_E = 0x1.715476p+0f;
/* ln 2 in two parts: the first has 13 bits, so that n times it is exact for |n| < 2^11. */
static const float f32_LN2_HIGH = 0x1.62ep-1f, f32_LN2_LOW = 0x1.0bfbe8p-15f;

static const float f32_LARGEST = FLT_MAX;
static const float f32_ROUND = 0x1.8p23f; /* adding it leaves an integer in the low bits */
enum { f32_BIAS = 127 };
/* Exponentials are kept 2^64 times too large, so that they underflow 2^64 later. */
enum { f32_HEADROOM = 64 };
static const double f32_ONE_WITH_HEADROOM = 0x1p64;
/* More than any exponential of a block: see add_exp in sum.inc.h. */
static const double f32_START = 0x1p65;
/* From here on the largest logit is subtracted first: every x whose exponential is not zero, 132
 * below at the most, is within 2x of it. */
static const float f32_SHIFT_FROM = 272.0f;

#endif
