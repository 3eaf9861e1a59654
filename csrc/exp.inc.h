/* exp of a vector, scaled by a power of two. Included once per dtype after its constants; knows
 * vectors and nothing else. docs/design.md explains the reference. */

#ifndef XENT_TREATMENT
#    define XENT_TREATMENT

/* What is done to logits before exp: a constant of every loop. */
enum treatment {
    AS_IS,
    SUMMED,     /* as they are, and they are added up */
    SPREAD,     /* as they are, and what they are below the top is, times their terms */
    WEIGHED,    /* likewise, times labels or weights */
    SHIFTED,    /* shift is subtracted */
    MULTIPLIED, /* by scale */
    SCALED /* shift is subtracted, and what is left with its low parts is multiplied by scale */
};

#endif

/* What one block's exponentials are relative to. */
struct V(reference) {
    V(vec) shift;  /* subtracted from every logit, exactly */
    V(vec) lowest; /* logits (shifted) below it count as zero */
    V(vec) round;  /* ROUND plus what the low bits are for 1 * 2^headroom / 2^N */
    /* Where logits are multiplied: the scale, rounded; how many steps a logit of one takes; and
     * STEP_LOW, less what the scale lost of a step. */
    V(vec) scale, steps, step_low;
};

/* Whether the largest logit z is subtracted from all. */
XENT_INLINE bool V(is_shifted)(double z) { return z - z != 0 || fabs(z) >= (double)V(SHIFT_FROM); }

/* The numbers of a reference that go with a scale. */
XENT_INLINE void V(refer_scale)(struct V(reference) * ref, double scale) {
    const double step = 0x1.62e42fefa39efp-1 / V(STEPS);
    const REAL rounded = (REAL)scale;
    const double lost = (scale - (double)rounded) / scale;
    ref->scale = V(set1)(rounded);
    ref->steps = V(set1)((REAL)(scale / step));
    ref->step_low = V(set1)((REAL)((double)V(STEP_LOW) - step * lost));
}

/* The reference of a block whose largest class is m; `sum` gets it as numbers. */
XENT_INLINE struct V(reference) V(refer_to)(REAL m, double scale, struct xent_sum *sum) {
    const double z = (double)m * scale;
    const bool shifted = V(is_shifted)(z);
    /* All -inf: any reference will do; +inf: x - m makes the block NaN. */
    const REAL shift = m == -(REAL)INFINITY || !shifted ? 0 : m;
    const REAL exponent = shifted ? 0 : (REAL)rint(z * (double)V(LOG2_E));
    const REAL offset = V(AT_ONE) + V(HEADROOM) - exponent;
    sum->exponent = (double)exponent;
    sum->shift = (double)shift;
    struct V(reference) ref = {
        .shift = V(set1)(shift),
        .lowest =
            V(set1)((REAL)(((double)V(AT_ZERO) - (double)offset) * 0x1.62e42fefa39efp-1 / scale)),
        .round = V(set1)(V(ROUND) + V(STEPS) * offset),
    };
    V(refer_scale)(&ref, scale);
    return ref;
}

/* The argument of an exponential without its powers of two, r - correction. The two are kept apart,
 * because r is exact and their difference rounds. */
struct V(reduced) {
    V(vec) r, correction;
};

XENT_INLINE struct V(reduced) V(reduce_by)(V(vec) x, V(vec) n) {
    return (struct V(reduced)){.r = V(fnma)(n, V(set1)(V(STEP_HIGH)), x),
                               .correction = V(mul)(n, V(set1)(V(STEP_LOW)))};
}

/* (e^r - 1 - r) / r^2 */
XENT_INLINE V(vec) V(exp_series)(V(vec) r) {
    enum { TERMS = sizeof V(exp_poly) / sizeof(REAL) };
    V(vec) q = V(set1)(V(exp_poly)[TERMS - 1]);
#pragma GCC unroll 16
    for (int k = TERMS - 2; k >= 0; k--) {
        q = V(fma)(q, r, V(set1)(V(exp_poly)[k]));
    }
    return q;
}

/* The t of e^(r - correction) = 1 + r + t. */
XENT_INLINE V(vec) V(exp_tail)(const struct V(reduced) * x) {
    const V(vec) r = V(sub)(x->r, x->correction);
    return V(fms)(V(mul)(r, r), V(exp_series)(r), x->correction);
}
