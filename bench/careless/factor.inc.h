/* In place of csrc/factor.inc.h: a factor of working precision. */

struct V(factor) {
    V(vec) high, low, post; /* there is no use for the second */
};

XENT_INLINE struct V(factor) V(factor_of)(const struct xent_factor *factor) {
    return (struct V(factor)){V(set1)((REAL)factor->high), V(set1)(0), V(set1)((REAL)factor->post)};
}

XENT_INLINE V(vec) V(times)(V(vec) e, const struct V(factor) * factor) {
    return V(mul)(e, V(mul)(factor->high, factor->post)); /* the second once for a loop */
}

XENT_INLINE V(vec) V(times_less)(V(vec) e, const struct V(factor) * factor, V(vec) offset) {
    return V(sub)(V(times)(e, factor), offset);
}
