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
    const REAL *const u = logits;
    for (size_t i = 0; i < n; i++) {
        e[i] = u[i] == -(REAL)INFINITY ? -1 : e[i];
    }
}

/* A sum that carries its rounding errors where the logits are double. */
struct V(carried) {
    vec high, low;
};

XENT_INLINE void V(carry)(struct V(carried) * sum, vec x) {
    const vec high = f64_add(sum->high, x);
    if (sizeof(REAL) == sizeof(double)) {
        const vec back = f64_sub(high, sum->high);
        const vec lost = f64_add(f64_sub(sum->high, f64_sub(high, back)), f64_sub(x, back));
        sum->low = f64_add(sum->low, is_number_else(lost, number(0)));
    }
    sum->high = high;
}

XENT_INLINE double V(carried_total)(const struct V(carried) * sum) {
    double high[f64_LANES], low[f64_LANES];
    f64_store(high, sum->high);
    f64_store(low, sum->low);
    struct two total = {0, 0};
    double plain = 0; /* what an infinity leaves of the errors is NaN */
    for (size_t k = 0; k < f64_LANES; k++) {
        total = add_two(total, (struct two){high[k], low[k]});
        plain += high[k];
    }
    return plain - plain == 0 ? total.high + total.low : plain;
}

/* The running sums of a block. */
struct V(spreading) {
    struct V(carried) mass, spread, count;
};

XENT_INLINE void V(spread_lanes)(struct V(spreading) * sums, const REAL *u, const REAL *low,
                                 const REAL *labels, const REAL *weights, vec top) {
    const vec zero = number(0), one = number(1), infinity = number(INFINITY);
    const vec x = V(widen)(u);
    const vec below = low ? f64_sub(f64_sub(top, x), V(widen)(low)) : f64_sub(top, x);
    const vec present = f64_less(negative(infinity), x, one, zero); /* nor does a NaN count */
    vec c = weights ? V(widen)(weights) : one;
    c = labels ? f64_mul(V(widen)(labels), c) : f64_less(zero, present, c, zero);
    /* Zero times infinity is zero here. */
    const vec term = f64_less(zero, magnitude(c), f64_mul(c, below), zero);
    V(carry)(&sums->mass, c);
    V(carry)(&sums->spread, term);
    V(carry)(&sums->count, present);
}

/* Every case, class by class of those that V(spread_quickly) leaves. */
static void V(spread_any)(const struct xent_logits *logits, size_t n, size_t skip, double top,
                          const void *labels, const void *weights, struct xent_spread *result) {
    const REAL *const u = logits->u, *const low = logits->low;
    const REAL *const t = labels, *const w = weights;
    const vec zero = number(0), finite_top = number(top == -INFINITY ? 0 : top);
    struct V(spreading) sums = {{zero, zero}, {zero, zero}, {zero, zero}};
    for (size_t i = 0; i < n; i += f64_LANES) {
        const size_t lanes = n - i < f64_LANES ? n - i : f64_LANES;
        if (lanes == f64_LANES && skip - i >= f64_LANES) {
            V(spread_lanes)(&sums, u + i, low ? low + i : NULL, t ? t + i : NULL, w ? w + i : NULL,
                            finite_top);
            continue;
        }
        REAL part[4][f64_LANES] = {{0}}; /* no labels, no weights */
        for (size_t k = 0; k < f64_LANES; k++) {
            const bool counts = k < lanes && i + k != skip;
            part[0][k] = counts ? u[i + k] : -(REAL)INFINITY;
            part[1][k] = counts && low ? low[i + k] : 0;
            part[2][k] = counts && t ? t[i + k] : 0;
            part[3][k] = counts && w ? w[i + k] : 1;
        }
        V(spread_lanes)(&sums, part[0], part[1], t ? part[2] : NULL, part[3], finite_top);
    }
    result->mass = V(carried_total)(&sums.mass);
    result->spread = V(carried_total)(&sums.spread);
    result->count = V(carried_total)(&sums.count);
}

