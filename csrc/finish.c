/* The scalars of a row: merges the blocks' sums and applies the formulas of Khungurn (2018), in a
 * form that does not cancel. Knows neither dtypes' storage, nor strides, nor threads. */
#include "finish.h"

#include "exp_f64.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static const double LN2 = 0x1.62e42fefa39efp-1;

/* 2^e for -1022 <= e <= 1023. libm's ldexp and frexp are calls, and there are some for each block.
 */
static double power_of_two(int e) {
    const uint64_t bits = (uint64_t)(e + 1023) << 52;
    double r;
    memcpy(&r, &bits, sizeof r);
    return r;
}

/* x * 2^exponent, rounded once for 2^-100 < |x| < 2^100. */
static double scale_by(double x, double exponent) {
    const double far = 2000; /* beyond it every such x becomes 0 or infinity */
    const int e = (int)(exponent < -far ? -far : exponent > far ? far : exponent);
    return x * power_of_two(e / 2) * power_of_two(e - e / 2);
}

/* The e of 2^e <= |x| < 2^(e + 1), for finite x that is not zero. */
static int exponent_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int field = (int)(bits >> 52 & 0x7ff);
    return field == 0 ? ilogb(x) : field - 1023;
}

/* e^(high + low) = value * 2^exponent, to about an ulp of value for any high. */
static struct xent_scaled exp_scaled(double high, double low) {
    if (!(fabs(high) < 0x1p20)) { /* far beyond any result: 0, infinity or NaN */
        return (struct xent_scaled){.value = exp(high)};
    }
    const double n = rint(high * f64_LOG2_E);
    const double r = fma(-n, f64_LN2_LOW, fma(-n, f64_LN2_HIGH, high) + low);
    return (struct xent_scaled){.value = exp(r), .exponent = n};
}

/* e^(a - b), with the rounding error of a - b (Knuth's TwoSum) carried along. */
static struct xent_scaled exp_of_difference(double a, double b) {
    if (a == b) { /* most blocks share a shift of zero */
        return (struct xent_scaled){.value = 1};
    }
    const double high = a - b, back = high - a;
    const double low = (a - (high - back)) - (b + back);
    return exp_scaled(high, high - high == 0 ? low : 0);
}

/* A unit's size, up to a factor of e. */
static double log_size(const struct xent_sum *s) {
    return (s->exponent + exponent_of(s->sum)) * LN2 + s->shift;
}

/* s->sum in the row's units. */
static double in_units_of(const struct xent_row *row, const struct xent_sum *s) {
    if (s->sum == 0) {
        return 0;
    }
    const struct xent_scaled e = exp_of_difference(s->shift, row->shift);
    return scale_by(s->sum * e.value, s->exponent - row->exponent + e.exponent);
}

/* Takes `s` as the row's unit if it is larger than `*size`. */
static void take_unit(struct xent_row *row, const struct xent_sum *s, double *size) {
    if (s->sum > 0 && log_size(s) > *size) {
        *size = log_size(s);
        row->exponent = s->exponent + exponent_of(s->sum);
        row->shift = s->shift;
    }
}

static struct xent_row merge(const struct xent_sum *blocks, size_t count,
                             const struct xent_sum *target) {
    struct xent_row row = {0};
    double size = -INFINITY;
    take_unit(&row, target, &size);
    for (size_t i = 0; i < count; i++) {
        take_unit(&row, &blocks[i], &size);
    }
    row.target = in_units_of(&row, target);
    for (size_t i = 0; i < count; i++) {
        row.others += in_units_of(&row, &blocks[i]);
    }
    return row;
}

struct xent_row xent_merge(const struct xent_sum *blocks, size_t count) {
    const struct xent_sum none = {0};
    return merge(blocks, count, &none);
}

