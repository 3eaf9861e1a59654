/* What options ask of classes beyond their exponentials. Included once per dtype after load.inc.h;
 * knows nothing of which option it is. */

static void V(multiply)(void *x, size_t n, const void *by) {
    REAL *const to = x;
    const REAL *const factors = by;
    for (size_t i = 0; i < n; i++) {
        to[i] *= factors[i];
    }
}

static void V(mark)(void *exps, size_t n, const void *logits) {
    REAL *const e = exps;
    const V(some) *const u = logits;
    for (size_t i = 0; i < n; i++) {
        e[i] = u[i] == -(REAL)INFINITY ? -1 : e[i];
    }
}

/* What V(adjust) works with, as vectors. */
struct V(adjustment) {
    const REAL *labels, *weights, *slopes;
    V(vec) by_labels, by_weights;
};

/* Large numbers get the unit before and small ones after the slope: nothing overflows, nor loses
 * digits that the result has. */
XENT_INLINE V(vec) V(times_slope)(V(vec) x, V(vec) slope) {
    const V(vec) one = V(set1)(1), unit = V(set1)((REAL)XENT_SLOPE_UNIT);
    const V(vec) size = V(max)(V(sub)(V(set1)(0), x), x);
    const V(vec) before = V(less)(size, one, one, unit), after = V(less)(size, one, unit, one);
    return V(mul)(V(mul)(V(mul)(x, before), slope), after);
}

XENT_INLINE V(vec) V(adjust)(V(vec) term, const struct V(factor) * factor,
                             const struct V(adjustment) * by, size_t i, size_t lanes) {
    const V(vec) zero = V(set1)(0);
    V(vec) offset = by->by_weights;
    if (by->weights) {
        offset = V(mul)(offset, V(load_part)(by->weights, i, lanes));
    }
    offset = V(less)(term, zero, zero, offset);
    if (by->labels) {
        offset = V(fma)(V(load_part)(by->labels, i, lanes), by->by_labels, offset);
    }
    const V(vec) x = V(times_less)(V(max)(zero, term), factor, offset);
    return by->slopes ? V(times_slope)(x, V(load_part)(by->slopes, i, lanes)) : x;
}

static void V(emit_adjusted)(const struct xent_emission *emission, const struct xent_adjustment *by,
                             size_t n) {
    const REAL *const exps = emission->exps;
    REAL *const out = emission->out;
    const struct V(factor) factor = V(factor_of)(&emission->factor);
    const struct V(adjustment) adjustment = {
        .labels = by->labels,
        .weights = by->weights,
        .slopes = by->slopes,
        .by_labels = V(set1)((REAL)by->by_labels),
        .by_weights = V(set1)((REAL)by->by_weights),
    };
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(adjust)(V(load)(exps + i), &factor, &adjustment, i, V(LANES)));
    }
    if (i < n) {
        const V(vec) term = V(load_part)(exps, i, n - i);
        V(store_first)(out + i, n - i, V(adjust)(term, &factor, &adjustment, i, n - i));
    }
}

/* e * slopes * vector of eight classes. */
XENT_INLINE vec V(product_lanes)(const REAL *exps, const REAL *slopes, const REAL *vector) {
    const double unit = 1 / V(ONE_WITH_HEADROOM);
    const vec e = f64_mul(f64_max(number(0), V(widen)(exps)), number(unit));
    const vec u = V(widen)(vector);
    return f64_mul(e, slopes ? f64_mul(f64_mul(V(widen)(slopes), number(XENT_SLOPE_UNIT)), u) : u);
}

static double V(dot)(const void *exps, size_t n, size_t skip, const void *slopes,
                     const void *vector) {
    const REAL *const e = exps, *const s = slopes, *const u = vector;
    struct V(carried) sum = {number(0), number(0)};
    for (size_t i = 0; i < n; i += f64_LANES) {
        const size_t lanes = n - i < f64_LANES ? n - i : f64_LANES;
        if (lanes == f64_LANES && skip - i >= f64_LANES) {
            V(carry)(&sum, V(product_lanes)(e + i, s ? s + i : NULL, u + i));
            continue;
        }
        REAL part[3][f64_LANES] = {{0}};
        for (size_t k = 0; k < lanes; k++) {
            const bool counts = i + k != skip;
            part[0][k] = counts ? e[i + k] : 0;
            part[1][k] = counts && s ? s[i + k] : 0;
            part[2][k] = counts ? u[i + k] : 0;
        }
        V(carry)(&sum, V(product_lanes)(part[0], s ? part[1] : NULL, part[2]));
    }
    return V(carried_total)(&sum);
}

/* The numbers of a block's bend, as vectors. */
struct V(bend) {
    struct V(factor) shares, by, square;
    V(vec) floor, by_tanh, mean;
};

/* See struct xent_bend; what it has not is NULL. */
XENT_INLINE V(vec) V(bend_lanes)(const struct xent_bend *bend, const struct V(bend) * numbers,
                                 size_t i, size_t lanes) {
    const REAL *const slopes = bend->slopes, *const gradient = bend->gradient;
    const REAL *const tanh = bend->tanh, *const vector = bend->vector;
    const V(vec) zero = V(set1)(0), one = V(set1)(1);
    const V(vec) e = V(max)(zero, V(load_part)(bend->exps, i, lanes));
    const V(vec) unit = V(set1)((REAL)XENT_SLOPE_UNIT);
    const V(vec) slope = slopes ? V(mul)(V(load_part)(slopes, i, lanes), unit) : one;
    const V(vec) u = vector ? V(load_part)(vector, i, lanes) : one;
    const V(vec) q = V(times)(e, &numbers->shares);
    V(vec) at = vector ? V(sub)(V(mul)(slope, u), numbers->mean) : V(sub)(one, q);
    V(vec) x = V(mul)(V(times)(e, &numbers->by), at);
    if (bend->squares) {
        x = V(fma)(V(times)(e, &numbers->square), vector ? numbers->mean : q, x);
    }
    x = V(mul)(x, slope);
    x = vector ? x : V(mul)(x, slope);
    if (gradient) {
        const V(vec) t = V(load_part)(tanh, i, lanes);
        /* Beyond one there is nothing but infinities, of which the gradient is zero or no number.
         */
        const V(vec) finite = V(max)(V(set1)(-1), V(less)(one, t, one, t));
        const V(vec) g = V(mul)(V(load_part)(gradient, i, lanes), numbers->by_tanh);
        x = V(fma)(V(mul)(g, finite), u, x);
    }
    return V(max)(numbers->floor, x);
}

static void V(bend)(const struct xent_bend *bend, size_t n) {
    const struct V(bend) numbers = {
        V(factor_of)(&bend->shares), V(factor_of)(&bend->by),      V(factor_of)(&bend->square),
        V(set1)((REAL)bend->floor),  V(set1)((REAL)bend->by_tanh), V(set1)((REAL)bend->mean),
    };
    for (size_t i = 0; i < n; i += V(LANES)) {
        const size_t lanes = n - i < V(LANES) ? n - i : V(LANES);
        V(store_first)((REAL *)bend->out + i, lanes, V(bend_lanes)(bend, &numbers, i, lanes));
    }
}