/* What V(spread_quickly) adds up: two sums of each, so that an addition does not wait for the last.
 * Named members, because gcc 12 keeps a struct that holds an array of vectors in memory. */
struct V(quick) {
    struct V(carried) mass0, spread0, mass1, spread1;
};

/* Coefficients, of which either may be NULL: ones. That is a constant of every loop. */
struct V(quick_from) {
    const REAL *u, *labels, *weights;
    vec top;
};

/* Adds a number that is not negative. Of one that is larger than the sum (Dekker 1971), half a unit
 * of its own last place may be lost. */
XENT_INLINE struct V(carried) V(add_to)(struct V(carried) sum, vec x) {
    const vec high = f64_add(sum.high, x);
    if (sizeof(REAL) == sizeof(double)) {
        sum.low = f64_add(sum.low, f64_sub(x, f64_sub(high, sum.high)));
    }
    sum.high = high;
    return sum;
}

/* Without coefficients the sum of floats is that of the logits themselves, in double: additions are
 * exact unless a logit is less than 2^-17 of another in size, and then the spread is no less than
 * that other one, of which 2^-36 are lost. */
enum { V(SUMS_LOGITS) = sizeof(REAL) == sizeof(float) };

/* One vector of classes; `others` is negative at a class that is left out. */
XENT_INLINE void V(quick_lanes)(struct V(carried) * mass, struct V(carried) * spread,
                                const struct V(quick_from) * from, size_t i, vec others,
                                bool masks) {
    const vec zero = number(0), x = V(widen)(from->u + i);
    vec below = f64_sub(from->top, x);
    if (!from->labels && !from->weights) {
        below = V(SUMS_LOGITS) ? x : below;
        below = masks ? f64_less(others, zero, zero, below) : below;
        *spread = V(add_to)(*spread, below);
        return;
    }
    vec c = V(widen)((from->labels ? from->labels : from->weights) + i);
    c = from->labels && from->weights ? f64_mul(c, V(widen)(from->weights + i)) : c;
    c = masks ? f64_less(others, zero, zero, c) : c;
    below = masks ? f64_less(others, zero, zero, below) : below;
    *mass = V(add_to)(*mass, c);
    if (sizeof(REAL) == sizeof(float)) {
        spread->high = f64_fma(c, below, spread->high);
    } else {
        *spread = V(add_to)(*spread, f64_mul(c, below));
    }
}

enum { V(QUICK) = 2 * f64_LANES };

XENT_INLINE struct V(quick) V(quick_span)(struct V(quick) sums, const struct V(quick_from) * from,
                                          size_t begin, size_t end) {
    const vec all = number(1);
    for (size_t i = begin; i < end; i += V(QUICK)) {
        if (from->labels) {
            __builtin_prefetch(from->labels + i + V(AHEAD), 0, 2);
        }
        V(quick_lanes)(&sums.mass0, &sums.spread0, from, i, all, false);
        V(quick_lanes)(&sums.mass1, &sums.spread1, from, i + f64_LANES, all, false);
    }
    return sums;
}

/* V(QUICK) classes, of which those are left out where `others` is negative. */
XENT_INLINE struct V(quick) V(quick_part)(struct V(quick) sums, const struct V(quick_from) * from,
                                          size_t i, const double *others) {
    const vec first = f64_load(others), second = f64_load(others + f64_LANES);
    V(quick_lanes)(&sums.mass0, &sums.spread0, from, i, first, true);
    V(quick_lanes)(&sums.mass1, &sums.spread1, from, i + f64_LANES, second, true);
    return sums;
}

