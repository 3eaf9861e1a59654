/* reduce and emit where a row's classes are contiguous. Included once per dtype, see isa.inc.h;
 * knows vectors and nothing else. docs/design.md explains the method. */

/* What one block's exponentials are relative to. */
struct V(reference) {
    V(vec) shift;  /* subtracted from every logit, exactly */
    V(vec) lowest; /* logits (shifted) below it count as zero */
    V(vec) round;  /* f32_ROUND plus the exponent field of 1 * 2^headroom / 2^N */
};

/* A running sum of exponentials: each addition's rounding error is carried in `low`. */
struct V(sum) {
    V(vec) high, low;
};

XENT_INLINE REAL V(horizontal_max)(V(vec) a) {
    REAL lane[V(LANES)];
    V(store)(lane, a);
    for (int half = V(LANES) / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
        }
    }
    return lane[0];
}

/* A block is walked as whole vectors up to the one that holds `skip`, that one with `skip` masked,
 * whole vectors again, and a masked tail. */
XENT_INLINE size_t V(whole_until)(size_t n, size_t skip) {
    return (skip < n ? skip : n) / V(LANES) * V(LANES);
}

/* The first n lanes from memory, zero in the others. */
XENT_INLINE V(vec) V(load_first)(const REAL *p, size_t n) {
    REAL lane[V(LANES)] = {0};
    memcpy(lane, p, n * sizeof(REAL));
    return V(load)(lane);
}

XENT_INLINE void V(store_first)(REAL *p, size_t n, V(vec) x) {
    REAL lane[V(LANES)];
    V(store)(lane, x);
    memcpy(p, lane, n * sizeof(REAL));
}

/* The lanes from x + i on, -inf in place of `skip` and beyond the end. */
XENT_INLINE V(vec) V(load_masked)(const REAL *x, size_t n, size_t i, size_t skip) {
    REAL lane[V(LANES)];
    for (size_t k = 0; k < V(LANES); k++) {
        lane[k] = -(REAL)INFINITY;
    }
    memcpy(lane, x + i, (n - i < V(LANES) ? n - i : V(LANES)) * sizeof(REAL));
    if (skip - i < V(LANES)) {
        lane[skip - i] = -(REAL)INFINITY;
    }
    return V(load)(lane);
}

XENT_INLINE V(vec) V(max_whole)(const REAL *x, size_t i, size_t end, V(vec) m) {
    V(vec) m1 = m, m2 = m, m3 = m;
    for (; i + 4 * V(LANES) <= end; i += 4 * V(LANES)) {
        m = V(max)(V(load)(x + i), m);
        m1 = V(max)(V(load)(x + i + V(LANES)), m1);
        m2 = V(max)(V(load)(x + i + 2 * V(LANES)), m2);
        m3 = V(max)(V(load)(x + i + 3 * V(LANES)), m3);
    }
    for (; i < end; i += V(LANES)) {
        m = V(max)(V(load)(x + i), m);
    }
    return V(max)(V(max)(m, m1), V(max)(m2, m3));
}

static REAL V(largest)(const REAL *x, size_t n, size_t skip) {
    const size_t first = V(whole_until)(n, skip), last = V(whole_until)(n, n);
    V(vec) m = V(max_whole)(x, 0, first, V(set1)(-(REAL)INFINITY));
    if (first < n) {
        m = V(max)(V(load_masked)(x, n, first, skip), m);
        m = V(max_whole)(x, first + V(LANES), last, m);
    }
    if (first < last && last < n) {
        m = V(max)(V(load_masked)(x, n, last, skip), m);
    }
    return V(horizontal_max)(m);
}

/* The reference of a block whose largest class is m; `sum` gets it as numbers. */
XENT_INLINE struct V(reference) V(refer_to)(REAL m, struct xent_sum *sum) {
    const bool finite = m - m == 0;
    const bool shifted = !finite || m >= V(SHIFT_FROM) || m <= -V(SHIFT_FROM);
    /* All -inf: any reference will do; +inf: x - m makes the block NaN. */
    const REAL shift = m == -(REAL)INFINITY || !shifted ? 0 : m;
    const REAL exponent = shifted ? 0 : (REAL)rint((double)m * (double)V(LOG2_E));
    const REAL offset = V(BIAS) + V(HEADROOM) - exponent;
    sum->exponent = (double)exponent - V(HEADROOM);
    sum->shift = (double)shift;
    return (struct V(reference)){
        .shift = V(set1)(shift),
        .lowest = V(set1)((REAL)(-(double)offset * 0x1.62e42fefa39efp-1)),
        .round = V(set1)(V(ROUND) + offset),
    };
}