struct xent_row xent_merge_with_target(const struct xent_sum *blocks, size_t count,
                                       double target_logit) {
    struct xent_sum target = {.sum = NAN};
    if (fabs(target_logit) < f64_SHIFT_FROM) {
        const struct xent_scaled e = exp_scaled(target_logit, 0);
        target = (struct xent_sum){.sum = e.value, .exponent = e.exponent};
    } else if (target_logit == -INFINITY) {
        target.sum = 0;
    } else if (target_logit < INFINITY) {
        target = (struct xent_sum){.sum = 1, .shift = target_logit};
    }
    struct xent_row row = merge(blocks, count, &target);
    row.target_logit = target_logit;
    return row;
}

/* log(sum * 2^exponent) + shift, where the large terms may cancel: ln 2 in two parts, of which the
 * first times the exponent is exact. */
static double log_in_units(const struct xent_row *row, double sum, double shift) {
    return (row->exponent * f64_LN2_HIGH + shift) + (log(sum) + row->exponent * f64_LN2_LOW);
}

double xent_row_loss(const struct xent_row *row) {
    if (row->others == 0 && row->target > 0) {
        return 0; /* not log1p(0 / target), whose quotient may be a negative zero's */
    }
    const double ratio = row->others / row->target;
    if (ratio < 0x1p1000) {
        return log1p(ratio);
    }
    if (row->others == 0 || isnan(ratio)) {
        return NAN; /* every logit is -inf, or one is NaN or +inf */
    }
    /* The target's exponential underflows: its logarithm does not. */
    return log_in_units(row, row->others, row->shift - row->target_logit);
}

double xent_row_lse(const struct xent_row *row) {
    const double sum = row->others + row->target;
    return sum == 0 ? NAN : log_in_units(row, sum, row->shift);
}

struct xent_scaled xent_row_scale(const struct xent_row *row, double upstream) {
    const double sum = row->others + row->target;
    if (sum == 0) {
        return (struct xent_scaled){.value = NAN};
    }
    const double value = upstream / sum;
    return (struct xent_scaled){.value = value, .low = fma(-value, sum, upstream) / sum};
}

struct xent_scaled xent_row_scale_by_lse(const struct xent_row *row, double upstream, double lse) {
    struct xent_scaled e = exp_of_difference(row->shift, lse);
    e.low = fma(e.value, upstream, -(e.value * upstream));
    e.value *= upstream;
    e.exponent += row->exponent;
    return row->others + row->target == 0 ? (struct xent_scaled){.value = NAN} : e;
}

double xent_target_gradient(const struct xent_row *row, struct xent_scaled scale) {
    const double gradient = -fma(row->others, scale.value, row->others * scale.low);
    return scale_by(gradient, scale.exponent);
}

struct xent_factor xent_block_factor(const struct xent_row *row, const struct xent_sum *block,
                                     struct xent_scaled scale, bool single) {
    const struct xent_scaled e = exp_of_difference(block->shift, row->shift);
    const double value = scale.value * e.value;
    if (value - value != 0 || value == 0) {
        return (struct xent_factor){.high = value, .post = 1};
    }
    const double low = fma(scale.value, e.value, -value) + scale.low * e.value;
    const int own = exponent_of(value);
    const double total = own + scale.exponent + e.exponent + block->exponent - row->exponent;
    const double smallest = single ? FLT_MIN_EXP - 1 : DBL_MIN_EXP - 1;
    const double largest = single ? FLT_MAX_EXP - 1 : DBL_MAX_EXP - 1;
    const double digits = single ? FLT_MANT_DIG : DBL_MANT_DIG;
    double post = 0;
    /* Away from the ends of the exponents, `high` and `low` are normal numbers, and what `low` adds
     * to a result is lost only where it is less than half a unit of a subnormal. Else `high` is in
     * [1, 2), so that its product with the smallest exponential is normal, and the rest of the
     * exponent goes to `post` as far as that is a normal number of its own. */
    if (fabs(total) >= largest - digits) {
        post = total < smallest ? smallest : total > largest ? largest : total;
    }
    const double rest = total - post - own;
    struct xent_factor factor = {.high = scale_by(value, rest), .low = scale_by(low, rest)};
    if (single) {
        const double both = factor.high + factor.low;
        factor.high = (double)(float)both;
        factor.low = both - factor.high;
    }
    factor.post = scale_by(1, post);
    return factor;
}
