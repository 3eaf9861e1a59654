/* Sums of exponentials that carry the rounding error of every addition. Included once per dtype
 * after exp.inc.h; knows vectors and nothing else. */

/* A running sum of exponentials: each addition's rounding error is carried in `low`. */
struct V(sum) {
    V(vec) high, low;
};

/* Adds exp(x) to the sum and returns it, rounded. The sum starts larger than any term, so that
 * what a term adds to `high` is known exactly (Dekker 1971); the rest goes to `low`. */
XENT_INLINE V(vec)
    V(accumulate)(struct V(sum) * sum, V(vec) x, const struct V(reference) * ref, bool shifted) {
    const struct V(exp) e = V(exp_parts)(x, ref, shifted);
    const V(vec) term = V(fma)(e.p, e.scale, e.scale);
    const V(vec) high = V(add)(sum->high, term);
    const V(vec) added = V(sub)(high, sum->high);
    sum->low = V(add)(sum->low, V(fma)(e.p, e.scale, V(sub)(e.scale, added)));
    sum->high = high;
    return term;
}

/* Adds the lanes of two sums that started at `start`, in a fixed order, without the headroom. */
XENT_INLINE void V(total)(const struct V(sum) * a, const struct V(sum) * b, double start,
                          struct xent_sum *result) {
    REAL high[2][V(LANES)], low[2][V(LANES)];
    struct two lane[V(LANES)];
    V(store)(high[0], a->high);
    V(store)(high[1], b->high);
    V(store)(low[0], a->low);
    V(store)(low[1], b->low);
    for (int i = 0; i < V(LANES); i++) {
        lane[i] = add_exactly((double)high[0][i] - start, (double)high[1][i] - start);
        lane[i].low += (double)low[0][i] + (double)low[1][i];
    }
    for (int half = V(LANES) / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] = add_two(lane[i], lane[i + half]);
        }
    }
    const double unit = 1 / V(ONE_WITH_HEADROOM);
    result->sum = (lane[0].high + lane[0].low) * unit;
    result->low = (lane[0].high * unit - result->sum) + lane[0].low * unit;
}