/* exp of x, scaled by the reference, as scale * (1 + p): the power of two is exact and p is small,
 * so that the sum can have more of the exponential than a REAL holds. */
struct V(exp) {
    V(vec) scale, p;
};

XENT_INLINE struct V(exp) V(exp_parts)(V(vec) x, const struct V(reference) * ref, bool shifted) {
    if (shifted) {
        x = V(sub)(x, ref->shift);
    }
    x = V(max)(ref->lowest, x); /* keeps a NaN */
    /* The low bits of y are the exponent field of the result, zero at x = lowest. */
    const V(vec) y = V(fma)(x, V(set1)(V(LOG2_E)), ref->round);
    const V(vec) n = V(sub)(y, ref->round);
    V(vec) r = V(fnma)(n, V(set1)(V(LN2_HIGH)), x); /* exact */
    r = V(fnma)(n, V(set1)(V(LN2_LOW)), r);

    enum { TERMS = sizeof V(exp_poly) / sizeof(REAL) };
    V(vec) q = V(set1)(V(exp_poly)[TERMS - 1]);
#pragma GCC unroll 16
    for (int k = TERMS - 2; k >= 0; k--) {
        q = V(fma)(q, r, V(set1)(V(exp_poly)[k]));
    }
    return (struct V(exp)){.scale = V(to_exponent)(y), .p = V(fma)(V(mul)(r, r), q, r)};
}

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

/* The lanes of two sums that started at `start`, added in a fixed order. */
XENT_INLINE double V(total)(const struct V(sum) * a, const struct V(sum) * b, double start) {
    REAL lane[4][V(LANES)];
    double sum[V(LANES)];
    V(store)(lane[0], a->high);
    V(store)(lane[1], b->high);
    V(store)(lane[2], a->low);
    V(store)(lane[3], b->low);
    for (int i = 0; i < V(LANES); i++) {
        sum[i] = (((double)lane[0][i] - start) + ((double)lane[1][i] - start)) +
                 ((double)lane[2][i] + (double)lane[3][i]);
    }
    for (int half = V(LANES) / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            sum[i] += sum[i + half];
        }
    }
    return sum[0];
}

/* Logits are fetched into the L2 cache this far ahead: the hardware fetches a page at most, and a
 * store that waits for its line behind loads from memory halves the speed. */
enum { V(AHEAD) = 16384 / sizeof(REAL) };

/* What reduce does besides summing: where the terms go, and the block whose largest class it finds.
 * Both may be NULL. */
struct V(aside) {
    REAL *exps;
    const REAL *ahead;
    V(vec) ahead_max;
};

XENT_INLINE void V(put_aside)(struct V(aside) * aside, size_t i, V(vec) term) {
    if (aside->exps) {
        V(store)(aside->exps + i, term);
    }
    if (aside->ahead) {
        aside->ahead_max = V(max)(V(load)(aside->ahead + i), aside->ahead_max);
    }
}

/* Whole vectors only, the even and the odd ones in sums of their own: two chains of additions
 * hide each other's latency. */
XENT_INLINE void V(reduce_whole)(const REAL *x, size_t i, size_t end,
                                 const struct V(reference) * ref, bool shifted,
                                 struct V(aside) * aside, struct V(sum) * even,
                                 struct V(sum) * odd) {
    for (; i + 2 * V(LANES) <= end; i += 2 * V(LANES)) {
        __builtin_prefetch(x + i + V(AHEAD), 0, 2);
        __builtin_prefetch(x + i + V(AHEAD) + V(LANES), 0, 2);
        V(put_aside)(aside, i, V(accumulate)(even, V(load)(x + i), ref, shifted));
        const size_t j = i + V(LANES);
        V(put_aside)(aside, j, V(accumulate)(odd, V(load)(x + j), ref, shifted));
    }
    if (i < end) {
        V(put_aside)(aside, i, V(accumulate)(even, V(load)(x + i), ref, shifted));
    }
}

