/* The kernels where rows lie side by side in a tile: for few classes, where a row by itself does
 * not fill vectors, in any layout of the arrays. Included once per dtype after rows.inc.h; knows
 * vectors and nothing else. */

enum { V(ITEM) = sizeof(REAL), V(VECTOR) = sizeof(V(vec)) };

XENT_INLINE REAL *V(tile_at)(const struct xent_tile *tile, size_t class, size_t row) {
    return (REAL *)(void *)(tile->cells + (ptrdiff_t)class * tile->pitch) + row;
}

/* Where neither the rows nor the classes of a row are contiguous, and for rows that do not fill a
 * vector. */
XENT_INLINE void V(copy_cells)(const char *from, ptrdiff_t from_row, ptrdiff_t from_class, char *to,
                               ptrdiff_t to_row, ptrdiff_t to_class, size_t rows, size_t classes) {
    for (ptrdiff_t k = 0; k < (ptrdiff_t)classes; k++) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i++) {
            memcpy(to + k * to_class + i * to_row, from + k * from_class + i * from_row,
                   sizeof(REAL));
        }
    }
}

/* The class that the k-th block of SQUARE classes begins with: the last block overlaps the one
 * before, so that nothing beyond a row is touched. */
XENT_INLINE ptrdiff_t V(block_class)(size_t k, size_t classes) {
    return (ptrdiff_t)(k + V(SQUARE) <= classes ? k : classes - V(SQUARE));
}

/* How LANES rows lie in an array. */
enum V(layout) {
    V(COLUMNS), /* neighbouring rows are contiguous */
    V(BLOCKS),  /* rows are, and have blocks of SQUARE classes */
    V(PACKED),  /* rows are, of fewer classes, one after the other: a block has several rows */
    V(CELLS)    /* anything else */
};

XENT_INLINE enum V(layout)
    V(layout_of)(const struct xent_cells *cells, size_t rows, size_t classes) {
    if (rows < V(LANES)) {
        return V(CELLS);
    }
    if (cells->row_stride == V(ITEM)) {
        return V(COLUMNS);
    }
    if (cells->class_stride == V(ITEM)) {
        const bool packed = cells->row_stride == (ptrdiff_t)(classes * sizeof(REAL));
        return classes >= V(SQUARE) ? V(BLOCKS) : packed ? V(PACKED) : V(CELLS);
    }
    return V(CELLS);
}

/* Fetches what is a few tiles after a block of rows that are one after the other: the blocks are
 * read in an order that the hardware does not foresee. */
XENT_INLINE void V(fetch_ahead)(const char *block) {
    for (size_t i = 0; i < V(LANES) * V(SQUARE) * sizeof(REAL); i += XENT_CACHE_LINE) {
        __builtin_prefetch(block + XENT_AHEAD + i, 0, 2);
    }
}

/* A vector of rows, from `row` on; columns are copied by themselves. */
XENT_INLINE void V(load_vector)(const struct xent_tile *tile, const struct xent_cells *from,
                                size_t row) {
    const char *const logits = from->data + (ptrdiff_t)row * from->row_stride;
    char *const cells = (char *)V(tile_at)(tile, 0, row);
    const size_t rows = tile->rows - row, classes = tile->classes;
    switch (V(layout_of)(from, rows, classes)) {
    case V(COLUMNS):
        break;
    case V(BLOCKS):
        for (size_t k = 0; k < classes; k += V(SQUARE)) {
            const ptrdiff_t class = V(block_class)(k, classes);
            V(fetch_ahead)(logits + k * V(LANES) * sizeof(REAL));
            for (ptrdiff_t i = 0; i < V(LANES); i += V(SQUARE)) {
                V(transpose)(logits + i * from->row_stride + class * V(ITEM), from->row_stride,
                             cells + class * tile->pitch + i * V(ITEM), tile->pitch);
            }
        }
        break;
    case V(PACKED): {
        /* Of the last rows a block would be read that goes beyond the array. */
        REAL last[V(LANES) * V(SQUARE)];
        const bool more = rows >= V(LANES) + V(SQUARE);
        const char *const packed = more ? logits : (const char *)last;
        if (!more) {
            memcpy(last, logits, V(LANES) * classes * sizeof(REAL));
        }
        for (ptrdiff_t i = 0; i < V(LANES); i += V(SQUARE)) {
            V(transpose)(packed + i * from->row_stride, from->row_stride, cells + i * V(ITEM),
                         tile->pitch);
        }
        break;
    }
    case V(CELLS):
        for (size_t k = 0; k < classes; k++) {
            V(store)(V(tile_at)(tile, k, row), V(set1)(0)); /* for the lanes without a row */
        }
        V(copy_cells)(logits, from->row_stride, from->class_stride, cells, V(ITEM), tile->pitch,
                      rows < V(LANES) ? rows : V(LANES), classes);
        break;
    }
}

