/* Sums of exponentials that are near one, for the few rows whose logsumexp is near zero. Included
 * once per dtype after finish.inc.h; knows vectors and nothing else.
 *
 * What such a sum exceeds one by is found without the one: a logit near zero adds e^x - 1, however
 * small, and counts as a one. Two of them make a sum far from one; beside a single one, what is
 * added is known to twice double's precision relative to the largest logit, not to one. */

#ifndef XENT_PRECISE_EXP
#    define XENT_PRECISE_EXP

/* 1 / k! for k from 1 to 13, and for k from 14 to 22, where double suffices. */
static const struct two INVERSE_FACTORIAL[] = {{0x1p+0, 0},
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

/* e^x - one, where one is 1 if x is nearer to zero than to +-ln 2, else 0. */
struct precise_exp {
    struct pair beside;
    vec one;
};

/* By the Taylor series, with a relative error below 2^-100, and with headroom; for x from -800 to
 * 300. */
XENT_INLINE struct precise_exp exp_precisely(vec x) {
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
    const vec one = f64_less(magnitude(n), number(0.5), number(1), number(0));
    sum = add_smaller((struct pair){f64_sub(number(1), one), number(0)}, multiply(sum, r, false));
    const vec scale = power_of_two(f64_add(n, number(f64_HEADROOM)));
    const struct pair beside = {f64_mul(sum.high, scale), f64_mul(sum.low, scale)};
    return (struct precise_exp){beside, one};
}

/* Twice double's precision is kept in every step: in a mere sum of rounding errors it would wane.
 */
XENT_INLINE struct pair add_precisely(struct pair a, struct pair b) {
    const vec high = f64_add(a.high, b.high), back = f64_sub(high, a.high);
    const vec lost = f64_add(f64_sub(a.high, f64_sub(high, back)), f64_sub(b.high, back));
    return add_smaller((struct pair){high, number(0)},
                       (struct pair){f64_add(lost, f64_add(a.low, b.low)), number(0)});
}

/* The sum on its way, for each lane. */
struct precise_sum {
    struct pair beside;
    vec ones;
};

static const double LEAST = -800; /* e^-800 is nothing beside a subnormal */

XENT_INLINE void add_exp_precisely(struct precise_sum *sum, vec z) {
    const vec least = number(LEAST), zero = number(0);
    const struct precise_exp e = exp_precisely(f64_max(least, z));
    const struct pair beside = {f64_less(least, z, e.beside.high, zero),
                                f64_less(least, z, e.beside.low, zero)};
    sum->beside = add_precisely(sum->beside, beside);
    sum->ones = f64_add(sum->ones, e.one);
}

static void lse_near_zero(const double *z, size_t classes, double *lse) {
    _Static_assert((int)XENT_ROWS_AT_ONCE == (int)f64_LANES, "a vector has the rows of a class");
    struct precise_sum sum = {{number(0), number(0)}, number(0)};
    for (size_t k = 0; k < classes; k++) {
        add_exp_precisely(&sum, f64_load(z + k * f64_LANES));
    }
    f64_store(lse, logs_near_one(sum.ones, sum.beside));
}

#endif

static void V(sum_near_one)(const struct xent_logits *logits, size_t n, struct xent_near_one *sum) {
    const V(some) *const u = logits->u, *const lows = logits->low;
    struct precise_sum lanes = {{number(0), number(0)}, number(0)};
    for (size_t i = 0; i < n; i += f64_LANES) {
        double lane[f64_LANES];
        for (size_t k = 0; k < f64_LANES; k++) {
            const double x = i + k < n ? (double)u[i + k] : -INFINITY;
            lane[k] = logits->scale * (lows && i + k < n ? x + (double)lows[i + k] : x);
        }
        add_exp_precisely(&lanes, f64_load(lane));
    }
    double high[f64_LANES], low[f64_LANES], one[f64_LANES];
    f64_store(high, lanes.beside.high);
    f64_store(low, lanes.beside.low);
    f64_store(one, lanes.ones);
    for (size_t k = 0; k < f64_LANES; k++) {
        const struct two both = add_two(sum->beside, (struct two){high[k], low[k]});
        sum->beside = add_exactly(both.high, both.low);
        sum->ones += one[k];
    }
}
