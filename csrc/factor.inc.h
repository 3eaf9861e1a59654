/* What exponentials are multiplied by on their way out, in more than working precision. Included
 * once per dtype; knows vectors and nothing else. */

/* exps * (high + low). */
struct V(factor) {
    V(vec) high, low;
};

XENT_INLINE struct V(factor) V(factor_of)(const struct xent_factor *factor) {
    return (struct V(factor)){V(set1)((REAL)factor->high), V(set1)((REAL)factor->low)};
}

XENT_INLINE V(vec) V(times)(V(vec) e, const struct V(factor) * factor) {
    return V(times_sum)(e, factor->high, factor->low);
}
