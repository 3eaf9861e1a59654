/* In place of csrc/sum.inc.h: the usual sum of exp(x - m), where what the additions round away is
 * lost. bench/cost_of_care.py measures what the other costs against it. */

struct V(sum) {
    V(vec) high, low; /* the first stays as it starts, the sum is the second */
};

XENT_INLINE V(vec)
    V(accumulate)(struct V(sum) * sum, V(vec) x, const struct V(reference) * ref, bool shifted) {
    (void)shifted; /* always */
    x = V(max)(ref->lowest, V(sub)(x, ref->shift));
    const V(vec) y = V(fma)(x, V(set1)(V(LOG2_E)), ref->round);
    const V(vec) n = V(sub)(y, ref->round);
    V(vec) r = V(fnma)(n, V(set1)(V(LN2_HIGH)), x);
    r = V(fnma)(n, V(set1)(V(LN2_LOW)), r);

    enum { TERMS = sizeof V(exp_poly) / sizeof(REAL) };
    V(vec) q = V(set1)(V(exp_poly)[TERMS - 1]);
#pragma GCC unroll 16
    for (int k = TERMS - 2; k >= 0; k--) {
        q = V(fma)(q, r, V(set1)(V(exp_poly)[k]));
    }
    q = V(fma)(V(fma)(q, r, V(set1)(1)), r, V(set1)(1));
    const V(vec) term = V(mul)(q, V(to_exponent)(y));
    sum->low = V(add)(sum->low, term);
    return term;
}

XENT_INLINE void V(total)(const struct V(sum) * a, const struct V(sum) * b, double start,
                          struct xent_sum *result) {
    (void)start;
    REAL lane[V(LANES)];
    V(store)(lane, V(add)(a->low, b->low));
    double sum = 0;
    for (int i = 0; i < V(LANES); i++) {
        sum += (double)lane[i];
    }
    result->sum = sum / V(ONE_WITH_HEADROOM);
    result->low = 0;
}
