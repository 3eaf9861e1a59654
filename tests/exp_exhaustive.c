/* exp of one instruction set against the C library's: every float that the kernels can meet, and a
 * structured sample of the doubles. Compiled once for each, with XENT_ISA_NAME and XENT_VEC_HEADER
 * given; tests/exp_exhaustive.py builds, runs and judges.
 *
 *     exp_exhaustive f32|f64 STRIDE
 *
 * Every result enters the checksum, and every STRIDEth vector is compared. Prints the number of
 * arguments, that of the compared ones, the worst and the mean error in ulp of the exponential that
 * is kept, which is rounded, and the worst in parts of it, of which an ulp has one to two; the same
 * of what a sum gets, which is not rounded; and the checksum. */
#include XENT_VEC_HEADER

#include "double_double.h"
#include "exp_f32.h"
#include "exp_f64.h"
#include "halves.h"
#include "kernels.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of csrc/isa.inc.h what sums exponentials: the rest takes minutes to compile. */
/* clang-format off */
#define REAL double
#define V(name) JOIN(f64, name)
#include "widen.inc.h"
#include "exp.inc.h"
#include "sum.inc.h"
#undef REAL
#undef V

#define REAL float
#define V(name) JOIN(f32, name)
#include "widen.inc.h"
#include "exp.inc.h"
#include "sum.inc.h"
#undef REAL
#undef V
/* clang-format on */

struct error {
    double worst, sum, part; /* in ulp; in 2^-24 of a float or 2^-53 of a double */
};

struct tally {
    uint64_t arguments, compared, checksum;
    struct error kept, added;
};

static void join_error(struct error *to, struct error from) {
    to->worst = fmax(to->worst, from.worst);
    to->sum += from.sum;
    to->part = fmax(to->part, from.part);
}

/* In any order: the checksum is a sum modulo 2^64. */
static void join(struct tally *to, const struct tally *from) {
    to->arguments += from->arguments;
    to->compared += from->compared;
    to->checksum += from->checksum;
    join_error(&to->kept, from->kept);
    join_error(&to->added, from->added);
}

#pragma omp declare reduction(join : struct tally : join(&omp_out, &omp_in))

/* splitmix64 (Steele, Lea & Flood 2014) */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static uint64_t digest(double x, double kept, double added, double low) {
    return mix(bits_of(x) + mix(bits_of(kept) + 3 * bits_of(added) + 5 * bits_of(low)));
}

/* The exponentials of one vector of nearby arguments, the largest of which is m. Relative to it,
 * they are near 2^HEADROOM, so that `added`, and what of it remains in `low`, have all their bits.
 * The dtypes differ in what is taken for exact: exp of double is wrong by 2^-29 ulp of float, that
 * of long double by 2^-11 ulp of double or less. */
