/* The kernels where rows lie side by side: class k of LANES rows is vector k of a tile. For few
 * classes, where a row by itself does not fill vectors, in any layout of the arrays. Included once
 * per dtype after sum.inc.h; knows vectors and nothing else. */

enum { V(ITEM) = sizeof(REAL), V(TILE_ROW) = sizeof(V(vec)) };

/* Logits are fetched so many vectors ahead where each class is a stream of its own. */
enum { V(COLUMNS_AHEAD) = 8 };

/* Where neither the classes nor the rows of a group are contiguous, or the group is not full. */
XENT_INLINE void V(copy_cells)(const char *from, ptrdiff_t from_row, ptrdiff_t from_class, char *to,
                               ptrdiff_t to_row, ptrdiff_t to_class, size_t rows, size_t classes) {
    for (ptrdiff_t k = 0; k < (ptrdiff_t)classes; k++) {
        for (ptrdiff_t i = 0; i < (ptrdiff_t)rows; i++) {
            memcpy(to + k * to_class + i * to_row, from + k * from_class + i * from_row,
                   sizeof(REAL));
        }
    }
}

/* The k-th class that a block of SQUARE classes begins with: the last block overlaps the one
 * before, so that nothing beyond a row is touched. */
XENT_INLINE ptrdiff_t V(block_class)(size_t k, size_t classes) {
    return (ptrdiff_t)(k + V(SQUARE) <= classes ? k : classes - V(SQUARE));
}

/* Contiguous rows of fewer than SQUARE classes, all rows one after the other: a block that begins
 * with one of them has the next ones, too. */
XENT_INLINE bool V(packs)(ptrdiff_t row_stride, size_t classes) {
    return classes < V(SQUARE) && row_stride == (ptrdiff_t)(classes * sizeof(REAL));
}

static void V(lanes_load)(const char *logits, ptrdiff_t row_stride, ptrdiff_t class_stride,
                          size_t rows, size_t classes, void *tile) {
    char *const to = tile;
    const bool whole = rows == V(LANES);
    if (whole && row_stride == V(ITEM)) {
        for (ptrdiff_t k = 0; k < (ptrdiff_t)classes; k++) {
            const REAL *const x = (const REAL *)(const void *)(logits + k * class_stride);
            __builtin_prefetch(x + V(COLUMNS_AHEAD) * V(LANES), 0, 2);
            V(store)((REAL *)(void *)(to + k * V(TILE_ROW)), V(load)(x));
        }
    } else if (whole && class_stride == V(ITEM) && classes >= V(SQUARE)) {
        for (size_t k = 0; k < classes; k += V(SQUARE)) {
            const ptrdiff_t class = V(block_class)(k, classes);
            for (ptrdiff_t row = 0; row < V(LANES); row += V(SQUARE)) {
                V(transpose)(logits + row * row_stride + class * V(ITEM), row_stride,
                             to + class * V(TILE_ROW) + row * V(ITEM), V(TILE_ROW));
            }
        }
    } else if (whole && class_stride == V(ITEM) && V(packs)(row_stride, classes)) {
        REAL packed[V(LANES) * V(SQUARE)];
        memcpy(packed, logits, V(LANES) * classes * sizeof(REAL));
        for (ptrdiff_t row = 0; row < V(LANES); row += V(SQUARE)) {
            V(transpose)((const char *)packed + row * row_stride, row_stride, to + row * V(ITEM),
                         V(TILE_ROW));
        }
    } else {
        memset(tile, 0, classes * V(TILE_ROW)); /* for the lanes without a row */
        V(copy_cells)(logits, row_stride, class_stride, to, V(ITEM), V(TILE_ROW), rows, classes);
    }
}

static void V(lanes_store)(const void *tile, char *values, ptrdiff_t row_stride,
                           ptrdiff_t class_stride, size_t rows, size_t classes, bool stream) {
    const char *const from = tile;
    const bool whole = rows == V(LANES);
    if (whole && row_stride == V(ITEM)) {
        for (ptrdiff_t k = 0; k < (ptrdiff_t)classes; k++) {
            REAL *const out = (REAL *)(void *)(values + k * class_stride);
            const bool aligned = (uintptr_t)out % sizeof(V(vec)) == 0;
            V(put)(out, V(load)((const REAL *)(const void *)(from + k * V(TILE_ROW))),
                   stream && aligned);
        }
    } else if (whole && class_stride == V(ITEM) && classes >= V(SQUARE)) {
        for (size_t k = 0; k < classes; k += V(SQUARE)) {
            const ptrdiff_t class = V(block_class)(k, classes);
            for (ptrdiff_t row = 0; row < V(LANES); row += V(SQUARE)) {
                V(transpose)(from + class * V(TILE_ROW) + row * V(ITEM), V(TILE_ROW),
                             values + row * row_stride + class * V(ITEM), row_stride);
            }
        }
    } else if (whole && class_stride == V(ITEM) && V(packs)(row_stride, classes)) {
        /* Row after row, each over what the one before has left beyond its end. */
        REAL packed[V(LANES) * V(SQUARE)];
        for (ptrdiff_t row = 0; row < V(LANES); row += V(SQUARE)) {
            V(transpose)(from + row * V(ITEM), V(TILE_ROW), (char *)packed + row * row_stride,
                         row_stride);
        }
        memcpy(values, packed, V(LANES) * classes * sizeof(REAL));
    } else {
        V(copy_cells)(from, V(ITEM), V(TILE_ROW), values, row_stride, class_stride, rows, classes);
    }
}