/* Class after class, all rows of one at a time: each is a stream of its own, too short for the
 * hardware to foresee, and with strides of a power of two they compete for the same lines of the
 * caches. */
XENT_INLINE size_t V(load_columns)(const struct xent_tile *tile, const struct xent_cells *from) {
    const size_t whole = tile->rows / V(LANES) * V(LANES);
    for (size_t k = 0; k < tile->classes; k++) {
        const char *const logits = from->data + (ptrdiff_t)k * from->class_stride;
        for (size_t row = 0; row < whole; row += V(LANES)) {
            const REAL *const at = (const REAL *)(const void *)logits + row;
            __builtin_prefetch(at + XENT_ROWS, 0, 2);
            V(store)(V(tile_at)(tile, k, row), V(load)(at));
        }
    }
    return whole;
}

static void V(lanes_load)(const struct xent_tile *tile, const struct xent_cells *logits) {
    size_t row = logits->row_stride == V(ITEM) ? V(load_columns)(tile, logits) : 0;
    for (; row < tile->rows; row += V(LANES)) {
        V(load_vector)(tile, logits, row);
    }
}

/* A vector of rows as they are in an array, from `rows` on and row_stride bytes apart. */
XENT_INLINE void V(store_blocks)(const struct xent_tile *tile, size_t row, char *rows,
                                 ptrdiff_t row_stride) {
    const char *const cells = (const char *)V(tile_at)(tile, 0, row);
    for (size_t k = 0; k < tile->classes; k += V(SQUARE)) {
        const ptrdiff_t class = V(block_class)(k, tile->classes);
        for (ptrdiff_t i = 0; i < V(LANES); i += V(SQUARE)) {
            V(transpose)(cells + class * tile->pitch + i * V(ITEM), tile->pitch,
                         rows + i * row_stride + class * V(ITEM), row_stride);
        }
    }
}

/* The same of fewer classes than a block has: row after row, each over what the one before has left
 * beyond its end, and so to `rows`, which have room for that. */
XENT_INLINE void V(store_packed)(const struct xent_tile *tile, size_t row, char *rows) {
    const char *const cells = (const char *)V(tile_at)(tile, 0, row);
    const ptrdiff_t row_stride = (ptrdiff_t)tile->classes * V(ITEM);
    for (ptrdiff_t i = 0; i < V(LANES); i += V(SQUARE)) {
        V(transpose)(cells + i * V(ITEM), tile->pitch, rows + i * row_stride, row_stride);
    }
}

/* A vector of rows, from `row` on; columns are copied by themselves. What is streamed is put in
 * order first, so that it goes out in whole lines. */
XENT_INLINE void V(store_vector)(const struct xent_tile *tile, const struct xent_cells *to,
                                 size_t row, struct xent_edge *edge) {
    char *const values = to->data + (ptrdiff_t)row * to->row_stride;
    const size_t rows = tile->rows - row, classes = tile->classes, n = V(LANES) * classes;
    const enum V(layout) layout = V(layout_of)(to, rows, classes);
    const bool one_after_other = to->row_stride == (ptrdiff_t)(classes * sizeof(REAL));
    REAL ordered[V(LANES) * XENT_TILE_CLASSES];
    if (layout == V(CELLS)) {
        V(copy_cells)((const char *)V(tile_at)(tile, 0, row), V(ITEM), tile->pitch, values,
                      to->row_stride, to->class_stride, rows < V(LANES) ? rows : V(LANES), classes);
    } else if (layout == V(PACKED)) {
        V(store_packed)(tile, row, (char *)ordered);
    } else if (layout == V(BLOCKS) && edge && one_after_other) {
        V(store_blocks)(tile, row, (char *)ordered, to->row_stride);
    } else if (layout == V(BLOCKS)) {
        V(store_blocks)(tile, row, values, to->row_stride);
    }
    if (edge && one_after_other && (layout == V(PACKED) || layout == V(BLOCKS))) {
        V(stream_bytes)(edge, values, ordered, n * sizeof(REAL));
    } else if (layout == V(PACKED)) {
        memcpy(values, ordered, n * sizeof(REAL));
    }
}