#define XENT_DEFINE(prefix, real, wide, wide_exp, mantissa_bits)                                   \
    static void prefix##_check(const real *x, real m, bool compare, struct tally *tally) {         \
        struct xent_sum unit;                                                                      \
        const struct prefix##_reference ref = prefix##_refer_to(m, 1, &unit);                      \
        const real start = (real)prefix##_START;                                                   \
        struct prefix##_sum sum = prefix##_no_sum();                                               \
        real kept[prefix##_LANES], high[prefix##_LANES], low[prefix##_LANES];                      \
        const struct prefix##_exp parts =                                                          \
            prefix##_exp_parts(prefix##_load(x), prefix##_set1(0), &ref, AS_IS);                   \
        prefix##_store(kept, prefix##_add_exp(&sum, parts));                                       \
        prefix##_store(high, sum.high);                                                            \
        prefix##_store(low, sum.low);                                                              \
        const int exponent = (int)rint((double)m * (double)prefix##_LOG2_E);                       \
        const wide scale = (wide)ldexpl(prefix##_ONE_WITH_HEADROOM, -exponent);                    \
        for (int i = 0; i < prefix##_LANES; i++) {                                                 \
            const real added = high[i] - start;                                                    \
            tally->arguments++;                                                                    \
            tally->checksum += digest(x[i], kept[i], added, low[i]);                               \
            if (compare) {                                                                         \
                const wide exact = wide_exp((wide)x[i]) * scale;                                   \
                const double ulp = ldexp(1, ilogb((double)exact) - mantissa_bits);                 \
                const double of_kept = fabs((double)(kept[i] - exact) / ulp);                      \
                const double of_added = fabs((double)((added - exact) + low[i]) / ulp);            \
                tally->compared++;                                                                 \
                const double parts_of_ulp = ulp * ldexp(1, mantissa_bits + 1) / (double)exact;     \
                join_error(&tally->kept,                                                           \
                           (struct error){of_kept, of_kept, of_kept * parts_of_ulp});              \
                join_error(&tally->added,                                                          \
                           (struct error){of_added, of_added, of_added * parts_of_ulp});           \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* The same of a vector of positive, ascending arguments and of their negatives. */            \
    static void prefix##_check_both_signs(const real *x, bool compare, struct tally *tally) {      \
        real negative[prefix##_LANES];                                                             \
        for (int i = 0; i < prefix##_LANES; i++) {                                                 \
            negative[i] = -x[i];                                                                   \
        }                                                                                          \
        prefix##_check(x, x[prefix##_LANES - 1], compare, tally);                                  \
        prefix##_check(negative, negative[0], compare, tally);                                     \
    }

XENT_DEFINE(f32, float, double, exp, 23)
XENT_DEFINE(f64, double, long double, expl, 52)

/* Every float of 2^-27 <= |x| < f32_SHIFT_FROM; from there on the largest logit is subtracted
 * first, exactly, which leaves one of these. Below, where e^x rounds to 1 or a neighbour, every
 * 4096th vector. */
static struct tally check_floats(uint32_t stride) {
    const float last = f32_SHIFT_FROM;
    const uint32_t dense = 0x32000000; /* 2^-27 */
    const uint32_t thin = 4096;
    uint32_t end;
    memcpy(&end, &last, sizeof end);
    struct tally tally = {0};
#pragma omp parallel for reduction(join : tally) schedule(dynamic, 4096)
    for (uint32_t vector = 0; vector < end / f32_LANES; vector++) {
        const uint32_t first = vector * f32_LANES;
        if (first >= dense || vector % thin == 0) {
            float x[f32_LANES];
            for (uint32_t i = 0; i < f32_LANES; i++) {
                const uint32_t bits = first + i;
                memcpy(&x[i], &bits, sizeof bits);
            }
            f32_check_both_signs(x, vector % stride == 0, &tally);
        }
    }
    return tally;
}

/* Doubles whose representations are `step` apart, the first at or just after `from`. */
static void check_from(double from, uint64_t step, bool compare, struct tally *tally) {
    double x[f64_LANES];
    for (uint64_t i = 0; i < f64_LANES; i++) {
        const uint64_t bits = bits_of(from) + i * step;
        memcpy(&x[i], &bits, sizeof bits);
    }
    f64_check_both_signs(x, compare, tally);
}

/* In every binade from 2^-60 up to 2048, arguments at random; and the neighbours of every n ln 2
 * and (n + 1/2) ln 2, where the reduced argument is smallest and where it is largest. */
static struct tally check_doubles(uint32_t stride) {
    enum { SMALLEST = -60, BINADES = 71, VECTORS = 8192, HALF_MULTIPLES = 5908 };
    struct tally tally = {0};
#pragma omp parallel for reduction(join : tally) schedule(dynamic, 64)
    for (uint32_t vector = 0; vector < BINADES * VECTORS; vector++) {
        const uint64_t random = mix(vector);
        const uint64_t step = random % (1 << 20);
        const double fraction = (double)(random >> 11) * 0x1p-53 * (1 - 0x1p-20);
        const double from = ldexp(1 + fraction, SMALLEST + (int)(vector / VECTORS));
        check_from(from, step, vector % stride == 0, &tally);
    }
#pragma omp parallel for reduction(join : tally) schedule(dynamic, 64)
    for (uint32_t n = 1; n <= HALF_MULTIPLES; n++) {
        const double from = n * (0x1.62e42fefa39efp-1 / 2) * (1 - 4 * 0x1p-53);
        check_from(from, 1, n % stride == 0, &tally);
    }
    return tally;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: exp_exhaustive f32|f64 STRIDE\n");
        return 2;
    }
    const uint32_t stride = (uint32_t)strtoul(arguments[2], NULL, 10);
    const bool single = strcmp(arguments[1], "f32") == 0;
    const struct tally tally = single ? check_floats(stride) : check_doubles(stride);
    const double compared = (double)tally.compared;
    printf("%" PRIu64 " %" PRIu64, tally.arguments, tally.compared);
    const struct error errors[] = {tally.kept, tally.added};
    for (int i = 0; i < 2; i++) {
        printf(" %.6f %.6f %.6f", errors[i].worst, errors[i].sum / compared, errors[i].part);
    }
    printf(" %016" PRIx64 "\n", tally.checksum);
    return 0;
}
