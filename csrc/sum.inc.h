/* Sums of exponentials that carry the rounding error of every addition. Included once per dtype
 * after exp.inc.h; knows vectors and nothing else. */

/* exp of x, scaled by the reference, as scale * (1 + p): scale is exact and p is small, so that the
 * sum can have more of the exponential than a REAL holds. */
struct V(exp) {
    V(vec) scale, p;
};

/* x * y - z of numbers of which the difference is small, rounded once. */
XENT_INLINE V(vec) V(product_less)(V(vec) x, V(vec) y, V(vec) z) {
    if (XENT_FUSED) {
        return V(fms)(x, y, z);
    }
    const V(vec) product = V(mul)(x, y);
    return V(add)(V(sub)(product, z), V(product_error)(x, y, product));
}

/* What n steps leave of x, or of its multiple. */
XENT_INLINE V(vec) V(without_steps)(V(vec) x, V(vec) low, V(vec) n, const struct V(reference) * ref,
                                    enum treatment treatment) {
    const V(vec) step_high = V(set1)(V(STEP_HIGH)), step_low = V(set1)(V(STEP_LOW));
    if (treatment != MULTIPLIED && treatment != SCALED) {
        return V(fnma)(n, step_low, V(fnma)(n, step_high, x)); /* the inner one is exact */
    }
    V(vec) r = V(product_less)(x, ref->scale, V(mul)(n, step_high));
    r = treatment == SCALED ? V(fma)(low, ref->scale, r) : r;
    return V(fnma)(n, ref->step_low, r);
}

/* A logit, or its multiple, as n steps and what is left, r. The low bits of y are the number of
 * steps; step makes zero of that where the logit is at `lowest` or below. There, where ZEROES, r is
 * anything. */
struct V(steps) {
    V(vec) y, n, r;
};

/* A sum of logits needs what is really left, also below `lowest`: then r is larger than all others
 * together, unless it is so near that it does not matter. */
XENT_INLINE struct V(steps)
    V(steps_of)(V(vec) x, V(vec) low, const struct V(reference) * ref, enum treatment treatment) {
    const bool shifts = treatment == SHIFTED || treatment == SCALED;
    const bool multiplies = treatment == MULTIPLIED || treatment == SCALED;
    const V(vec) steps = multiplies ? ref->steps : V(set1)(V(STEPS) * V(LOG2_E));
    x = shifts ? V(sub)(x, ref->shift) : x;
    const bool holds = !V(ZEROES) || treatment == SUMMED;
    const V(vec) held = holds ? V(max)(ref->lowest, x) : x; /* keeps a NaN */
    const V(vec) y = V(fma)(held, steps, ref->round), n = V(sub)(y, ref->round);
    const V(vec) from = treatment == SUMMED ? x : held;
    return (struct V(steps)){y, n, V(without_steps)(from, low, n, ref, treatment)};
}

XENT_INLINE struct V(exp) V(exp_of)(struct V(steps) x) {
    const V(vec) p = V(fma)(V(mul)(x.r, x.r), V(exp_series)(x.r), x.r);
    return (struct V(exp)){V(step)(x.y), V(if_any)(x.y, p)};
}

XENT_INLINE struct V(exp)
    V(exp_parts)(V(vec) x, V(vec) low, const struct V(reference) * ref, enum treatment treatment) {
    return V(exp_of)(V(steps_of)(x, low, ref, treatment));
}

/* A running sum of exponentials: each addition's rounding error is carried in `low`.
 *
 * A term leaves half a unit of `high` to `low` at most. Of float, with M the largest exponential
 * and a sum that starts at 2 M, that is 2^-23 M where a lane stays small. A lane has 256 terms of a
 * block, each added with an error of 2^-24 of the `low` before it: 2^-32 M, or 2^-28 M for 16
 * lanes. Terms that are added by fours leave more: see V(add_scale).
 */
struct V(sum) {
    V(vec) high, low;
};