XENT_INLINE size_t V(store_columns)(const struct xent_tile *tile, const struct xent_cells *to,
                                    bool streams) {
    const size_t whole = tile->rows / V(LANES) * V(LANES);
    for (size_t k = 0; k < tile->classes; k++) {
        REAL *const values = (REAL *)(void *)(to->data + (ptrdiff_t)k * to->class_stride);
        const bool aligned = (uintptr_t)values % V(VECTOR) == 0;
        for (size_t row = 0; row < whole; row += V(LANES)) {
            V(put)(values, row, V(load)(V(tile_at)(tile, k, row)), V(OWN), streams && aligned);
        }
    }
    return whole;
}

static void V(lanes_store)(const struct xent_tile *tile, const struct xent_cells *values,
                           struct xent_edge *edge) {
    const bool streams = edge && (uintptr_t)values->data % sizeof(REAL) == 0;
    size_t row = values->row_stride == V(ITEM) ? V(store_columns)(tile, values, streams) : 0;
    for (; row < tile->rows; row += V(LANES)) {
        V(store_vector)(tile, values, row, streams ? edge : NULL);
    }
}

XENT_INLINE V(vec) V(lanes_max)(const struct xent_tile *tile, size_t row) {
    V(vec) m = V(set1)(-(REAL)INFINITY);
    for (size_t k = 0; k < tile->classes; k++) {
        m = V(max)(V(load)(V(tile_at)(tile, k, row)), m);
    }
    return m;
}

static void V(lanes_largest)(const struct xent_tile *tile, size_t *target) {
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const V(vec) m = V(lanes_max)(tile, row);
        V(vec) first = V(set1)(0);
        for (size_t k = tile->classes; k-- > 0;) {
            first = V(less)(V(load)(V(tile_at)(tile, k, row)), m, first, V(set1)((REAL)k));
        }
        REAL lane[V(LANES)];
        V(store)(lane, first);
        for (size_t i = 0; i < V(LANES); i++) {
            target[row + i] = (size_t)lane[i];
        }
    }
}

/* So few classes are gone through to find each row's target, which takes 10 operations by itself,
 * and leaves a number in the midst of a line that is soon read as a vector. */
enum { V(FEW) = V(LANES) / 2 };

/* The rows before the first that have to be gone through one by one. */
XENT_INLINE size_t V(rows_at_once)(const struct xent_tile *tile) {
    return tile->classes <= V(FEW) ? tile->rows / V(LANES) * V(LANES) : 0;
}

/* Of a vector of rows, as numbers of the lanes. */
XENT_INLINE V(vec) V(classes_of)(const size_t *target) {
    REAL lanes[V(LANES)];
    for (int i = 0; i < V(LANES); i++) {
        lanes[i] = (REAL)(int32_t)target[i];
    }
    return V(load)(lanes);
}

static void V(lanes_take)(const struct xent_tile *tile, const size_t *target, double *logits) {
    const V(vec) none = V(set1)(-(REAL)INFINITY), one = V(set1)(1);
    const struct xent_tile all = *tile; /* which no store to its cells changes */
    const size_t at_once = V(rows_at_once)(tile);
    for (size_t row = 0; row < at_once; row += V(LANES)) {
        const V(vec) class = V(classes_of)(target + row);
        V(vec) taken = none, this = V(set1)(0);
        for (size_t k = 0; k < all.classes; k++) {
            REAL *const cell = V(tile_at)(&all, k, row);
            const V(vec) x = V(load)(cell);
            taken = V(equal)(class, this, x, taken);
            V(store)(cell, V(equal)(class, this, none, x));
            this = V(add)(this, one);
        }
        V(to_doubles)(logits + row, taken);
    }
    for (size_t i = at_once; i < tile->rows; i++) {
        REAL *const x = V(tile_at)(tile, target[i], i);
        logits[i] = (double)*x;
        *x = -(REAL)INFINITY;
    }
}

