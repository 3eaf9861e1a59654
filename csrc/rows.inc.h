/* reduce and emit where a row's classes are contiguous. Included once per dtype, see isa.inc.h;
 * knows vectors and nothing else. docs/design.md explains the method. */

/* A block is walked as whole vectors and a masked tail. */
XENT_INLINE size_t V(whole_of)(size_t n) { return n / V(LANES) * V(LANES); }

/* -inf in place of one lane. */
XENT_INLINE V(vec) V(without)(V(vec) x, size_t skip) {
    static const REAL one_out[2 * V(LANES) - 1] = {[V(LANES) - 1] = -(REAL)INFINITY};
    const V(vec) mask = V(load)(one_out + V(LANES) - 1 - skip);
    return V(less)(mask, V(set1)(0), mask, x);
}

/* The lanes from x + i on, -inf in place of `skip` and beyond the end. */
XENT_INLINE V(vec) V(load_masked)(const REAL *x, size_t n, size_t i, size_t skip) {
    const V(vec) all =
        n - i < V(LANES) ? V(load_first)(x + i, n - i, V(set1)(-(REAL)INFINITY)) : V(load)(x + i);
    return skip - i < V(LANES) ? V(without)(all, skip - i) : all; /* wraps where it is before */
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

/* So many classes have a vector of peaks. */
enum { V(PEAK) = XENT_PEAK * V(LANES) };

/* Those of the vectors from i on. */
XENT_INLINE V(vec) V(peaks_at)(const void *peaks, size_t i) {
    return V(load)((const REAL *)peaks + i / XENT_PEAK);
}

/* The largest of whole vectors from i to `end`, lane by lane. */
XENT_INLINE V(vec) V(max_but)(const REAL *x, size_t i, size_t end, size_t skip, V(vec) m) {
    if (!(skip - i < end - i)) {
        return V(max_whole)(x, i, end, m);
    }
    const size_t at = V(whole_of)(skip);
    m = V(max_whole)(x, i, at, m);
    m = V(max)(V(without)(V(load)(x + at), skip - at), m);
    return V(max_whole)(x, at + V(LANES), end, m);
}

static double V(largest)(const void *logits, size_t n, size_t skip, const void *peaks) {
    const REAL *const x = logits;
    const size_t whole = V(whole_of)(n), step = peaks ? V(PEAK) : whole;
    V(vec) m = V(set1)(-(REAL)INFINITY);
    for (size_t i = 0, end; i < whole; i = end) {
        end = whole - i < step ? whole : i + step;
        const bool known = peaks && !(skip - i < end - i);
        m = known ? V(max)(V(peaks_at)(peaks, i), m) : V(max_but)(x, i, end, skip, m);
    }
    if (whole < n) {
        m = V(max)(V(load_masked)(x, n, whole, skip), m);
    }
    return (double)V(largest_lane)(m);
}

static double V(bound_of_first)(const void *logits, size_t n, size_t count, const void *peaks) {
    enum { VECTORS = XENT_PARTS / V(LANES) };
    const REAL *x = logits;
    const V(vec) none = V(set1)(-(REAL)INFINITY);
    V(vec) m[VECTORS];
    for (size_t k = 0; k < VECTORS; k++) {
        m[k] = none;
    }
    if (peaks && n > (VECTORS - 1) * V(PEAK) + V(LANES)) {
        x = peaks; /* of whole lines: what is after them would only raise the bound */
        n = (V(whole_of)(n) + V(PEAK) - 1) / V(PEAK) * V(LANES);
    }
    size_t i = 0;
    for (; i + XENT_PARTS <= n; i += XENT_PARTS) {
#pragma GCC unroll 4
        for (size_t k = 0; k < VECTORS; k++) {
            m[k] = V(max)(V(load)(x + i + k * V(LANES)), m[k]);
        }
    }
    for (size_t k = 0; i < n; i += V(LANES), k++) {
        m[k] = V(max)(V(load_masked)(x, n, i, SIZE_MAX), m[k]);
    }
    REAL last = (REAL)INFINITY;
    for (; count > 0; count--) {
        V(vec) next = none;
        for (size_t k = 0; k < VECTORS; k++) {
            next = V(max)(V(less)(m[k], V(set1)(last), m[k], none), next);
        }
        last = V(largest_lane)(next);
    }
    return (double)last;
}

/* The lanes of up to 64 numbers that are above the bounds, as bits from the lowest on. */
XENT_INLINE uint64_t V(which_above)(const REAL *x, size_t n, V(vec) bounds) {
    const size_t whole = V(whole_of)(n);
    uint64_t above = 0;
    for (size_t i = 0; i < whole; i += V(LANES)) {
        above |= (uint64_t)V(which_less)(bounds, V(load)(x + i)) << i;
    }
    if (whole < n) {
        above |= (uint64_t)V(which_less)(bounds, V(load_masked)(x, n, whole, SIZE_MAX)) << whole;
    }
    return above;
}

/* Those that are not below the bounds: at or above them, or no number. */
XENT_INLINE uint64_t V(which_not_below)(const REAL *x, size_t n, V(vec) bounds) {
    const size_t whole = V(whole_of)(n);
    uint64_t below = n < 64 ? UINT64_MAX << n : 0;
    for (size_t i = 0; i < whole; i += V(LANES)) {
        below |= (uint64_t)V(which_less)(V(load)(x + i), bounds) << i;
    }
    if (whole < n) {
        below |= (uint64_t)V(which_less)(V(load_masked)(x, n, whole, SIZE_MAX), bounds) << whole;
    }
    return ~below;
}

static size_t V(find)(const void *logits, size_t n, double largest, const void *peaks) {
    const REAL *const x = logits;
    const V(vec) wanted = V(set1)((REAL)largest);
    for (size_t i = 0, step; i < n; i += step) {
        if (peaks && i % V(PEAK) == 0 && n - i >= V(PEAK) &&
            !V(which_not_below)((const REAL *)peaks + i / XENT_PEAK, V(LANES), wanted)) {
            step = V(PEAK);
            continue;
        }
        step = n - i < 64 ? n - i : 64;
        for (uint64_t left = V(which_not_below)(x + i, step, wanted); left; left &= left - 1) {
            const size_t class = i + (size_t)__builtin_ctzll(left);
            if (((const V(some) *)x)[class] == (REAL)largest) {
                return class;
            }
        }
    }
    return n;
}

/* Whether there may be something above the bounds among the classes from i on that have a line of
 * peaks: not, if that, known or found here, is not above. */
XENT_INLINE bool V(may_be_above)(const REAL *x, size_t n, size_t i, V(vec) bounds,
                                 const void *peaks) {
    if (n - i < V(PEAK)) {
        return true;
    }
    const V(vec) most = peaks ? V(peaks_at)(peaks, i) : V(max_whole)(x, i, i + V(PEAK), bounds);
    return V(any_less)(bounds, most);
}

static size_t V(find_above)(const void *logits, size_t n, size_t begin, double bound,
                            const void *peaks, struct xent_found *found) {
    const REAL *const x = logits;
    const V(vec) bounds = V(set1)((REAL)bound);
    found->count = 0;
    for (size_t i = begin, end; i < n; i = end) {
        end = n - i < V(PEAK) ? n : i + V(PEAK);
        if (!V(may_be_above)(x, n, i, bounds, peaks)) {
            continue;
        }
        for (size_t at = i; at < end; at += 64) {
            uint64_t above = V(which_above)(x + at, end - at < 64 ? end - at : 64, bounds);
            for (; above; above &= above - 1) {
                found->classes[found->count++] = at + (size_t)__builtin_ctzll(above);
            }
        }
        if (found->count > 0) {
            return end;
        }
    }
    return n;
}

/* Two counts, each of half a block, so that an addition does not wait for the last. They are
 * integers of 32 bits, of which a vector has as many as of floats. */
#define COUNT(is_above)                                                                            \
    for (size_t i = 0; i < half; i++) {                                                            \
        first += x[i] is_above least;                                                              \
        second += x[half + i] is_above least;                                                      \
    }                                                                                              \
    second += n > 2 * half && x[n - 1] is_above least;

static size_t V(count_above)(const void *logits, size_t n, double bound, bool at) {
    const V(some) *const x = logits;
    const REAL least = (REAL)bound;
    const size_t half = n / 2;
    int32_t first = 0, second = 0;
    if (at) {
        COUNT(>=)
    } else {
        COUNT(>)
    }
    return (size_t)(first + second);
}
#undef COUNT

/* What is subtracted from the terms, as vectors. */
struct V(offset) {
    const REAL *labels;
    V(vec) by_labels, same;
};

XENT_INLINE struct V(offset) V(offset_of)(const struct xent_emission *emission) {
    const REAL *const labels = emission->labels;
    const V(vec) by_labels = V(set1)(labels ? (REAL)emission->by_labels : 0);
    return (struct V(offset)){labels, by_labels, V(set1)((REAL)emission->offset)};
}

/* `lanes` terms from i on. */
XENT_INLINE V(vec)
    V(emitted)(V(vec) e, const struct V(factor) * factor, const struct V(offset) * offset, size_t i,
               size_t lanes, bool labels) {
    if (!labels) {
        return V(times_less)(e, factor, offset->same);
    }
    const V(vec) label = V(load_part)(offset->labels, i, lanes);
    return V(times_less)(e, factor, V(fma)(label, offset->by_labels, offset->same));
}

/* `lanes` terms from i on, that of its own among them. */
XENT_INLINE void V(emit_lanes)(const struct xent_emission *emission, size_t i, size_t lanes,
                               REAL *values) {
    const struct V(factor) factor = V(factor_of)(&emission->factor);
    const struct V(offset) offset = V(offset_of)(emission);
    const V(vec) e = V(load_part)((const REAL *)emission->exps, i, lanes);
    const bool labels = emission->labels != NULL;
    V(store)(values, V(emitted)(e, &factor, &offset, i, lanes, labels));
    if (emission->own - i < lanes) { /* wraps where it is before */
        values[emission->own - i] = (REAL)emission->own_value;
    }
}

/* The first or the last n of a block, fewer than fill a line. */
XENT_INLINE void V(emit_part)(const struct xent_emission *emission, size_t begin, size_t n) {
    const size_t size = V(size_of)(emission->dtype);
    for (size_t i = begin, lanes; i < begin + n; i += lanes) {
        REAL values[V(LANES)];
        char room[sizeof values], *const out = (char *)emission->out + i * size;
        lanes = begin + n - i < V(LANES) ? begin + n - i : V(LANES);
        V(emit_lanes)(emission, i, lanes, values);
        const void *const bytes = V(as_stored)(values, emission->dtype, room);
        if (emission->stream) {
            V(put_at_edge)(emission->edge, out, bytes, lanes * size);
        } else if (emission->dtype == V(OWN)) {
            V(copy_part)(out, bytes, lanes * size);
        } else { /* a vector would wait for halves, of which half as many bytes were just stored */
            memcpy(out, bytes, lanes * size);
        }
    }
}

/* Whole lines up to `end`. */
XENT_INLINE void V(emit_whole)(const struct xent_emission *emission, size_t i, size_t end,
                               bool labels, enum xent_dtype dtype) {
    const REAL *const exps = emission->exps;
    const struct V(factor) factor = V(factor_of)(&emission->factor);
    const struct V(offset) offset = V(offset_of)(emission);
    for (; i < end; i += V(LANES)) {
        const V(vec) e = V(load)(exps + i);
        const V(vec) value = V(emitted)(e, &factor, &offset, i, V(LANES), labels);
        V(put)(emission->out, i, value, dtype, emission->stream);
    }
}

/* The value of its own among whole lines from `begin` on: alone, or with its line. A store of it
 * alone to a line that went past the caches would have to read the line again. */
XENT_INLINE void V(put_own)(const struct xent_emission *emission, size_t begin, size_t end) {
    const size_t own = emission->own;
    if (own < begin || own >= end) {
        return;
    }
    if (emission->dtype == V(OWN) && !emission->stream) {
        ((V(some) *)emission->out)[own] = (REAL)emission->own_value;
        return;
    }
    const size_t first = begin + V(lines_of)(own - begin, emission->dtype);
    const size_t line = XENT_CACHE_LINE / V(size_of)(emission->dtype);
    for (size_t i = first; i < first + line; i += V(LANES)) {
        REAL values[V(LANES)];
        V(emit_lanes)(emission, i, V(LANES), values);
        V(put)(emission->out, i, V(load)(values), emission->dtype, emission->stream);
    }
}

/* How many terms are before the first that can be streamed. */
XENT_INLINE size_t V(lead_of)(const struct xent_emission *emission, size_t n) {
    if (!emission->stream) {
        return 0;
    }
    const size_t bytes = -(uintptr_t)emission->out % XENT_CACHE_LINE;
    const size_t lead = bytes / V(size_of)(emission->dtype);
    return lead < n ? lead : n;
}

/* The terms but the lead and the `done` after it. */
XENT_INLINE void V(emit_rest)(const struct xent_emission *emission, size_t n, size_t done) {
    const size_t lead = V(lead_of)(emission, n);
    const size_t end = lead + V(lines_of)(n - lead, emission->dtype);
    if (emission->labels) {
        V(emit_whole)(emission, lead + done, end, true, V(OWN));
    } else if (emission->dtype == XENT_F16) {
        V(emit_whole)(emission, lead + done, end, false, XENT_F16);
    } else if (emission->dtype == XENT_BF16) {
        V(emit_whole)(emission, lead + done, end, false, XENT_BF16);
    } else {
        V(emit_whole)(emission, lead + done, end, false, V(OWN));
    }
    V(put_own)(emission, lead, end);
    V(emit_part)(emission, end, n - end);
}

static void V(emit)(const struct xent_emission *emission, size_t n) {
    V(emit_part)(emission, 0, V(lead_of)(emission, n));
    V(emit_rest)(emission, n, 0);
}

/* struct xent_aside, as vectors. Along with the vector at i, that at i + turn of `pending` is
 * emitted to `out`, which is aligned if it is streamed. */
struct V(aside) {
    REAL *exps;
    bool keeps_skip;
    bool looks; /* ahead: a constant of every loop */
    const REAL *ahead;
    V(vec) ahead_max;  /* since the last peaks */
    REAL *ahead_peaks; /* or NULL */
    const char *fetch; /* along with the first vector, and so on */
    ptrdiff_t fetch_stride;
    bool near;
    const char *beside; /* likewise, or NULL */
    size_t beside_size;
    const REAL *pending;
    char *out;
    /* Whole strips; what is beyond pending_size is at the beginning. */
    size_t pending_size, turn;
    struct V(factor) factor;
    struct V(offset) offset; /* its labels are those of `pending` */
    bool stream;
    struct V(logit_sum) logits;    /* of those that are added by fours, where they are SUMMED */
    struct V(spread_sum) terms;    /* where they are SPREAD */
    struct V(quick) weighed;       /* where they are WEIGHED, */
    struct V(quick_from) weighing; /* from these */
};

#ifndef XENT_KEEPING
#    define XENT_KEEPING

/* What becomes of the terms: a constant of every loop. Emission along with the next block can
 * subtract an offset, or labels and an offset, only if it is told so; or store as halves. */
enum keeping {
    KEEP_NOTHING,
    KEEP_TERMS,
    KEEP_WITH_OFFSET,
    KEEP_WITH_LABELS,
    KEEP_AS_F16,
    KEEP_AS_BF16
};

/* The order in which exponentials are computed and added up. From the logit to the sum it is some
 * fifty cycles, in which the processor needs others to work on. */
enum order {
    IN_STEP,    /* a strip's steps, then its exponentials, then its sums: registers hold them all */
    ONE_BY_ONE, /* each is added at once */
    EXPS_FIRST  /* a strip's exponentials, by way of memory, then its sums, which need not wait */
};

/* Then the logits were halves, too, and nobody looks ahead. */
static inline bool stores_halves(enum keeping keep) { return keep > KEEP_WITH_LABELS; }

/* Whether a loop for `keep` can emit what needs `needed`: nothing to subtract is an offset of zero,
 * but no labels. */
static inline bool keeps(enum keeping keep, enum keeping needed) {
    return keep == needed || (keep == KEEP_WITH_OFFSET && needed == KEEP_TERMS);
}

#endif

/* struct xent_logits, or halves; low is there where the treatment is SCALED. The dtype is a
 * constant of every loop. */
struct V(span) {
    const void *u;
    const REAL *low;
    enum xent_dtype dtype;
};

XENT_INLINE V(vec) V(load_from)(const struct V(span) * span, size_t i) {
    const char *const p = (const char *)span->u + i * V(size_of)(span->dtype);
    if (span->dtype == V(OWN)) {
        return V(load)((const REAL *)(const void *)p);
    }
    return span->dtype == XENT_F16 ? V(of_f16)(p) : V(of_bf16)(p);
}

/* As load_masked. */
XENT_INLINE V(vec)
    V(load_masked_from)(const struct V(span) * span, size_t n, size_t i, size_t skip) {
    if (span->dtype == V(OWN)) {
        return V(load_masked)(span->u, n, i, skip);
    }
    const size_t count = n - i < V(LANES) ? n - i : V(LANES);
    REAL lanes[V(LANES)];
    uint16_t halves[V(LANES)] = {0};
    const struct V(span) part = {halves, NULL, span->dtype};
    memcpy(halves, (const char *)span->u + i * sizeof(uint16_t), count * sizeof(uint16_t));
    V(store)(lanes, V(load_from)(&part, 0));
    return V(load_masked)(lanes, count, 0, skip - i); /* which wraps where it is before */
}

XENT_INLINE enum xent_dtype V(stored_as)(enum keeping keep) {
    return keep == KEEP_AS_F16 ? XENT_F16 : keep == KEEP_AS_BF16 ? XENT_BF16 : V(OWN);
}

XENT_INLINE void V(put_aside)(struct V(aside) * aside, size_t i, struct V(exp) exp,
                              enum keeping keep) {
    if (aside->looks) {
        aside->ahead_max = V(max)(V(load)(aside->ahead + i), aside->ahead_max);
    }
    if (keep != KEEP_NOTHING) {
        V(store)(aside->exps + i, V(term)(exp));
    }
}

XENT_INLINE void V(emit_pending)(const struct V(aside) * aside, size_t at, size_t vectors,
                                 enum keeping keep, bool stream) {
    const bool labels = keep == KEEP_WITH_LABELS, less = labels || keep == KEEP_WITH_OFFSET;
#pragma GCC unroll 4
    for (size_t k = 0; k < vectors; k++) {
        const size_t i = at + k * V(LANES);
        const V(vec) e = V(load)(aside->pending + i);
        const V(vec) value =
            less ? V(emitted)(e, &aside->factor, &aside->offset, i, V(LANES), labels)
                 : V(times)(e, &aside->factor);
        V(put)(aside->out, i, value, V(stored_as)(keep), stream);
    }
}

/* What is emitted along with so many vectors from i on. */
XENT_INLINE void V(emit_along)(const struct V(aside) * aside, size_t i, size_t vectors,
                               enum keeping keep) {
    if (keep == KEEP_NOTHING || i >= aside->pending_size) {
        return;
    }
    size_t at = i + aside->turn;
    at -= at >= aside->pending_size ? aside->pending_size : 0;
    if (aside->stream) {
        V(emit_pending)(aside, at, vectors, keep, true);
    } else {
        V(emit_pending)(aside, at, vectors, keep, false);
    }
}

/* So few a vector that the processor has several in sight, where a strip has no registers. */
enum { V(FEW_OPERATIONS) = XENT_FUSED && sizeof(REAL) == sizeof(float) };
static const enum order V(ORDER) = XENT_IN_STEP        ? IN_STEP
                                   : V(FEW_OPERATIONS) ? ONE_BY_ONE
                                                       : EXPS_FIRST;

/* So many vectors are reduced, and emitted, together, or fewer where exponentials come first. */
enum { V(STRIP) = XENT_IN_STEP || V(FEW_OPERATIONS) ? 4 : XENT_PEAK };

/* The vector at i, if the treatment needs its low parts. */
XENT_INLINE V(vec) V(load_low)(const struct V(span) * span, size_t i, enum treatment treatment) {
    return treatment == SCALED ? V(load)(span->low + i) : V(set1)(0);
}

XENT_INLINE const char *V(to_fetch)(const struct V(aside) * aside, size_t i) {
    return aside->fetch + (ptrdiff_t)i * aside->fetch_stride;
}

/* What is fetched along with so many vectors. */
XENT_INLINE void V(fetch_along)(const struct V(aside) * aside, size_t i, size_t vectors) {
    if (aside->near) {
        for (size_t k = 0; k < vectors; k++) {
            __builtin_prefetch(V(to_fetch)(aside, i + k * V(LANES)), 0, 3);
        }
        return;
    }
    for (size_t k = 0; k < vectors; k++) {
        __builtin_prefetch(V(to_fetch)(aside, i + k * V(LANES)), 0, 2);
    }
}

/* What is read beside the classes is not, in most calls: this is asked once for many vectors. Few
 * lines are fetched at once, for the logits' would wait for more. */
XENT_INLINE void V(fetch_beside)(const struct V(aside) * aside, size_t begin, size_t end) {
    const char *const p = aside->beside;
    for (size_t i = begin * aside->beside_size; p && i < end * aside->beside_size;
         i += XENT_CACHE_LINE) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

/* The vector at i, without the class `skip` if it is among them. */
XENT_INLINE struct V(steps)
    V(steps_at)(const struct V(span) * span, size_t i, size_t skip, const struct V(reference) * ref,
                enum treatment treatment, struct V(aside) * aside) {
    if (V(ORDER) != IN_STEP) {
        V(fetch_along)(aside, i, 1);
    }
    const size_t lane = skip - i; /* wraps where skip is before */
    const bool without = skip != SIZE_MAX && lane < V(LANES);
    const V(vec) all = V(load_from)(span, i), low = V(load_low)(span, i, treatment);
    const V(vec) logits = without ? V(without)(all, lane) : all;
    const struct V(steps) steps = V(steps_of)(logits, low, ref, treatment);
    if (treatment == SUMMED) {
        V(add_logit)(&aside->logits, steps.n, steps.r);
    }
    return steps;
}

XENT_INLINE struct V(exp)
    V(exp_at)(const struct V(span) * span, size_t i, size_t skip, const struct V(reference) * ref,
              enum treatment treatment, struct V(aside) * aside) {
    return V(exp_of)(V(steps_at)(span, i, skip, ref, treatment, aside));
}

/* So many vectors from i on, at most a strip, and four if they are added by fours; without the
 * class `skip` if it is among them. */
XENT_INLINE void V(reduce_strip)(const struct V(span) * span, size_t i, size_t vectors,
                                 bool by_fours, size_t skip, const struct V(reference) * ref,
                                 enum treatment treatment, enum keeping keep,
                                 struct V(aside) * aside, struct V(sum) * sum) {
    struct V(steps) steps[V(STRIP)];
    struct V(exp) exps[V(STRIP)];
    for (size_t k = 0; V(ORDER) == IN_STEP && k < vectors; k++) {
        steps[k] = V(steps_at)(span, i + k * V(LANES), skip, ref, treatment, aside);
    }
    for (size_t k = 0; V(ORDER) == IN_STEP && k < vectors; k++) {
        exps[k] = V(exp_of)(steps[k]);
    }
    for (size_t k = 0; V(ORDER) == EXPS_FIRST && k < vectors; k++) {
        exps[k] = V(exp_at)(span, i + k * V(LANES), skip, ref, treatment, aside);
    }
    V(vec) rests = V(set1)(0);
    for (size_t k = 0; k < vectors; k++) {
        const size_t at = i + k * V(LANES);
        if (V(ORDER) == ONE_BY_ONE) {
            exps[k] = V(exp_at)(span, at, skip, ref, treatment, aside);
        }
        if (by_fours) {
            const V(vec) rest = V(add_scale)(sum, exps[k]);
            rests = k == 0 ? rest : V(add)(rests, rest);
        } else {
            V(add_exp)(sum, exps[k]);
        }
        if (treatment == SPREAD) {
            V(add_spread)(&aside->terms, V(term)(exps[k]), V(load_from)(span, at));
        }
        V(put_aside)(aside, at, exps[k], keep);
    }
    if (by_fours) {
        sum->low = V(add)(sum->low, rests);
    }
    if (treatment == WEIGHED) {
        const size_t end = i + vectors * V(LANES);
        aside->weighed = V(quick_whole)(aside->weighed, &aside->weighing, i, end, skip);
    }
    V(emit_along)(aside, i, vectors, keep);
    if (V(ORDER) == IN_STEP) {
        /* Few are fetched together: many would wait for each other. And apart from the loads: on
         * their order it depends whether a row from memory takes a tenth longer. */
        XENT_BARRIER();
        V(fetch_along)(aside, i, vectors);
    }
}

/* The peaks ahead up to the end of what has been reduced, or so far. */
XENT_INLINE void V(note_peaks)(struct V(aside) * aside, size_t end) {
    if (aside->ahead_peaks) {
        V(store)(aside->ahead_peaks + (end - 1) / V(PEAK) * V(LANES), aside->ahead_max);
        aside->ahead_max = end % V(PEAK) == 0 ? V(set1)(-(REAL)INFINITY) : aside->ahead_max;
    }
}

/* Fours of vectors can be summed: without a class, or beyond the last, there is -inf. */
XENT_INLINE enum treatment V(of_few)(enum treatment treatment) {
    return treatment == SUMMED ? AS_IS : treatment;
}

/* Whole vectors only, up to `end`: by fours, but for the four with `skip` and what is fewer at the
 * end, the same for every instruction set. These few are strips of one, where strips have a
 * constant length. */
XENT_INLINE void V(reduce_whole)(const struct V(span) * span, size_t end, size_t skip,
                                 const struct V(reference) * ref, enum treatment treatment,
                                 enum keeping keep, struct V(aside) * aside, struct V(sum) * sum) {
    const size_t four = 4 * V(LANES);
    const enum treatment of_few = V(of_few)(treatment);
    for (size_t i = 0; i < end;) {
        const size_t clear = i + (skip - i < end - i ? skip - i : end - i) / four * four;
        while (i < clear) {
            const size_t part = i / V(PEAK) * V(PEAK) + V(PEAK);
            const size_t until = clear < part ? clear : part;
            V(fetch_beside)(aside, i, until);
            for (size_t vectors; i < until; i += vectors * V(LANES)) {
                vectors = V(ORDER) == EXPS_FIRST ? (until - i) / V(LANES) : V(STRIP);
                V(reduce_strip)(span, i, vectors, V(BY_FOURS), SIZE_MAX, ref, treatment, keep,
                                aside, sum);
            }
            if (V(BY_FOURS)) {
                V(settle)(sum);
            }
            if (treatment == SUMMED) {
                V(settle_logits)(&aside->logits);
            }
            if (treatment == SPREAD) {
                V(settle_spread)(&aside->terms);
            }
            V(note_peaks)(aside, i);
        }
        const size_t stop = end - i < four ? end : i + four;
        if (i == stop) {
            break; /* or its peaks would be noted again */
        }
        for (size_t vectors; i < stop; i += vectors * V(LANES)) {
            vectors = V(ORDER) == EXPS_FIRST ? (stop - i) / V(LANES) : 1;
            V(reduce_strip)(span, i, vectors, false, skip, ref, of_few, keep, aside, sum);
        }
        V(note_peaks)(aside, i);
    }
}

/* The low parts from i on, if the treatment needs them, as load_masked has the high ones. */
XENT_INLINE V(vec)
    V(load_masked_low)(const struct V(span) * span, size_t n, size_t i, enum treatment treatment) {
    const size_t lanes = n - i < V(LANES) ? n - i : V(LANES);
    return treatment == SCALED ? V(load_part)(span->low, i, lanes) : V(set1)(0);
}

/* The classes from i on, fewer than a vector holds. */
XENT_INLINE void V(reduce_tail)(const struct V(span) * span, size_t n, size_t i, size_t skip,
                                const struct V(reference) * ref, enum treatment treatment,
                                enum keeping keep, struct V(aside) * aside, struct V(sum) * sum) {
    const V(vec) x = V(load_masked_from)(span, n, i, skip);
    const V(vec) low = V(load_masked_low)(span, n, i, treatment);
    const V(vec) term = V(add_exp)(sum, V(exp_parts)(x, low, ref, treatment));
    if (treatment == SPREAD) {
        V(add_spread)(&aside->terms, term, x);
    }
    if (treatment == WEIGHED) {
        aside->weighed = V(quick_tail)(aside->weighed, &aside->weighing, i, n, skip);
    }
    if (aside->looks) {
        aside->ahead_max = V(max)(V(load_masked)(aside->ahead, n, i, SIZE_MAX), aside->ahead_max);
    }
    if (keep != KEEP_NOTHING) {
        V(store_first)(aside->exps + i, n - i, term);
    }
}

/* The term of the class that is not in the sum. */
XENT_INLINE void V(keep_skipped)(const struct V(span) * span, size_t n, size_t skip,
                                 const struct V(reference) * ref, enum treatment treatment,
                                 REAL *exps) {
    const size_t i = skip / V(LANES) * V(LANES);
    const V(vec) low = V(load_masked_low)(span, n, i, treatment);
    const V(vec) x = V(load_masked_from)(span, n, i, SIZE_MAX);
    REAL terms[V(LANES)];
    V(store)(terms, V(term)(V(exp_parts)(x, low, ref, treatment)));
    exps[skip] = terms[skip - i];
}

XENT_INLINE void V(sum_block)(const struct V(span) * span, size_t n, size_t skip,
                              const struct V(reference) * ref, enum treatment treatment,
                              enum keeping keep, struct V(aside) * aside, struct xent_sum *result) {
    struct V(sum) sum = V(no_sum)();
    const size_t whole = V(whole_of)(n);
    V(reduce_whole)(span, whole, skip, ref, treatment, keep, aside, &sum);
    if (whole < n) {
        V(reduce_tail)(span, n, whole, skip, ref, V(of_few)(treatment), keep, aside, &sum);
    }
    if (keep != KEEP_NOTHING && aside->keeps_skip && skip < n) {
        V(keep_skipped)(span, n, skip, ref, V(of_few)(treatment), aside->exps);
    }
    V(total)(&sum, V(START), result);
}

/* The spread of a whole block whose logits were summed on the way, but for the four of vectors that
 * `skip` is in; where the sum does not say, class by class. */
static void V(spread_of_block)(const struct xent_logits *logits, size_t skip, double top,
                               const struct V(logit_sum) * sum, struct xent_spread *result) {
    const size_t four = 4 * V(LANES);
    const bool skips = skip < XENT_BLOCK;
    const size_t vectors = (XENT_BLOCK - (skips ? four : 0)) / V(LANES);
    if (!V(spread_of_sum)(sum, vectors, top, result)) {
        V(spread)(logits, XENT_BLOCK, skip, top, NULL, NULL, result);
    } else if (skips) {
        const struct xent_logits few = {(const REAL *)logits->u + skip / four * four, NULL, 1, NAN};
        struct xent_spread others;
        V(spread)(&few, four, skip % four, top, NULL, NULL, &others);
        result->mass += others.mass;
        result->spread += others.spread;
        result->count += others.count;
    }
}

XENT_INLINE enum keeping V(keeping_for)(const struct xent_emission *emission) {
    if (sizeof(REAL) == sizeof(float) && emission->dtype != V(OWN)) {
        return emission->dtype == XENT_F16 ? KEEP_AS_F16 : KEEP_AS_BF16;
    }
    const enum keeping without_labels = emission->offset != 0 ? KEEP_WITH_OFFSET : KEEP_TERMS;
    return emission->labels ? KEEP_WITH_LABELS : without_labels;
}

/* Notes what can be emitted along with the n classes at x, and emits what comes before that.
 *
 * A load that shares address bits 0 to 11 with a store just before it waits for that store. So the
 * stores must not go a little ahead of the logits, modulo a page: then they start further on. */
XENT_INLINE void V(begin_emission)(const struct xent_emission *emission, const void *x, size_t n,
                                   enum keeping keep, struct V(aside) * aside) {
    const size_t lead = V(lead_of)(emission, n);
    V(emit_part)(emission, 0, lead);
    aside->pending = (const REAL *)emission->exps + lead;
    aside->out = (char *)emission->out + lead * V(size_of)(emission->dtype);
    const enum keeping needed = V(keeping_for)(emission);
    const size_t unit = V(STRIP) * V(LANES);
    const size_t lines = V(lines_of)(n - lead, emission->dtype);
    aside->pending_size = keeps(keep, needed) ? lines / unit * unit : 0;
    aside->factor = V(factor_of)(&emission->factor);
    aside->offset = V(offset_of)(emission);
    if (needed == KEEP_WITH_LABELS) {
        aside->offset.labels += lead;
    }
    aside->stream = emission->stream;

    enum { PAGE = 4096, CLEAR = 16 }; /* in bytes; in vectors, of which seven are too few */
    _Static_assert(CLEAR % V(STRIP) == 0, "strips are emitted as a whole");
    const uintptr_t ahead_of_x = ((uintptr_t)aside->out - (uintptr_t)x) % PAGE;
    const bool near = ahead_of_x > 0 && ahead_of_x < CLEAR * sizeof(V(vec));
    const bool enough = aside->pending_size > CLEAR * V(LANES);
    aside->turn = near && enough ? CLEAR * V(LANES) : 0;
}

XENT_INLINE void V(reduce_as)(const struct xent_logits *logits, size_t n, size_t skip, double max,
                              struct xent_aside *aside, struct xent_sum *result,
                              enum treatment treatment, enum keeping keep, enum xent_dtype from) {
    static const REAL zeros[XENT_BLOCK];
    const struct V(span) span = {logits->u, logits->low ? logits->low : zeros, from};
    const bool multiplies = treatment == MULTIPLIED || treatment == SCALED;
    const double scale = multiplies ? logits->scale : 1;
    const struct V(reference) ref = V(refer_to)((REAL)max, scale, result);
    const bool near = XENT_IN_STEP && aside->near;
    const size_t ahead = n + (size_t)(near ? XENT_AHEAD_NEAR : XENT_AHEAD) / sizeof(REAL);
    struct V(aside) own = {
        .exps = aside->exps,
        .keeps_skip = aside->keeps_skip,
        .looks = from == V(OWN) && !stores_halves(keep),
        .ahead = aside->ahead ? aside->ahead : span.u, /* at hand: looking is cheaper than asking */
        .ahead_max = V(set1)(-(REAL)INFINITY),
        .ahead_peaks = aside->ahead ? aside->ahead_peaks : NULL,
        .fetch = aside->source + (ptrdiff_t)ahead * aside->source_stride,
        .fetch_stride = aside->source_stride,
        .near = near,
        .beside = aside->beside,
        .beside_size = aside->beside_size,
        .pending_size = 0,
        .logits = V(no_logits)(),
        .terms = V(no_terms)((REAL)max),
        .weighed = V(no_spread)(),
    };
    if (treatment == WEIGHED) {
        const void *const labels = aside->labels ? aside->labels : aside->weights;
        own.weighing = (struct V(quick_from)){span.u, labels, NULL, max};
    }
    const bool emits = keep != KEEP_NOTHING && aside->emission;
    if (emits) {
        V(begin_emission)(aside->emission, span.u, n, keep, &own);
    }
    V(sum_block)(&span, n, skip, &ref, treatment, keep, &own, result);
    if (emits) {
        V(emit_rest)(aside->emission, n, own.pending_size);
    }
    /* Copies are passed on, or all of `own` would stay in memory in the loops. */
    if (treatment == SUMMED) {
        const struct V(logit_sum) sum = own.logits;
        V(spread_of_block)(logits, skip, max, &sum, aside->spread);
    }
    if (treatment == SPREAD) {
        const struct V(spread_sum) sum = own.terms;
        *aside->below = V(spread_total)(&sum);
    }
    if (treatment == WEIGHED) {
        const struct V(quick) sums = own.weighed;
        const struct V(quick_from) weighing = own.weighing;
        if (!V(quick_result)(sums, &weighing, n, skip, max, aside->spread)) {
            V(spread_any)(logits, n, skip, max, aside->labels, aside->weights, aside->spread);
        }
    }
    for (size_t i = 0; own.ahead_peaks && i < V(whole_of)(n); i += V(PEAK)) {
        own.ahead_max = V(max)(V(peaks_at)(own.ahead_peaks, i), own.ahead_max);
    }
    aside->ahead_max = (double)V(largest_lane)(own.ahead_max);
}

/* A function for each, so that the loops test nothing and have the registers to themselves. */
#define DEFINE_REDUCE_FROM(name, treatment, keep, from)                                            \
    static __attribute__((noinline)) void V(reduce_##name)(                                        \
        const struct xent_logits *logits, size_t n, size_t skip, double max,                       \
        struct xent_aside *aside, struct xent_sum *sum) {                                          \
        V(reduce_as)(logits, n, skip, max, aside, sum, treatment, keep, from);                     \
    }
#define DEFINE_REDUCE(name, treatment, keep) DEFINE_REDUCE_FROM(name, treatment, keep, V(OWN))
DEFINE_REDUCE(as_is, AS_IS, KEEP_NOTHING)
DEFINE_REDUCE(as_is_kept, AS_IS, KEEP_TERMS)
DEFINE_REDUCE(as_is_with_offset, AS_IS, KEEP_WITH_OFFSET)
DEFINE_REDUCE(as_is_with_labels, AS_IS, KEEP_WITH_LABELS)
DEFINE_REDUCE(as_is_as_f16, AS_IS, KEEP_AS_F16)
DEFINE_REDUCE(as_is_as_bf16, AS_IS, KEEP_AS_BF16)
DEFINE_REDUCE(summed, SUMMED, KEEP_NOTHING)
DEFINE_REDUCE(summed_with_offset, SUMMED, KEEP_WITH_OFFSET)
DEFINE_REDUCE(spread, SPREAD, KEEP_NOTHING)
DEFINE_REDUCE(weighed, WEIGHED, KEEP_NOTHING)
DEFINE_REDUCE(weighed_with_labels, WEIGHED, KEEP_WITH_LABELS)
DEFINE_REDUCE(shifted, SHIFTED, KEEP_NOTHING)
DEFINE_REDUCE(shifted_kept, SHIFTED, KEEP_TERMS)
DEFINE_REDUCE(multiplied, MULTIPLIED, KEEP_NOTHING)
DEFINE_REDUCE(multiplied_kept, MULTIPLIED, KEEP_TERMS)
DEFINE_REDUCE(scaled, SCALED, KEEP_NOTHING)
DEFINE_REDUCE(scaled_kept, SCALED, KEEP_TERMS)
DEFINE_REDUCE_FROM(f16, AS_IS, KEEP_NOTHING, XENT_F16)
DEFINE_REDUCE_FROM(bf16, AS_IS, KEEP_NOTHING, XENT_BF16)
#undef DEFINE_REDUCE
#undef DEFINE_REDUCE_FROM

/* Whether exp takes the logits as they are. */
XENT_INLINE bool V(is_as_is)(const struct xent_logits *logits, double max) {
    return logits->scale == 1 && !logits->low && !V(is_shifted)(max);
}

typedef void V(reduction)(const struct xent_logits *logits, size_t n, size_t skip, double max,
                          struct xent_aside *aside, struct xent_sum *sum);

static V(reduction) *
    V(reduction_for)(const struct xent_logits *logits, double max, const struct xent_aside *aside) {
    const bool keep = aside->exps != NULL;
    if (logits->scale != 1 && !logits->low && !V(is_shifted)(max * logits->scale)) {
        return keep ? V(reduce_multiplied_kept) : V(reduce_multiplied);
    }
    if (logits->scale != 1 || logits->low) {
        return keep ? V(reduce_scaled_kept) : V(reduce_scaled);
    }
    if (V(is_shifted)(max)) {
        return keep ? V(reduce_shifted_kept) : V(reduce_shifted);
    }
    if (!keep) {
        return V(reduce_as_is);
    }
    switch (aside->emission ? V(keeping_for)(aside->emission) : KEEP_TERMS) {
    case KEEP_AS_F16:
        return V(reduce_as_is_as_f16);
    case KEEP_AS_BF16:
        return V(reduce_as_is_as_bf16);
    case KEEP_WITH_LABELS:
        return V(reduce_as_is_with_labels);
    case KEEP_WITH_OFFSET:
        return V(reduce_as_is_with_offset);
    default:
        return V(reduce_as_is_kept);
    }
}

/* Reduces a block and sums its logits on the way, where that is fewer operations than V(spread)
 * takes; says whether it did. Of fewer classes, what comes to every block would outweigh them. But
 * with masks, a logit far below all others makes the sum no number: that block is reduced again,
 * without. */
static bool V(reduce_and_sum)(const struct xent_logits *logits, size_t n, size_t skip, double max,
                              struct xent_aside *aside, struct xent_sum *sum) {
    if (!V(BY_FOURS) || n < XENT_BLOCK || !V(is_as_is)(logits, max)) {
        return false;
    }
    if (aside->exps) {
        V(reduce_summed_with_offset)(logits, n, skip, max, aside, sum);
    } else {
        V(reduce_summed)(logits, n, skip, max, aside, sum);
    }
    aside->emission = NULL; /* it is done */
    return !isnan(sum->sum);
}

/* Likewise with labels or weights, but not both, of floats, where there are registers for the sums
 * beside the exponentials: the same sums as V(spread) forms. What is emitted along has labels, too,
 * nearly always; else it is emitted afterwards. */
static bool V(reduce_and_weigh)(const struct xent_logits *logits, size_t n, size_t skip, double max,
                                struct xent_aside *aside, struct xent_sum *sum) {
    const bool one = !aside->labels != !aside->weights, whole = V(LANES) % V(QUICK) == 0;
    if (!XENT_IN_STEP || !whole || !one || !V(is_as_is)(logits, max)) {
        return false;
    }
    if (aside->exps) {
        V(reduce_weighed_with_labels)(logits, n, skip, max, aside, sum);
    } else {
        V(reduce_weighed)(logits, n, skip, max, aside, sum);
    }
    return true;
}

/* By itself, because what it keeps in registers would be saved in every call. */
static __attribute__((noinline)) void V(reduce_with_spread)(const struct xent_logits *logits,
                                                            size_t n, size_t skip, double max,
                                                            struct xent_aside *aside,
                                                            struct xent_sum *sum) {
    const bool all_alike = !aside->labels && !aside->weights;
    if (!(all_alike ? V(reduce_and_sum) : V(reduce_and_weigh))(logits, n, skip, max, aside, sum)) {
        V(spread)(logits, n, skip, max, aside->labels, aside->weights, aside->spread);
        V(reduction_for)(logits, max, aside)(logits, n, skip, max, aside, sum);
    }
}

/* With the sum of the terms times how far they are below the largest; by itself likewise. */
static __attribute__((noinline)) void V(reduce_with_terms)(const struct xent_logits *logits,
                                                           size_t n, size_t skip, double max,
                                                           struct xent_aside *aside,
                                                           struct xent_sum *sum) {
    if (V(is_as_is)(logits, max)) {
        V(reduce_spread)(logits, n, skip, max, aside, sum);
    } else {
        V(reduction_for)(logits, max, aside)(logits, n, skip, max, aside, sum);
        *aside->below = V(spread_terms)(logits, n, max, aside->exps);
    }
    if (*aside->below - *aside->below != 0) {
        *aside->below = 0; /* infinitely far are terms of zero */
    }
}

static void V(reduce)(const struct xent_logits *logits, size_t n, size_t skip, double max,
                      struct xent_aside *aside, struct xent_sum *sum) {
    if (aside->spread) {
        V(reduce_with_spread)(logits, n, skip, max, aside, sum);
    } else if (aside->below) {
        V(reduce_with_terms)(logits, n, skip, max, aside, sum);
    } else {
        V(reduction_for)(logits, max, aside)(logits, n, skip, max, aside, sum);
    }
}

/* scale * d - low, which is d - low, rounded once, where scale is 1. */
struct V(line) {
    V(vec) high, scale, scale_low, low;
};

XENT_INLINE struct V(line) V(line_of)(double scale, V(vec) high, V(vec) low) {
    const REAL first = (REAL)scale, rest = (REAL)(scale - (double)first);
    return (struct V(line)){high, V(set1)(first), V(set1)(rest), low};
}

XENT_INLINE V(vec) V(on_line)(V(vec) u, const struct V(line) * line) {
    const V(vec) d = V(sub)(u, line->high);
    const V(vec) finite = V(max)(V(set1)(-0x1p60), d); /* infinity times zero is no number */
    return V(fma)(d, line->scale, V(fms)(finite, line->scale_low, line->low));
}

static void V(emit_shifted)(const struct xent_logits *logits, size_t n, double high, double low,
                            void *values) {
    const REAL *const u = logits->u;
    REAL *const out = values;
    const struct V(line) line = V(line_of)(logits->scale, V(set1)((REAL)high), V(set1)((REAL)low));
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(store)(out + i, V(on_line)(V(load)(u + i), &line));
    }
    if (i < n) {
        V(store_first)(out + i, n - i, V(on_line)(V(load_part)(u, i, n - i), &line));
    }
}
