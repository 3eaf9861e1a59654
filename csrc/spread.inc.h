/* Sums over the classes of a block, of coefficients and of what these make of the distances from
 * its top; terms, too, are such coefficients. Included once per dtype after finish.inc.h and
 * sum.inc.h. */

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
    const V(some) *const u = logits->u, *const low = logits->low;
    const V(some) *const t = labels, *const w = weights;
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
    double top;
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
    vec below = f64_sub(number(from->top), x);
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
        if (from->labels) { /* half of the next block's, if it has any: see fetch_labels in
                               by_rows.c */
            __builtin_prefetch(from->labels + XENT_BLOCK + i / 2, 0, 2);
        }
        V(quick_lanes)(&sums.mass0, &sums.spread0, from, i, all, false);
        V(quick_lanes)(&sums.mass1, &sums.spread1, from, i + f64_LANES, all, false);
    }
    return sums;
}

/* From V(QUICK) - 1 - k on it leaves out the k-th. */
static const double V(all_but)[2 * V(QUICK) - 1] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1,
                                                    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

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

XENT_INLINE struct V(quick) V(no_spread)(void) {
    const struct V(carried) none = {number(0), number(0)};
    return (struct V(quick)){none, none, none, none};
}

/* The classes from i to `end`, both multiples of V(QUICK); `skip` is left out if it is among them.
 */
XENT_INLINE struct V(quick) V(quick_whole)(struct V(quick) sums, const struct V(quick_from) * from,
                                           size_t i, size_t end, size_t skip) {
    const size_t before = skip - i < end - i ? skip / V(QUICK) * V(QUICK) : end; /* may wrap */
    sums = V(quick_span)(sums, from, i, before);
    if (before < end) {
        const double *const others = V(all_but) + V(QUICK) - 1 - (skip - before);
        sums = V(quick_part)(sums, from, before, others);
        sums = V(quick_span)(sums, from, before + V(QUICK), end);
    }
    return sums;
}

/* What has been added up of n classes; says whether all was finite. */
XENT_INLINE bool V(quick_result)(struct V(quick) sums, const struct V(quick_from) * from, size_t n,
                                 size_t skip, double top, struct xent_spread *result) {
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

XENT_INLINE bool V(quick_as)(const struct V(quick_from) * from, size_t n, size_t skip, double top,
                             struct xent_spread *result) {
    const size_t whole = n / V(QUICK) * V(QUICK);
    struct V(quick) sums = V(quick_whole)(V(no_spread)(), from, 0, whole, skip);
    if (whole < n) {
        sums = V(quick_tail)(sums, from, whole, n, skip);
    }
    return V(quick_result)(sums, from, n, skip, top, result);
}

/* Where nothing is masked and all is finite, with few operations; else it says no. */
static bool V(spread_quickly)(const struct xent_logits *logits, size_t n, size_t skip, double top,
                              const void *labels, const void *weights, struct xent_spread *result) {
    const struct V(quick_from) by_labels = {logits->u, labels, NULL, top};
    const struct V(quick_from) by_weights = {logits->u, NULL, weights, top};
    const struct V(quick_from) by_both = {logits->u, labels, weights, top};
    const struct V(quick_from) by_none = {logits->u, NULL, NULL, top};
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

/* A sum of logits on the way, each as n steps and what is left, r. `steps` is exact; what is left
 * is added up in `part` from one settling to the next, then in `rest`. */
struct V(logit_sum) {
    V(vec) steps, part, rest;
};

XENT_INLINE struct V(logit_sum) V(no_logits)(void) {
    const V(vec) zero = V(set1)(0);
    return (struct V(logit_sum)){zero, zero, zero};
}

XENT_INLINE void V(add_logit)(struct V(logit_sum) * sum, V(vec) n, V(vec) r) {
    sum->steps = V(add)(sum->steps, n);
    sum->part = V(add)(sum->part, r);
}

XENT_INLINE void V(settle_logits)(struct V(logit_sum) * sum) {
    sum->rest = V(add)(sum->rest, sum->part);
    sum->part = V(set1)(0);
}

/* The spread of so many vectors of classes whose logits have been summed. What is left of these is
 * no more than `most` in a lane, unless the terms of some are zero: then it says no. A NaN is one
 * in the sum of exponentials, too, and the block is reduced again. */
XENT_INLINE bool V(spread_of_sum)(const struct V(logit_sum) * sum, size_t vectors, double top,
                                  struct xent_spread *result) {
    const double step = (double)V(STEP_HIGH) + (double)V(STEP_LOW);
    const double most = 0.51 * step * (double)vectors;
    REAL steps[V(LANES)], rests[V(LANES)];
    V(store)(steps, sum->steps);
    V(store)(rests, sum->rest);
    f64_vec lanes = number(0);
    bool more = false;
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        const f64_vec rest = V(widen)(rests + i);
        more |= f64_any_less(number(most), magnitude(rest));
        lanes = f64_add(lanes, f64_fma(number(step), V(widen)(steps + i), rest));
    }
    const double count = (double)(vectors * V(LANES)), total = sum_of_lanes(lanes);
    *result = (struct xent_spread){count, count * top - total, count};
    return !more;
}

/* The vector at i, or the first lanes of it. */
XENT_INLINE V(vec) V(load_part)(const REAL *x, size_t i, size_t lanes) {
    return lanes == V(LANES) ? V(load)(x + i) : V(load_first)(x + i, lanes, V(set1)(0));
}

/* What V(spread_terms) works with; the last two where logits are scaled. */
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

/* The sum of terms that have been kept, each times how far its logit is below the top. */
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

/* The same on the way, of logits as they are: added up as in V(logit_sum). */
struct V(spread_sum) {
    V(vec) top, part, rest;
};

XENT_INLINE struct V(spread_sum) V(no_terms)(REAL top) {
    return (struct V(spread_sum)){V(set1)(top), V(set1)(0), V(set1)(0)};
}

XENT_INLINE void V(add_spread)(struct V(spread_sum) * sum, V(vec) term, V(vec) u) {
    const V(vec) d = V(max)(V(set1)(-V(LARGEST)), V(sub)(u, sum->top)); /* for the sake of -inf */
    sum->part = V(fnma)(term, d, sum->part);
}

XENT_INLINE void V(settle_spread)(struct V(spread_sum) * sum) {
    sum->rest = V(add)(sum->rest, sum->part);
    sum->part = V(set1)(0);
}

XENT_INLINE double V(spread_total)(const struct V(spread_sum) * sum) {
    REAL lanes[V(LANES)];
    f64_vec total = number(0);
    V(store)(lanes, V(add)(sum->rest, sum->part));
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        total = f64_add(total, V(widen)(lanes + i));
    }
    return sum_of_lanes(total) / V(ONE_WITH_HEADROOM);
}
