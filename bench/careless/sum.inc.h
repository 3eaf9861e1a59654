/* In place of csrc/sum.inc.h: the usual sum of exp(x - m), where what the additions round away is
 * lost. bench/cost_of_care.py measures what the other costs against it. */

struct V(exp) {
    V(vec) value;
};

struct V(steps) {
    V(vec) y, n, r;
};

XENT_INLINE struct V(steps)
    V(steps_of)(V(vec) x, V(vec) low, const struct V(reference) * ref, enum treatment treatment) {
    (void)low, (void)treatment; /* always SHIFTED */
    x = V(sub)(x, ref->shift);
    x = V(ZEROES) ? x : V(max)(ref->lowest, x);
    const V(vec) y = V(fma)(x, V(set1)(V(STEPS) * V(LOG2_E)), ref->round);
    const V(vec) n = V(sub)(y, ref->round);
    const V(vec) r = V(fnma)(n, V(set1)(V(STEP_HIGH)), x);
    return (struct V(steps)){y, n, V(fnma)(n, V(set1)(V(STEP_LOW)), r)};
}

XENT_INLINE struct V(exp) V(exp_of)(struct V(steps) x) {
    const V(vec) p = V(fma)(V(mul)(x.r, x.r), V(exp_series)(x.r), x.r), scale = V(step)(x.y);
    return (struct V(exp)){V(fma)(V(if_any)(x.y, p), scale, scale)};
}

XENT_INLINE struct V(exp)
    V(exp_parts)(V(vec) x, V(vec) low, const struct V(reference) * ref, enum treatment treatment) {
    return V(exp_of)(V(steps_of)(x, low, ref, treatment));
}

struct V(sum) {
    V(vec) high, low; /* the first stays as it starts, the sum is the second */
};

XENT_INLINE struct V(sum) V(no_sum)(void) {
    return (struct V(sum)){V(set1)((REAL)V(START)), V(set1)(0)};
}

XENT_INLINE V(vec) V(term)(struct V(exp) e) { return e.value; }

XENT_INLINE V(vec) V(add_exp)(struct V(sum) * sum, struct V(exp) e) {
    sum->low = V(add)(sum->low, e.value);
    return e.value;
}

enum { V(BY_FOURS) = 0 };

XENT_INLINE V(vec) V(add_scale)(struct V(sum) * sum, struct V(exp) e) {
    (void)sum; /* never called */
    return e.value;
}

XENT_INLINE void V(settle)(struct V(sum) * sum) { (void)sum; }

XENT_INLINE void V(total)(const struct V(sum) * sum, double start, struct xent_sum *result) {
    (void)start;
    REAL lane[V(LANES)];
    V(store)(lane, sum->low);
    double total = 0;
    for (int i = 0; i < V(LANES); i++) {
        total += (double)lane[i];
    }
    result->sum = total / V(ONE_WITH_HEADROOM);
    result->low = 0;
}