static void V(lanes_put)(const struct xent_tile *tile, const size_t *target, const double *values) {
    const struct xent_tile all = *tile; /* which no store to its cells changes */
    const size_t at_once = V(rows_at_once)(tile);
    for (size_t row = 0; row < at_once; row += V(LANES)) {
        const V(vec) class = V(classes_of)(target + row), value = V(of_doubles)(values + row);
        V(vec) this = V(set1)(0);
        for (size_t k = 0; k < all.classes; k++) {
            REAL *const cell = V(tile_at)(&all, k, row);
            V(store)(cell, V(equal)(class, this, value, V(load)(cell)));
            this = V(add)(this, V(set1)(1));
        }
    }
    for (size_t i = at_once; i < tile->rows; i++) {
        *V(tile_at)(tile, target[i], i) = (REAL)values[i];
    }
}

/* The targets of a vector of rows; zeros in lanes without a row. */
struct V(targets) {
    V(vec) logits, classes;
};

XENT_INLINE struct V(targets)
    V(targets_of)(const struct xent_tile *tile, const size_t *target, size_t row) {
    REAL logits[V(LANES)] = {0}, classes[V(LANES)] = {0};
    for (size_t i = 0; i < V(LANES) && row + i < tile->rows; i++) {
        logits[i] = *V(tile_at)(tile, target[row + i], row + i);
        classes[i] = (REAL)target[row + i];
    }
    return (struct V(targets)){V(load)(logits), V(load)(classes)};
}

static void V(lanes_before)(const struct xent_tile *tile, const size_t *target, int64_t *before) {
    const V(vec) zero = V(set1)(0), one = V(set1)(1);
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const struct V(targets) targets = V(targets_of)(tile, target, row);
        V(vec) count = zero;
        for (size_t k = 0; k < tile->classes; k++) {
            const V(vec) x = V(load)(V(tile_at)(tile, k, row));
            const V(vec) above = V(less)(targets.logits, x, one, zero);
            const V(vec) no_less = V(less)(x, targets.logits, zero, one);
            count = V(add)(count, V(less)(V(set1)((REAL)k), targets.classes, no_less, above));
        }
        REAL lanes[V(LANES)];
        V(store)(lanes, count);
        for (size_t i = 0; i < V(LANES) && row + i < tile->rows; i++) {
            before[row + i] = (int64_t)lanes[i];
        }
    }
}

/* What each lane's exponentials are relative to, given its largest class: as V(refer_to). */
XENT_INLINE void V(refer_lanes_to)(V(vec) m, double scale, enum treatment treatment,
                                   struct xent_rows *rows, size_t row, struct V(reference) * ref) {
    const REAL scale_high = (REAL)scale, ln2 = (REAL)(0x1.62e42fefa39efp-1 / scale);
    const V(vec) z = treatment == SCALED ? V(mul)(m, V(set1)(scale_high)) : m;
    const V(vec) zero = V(set1)(0), size = V(max)(V(sub)(zero, z), z);
    const V(vec) from = V(set1)(V(SHIFT_FROM)), round = V(set1)(V(ROUND));
    const V(vec) large = V(less)(m, V(set1)(-V(LARGEST)), zero, m); /* not -inf, where all are */
    const V(vec) shift = V(less)(size, from, zero, large);
    const V(vec) near = V(less)(size, from, z, zero);
    const V(vec) exponent = V(sub)(V(fma)(near, V(set1)(V(LOG2_E)), round), round);
    const V(vec) offset = V(sub)(V(set1)(V(AT_ONE) + V(HEADROOM)), exponent);
    V(to_doubles)(rows->shift + row, shift);
    V(to_doubles)(rows->exponent + row, exponent);
    ref->shift = shift;
    ref->lowest = V(mul)(V(sub)(V(set1)(V(AT_ZERO)), offset), V(set1)(ln2));
    ref->round = V(fma)(offset, V(set1)(V(STEPS)), round);
    if (treatment == SCALED) {
        V(refer_scale)(ref, scale);
    }
}

