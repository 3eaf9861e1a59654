/* Exponentials in fixed point: e^x = (e^r)^(2^k), with r = x / 2^k so small that a few terms of the
 * series do. */
#include "fixed.h"

#include <math.h>
#include <string.h>

/* The terms of the series are in units of 18!, which are integers. */
enum { TERMS = 18, TWELVE_FACTORIAL = 479001600, THIRTEEN_TO_EIGHTEEN = 13366080 };

enum { HEADROOM = 256 }; /* of struct xent_near_one */

static int limbs_of(int bits) { return bits / XENT_LIMB_BITS; }

static int all_limbs(int bits) { return limbs_of(bits + XENT_WHOLE_BITS); }

/* r < 2^-this, so that r^19 / 19! and what comes after are less than a unit: 19! > 2^56. */
static int series_bits(int bits) { return (bits - 56) / (TERMS + 1) + 1; }

/* a = a * b. What is left out of the product is less than 2^6 units, and so is the error. */
static void multiply(struct xent_fixed *a, const struct xent_fixed *b, int bits) {
    const int n = all_limbs(bits), point = limbs_of(bits);
    xent_limb product[2 * sizeof a->limb / sizeof a->limb[0]];
    memset(product, 0, 2 * (size_t)n * sizeof product[0]);
    for (int i = 0; i < n; i++) {
        const xent_two_limbs digit = a->limb[i];
        xent_two_limbs carry = 0;
        if (digit != 0) {
            for (int j = i < point ? point - 1 - i : 0; j < n; j++) {
                carry += digit * b->limb[j] + product[i + j];
                product[i + j] = (xent_limb)carry;
                carry >>= XENT_LIMB_BITS;
            }
        }
        product[i + n] = (xent_limb)carry;
    }
    memcpy(a->limb, product + point, (size_t)n * sizeof a->limb[0]);
}

static void divide(struct xent_fixed *a, uint32_t divisor, int bits) {
    enum { HALF = 32 };
    uint64_t rest = 0;
    for (int i = all_limbs(bits); i-- > 0;) {
        xent_limb quotient = 0;
        for (int shift = XENT_LIMB_BITS - HALF; shift >= 0; shift -= HALF) {
            rest = rest << HALF | (uint32_t)(a->limb[i] >> shift);
            quotient |= (xent_limb)(rest / divisor) << shift;
            rest %= divisor;
        }
        a->limb[i] = quotient;
    }
}

/* a += b */
static void add(struct xent_fixed *a, const struct xent_fixed *b, int bits) {
    xent_two_limbs carry = 0;
    for (int i = 0; i < all_limbs(bits); i++) {
        carry += (xent_two_limbs)a->limb[i] + b->limb[i];
        a->limb[i] = (xent_limb)carry;
        carry >>= XENT_LIMB_BITS;
    }
}

static void add_integer(struct xent_fixed *a, uint64_t number, int bits) {
    xent_two_limbs carry = 0;
    for (int i = limbs_of(bits), shift = 0; i < all_limbs(bits); i++, shift += XENT_LIMB_BITS) {
        carry += (xent_two_limbs)a->limb[i] + (xent_limb)(number >> shift);
        a->limb[i] = (xent_limb)carry;
        carry >>= XENT_LIMB_BITS;
    }
}

/* a = -a, modulo 2^64 */
static void negate(struct xent_fixed *a, int bits) {
    xent_two_limbs carry = 1;
    for (int i = 0; i < all_limbs(bits); i++) {
        carry += (xent_limb)~a->limb[i];
        a->limb[i] = (xent_limb)carry;
        carry >>= XENT_LIMB_BITS;
    }
}

/* Adds a number from 0 to below 1, without what is less than a unit. */
static void add_fraction(struct xent_fixed *a, double x, int bits) {
    const double radix = ldexp(1, XENT_LIMB_BITS);
    struct xent_fixed fraction = {{0}};
    for (int i = limbs_of(bits); i-- > 0 && x > 0;) {
        x *= radix;
        fraction.limb[i] = (xent_limb)x;
        x -= (double)fraction.limb[i];
    }
    add(a, &fraction, bits);
}

/* Each squaring doubles the error it finds and adds less than 2^6 units: 2^(squarings + 7) in all.
 */
void xent_fixed_add_exp(struct xent_fixed_sum *sum, double x) {
    const int bits = sum->bits;
    sum->terms++;
    if (!(x > -0.7 * bits)) { /* less than a unit */
        return;
    }
    int size;
    const double mantissa = frexp(fabs(x), &size);
    const int squarings = series_bits(bits) + (size > 0 ? size : 0);
    struct xent_fixed r = {{0}}, power = {{0}};
    add_fraction(&r, ldexp(mantissa, size - squarings), bits);
    add_integer(&power, 1, bits);
    uint64_t factor = 1; /* 18! / (k - 1)! */
    for (uint64_t k = TERMS; k > 0; k--) {
        factor *= k;
        multiply(&power, &r, bits);
        if (x < 0) {
            negate(&power, bits);
        }
        add_integer(&power, factor, bits);
    }
    divide(&power, TWELVE_FACTORIAL, bits);
    divide(&power, THIRTEEN_TO_EIGHTEEN, bits);
    for (int i = 0; i < squarings; i++) {
        multiply(&power, &power, bits);
    }
    add(&sum->value, &power, bits);
}

bool xent_fixed_near_one(const struct xent_fixed_sum *sum, struct xent_near_one *to) {
    const int bits = sum->bits, n = all_limbs(bits);
    struct xent_fixed excess = sum->value;
    negate(&excess, bits);
    add_integer(&excess, 1, bits);
    const bool above = excess.limb[n - 1] >> (XENT_LIMB_BITS - 1); /* 1 - sum is negative */
    if (above) {
        negate(&excess, bits);
    }
    int top = n;
    while (top > 0 && excess.limb[top - 1] == 0) {
        top--;
    }
    struct two value = {0, 0};
    for (int i = top; i-- > 0 && i + 4 >= top;) {
        for (int shift = XENT_LIMB_BITS - 32; shift >= 0; shift -= 32) { /* exact numbers */
            const double digit = (double)(uint32_t)(excess.limb[i] >> shift);
            const int exponent = i * XENT_LIMB_BITS + shift - bits + HEADROOM;
            value = add_two(value, (struct two){ldexp(digit, exponent), 0});
        }
    }
    value = add_exactly(value.high, value.low);
    *to = (struct xent_near_one){1, above ? value : (struct two){-value.high, -value.low}};
    /* |x| <= 2^10: so many squarings at the most beside those that the series asks for */
    const int unknown = series_bits(bits) + 10 + 7 - bits + HEADROOM;
    return fabs(value.high) >= ldexp((double)sum->terms, unknown + 57);
}