/* What is left from i on. */
XENT_INLINE struct V(quick) V(quick_tail)(struct V(quick) sums, const struct V(quick_from) * from,
                                          size_t i, size_t n, size_t skip) {
    REAL u[V(QUICK)] = {0}, labels[V(QUICK)] = {0}, weights[V(QUICK)] = {0};
    double others[V(QUICK)];
    const size_t size = (n - i) * sizeof(REAL);
    memcpy(u, from->u + i, size);
    memcpy(labels, (from->labels ? from->labels : from->u) + i, size);
    memcpy(weights, (from->weights ? from->weights : from->u) + i, size);
    for (size_t k = 0; k < V(QUICK); k++) {
        others[k] = i + k < n && i + k != skip ? 1 : -1;
    }
    const struct V(quick_from)
        part = {u, from->labels ? labels : NULL, from->weights ? weights : NULL, from->top};
    return V(quick_part)(sums, &part, 0, others);
}

XENT_INLINE struct two V(quick_total)(struct V(carried) a, struct V(carried) b) {
    double high[V(QUICK)], low[f64_LANES];
    f64_store(high, a.high);
    f64_store(high + f64_LANES, b.high);
    struct two total = {0, 0};
    if (sizeof(REAL) == sizeof(double)) {
        f64_store(low, f64_add(a.low, b.low));
    }
    for (size_t half = V(QUICK) / 2; half > 0; half /= 2) {
        for (size_t k = 0; k < half; k++) {
            if (sizeof(REAL) == sizeof(double)) {
                const struct two sum = add_exactly(high[k], high[k + half]);
                high[k] = sum.high;
                low[k] = low[k] + (half < f64_LANES ? low[k + half] : 0) + sum.low;
            } else {
                high[k] += high[k + half];
            }
        }
    }
    total.high = high[0];
    total.low = sizeof(REAL) == sizeof(double) ? low[0] : 0;
    return total;
}

XENT_INLINE bool V(quick_as)(const struct V(quick_from) * from, size_t n, size_t skip, double top,
                             struct xent_spread *result) {
    /* from V(QUICK) - 1 - k on it masks the k-th */
    static const double one_out[2 * V(QUICK) - 1] = {1, 1, 1, 1, 1,  1, 1, 1, 1, 1, 1,
                                                     1, 1, 1, 1, -1, 1, 1, 1, 1, 1, 1,
                                                     1, 1, 1, 1, 1,  1, 1, 1, 1};
    const struct V(carried) none = {number(0), number(0)};
    struct V(quick) sums = {none, none, none, none};
    const size_t whole = n / V(QUICK) * V(QUICK);
    const size_t before = skip < whole ? skip / V(QUICK) * V(QUICK) : whole;
    sums = V(quick_span)(sums, from, 0, before);
    if (before < whole) {
        sums = V(quick_part)(sums, from, before, one_out + V(QUICK) - 1 - (skip - before));
        sums = V(quick_span)(sums, from, before + V(QUICK), whole);
    }
    if (whole < n) {
        sums = V(quick_tail)(sums, from, whole, n, skip);
    }
    const double count = (double)(skip < n ? n - 1 : n);
    struct two spread = V(quick_total)(sums.spread0, sums.spread1), mass = {count, 0};
    if (from->labels || from->weights) {
        mass = V(quick_total)(sums.mass0, sums.mass1);
    } else if (V(SUMS_LOGITS)) {
        spread.high = count * top - spread.high;
    }
    result->count = count;
    result->mass = mass.high + mass.low;
    result->spread = spread.high + spread.low;
    return result->spread - result->spread == 0 && result->mass - result->mass == 0;
}

/* Where nothing is masked and all is finite, with few operations; else it says no. */
static bool V(spread_quickly)(const struct xent_logits *logits, size_t n, size_t skip, double top,
                              const void *labels, const void *weights, struct xent_spread *result) {
    const struct V(quick_from) by_labels = {logits->u, labels, NULL, number(top)};
    const struct V(quick_from) by_weights = {logits->u, NULL, weights, number(top)};
    const struct V(quick_from) by_both = {logits->u, labels, weights, number(top)};
    const struct V(quick_from) by_none = {logits->u, NULL, NULL, number(top)};
    if (labels) {
        return weights ? V(quick_as)(&by_both, n, skip, top, result)
                       : V(quick_as)(&by_labels, n, skip, top, result);
    }
    return weights ? V(quick_as)(&by_weights, n, skip, top, result)
                   : V(quick_as)(&by_none, n, skip, top, result);
}

