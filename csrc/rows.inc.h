/* reduce and emit where a row's classes are contiguous. Included once per dtype, see isa.inc.h;
 * knows vectors and nothing else. docs/design.md explains the method. */

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

/* A block is walked as whole vectors and a masked tail. */
XENT_INLINE size_t V(whole_of)(size_t n) { return n / V(LANES) * V(LANES); }

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

/* The lanes from memory, -inf in place of one. */
XENT_INLINE V(vec) V(load_others)(const REAL *p, size_t skip) {
    static const REAL one_out[2 * V(LANES) - 1] = {[V(LANES) - 1] = -(REAL)INFINITY};
    const V(vec) mask = V(load)(one_out + V(LANES) - 1 - skip);
    return V(less)(mask, V(set1)(0), mask, V(load)(p));
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

static double V(largest)(const void *logits, size_t n, size_t skip) {
    const REAL *const x = logits;
    const size_t whole = V(whole_of)(n), before = skip < whole ? V(whole_of)(skip) : whole;
    V(vec) m = V(max_whole)(x, 0, before, V(set1)(-(REAL)INFINITY));
    if (before < whole) {
        m = V(max)(V(load_others)(x + before, skip - before), m);
        m = V(max_whole)(x, before + V(LANES), whole, m);
    }
    if (whole < n) {
        m = V(max)(V(load_masked)(x, n, whole, skip), m);
    }
    return (double)V(horizontal_max)(m);
}

/* Logits are fetched into the L2 cache this far ahead: the hardware fetches a page at most, and a
 * store that waits for its line behind loads from memory halves the speed. */
enum { V(AHEAD) = 16384 / sizeof(REAL) };

XENT_INLINE void V(put)(REAL *out, V(vec) x, bool stream) {
    if (stream) {
        V(stream)(out, x);
    } else {
        V(store)(out, x);
    }
}

/* n terms from `begin` on; where they are streamed, the first of them is aligned. */
XENT_INLINE void V(emit_span)(const struct xent_emission *emission, size_t begin, size_t n,
                              bool stream) {
    const REAL *const exps = (const REAL *)emission->exps + begin;
    REAL *const out = (REAL *)emission->out + begin;
    const struct V(factor) factor = V(factor_of)(&emission->factor);
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(put)(out + i, V(times)(V(load)(exps + i), &factor), stream);
    }
    if (i < n) {
        const V(vec) e = V(load_first)(exps + i, n - i);
        V(store_first)(out + i, n - i, V(times)(e, &factor));
    }
}

/* Emits the terms before the first that can be streamed, and says how many they are. */
XENT_INLINE size_t V(emit_lead)(const struct xent_emission *emission, size_t n) {
    size_t lead = 0;
    if (emission->stream) {
        const uintptr_t out = (uintptr_t)emission->out;
        const bool never = out % sizeof(REAL) != 0;
        lead = never ? n : -out % sizeof(V(vec)) / sizeof(REAL);
        lead = lead < n ? lead : n;
        V(emit_span)(emission, 0, lead, false);
    }
    return lead;
}

static void V(emit)(const struct xent_emission *emission, size_t n) {
    const size_t lead = V(emit_lead)(emission, n);
    V(emit_span)(emission, lead, n - lead, emission->stream);
}

/* struct xent_aside, as vectors. Along with the vector at i, that at i + turn of `pending` is
 * emitted to `out`, which is aligned if it is streamed. */
struct V(aside) {
    REAL *exps;
    const REAL *ahead;
    V(vec) ahead_max;
    const REAL *pending;
    REAL *out;
    size_t pending_size, turn; /* whole vectors; what is beyond pending_size is at the beginning */
    struct V(factor) factor;
    bool stream;
};

/* `keep` is what the caller knows at compile time: there are terms to keep or to emit. */
XENT_INLINE void V(put_aside)(struct V(aside) * aside, size_t i, V(vec) term, bool keep) {
    aside->ahead_max = V(max)(V(load)(aside->ahead + i), aside->ahead_max);
    if (keep) {
        V(store)(aside->exps + i, term);
    }
    if (keep && i < aside->pending_size) {
        size_t at = i + aside->turn;
        at -= at >= aside->pending_size ? aside->pending_size : 0;
        const V(vec) e = V(load)(aside->pending + at);
        V(put)(aside->out + at, V(times)(e, &aside->factor), aside->stream);
    }
}

/* Vectors whose exponentials are computed before they are added: a strip. From the logit to the
 * sum it is some fifty cycles, more than the processor looks ahead; within a strip the additions
 * need not wait for the exponentials. 1 KiB of logits, 3 KiB of exponentials. */
enum { V(STRIP) = 16 };