/* The low parts, zeros if there are none, as a tile. */
XENT_INLINE struct xent_tile V(low_or_zeros)(const struct xent_tile *low) {
    static const REAL zeros[XENT_ROWS]; /* for every class */
    return low ? *low : (struct xent_tile){.cells = (char *)(uintptr_t)zeros, .pitch = 0};
}

/* So many classes are reduced together. Floats one by one, as in rows.inc.h, would gain forward
 * what they lose where the terms are kept. */
enum { V(AT_ONCE) = XENT_IN_STEP ? 4 : 16 };

/* The low parts are there where the treatment is SCALED. */
XENT_INLINE void V(reduce_classes)(const struct xent_tile *tile, const struct xent_tile *low,
                                   size_t row, size_t class, size_t count,
                                   const struct V(reference) * ref, enum treatment treatment,
                                   bool keep, struct V(sum) * sum) {
    struct V(exp) exps[V(AT_ONCE)];
    for (size_t k = 0; k < count; k++) {
        const V(vec) x = V(load)(V(tile_at)(tile, class + k, row));
        const V(vec) rest =
            treatment == SCALED ? V(load)(V(tile_at)(low, class + k, row)) : V(set1)(0);
        exps[k] = V(exp_parts)(x, rest, ref, treatment);
    }
    for (size_t k = 0; k < count; k++) {
        const V(vec) term = V(add_exp)(sum, exps[k]);
        if (keep) {
            V(store)(V(tile_at)(tile, class + k, row), term);
        }
    }
}

/* What the lanes' sums are without their start and the headroom; of floats a double holds all that
 * matters. */
XENT_INLINE void V(note_sum)(const struct V(sum) * sum, struct xent_rows *rows, size_t row) {
    const vec start = number(V(START)), unit = number(1 / V(ONE_WITH_HEADROOM));
    const bool single = sizeof(REAL) == sizeof(float);
    REAL highs[V(LANES)], lows[V(LANES)];
    V(store)(highs, sum->high);
    V(store)(lows, sum->low);
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        const vec high = f64_sub(V(widen)(highs + i), start), low = V(widen)(lows + i);
        const vec others = f64_add(high, low);
        f64_store(rows->others + row + i, f64_mul(others, unit));
        if (!single) {
            const vec back = f64_sub(others, high);
            const vec lost = f64_add(f64_sub(high, f64_sub(others, back)), f64_sub(low, back));
            f64_store(rows->others_low + row + i, f64_mul(lost, unit));
        }
    }
}

XENT_INLINE void V(reduce_vector)(const struct xent_tile *tile, const struct xent_tile *low,
                                  size_t row, enum treatment treatment, bool keep,
                                  const struct V(reference) * ref, struct xent_rows *rows) {
    struct V(sum) sum = V(no_sum)();
    size_t class = 0;
    for (; class + V(AT_ONCE) <= tile->classes; class += V(AT_ONCE)) {
        V(reduce_classes)(tile, low, row, class, V(AT_ONCE), ref, treatment, keep, &sum);
    }
    V(reduce_classes)(tile, low, row, class, tile->classes - class, ref, treatment, keep, &sum);
    V(note_sum)(&sum, rows, row);
}

/* All references first: what one row waits for does not wait for another's sum. */
XENT_INLINE void V(lanes_reduce_as)(const struct xent_tile *tile, const struct xent_tile *low,
                                    double scale, enum treatment treatment, bool keep,
                                    struct xent_rows *rows) {
    struct V(reference) ref[XENT_ROWS / V(LANES)];
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const V(vec) m = V(lanes_max)(tile, row);
        V(refer_lanes_to)(m, scale, treatment, rows, row, &ref[row / V(LANES)]);
    }
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        V(reduce_vector)(tile, low, row, treatment, keep, &ref[row / V(LANES)], rows);
    }
}