XENT_INLINE void V(reduce_masked)(const REAL *x, size_t n, size_t i, size_t skip,
                                  const struct V(reference) * ref, bool shifted,
                                  struct V(aside) * aside, struct V(sum) * sum) {
    const V(vec) term = V(accumulate)(sum, V(load_masked)(x, n, i, skip), ref, shifted);
    if (aside->exps) {
        V(store_first)(aside->exps + i, n - i < V(LANES) ? n - i : V(LANES), term);
    }
    if (aside->ahead) {
        aside->ahead_max = V(max)(V(load_masked)(aside->ahead, n, i, SIZE_MAX), aside->ahead_max);
    }
}

XENT_INLINE double V(sum_block)(const REAL *x, size_t n, size_t skip,
                                const struct V(reference) * ref, bool shifted, REAL *exps,
                                const REAL *ahead, REAL *ahead_max) {
    const double start = V(START);
    struct V(sum) even = {V(set1)((REAL)start), V(set1)(0)}, odd = even;
    struct V(aside) aside = {exps, ahead, V(set1)(-(REAL)INFINITY)};
    const size_t first = V(whole_until)(n, skip), last = V(whole_until)(n, n);
    V(reduce_whole)(x, 0, first, ref, shifted, &aside, &even, &odd);
    if (first < n) {
        V(reduce_masked)(x, n, first, skip, ref, shifted, &aside, &even);
        V(reduce_whole)(x, first + V(LANES), last, ref, shifted, &aside, &even, &odd);
    }
    if (first < last && last < n) {
        V(reduce_masked)(x, n, last, skip, ref, shifted, &aside, &odd);
    }
    if (ahead) {
        *ahead_max = V(horizontal_max)(aside.ahead_max);
    }
    return V(total)(&even, &odd, start);
}

static struct xent_sum V(reduce)(const REAL *x, size_t n, size_t skip, REAL max, REAL *exps,
                                 const REAL *ahead, REAL *ahead_max) {
    struct xent_sum result;
    const struct V(reference) ref = V(refer_to)(max, &result);
    /* Each call is inlined with its constants, so that the loops do not test them. */
    if (result.shift != 0) {
        if (ahead) {
            *ahead_max = V(largest)(ahead, n, SIZE_MAX);
        }
        result.sum = exps ? V(sum_block)(x, n, skip, &ref, true, exps, NULL, NULL)
                          : V(sum_block)(x, n, skip, &ref, true, NULL, NULL, NULL);
    } else if (ahead) {
        result.sum = exps ? V(sum_block)(x, n, skip, &ref, false, exps, ahead, ahead_max)
                          : V(sum_block)(x, n, skip, &ref, false, NULL, ahead, ahead_max);
    } else {
        result.sum = exps ? V(sum_block)(x, n, skip, &ref, false, exps, NULL, NULL)
                          : V(sum_block)(x, n, skip, &ref, false, NULL, NULL, NULL);
    }
    return result;
}

XENT_INLINE V(vec) V(times)(V(vec) e, const struct xent_factor *factor) {
    const V(vec) high = V(set1)((REAL)factor->high), low = V(set1)((REAL)factor->low);
    return V(mul)(V(fma)(e, high, V(mul)(e, low)), V(set1)((REAL)factor->post));
}

static void V(emit)(const REAL *exps, size_t n, struct xent_factor factor, REAL *out) {
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(times)(V(load)(exps + i), &factor));
    }
    if (i < n) {
        V(store_first)(out + i, n - i, V(times)(V(load_first)(exps + i, n - i), &factor));
    }
}

static void V(emit_stream)(const REAL *exps, size_t n, struct xent_factor factor, REAL *out) {
    const size_t before = (-(uintptr_t)out % sizeof(V(vec))) / sizeof(REAL);
    if ((uintptr_t)out % sizeof(REAL) != 0 || n < before) {
        V(emit)(exps, n, factor, out);
        return;
    }
    V(emit)(exps, before, factor, out);
    size_t i = before;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(stream)(out + i, V(times)(V(load)(exps + i), &factor));
    }
    V(emit)(exps + i, n - i, factor, out + i);
}

static void V(emit_shifted)(const REAL *x, size_t n, double high, double low, REAL *out) {
    const V(vec) a = V(set1)((REAL)high), b = V(set1)((REAL)low);
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(sub)(V(sub)(V(load)(x + i), a), b));
    }
    if (i < n) {
        V(store_first)(out + i, n - i, V(sub)(V(sub)(V(load_first)(x + i, n - i), a), b));
    }
}
