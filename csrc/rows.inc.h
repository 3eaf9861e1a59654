/* reduce and emit where a row's classes are contiguous. Included once per dtype, see isa.inc.h;
 * knows vectors and nothing else. docs/design.md explains the method. */

/* What one block's exponentials are relative to. */
struct V(reference) {
    V(vec) shift;   /* subtracted from every logit, exactly */
    V(vec) lowest;  /* logits (shifted) below it count as zero */
    V(vec) round;   /* f32_ROUND plus the exponent field of 1 * 2^headroom / 2^N */
};

/* A running sum of exponentials: each addition's rounding error is carried in `low`. */
struct V(sum) {
    V(vec) high, low;
};

static inline REAL V(horizontal_max)(V(vec) a) {
    REAL lane[V(LANES)];
    V(store)(lane, a);
    REAL m = lane[0];
    for (int i = 1; i < V(LANES); i++) {
        m = lane[i] > m ? lane[i] : m;
    }
    return m;
}

/* The vector at x + i of a block of n classes, -inf for `skip` and beyond the end. */
static inline V(vec) V(load_masked)(const REAL *x, size_t n, size_t i, size_t skip) {
    size_t count = n - i < V(LANES) ? n - i : V(LANES);
    REAL lane[V(LANES)];
    V(store)(lane, V(load_first)(x + i, count, -(REAL)INFINITY));
    if (skip - i < V(LANES)) {
        lane[skip - i] = -(REAL)INFINITY;
    }
    return V(load)(lane);
}

static REAL V(block_max)(const REAL *x, size_t n, size_t skip) {
    V(vec) m0 = V(set1)(-(REAL)INFINITY), m1 = m0, m2 = m0, m3 = m0;
    const size_t masked = skip < n ? skip / V(LANES) * V(LANES) : n; /* the vector that holds skip */
    size_t i = 0;
    for (size_t end = masked;; end = n) {
        for (; i + 4 * V(LANES) <= end; i += 4 * V(LANES)) {
            m0 = V(max)(V(load)(x + i), m0);
            m1 = V(max)(V(load)(x + i + V(LANES)), m1);
            m2 = V(max)(V(load)(x + i + 2 * V(LANES)), m2);
            m3 = V(max)(V(load)(x + i + 3 * V(LANES)), m3);
        }
        for (; i + V(LANES) <= end; i += V(LANES)) {
            m0 = V(max)(V(load)(x + i), m0);
        }
        if (i >= n) {
            break;
        }
        m1 = V(max)(V(load_masked)(x, n, i, skip), m1);
        i += V(LANES);
        if (i >= n) {
            break;
        }
    }
    return V(horizontal_max)(V(max)(V(max)(m0, m1), V(max)(m2, m3)));
}

/* The reference of a block whose largest class is m; `sum` gets it as numbers. */
static inline struct V(reference) V(refer_to)(REAL m, struct xent_sum *sum) {
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

/* exp of x, scaled by the reference, as scale * (1 + (r + w)): the power of two exact, r + w
 * unrounded, so that what the sum needs beyond a REAL is not lost. */
struct V(exp) {
    V(vec) scale, r, w;
};

static inline struct V(exp) V(exp_parts)(V(vec) x, const struct V(reference) *ref) {
    x = V(max)(ref->lowest, V(sub)(x, ref->shift)); /* keeps a NaN */
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
    return (struct V(exp)){.scale = V(to_exponent)(y), .r = r, .w = V(mul)(V(mul)(r, r), q)};
}

/* Adds exp(x) to the sum and returns it, rounded. The sum starts larger than any term, so that
 * what a term adds to `high` is known exactly (Dekker 1971); the rest goes to `low`. */
static inline V(vec) V(accumulate)(struct V(sum) *sum, V(vec) x, const struct V(reference) *ref) {
    const struct V(exp) e = V(exp_parts)(x, ref);
    const V(vec) term = V(fma)(V(add)(e.r, e.w), e.scale, e.scale);
    const V(vec) high = V(add)(sum->high, term);
    const V(vec) added = V(sub)(high, sum->high);
    const V(vec) rest = V(fma)(e.r, e.scale, V(sub)(e.scale, added));
    sum->low = V(add)(sum->low, V(fma)(e.w, e.scale, rest));
    sum->high = high;
    return term;
}

/* The lanes of two sums that started at `start`, added in a fixed order. */
static double V(total)(const struct V(sum) *a, const struct V(sum) *b, double start) {
    REAL lane[4][V(LANES)];
    V(store)(lane[0], a->high);
    V(store)(lane[1], b->high);
    V(store)(lane[2], a->low);
    V(store)(lane[3], b->low);
    double high = 0, low = 0;
    for (int i = 0; i < V(LANES); i++) {
        high += ((double)lane[0][i] - start) + ((double)lane[1][i] - start);
        low += (double)lane[2][i] + (double)lane[3][i];
    }
    return high + low;
}

static struct xent_sum V(reduce)(const REAL *x, size_t n, size_t skip, REAL *exps) {
    struct xent_sum result;
    const struct V(reference) ref = V(refer_to)(V(block_max)(x, n, skip), &result);
    const double start = ldexp(2, V(HEADROOM));
    struct V(sum) even = {V(set1)((REAL)start), V(set1)(0)}, odd = even;
    const size_t masked = skip < n ? skip / V(LANES) * V(LANES) : n;
    size_t i = 0;
    for (size_t end = masked;; end = n) {
        if (exps) {
            for (; i + 2 * V(LANES) <= end; i += 2 * V(LANES)) {
                V(store)(exps + i, V(accumulate)(&even, V(load)(x + i), &ref));
                V(store)(exps + i + V(LANES), V(accumulate)(&odd, V(load)(x + i + V(LANES)), &ref));
            }
        } else {
            for (; i + 2 * V(LANES) <= end; i += 2 * V(LANES)) {
                V(accumulate)(&even, V(load)(x + i), &ref);
                V(accumulate)(&odd, V(load)(x + i + V(LANES)), &ref);
            }
        }
        if (i >= n) {
            break;
        }
        /* What is left before `end`, the vector with `skip`, or the tail. */
        const size_t count = n - i < V(LANES) ? n - i : V(LANES);
        const V(vec) term = V(accumulate)(&even, V(load_masked)(x, n, i, skip), &ref);
        if (exps) {
            V(store_first)(exps + i, count, term);
        }
        i += count;
        if (i >= n) {
            break;
        }
        if (i <= masked) {
            end = 0;
        }
    }
    result.sum = V(total)(&even, &odd, start);
    return result;
}

static void V(emit)(const REAL *exps, size_t n, struct xent_factor factor, REAL *out) {
    const V(vec) high = V(set1)((REAL)factor.high), low = V(set1)((REAL)factor.low);
    const V(vec) post = V(set1)((REAL)factor.post);
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        const V(vec) e = V(load)(exps + i);
        V(store)(out + i, V(mul)(V(fma)(e, high, V(mul)(e, low)), post));
    }
    if (i < n) {
        const V(vec) e = V(load_first)(exps + i, n - i, 0);
        V(store_first)(out + i, n - i, V(mul)(V(fma)(e, high, V(mul)(e, low)), post));
    }
}

static void V(emit_shifted)(const REAL *x, size_t n, double high, double low, REAL *out) {
    const V(vec) a = V(set1)((REAL)high), b = V(set1)((REAL)low);
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(sub)(V(sub)(V(load)(x + i), a), b));
    }
    if (i < n) {
        V(store_first)(out + i, n - i, V(sub)(V(sub)(V(load_first)(x + i, n - i, 0), a), b));
    }
}