static void V(spread)(const struct xent_logits *logits, size_t n, size_t skip, double top,
                      const void *labels, const void *weights, struct xent_spread *result) {
    if (logits->low || !V(spread_quickly)(logits, n, skip, top, labels, weights, result)) {
        V(spread_any)(logits, n, skip, top, labels, weights, result);
    }
}

/* What V(adjust) works with, as vectors. */
struct V(adjustment) {
    const REAL *labels, *weights, *slopes;
    V(vec) by_labels, by_weights;
};

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
    if (!by->slopes) {
        return x;
    }
    /* Large numbers get the unit before and small ones after the slope: nothing overflows, nor
     * loses digits that the result has. */
    const V(vec) one = V(set1)(1), unit = V(set1)((REAL)XENT_SLOPE_UNIT);
    const V(vec) size = V(max)(V(sub)(zero, x), x);
    const V(vec) before = V(less)(size, one, one, unit), after = V(less)(size, one, unit, one);
    return V(mul)(V(mul)(V(mul)(x, before), V(load_part)(by->slopes, i, lanes)), after);
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

/* What spread_terms works with; the last two where logits are scaled. */
struct V(spread_from) {
    const REAL *e, *u, *low;
    V(vec) top, scale;
};

/* `lanes` terms from i on, subtracted from the sum. Whether logits are scaled is a constant of the
 * loop. */
XENT_INLINE V(vec) V(spread_vector)(V(vec) sum, const struct V(spread_from) * from, size_t i,
                                    size_t lanes, bool scaled) {
    const V(vec) e = V(load_part)(from->e, i, lanes), u = V(load_part)(from->u, i, lanes);
    V(vec) d = V(sub)(u, from->top);
    if (scaled) {
        d = V(mul)(V(add)(d, V(load_part)(from->low, i, lanes)), from->scale);
        d = V(less)(V(set1)(0), e, d, V(set1)(0));
    } else {
        d = V(max)(V(set1)(-V(LARGEST)), d); /* for the sake of -inf */
    }
    return V(fnma)(e, d, sum);
}

/* Several sums, so that an addition does not wait for the last, and that few are added to each. */
XENT_INLINE double V(spread_as)(const struct V(spread_from) * from, size_t n, bool scaled) {
    V(vec) s0 = V(set1)(0), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0;
    for (; i + 4 * V(LANES) <= n; i += 4 * V(LANES)) {
        s0 = V(spread_vector)(s0, from, i, V(LANES), scaled);
        s1 = V(spread_vector)(s1, from, i + V(LANES), V(LANES), scaled);
        s2 = V(spread_vector)(s2, from, i + 2 * V(LANES), V(LANES), scaled);
        s3 = V(spread_vector)(s3, from, i + 3 * V(LANES), V(LANES), scaled);
    }
    for (; i < n; i += V(LANES)) {
        s0 = V(spread_vector)(s0, from, i, n - i < V(LANES) ? n - i : V(LANES), scaled);
    }
    REAL lanes[V(LANES)];
    V(store)(lanes, V(add)(V(add)(s0, s1), V(add)(s2, s3)));
    for (size_t half = V(LANES) / 2; half > 0; half /= 2) {
        for (size_t k = 0; k < half; k++) {
            lanes[k] += lanes[k + half];
        }
    }
    return (double)lanes[0] / V(ONE_WITH_HEADROOM);
}

static double V(spread_terms)(const struct xent_logits *logits, size_t n, double top,
                              const void *exps) {
    static const REAL zeros[XENT_BLOCK];
    const struct V(spread_from) from = {
        .e = exps,
        .u = logits->u,
        .low = logits->low ? logits->low : zeros,
        .top = V(set1)((REAL)top),
        .scale = V(set1)((REAL)logits->scale),
    };
    const bool scaled = logits->low || logits->scale != 1;
    return scaled ? V(spread_as)(&from, n, true) : V(spread_as)(&from, n, false);
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
