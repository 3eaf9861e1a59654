/* The constants of exp for double. q(r) is the minimax polynomial of (e^r - 1 - r) / r^2 on
 * |r| <= ln(2)/2 + 0.003 for the relative error of e^r, which is 2^-57.8. */
#ifndef XENT_EXP_F64_H
#define XENT_EXP_F64_H

#include <float.h>

static const double f64_exp_poly[] = {
    0x1.000000000000ap-1,  0x1.55555555554f2p-3,  0x1.5555555550328p-5,  0x1.1111111129574p-7,
    0x1.6c16c185691ebp-10, 0x1.a01a012428be5p-13, 0x1.a019967ecfb1ap-16, 0x1.71df2d83a732ep-19,
    0x1.28b0dd54870d3p-22, 0x1.ad7b6412f09dep-26};

/* The same for results that become float: 2^-34.1. */
static const double exp_poly_for_float[] = {0x1.0000003d17b55p-1,  0x1.55555434c76cap-3,
                                            0x1.555486fe6cb9ap-5,  0x1.11127d1149c1fp-7,
                                            0x1.6d935cb045591p-10, 0x1.9f0397ad3a989p-13};

enum { f64_STEPS = 1, f64_AT_ONE = 1023, f64_AT_ZERO = 0 };
enum { f64_ZEROES = false };
XENT_INLINE f64_vec f64_if_any(f64_vec y, f64_vec x) {
    (void)y;
    return x;
}
XENT_INLINE f64_vec f64_step(f64_vec n) { return f64_to_exponent(n); }

static const double f64_LOG2_E = 0x1.71547652b82fep+0;
/* ln 2 in two parts: the first has 37 bits, so that n times it is exact for |n| < 2^16. */
static const double f64_LN2_HIGH = 0x1.62e42fefap-1, f64_LN2_LOW = 0x1.cf79abc9e3b3ap-40;
static const double f64_STEP_HIGH = f64_LN2_HIGH, f64_STEP_LOW = f64_LN2_LOW;

static const double f64_LARGEST = DBL_MAX;
static const double f64_ROUND = 0x1.8p52; /* adding it leaves an integer in the low bits */
enum { f64_BIAS = 1023 };
/* Exponentials are kept 2^256 times too large, so that they underflow 2^256 later. */
enum { f64_HEADROOM = 256 };
static const double f64_ONE_WITH_HEADROOM = 0x1p256;
/* More than any exponential of a block: see add_exp in sum.inc.h. */
static const double f64_START = 0x1p257;
/* From here on the largest logit is subtracted first: every x whose exponential is not zero, 887
 * below at the most, is within 2x of it. */
static const double f64_SHIFT_FROM = 2048.0;

#endif
