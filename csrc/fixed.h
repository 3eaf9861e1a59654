/* Sums of exponentials in fixed point, for a logsumexp so near zero that twice double's precision
 * does not resolve it: for few rows, and slow. Integers only, so that the bits are the same on
 * every machine; knows neither kernels nor arrays. */
#ifndef XENT_FIXED_H
#define XENT_FIXED_H

#include "kernels.h"

#include <stdint.h>

/* Digits of half as many bits as the largest product. */
#ifdef __SIZEOF_INT128__
typedef uint64_t xent_limb;
__extension__ typedef unsigned __int128 xent_two_limbs;
#else
typedef uint32_t xent_limb;
typedef uint64_t xent_two_limbs;
#endif

/* Bits before the point, and after it at the most: exponentials are within 2^-1190 then, and what
 * is less beside one is no normal number. */
enum { XENT_LIMB_BITS = 8 * sizeof(xent_limb), XENT_WHOLE_BITS = 64, XENT_MOST_BITS = 1280 };

struct xent_fixed {
    xent_limb limb[(XENT_MOST_BITS + XENT_WHOLE_BITS) / XENT_LIMB_BITS]; /* the least first */
};

struct xent_fixed_sum {
    int bits; /* after the point, in whole limbs */
    size_t terms;
    struct xent_fixed value;
};

/* Adds e^x, for x from -1024 to 1/2; below it is nothing. */
void xent_fixed_add_exp(struct xent_fixed_sum *sum, double x);

/* Whether what the sum exceeds one by is known to 57 bits; it is in `to`. */
bool xent_fixed_near_one(const struct xent_fixed_sum *sum, struct xent_near_one *to);

#endif
