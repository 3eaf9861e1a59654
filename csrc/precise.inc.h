/* Sums of exponentials to twice double's precision, for the few rows that need it. Included once
 * per dtype after finish.inc.h; knows vectors and nothing else. */

#ifndef XENT_PRECISE_EXP
#    define XENT_PRECISE_EXP

/* 1 / k! for k < 14, and for k from 14 to 22, where double suffices. */
static const struct two INVERSE_FACTORIAL[] = {{0x1p+0, 0},
                                               {0x1p+0, 0},
                                               {0x1p-1, 0},
                                               {0x1.5555555555555p-3, 0x1.5555555555555p-57},
                                               {0x1.5555555555555p-5, 0x1.5555555555555p-59},
                                               {0x1.1111111111111p-7, 0x1.1111111111111p-63},
                                               {0x1.6c16c16c16c17p-10, -0x1.f49f49f49f49fp-65},
                                               {0x1.a01a01a01a01ap-13, 0x1.a01a01a01a01ap-73},
                                               {0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-76},
                                               {0x1.71de3a556c734p-19, -0x1.c154f8ddc6c00p-73},
                                               {0x1.27e4fb7789f5cp-22, 0x1.cbbc05b4fa99ap-76},
                                               {0x1.ae64567f544e4p-26, -0x1.c062e06d1f209p-80},
                                               {0x1.1eed8eff8d898p-29, -0x1.2aec959e14c06p-83},
                                               {0x1.6124613a86d09p-33, 0x1.f28e0cc748ebep-87}};
static const double LATER_INVERSE_FACTORIAL[] = {
    0x1.93974a8c07c9dp-37, 0x1.ae7f3e733b81fp-41, 0x1.ae7f3e733b81fp-45,
    0x1.952c77030ad4ap-49, 0x1.6827863b97d97p-53, 0x1.2f49b46814157p-57,
    0x1.e542ba4020225p-62, 0x1.71b8ef6dcf572p-66, 0x1.0ce396db7f853p-70};

/* ln 2 = f64_LN2_HIGH + f64_LN2_LOW + this */
static const double LN2_LOWEST = -0x1.ff0342542fc33p-94;

/* a + b, where |a| is the larger (Dekker 1971). */
XENT_INLINE struct pair add_smaller(struct pair a, struct pair b) {
    const vec high = f64_add(a.high, b.high);
    const vec lost = f64_sub(b.high, f64_sub(high, a.high));
    return (struct pair){high, f64_add(lost, f64_add(a.low, b.low))};
}

/* e^x for -700 < x < 700 by its Taylor series, with a relative error below 2^-100. */
XENT_INLINE struct pair exp_precisely(vec x) {
    const vec n = nearest(f64_mul(x, number(f64_LOG2_E)));
    const vec exact = f64_fnma(n, number(f64_LN2_HIGH), x);
    const struct pair ln2_low = {number(f64_LN2_LOW), number(LN2_LOWEST)};
    const struct pair low = multiply((struct pair){n, number(0)}, ln2_low, false);
    struct pair r = subtract(exact, low.high, false);
    r.low = f64_sub(r.low, low.low);

    enum {
        PRECISE = sizeof INVERSE_FACTORIAL / sizeof INVERSE_FACTORIAL[0],
        LATER = sizeof LATER_INVERSE_FACTORIAL / sizeof LATER_INVERSE_FACTORIAL[0]
    };
    struct pair sum = {number(LATER_INVERSE_FACTORIAL[LATER - 1]), number(0)};
    for (int k = LATER - 2; k >= 0; k--) {
        sum.high = f64_fma(sum.high, r.high, number(LATER_INVERSE_FACTORIAL[k]));
    }
    for (int k = PRECISE - 1; k >= 0; k--) {
        const struct two c = INVERSE_FACTORIAL[k];
        sum = add_smaller((struct pair){number(c.high), number(c.low)}, multiply(sum, r, false));
    }
    const vec scale = power_of_two(n);
    return (struct pair){f64_mul(sum.high, scale), f64_mul(sum.low, scale)};
}

#endif

static void V(sum_precisely)(const void *logits, size_t n, struct two *sum) {
    const REAL *const x = logits;
    struct pair sums = {number(0), number(0)};
    for (size_t i = 0; i < n; i += f64_LANES) {
        double lane[f64_LANES];
        for (size_t k = 0; k < f64_LANES; k++) {
            lane[k] = i + k < n ? (double)x[i + k] : -INFINITY;
        }
        const vec least = number(-700), exponent = f64_load(lane); /* e^-700 adds nothing to 1 */
        const struct pair before = sums;
        struct pair term = exp_precisely(f64_max(least, exponent));
        term.high = f64_less(least, exponent, term.high, number(0));
        term.low = f64_less(least, exponent, term.low, number(0));
        sums.high = f64_add(before.high, term.high);
        const vec back = f64_sub(sums.high, before.high);
        const vec lost =
            f64_add(f64_sub(before.high, f64_sub(sums.high, back)), f64_sub(term.high, back));
        sums.low = f64_add(before.low, f64_add(term.low, lost));
    }
    double high[f64_LANES], low[f64_LANES];
    f64_store(high, sums.high);
    f64_store(low, sums.low);
    for (size_t k = 0; k < f64_LANES; k++) {
        *sum = add_two(*sum, (struct two){high[k], low[k]});
    }
}