static void V(lanes_reduce)(const struct xent_tile *tile, const struct xent_tile *low, double scale,
                            bool keep, struct xent_rows *rows) {
    const bool scaled = low || scale != 1;
    const struct xent_tile lows = V(low_or_zeros)(low);
    if (scaled && keep) {
        V(lanes_reduce_as)(tile, &lows, scale, SCALED, true, rows);
    } else if (scaled) {
        V(lanes_reduce_as)(tile, &lows, scale, SCALED, false, rows);
    } else if (keep) {
        V(lanes_reduce_as)(tile, NULL, 1, SHIFTED, true, rows);
    } else {
        V(lanes_reduce_as)(tile, NULL, 1, SHIFTED, false, rows);
    }
}

/* The factors of the rows from `row` on. */
XENT_INLINE struct V(factor) V(factor_of_rows)(const struct xent_factors *factors, size_t row) {
    return (struct V(factor)){V(of_doubles)(factors->high + row), V(of_doubles)(factors->low + row),
                              V(of_doubles)(factors->post + row)};
}

static void V(lanes_emit)(const struct xent_tile *tile, const struct xent_factors *factors) {
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const struct V(factor) factor = V(factor_of_rows)(factors, row);
        for (size_t k = 0; k < tile->classes; k++) {
            REAL *const e = V(tile_at)(tile, k, row);
            V(store)(e, V(times)(V(load)(e), &factor));
        }
    }
}

static void V(lanes_emit_less)(const struct xent_tile *tile, const struct xent_factors *factors,
                               const struct xent_lanes_less *less) {
    const V(vec) zero = V(set1)(0);
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const struct V(factor) factor = V(factor_of_rows)(factors, row);
        const V(vec) offset = V(of_doubles)(less->offset + row);
        const V(vec) by_labels = V(of_doubles)(less->by_labels + row);
        for (size_t k = 0; k < tile->classes; k++) {
            REAL *const e = V(tile_at)(tile, k, row);
            const V(vec) term = V(load)(e);
            const V(vec) weight = V(set1)(less->weights ? (REAL)less->weights[k] : 1);
            V(vec) by = V(less)(term, zero, zero, V(mul)(offset, weight));
            if (less->labels) {
                const V(vec) label = V(load)(V(tile_at)(less->labels, k, row));
                by = V(fma)(V(mul)(label, weight), by_labels, by);
            }
            V(vec) value = V(times_less)(V(max)(zero, term), &factor, by);
            if (less->slopes) {
                value = V(times_slope)(value, V(load)(V(tile_at)(less->slopes, k, row)));
            }
            V(store)(e, value);
        }
    }
}

static void V(lanes_emit_shifted)(const struct xent_tile *tile, double scale, const double *high,
                                  const double *low) {
    for (size_t row = 0; row < tile->rows; row += V(LANES)) {
        const struct V(line) line =
            V(line_of)(scale, V(of_doubles)(high + row), V(of_doubles)(low + row));
        for (size_t k = 0; k < tile->classes; k++) {
            REAL *const x = V(tile_at)(tile, k, row);
            V(store)(x, V(on_line)(V(load)(x), &line));
        }
    }
}

/* Eight rows of a tile. Inlined for each case, so that a loop tests nothing for what is NULL. */
XENT_INLINE void V(spread_rows)(const struct xent_tile *tile, const struct xent_tile *low,
                                size_t row, const struct xent_tile *labels, const double *weights,
                                struct xent_rows *rows, double *counts) {
    const vec zero = number(0), one = number(1), masked = number(-INFINITY);
    vec top = masked, count = zero;
    for (size_t k = 0; k < tile->classes; k++) {
        top = f64_max(V(widen)(V(tile_at)(tile, k, row)), top);
    }
    top = f64_less(masked, top, top, zero);
    struct V(carried) mass = {zero, zero}, spread = {zero, zero};
    for (size_t k = 0; k < tile->classes; k++) {
        const vec x = V(widen)(V(tile_at)(tile, k, row));
        vec below = f64_sub(top, x);
        below = low ? f64_sub(below, V(widen)(V(tile_at)(low, k, row))) : below;
        count = f64_add(count, f64_less(masked, x, one, zero));
        if (!labels && !weights) {
            V(carry)(&spread, f64_less(masked, x, below, zero));
            continue;
        }
        const vec weight = weights ? number(weights[k]) : one;
        const vec c = labels ? f64_mul(V(widen)(V(tile_at)(labels, k, row)), weight)
                             : f64_less(masked, x, weight, zero);
        V(carry)(&mass, c);
        V(carry)(&spread, f64_less(zero, magnitude(c), f64_mul(c, below), zero));
    }
    mass.high = labels || weights ? mass.high : count;
    f64_store(rows->top + row, top);
    f64_store(rows->rest + row, f64_add(mass.high, mass.low));
    f64_store(rows->spread + row, f64_add(spread.high, spread.low));
    f64_store(counts + row, count);
}