/* Whole vectors only, up to `end`; that of `skip` is done again. */
XENT_INLINE void V(reduce_whole)(const REAL *x, size_t end, size_t skip,
                                 const struct V(reference) * ref, bool shifted, bool keep,
                                 struct V(aside) * aside, struct V(sum) * sum) {
    struct V(exp) exps[V(STRIP)];
    for (size_t i = 0, vectors; i < end; i += vectors * V(LANES)) {
        vectors = (end - i) / V(LANES) < V(STRIP) ? (end - i) / V(LANES) : V(STRIP);
        for (size_t k = 0; k < vectors; k++) {
            const REAL *const at = x + i + k * V(LANES);
            __builtin_prefetch(at + V(AHEAD), 0, 2);
            exps[k] = V(exp_parts)(V(load)(at), ref, shifted);
        }
        const size_t skipped = (skip - i) / V(LANES); /* wraps where skip is before */
        if (skipped < vectors) {
            const V(vec) others = V(load_others)(x + i + skipped * V(LANES), (skip - i) % V(LANES));
            exps[skipped] = V(exp_parts)(others, ref, shifted);
        }
        for (size_t k = 0; k < vectors; k++) {
            V(put_aside)(aside, i + k * V(LANES), V(add_exp)(sum, exps[k]), keep);
        }
    }
}

/* The classes from i on, fewer than a vector holds. */
XENT_INLINE void V(reduce_tail)(const REAL *x, size_t n, size_t i, size_t skip,
                                const struct V(reference) * ref, bool shifted, bool keep,
                                struct V(aside) * aside, struct V(sum) * sum) {
    const V(vec) term = V(accumulate)(sum, V(load_masked)(x, n, i, skip), ref, shifted);
    aside->ahead_max = V(max)(V(load_masked)(aside->ahead, n, i, SIZE_MAX), aside->ahead_max);
    if (keep) {
        V(store_first)(aside->exps + i, n - i, term);
    }
}

XENT_INLINE void V(sum_block)(const REAL *x, size_t n, size_t skip, const struct V(reference) * ref,
                              bool shifted, bool keep, struct V(aside) * aside,
                              struct xent_sum *result) {
    const double start = V(START);
    struct V(sum) sum = {V(set1)((REAL)start), V(set1)(0)};
    const size_t whole = V(whole_of)(n);
    V(reduce_whole)(x, whole, skip, ref, shifted, keep, aside, &sum);
    if (whole < n) {
        V(reduce_tail)(x, n, whole, skip, ref, shifted, keep, aside, &sum);
    }
    V(total)(&sum, start, result);
}

/* Notes what can be emitted along with the n classes at x, and emits what comes before that.
 *
 * A load that shares address bits 0 to 11 with a store just before it waits for that store. So the
 * stores must not go a little ahead of the logits, modulo a page: then they start further on. */
XENT_INLINE void V(begin_emission)(const struct xent_emission *emission, const REAL *x, size_t n,
                                   struct V(aside) * aside) {
    const size_t lead = V(emit_lead)(emission, n);
    aside->pending = (const REAL *)emission->exps + lead;
    aside->out = (REAL *)emission->out + lead;
    aside->pending_size = V(whole_of)(n - lead);
    aside->factor = V(factor_of)(&emission->factor);
    aside->stream = emission->stream;

    enum {
        PAGE = 4096,
        CLEAR = 4
    }; /* in bytes; in vectors: three are too few where x is unaligned */
    const uintptr_t ahead_of_x = ((uintptr_t)aside->out - (uintptr_t)x) % PAGE;
    const bool near = ahead_of_x > 0 && ahead_of_x < CLEAR * sizeof(V(vec));
    const bool enough = aside->pending_size > CLEAR * V(LANES);
    aside->turn = near && enough ? CLEAR * V(LANES) : 0;
}

XENT_INLINE void V(end_emission)(const struct xent_emission *emission, size_t n,
                                 const struct V(aside) * aside) {
    const size_t done =
        (size_t)(aside->pending - (const REAL *)emission->exps) + aside->pending_size;
    V(emit_span)(emission, done, n - done, emission->stream);
}

static struct xent_sum V(reduce)(const void *logits, size_t n, size_t skip, double max,
                                 struct xent_aside *aside) {
    const REAL *const x = logits;
    struct xent_sum result;
    const struct V(reference) ref = V(refer_to)((REAL)max, &result);
    struct V(aside) own = {
        .exps = aside->exps,
        .ahead = aside->ahead ? aside->ahead : x, /* at hand: looking is cheaper than asking */
        .ahead_max = V(set1)(-(REAL)INFINITY),
        .pending_size = 0,
    };
    /* Each call is inlined with its constants, so that the loops do not test them. */
    const bool shifted = result.shift != 0;
    if (own.exps) {
        const bool emits = aside->emission.exps != NULL;
        if (emits) {
            V(begin_emission)(&aside->emission, x, n, &own);
        }
        if (shifted) {
            V(sum_block)(x, n, skip, &ref, true, true, &own, &result);
        } else {
            V(sum_block)(x, n, skip, &ref, false, true, &own, &result);
        }
        if (emits) {
            V(end_emission)(&aside->emission, n, &own);
        }
    } else if (shifted) {
        V(sum_block)(x, n, skip, &ref, true, false, &own, &result);
    } else {
        V(sum_block)(x, n, skip, &ref, false, false, &own, &result);
    }
    aside->ahead_max = (double)V(horizontal_max)(own.ahead_max);
    return result;
}

static void V(emit_shifted)(const void *logits, size_t n, double high, double low, void *values) {
    const REAL *const x = logits;
    REAL *const out = values;
    const V(vec) a = V(set1)((REAL)high), b = V(set1)((REAL)low);
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(sub)(V(sub)(V(load)(x + i), a), b));
    }
    if (i < n) {
        V(store_first)(out + i, n - i, V(sub)(V(sub)(V(load_first)(x + i, n - i), a), b));
    }
}
