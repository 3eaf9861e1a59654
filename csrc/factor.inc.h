/* What exponentials are multiplied by on their way out, in more than working precision. Included
 * once per dtype; knows vectors and nothing else. */

/* exps * (high + low) * post. */
struct V(factor) {
    V(vec) high, low, post;
};

XENT_INLINE struct V(factor) V(factor_of)(const struct xent_factor *factor) {
    return (struct V(factor)){V(set1)((REAL)factor->high), V(set1)((REAL)factor->low),
                              V(set1)((REAL)factor->post)};
}

XENT_INLINE V(vec) V(times)(V(vec) e, const struct V(factor) * factor) {
    return V(mul)(V(times_sum)(e, factor->high, factor->low), factor->post);
}

/* exps * (high + low) * post - offset */
XENT_INLINE V(vec) V(times_less)(V(vec) e, const struct V(factor) * factor, V(vec) offset) {
    return V(fms)(V(times_sum)(e, factor->high, factor->low), factor->post, offset);
}