static void V(lanes_spread)(const struct xent_tile *tile, const struct xent_tile *low,
                            const struct xent_tile *labels, const double *weights,
                            struct xent_rows *rows, double *counts) {
    for (size_t row = 0; row < tile->rows; row += f64_LANES) {
        if (low || weights) {
            V(spread_rows)(tile, low, row, labels, weights, rows, counts);
        } else if (labels) {
            V(spread_rows)(tile, NULL, row, labels, NULL, rows, counts);
        } else {
            V(spread_rows)(tile, NULL, row, NULL, NULL, rows, counts);
        }
    }
}

static void V(lanes_spread_terms)(const struct xent_tile *terms, const struct xent_tile *logits,
                                  double scale, struct xent_rows *rows) {
    const vec zero = number(0), unit = number(scale / V(ONE_WITH_HEADROOM));
    for (size_t row = 0; row < terms->rows; row += f64_LANES) {
        const vec top = f64_load(rows->target_logit + row);
        vec sum = zero;
        for (size_t k = 0; k < terms->classes; k++) {
            const vec e = V(widen)(V(tile_at)(terms, k, row));
            vec below = f64_sub(top, V(widen)(V(tile_at)(logits, k, row)));
            below = sizeof(REAL) == sizeof(double) ? minimum(below, number(1e40)) : below;
            sum = f64_fma(e, f64_less(zero, e, below, zero), sum); /* zero times infinity is zero */
        }
        f64_store(rows->below + row, f64_mul(sum, unit));
    }
}

/* Inlined for each case, so that a loop tests nothing. */
XENT_INLINE void V(bend_rows)(const struct xent_tile *terms, const struct xent_lanes_bend *bend,
                              const struct xent_tile *out, size_t row, bool product, bool squares) {
    const V(vec) one = V(set1)(1), floor = V(set1)((REAL)bend->floor);
    const V(vec) mean = V(of_doubles)(bend->mean + row);
    const struct V(factor) shares = V(factor_of_rows)(&bend->shares, row);
    const struct V(factor) by = V(factor_of_rows)(&bend->by, row);
    const struct V(factor) square = V(factor_of_rows)(&bend->square, row);
    for (size_t k = 0; k < terms->classes; k++) {
        const V(vec) e = V(load)(V(tile_at)(terms, k, row));
        REAL *const to = V(tile_at)(out, k, row);
        const V(vec) q = product ? mean : V(times)(e, &shares);
        const V(vec) away = V(sub)(product ? V(load)(to) : one, q);
        V(vec) x = V(mul)(V(times)(e, &by), away);
        x = squares ? V(fma)(V(times)(e, &square), q, x) : x;
        V(store)(to, product ? x : V(max)(floor, x));
    }
}

static void V(lanes_bend)(const struct xent_tile *terms, const struct xent_lanes_bend *bend,
                          const struct xent_tile *out, bool product) {
    for (size_t row = 0; row < terms->rows; row += V(LANES)) {
        if (product) {
            V(bend_rows)(terms, bend, out, row, true, bend->squares);
        } else if (bend->squares) {
            V(bend_rows)(terms, bend, out, row, false, true);
        } else {
            V(bend_rows)(terms, bend, out, row, false, false);
        }
    }
}

static void V(lanes_dot)(const struct xent_tile *terms, const struct xent_tile *vector,
                         double *dots) {
    for (size_t row = 0; row < terms->rows; row += f64_LANES) {
        struct V(carried) sum = {number(0), number(0)};
        for (size_t k = 0; k < terms->classes; k++) {
            const vec e = V(widen)(V(tile_at)(terms, k, row));
            V(carry)(&sum, f64_mul(e, V(widen)(V(tile_at)(vector, k, row))));
        }
        f64_store(dots + row, f64_add(sum.high, sum.low));
    }
}