XENT_INLINE V(vec) V(lanes_max)(const REAL *x, size_t classes) {
    V(vec) m = V(set1)(-(REAL)INFINITY);
    for (size_t k = 0; k < classes; k++) {
        m = V(max)(V(load)(x + k * V(LANES)), m);
    }
    return m;
}

static void V(lanes_largest)(const void *tile, size_t classes, size_t *target) {
    const REAL *const x = tile;
    const V(vec) m = V(lanes_max)(x, classes);
    V(vec) first = V(set1)(0);
    for (size_t k = classes; k-- > 0;) {
        first = V(less)(V(load)(x + k * V(LANES)), m, first, V(set1)((REAL)k));
    }
    REAL lane[V(LANES)];
    V(store)(lane, first);
    for (int i = 0; i < V(LANES); i++) {
        target[i] = (size_t)lane[i];
    }
}

static void V(lanes_take)(void *tile, size_t rows, const size_t *target, double *logits) {
    REAL *const x = tile;
    for (size_t i = 0; i < rows; i++) {
        logits[i] = (double)x[target[i] * V(LANES) + i];
    }
    for (size_t i = 0; i < rows; i++) {
        x[target[i] * V(LANES) + i] = -(REAL)INFINITY;
    }
}

static void V(lanes_put)(void *tile, size_t rows, const size_t *target, const double *values) {
    REAL *const x = tile;
    for (size_t i = 0; i < rows; i++) {
        x[target[i] * V(LANES) + i] = (REAL)values[i];
    }
}

/* What each lane's exponentials are relative to, given its largest class: as V(refer_to). */
XENT_INLINE struct V(reference) V(refer_lanes_to)(V(vec) m, struct xent_rows *rows) {
    const V(vec) zero = V(set1)(0), size = V(max)(V(sub)(zero, m), m);
    const V(vec) from = V(set1)(V(SHIFT_FROM));
    const V(vec) large = V(less)(m, V(set1)(-V(LARGEST)), zero, m); /* not -inf, where all are */
    const V(vec) shift = V(less)(size, from, zero, large);
    const V(vec) near = V(less)(size, from, m, zero);
    const V(vec) exponent =
        V(sub)(V(fma)(near, V(set1)(V(LOG2_E)), V(set1)(V(ROUND))), V(set1)(V(ROUND)));
    const V(vec) offset = V(sub)(V(set1)(V(BIAS) + V(HEADROOM)), exponent);
    REAL shifts[V(LANES)], exponents[V(LANES)];
    V(store)(shifts, shift);
    V(store)(exponents, exponent);
    for (int i = 0; i < V(LANES); i++) {
        rows->shift[i] = (double)shifts[i];
        rows->exponent[i] = (double)exponents[i];
    }
    return (struct V(reference)){
        .shift = shift,
        .lowest = V(mul)(offset, V(set1)((REAL)-0x1.62e42fefa39efp-1)),
        .round = V(add)(V(set1)(V(ROUND)), offset),
    };
}

static void V(lanes_reduce)(void *tile, size_t classes, bool keep, struct xent_rows *rows) {
    REAL *const x = tile;
    const struct V(reference) ref = V(refer_lanes_to)(V(lanes_max)(x, classes), rows);
    const double start = V(START);
    struct V(sum) sum = {V(set1)((REAL)start), V(set1)(0)};
    for (size_t k = 0; k < classes; k++) {
        const V(vec) term = V(accumulate)(&sum, V(load)(x + k * V(LANES)), &ref, true);
        if (keep) {
            V(store)(x + k * V(LANES), term);
        }
    }
    REAL high[V(LANES)], low[V(LANES)];
    V(store)(high, sum.high);
    V(store)(low, sum.low);
    for (int i = 0; i < V(LANES); i++) {
        const struct two others = add_exactly((double)high[i] - start, (double)low[i]);
        rows->others[i] = others.high / V(ONE_WITH_HEADROOM);
        rows->others_low[i] = others.low / V(ONE_WITH_HEADROOM);
    }
}

XENT_INLINE V(vec) V(from_doubles)(const double *x) {
    REAL lane[V(LANES)];
    for (int i = 0; i < V(LANES); i++) {
        lane[i] = (REAL)x[i];
    }
    return V(load)(lane);
}

static void V(lanes_emit)(void *tile, size_t classes, const struct xent_factors *factors) {
    REAL *const x = tile;
    const struct V(factor) factor = {V(from_doubles)(factors->high), V(from_doubles)(factors->low)};
    const V(vec) post = V(from_doubles)(factors->post);
    for (size_t k = 0; k < classes; k++) {
        const V(vec) e = V(load)(x + k * V(LANES));
        V(store)(x + k * V(LANES), V(mul)(V(times)(e, &factor), post));
    }
}

static void V(lanes_emit_shifted)(void *tile, size_t classes, const double *high,
                                  const double *low) {
    REAL *const x = tile;
    const V(vec) a = V(from_doubles)(high), b = V(from_doubles)(low);
    for (size_t k = 0; k < classes; k++) {
        const V(vec) logit = V(load)(x + k * V(LANES));
        V(store)(x + k * V(LANES), V(sub)(V(sub)(logit, a), b));
    }
}
