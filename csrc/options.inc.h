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

/* Eight classes of which some are left out. */
struct V(spread_input) {
    vec u, low, labels, weights;
};

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

static struct xent_spread V(spread)(const struct xent_logits *logits, size_t n, size_t skip,
                                    double top, const void *labels, const void *weights) {
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
    return (struct xent_spread){V(carried_total)(&sums.mass), V(carried_total)(&sums.spread),
                                V(carried_total)(&sums.count)};
}

static void V(emit_adjusted)(const struct xent_emission *emission, const struct xent_adjustment *by,
                             size_t n) {
    const REAL *const exps = emission->exps;
    const REAL *const labels = by->labels, *const weights = by->weights, *const slopes = by->slopes;
    REAL *const out = emission->out;
    const struct V(factor) factor = V(factor_of)(&emission->factor);
    const V(vec) post = V(set1)((REAL)emission->factor.post), zero = V(set1)(0);
    const V(vec) by_labels = V(set1)((REAL)by->by_labels);
    const V(vec) by_weights = V(set1)((REAL)by->by_weights);
    for (size_t i = 0; i < n; i += V(LANES)) {
        const size_t lanes = n - i < V(LANES) ? n - i : V(LANES);
        const V(vec) kept = V(load_first)(exps + i, lanes);
        const V(vec) e = V(max)(zero, kept);
        V(vec) offset = by_weights;
        offset = weights ? V(mul)(offset, V(load_first)(weights + i, lanes)) : offset;
        offset = V(less)(kept, zero, zero, offset);
        if (labels) {
            offset = V(fma)(V(load_first)(labels + i, lanes), by_labels, offset);
        }
        V(vec) x = V(sub)(V(mul)(V(times)(e, &factor), post), offset);
        x = slopes ? V(mul)(x, V(load_first)(slopes + i, lanes)) : x;
        V(store_first)(out + i, lanes, x);
    }
}

/* e * slopes * vector of eight classes. */
XENT_INLINE vec V(product_lanes)(const REAL *exps, const REAL *slopes, const REAL *vector) {
    const double unit = 1 / V(ONE_WITH_HEADROOM);
    const vec e = f64_mul(f64_max(number(0), V(widen)(exps)), number(unit));
    const vec u = V(widen)(vector);
    return f64_mul(e, slopes ? f64_mul(V(widen)(slopes), u) : u);
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
            part[1][k] = counts && s ? s[i + k] : 1;
            part[2][k] = counts ? u[i + k] : 0;
        }
        V(carry)(&sum, V(product_lanes)(part[0], part[1], part[2]));
    }
    return V(carried_total)(&sum);
}

/* Terms times a factor. */
struct V(scaling) {
    struct V(factor) factor;
    V(vec) post;
};

XENT_INLINE struct V(scaling) V(scaling_of)(const struct xent_factor *factor) {
    return (struct V(scaling)){V(factor_of)(factor), V(set1)((REAL)factor->post)};
}

XENT_INLINE V(vec) V(scaled)(V(vec) e, const struct V(scaling) * by) {
    return V(mul)(V(times)(e, &by->factor), by->post);
}

/* The numbers of a block's bend, as vectors. */
struct V(bend) {
    struct V(scaling) shares, by, square;
    V(vec) floor, by_tanh, mean;
};

/* See struct xent_bend; what it has not is NULL. */
XENT_INLINE V(vec) V(bend_lanes)(const struct xent_bend *bend, const struct V(bend) * numbers,
                                 size_t i, size_t lanes) {
    const REAL *const slopes = bend->slopes, *const gradient = bend->gradient;
    const REAL *const tanh = bend->tanh, *const vector = bend->vector;
    const V(vec) zero = V(set1)(0), one = V(set1)(1);
    const V(vec) e = V(max)(zero, V(load_first)((const REAL *)bend->exps + i, lanes));
    const V(vec) slope = slopes ? V(load_first)(slopes + i, lanes) : one;
    const V(vec) u = vector ? V(load_first)(vector + i, lanes) : one;
    const V(vec) q = V(scaled)(e, &numbers->shares);
    V(vec) at = vector ? V(sub)(V(mul)(slope, u), numbers->mean) : V(sub)(one, q);
    V(vec) x = V(mul)(V(scaled)(e, &numbers->by), at);
    if (bend->squares) {
        x = V(fma)(V(scaled)(e, &numbers->square), vector ? numbers->mean : q, x);
    }
    x = V(mul)(x, slope);
    x = vector ? x : V(mul)(x, slope);
    if (gradient) {
        const V(vec) t = V(load_first)(tanh + i, lanes);
        /* Beyond one there is nothing but infinities, of which the gradient is zero or no number.
         */
        const V(vec) finite = V(max)(V(set1)(-1), V(less)(one, t, one, t));
        const V(vec) g = V(mul)(V(load_first)(gradient + i, lanes), numbers->by_tanh);
        x = V(fma)(V(mul)(g, finite), u, x);
    }
    return V(max)(numbers->floor, x);
}

static void V(bend)(const struct xent_bend *bend, size_t n) {
    const struct V(bend) numbers = {
        V(scaling_of)(&bend->shares), V(scaling_of)(&bend->by),     V(scaling_of)(&bend->square),
        V(set1)((REAL)bend->floor),   V(set1)((REAL)bend->by_tanh), V(set1)((REAL)bend->mean),
    };
    for (size_t i = 0; i < n; i += V(LANES)) {
        const size_t lanes = n - i < V(LANES) ? n - i : V(LANES);
        V(store_first)((REAL *)bend->out + i, lanes, V(bend_lanes)(bend, &numbers, i, lanes));
    }
}