XENT_INLINE struct V(sum) V(no_sum)(void) {
    return (struct V(sum)){V(set1)((REAL)V(START)), V(set1)(0)};
}

/* The exponential, rounded. */
XENT_INLINE V(vec) V(term)(struct V(exp) e) { return V(fma)(e.p, e.scale, e.scale); }

/* Adds an exponential to the sum and returns it, rounded. The sum starts larger than any term, so
 * that what a term adds to `high` is known exactly (Dekker 1971); the rest goes to `low`. */
XENT_INLINE V(vec) V(add_exp)(struct V(sum) * sum, struct V(exp) e) {
    const V(vec) term = V(term)(e);
    const V(vec) high = V(add)(sum->high, term);
    const V(vec) added = V(sub)(high, sum->high);
    const V(vec) rest = V(fma)(e.p, e.scale, V(sub)(e.scale, added)); /* the difference is exact */
    sum->low = V(add)(sum->low, rest);
    sum->high = high;
    return term;
}

/* Whether exponentials are added by fours, an operation less each. Then the sum is settled after
 * each XENT_PEAK vectors. */
enum { V(BY_FOURS) = V(STEPS) > 1 && XENT_FUSED };

/* Adds the scale of an exponential to `high` and returns the rest, scale * p and what `high` has no
 * room for. The rests of four vectors are added up, then that to `low`, from one settling to the
 * next: any is rounded seven times at the most. Of float, where |p| < 0.0443 * (1 + p), that is an
 * error of 7 * 0.0443 * 2^-24 of the exponentials, or 0.31 * 2^-24; docs/accuracy.md adds it up. */
XENT_INLINE V(vec) V(add_scale)(struct V(sum) * sum, struct V(exp) e) {
    const V(vec) high = V(add)(sum->high, e.scale);
    const V(vec) added = V(sub)(high, sum->high);
    sum->high = high;
    return V(fma)(e.p, e.scale, V(sub)(e.scale, added));
}

/* Moves to `high` what it has room for. */
XENT_INLINE void V(settle)(struct V(sum) * sum) {
    const V(vec) high = V(add)(sum->high, sum->low);
    sum->low = V(sub)(sum->low, V(sub)(high, sum->high));
    sum->high = high;
}

/* Adds the lanes of a sum that started at `start`, in a fixed order, without the headroom: of
 * floats as doubles, which lose next to nothing. */
XENT_INLINE double V(total_of_floats)(const REAL *high, const REAL *low, double start) {
    f64_vec sum = f64_set1(0);
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        const f64_vec lane = f64_sub(V(widen)(high + i), f64_set1(start));
        sum = f64_add(sum, f64_add(lane, V(widen)(low + i)));
    }
    return sum_of_lanes(sum);
}

/* The same of doubles, as an unevaluated sum. */
XENT_INLINE struct two V(total_of_doubles)(const REAL *highs, const REAL *lows, double start) {
    double high[V(LANES)], low[V(LANES)];
    for (int i = 0; i < V(LANES); i++) {
        high[i] = (double)highs[i] - start;
        low[i] = (double)lows[i];
    }
#pragma GCC unroll 4
    for (int half = V(LANES) / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            const struct two two = add_exactly(high[i], high[i + half]);
            high[i] = two.high;
            low[i] += low[i + half] + two.low;
        }
    }
    return (struct two){high[0], low[0]};
}

XENT_INLINE void V(total)(const struct V(sum) * sum, double start, struct xent_sum *result) {
    const double unit = 1 / V(ONE_WITH_HEADROOM);
    REAL high[V(LANES)], low[V(LANES)];
    V(store)(high, sum->high);
    V(store)(low, sum->low);
    if (sizeof(REAL) == sizeof(float)) {
        result->sum = V(total_of_floats)(high, low, start) * unit;
        result->low = 0;
        return;
    }
    const struct two all = V(total_of_doubles)(high, low, start);
    result->sum = (all.high + all.low) * unit;
    result->low = (all.high * unit - result->sum) + all.low * unit;
}
