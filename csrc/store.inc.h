/* Contiguous numbers of the table's dtype on their way out, as any dtype, past the caches or not.
 * Included once per dtype; knows vectors and nothing else. */

/* What numbers are stored as is a constant of every loop: the table's dtype, or halves. */
static const enum xent_dtype V(OWN) = sizeof(REAL) == sizeof(double) ? XENT_F64 : XENT_F32;

XENT_INLINE size_t V(size_of)(enum xent_dtype dtype) {
    return dtype == V(OWN) ? sizeof(REAL) : sizeof(uint16_t);
}

/* So many of n numbers fill whole lines. */
XENT_INLINE size_t V(lines_of)(size_t n, enum xent_dtype dtype) {
    const size_t line = XENT_CACHE_LINE / V(size_of)(dtype);
    return n / line * line;
}

/* A vector of numbers from the one at i on; of halves, no NaN but what arithmetic makes. Those that
 * are streamed are aligned to a line, or to half of one as halves: then its other half follows. */
XENT_INLINE void V(put)(void *out, size_t i, V(vec) x, enum xent_dtype dtype, bool stream) {
    char *const p = (char *)out + i * V(size_of)(dtype);
    if (dtype == XENT_F16) {
        V(put_f16)(p, x, stream);
    } else if (dtype == XENT_BF16) {
        V(put_bf16)(p, x, stream);
    } else if (stream) {
        V(stream)((REAL *)(void *)p, x);
    } else {
        V(store)((REAL *)(void *)p, x);
    }
}

/* A vector of values as they are stored: these, or what becomes of them in the room. */
XENT_INLINE const void *V(as_stored)(const REAL *values, enum xent_dtype dtype, char *room) {
    if (dtype == V(OWN)) {
        return values;
    }
    V(put)(room, 0, V(load)(values), dtype, false);
    return room;
}

/* Fewer bytes than a line has: of a memcpy of so few gcc makes string instructions, which take
 * longer to begin than all the rest of an edge. */
XENT_INLINE void V(copy_part)(char *to, const void *from, size_t size) {
    if (XENT_MASKS && size % sizeof(REAL) == 0) {
        const size_t lanes = size / sizeof(REAL);
        V(store_first)((REAL *)(void *)to, lanes, V(load_part)((const REAL *)from, 0, lanes));
    } else {
        memcpy(to, from, size);
    }
}

/* Adds the first bytes of a block, fewer than a line has, to the line that the block before ended
 * in; or begins one with the last. */
XENT_INLINE void V(put_at_edge)(struct xent_edge *edge, char *out, const void *bytes, size_t size) {
    if (size == 0) {
        return;
    }
    if (edge->at + edge->filled != out) {
        xent_flush_edge(edge);
    }
    const bool begins = (uintptr_t)out % XENT_CACHE_LINE == 0;
    if (edge->filled == 0 && !begins) { /* the beginning is another's */
        V(copy_part)(out, bytes, size);
        return;
    }
    edge->at = edge->filled == 0 ? out : edge->at;
    V(copy_part)(edge->line + edge->filled, bytes, size);
    edge->filled += size;
    if (edge->filled == XENT_CACHE_LINE) {
        V(stream)((REAL *)(void *)edge->at, V(load)((const REAL *)(const void *)edge->line));
        edge->filled = 0;
    }
}

/* Values of any dtype past the caches. */
XENT_INLINE void V(stream_bytes)(struct xent_edge *edge, char *out, const void *bytes,
                                 size_t size) {
    const char *const from = bytes;
    const size_t lead = -(uintptr_t)out % XENT_CACHE_LINE;
    size_t i = lead < size ? lead : size;
    V(put_at_edge)(edge, out, from, i);
    for (; i + XENT_CACHE_LINE <= size; i += XENT_CACHE_LINE) {
        V(stream)((REAL *)(void *)(out + i), V(load)((const REAL *)(const void *)(from + i)));
    }
    V(put_at_edge)(edge, out + i, from + i, size - i);
}

#define DEFINE_WRITE(name, stored, narrow)                                                         \
    static void V(write_##name)(const REAL *from, size_t n, const struct xent_strided *to,         \
                                struct xent_edge *edge) {                                          \
        const bool contiguous = to->stride == (ptrdiff_t)sizeof(stored),                           \
                   streams = contiguous && edge;                                                   \
        stored ordered[XENT_BLOCK];                                                                \
        char *p = streams ? (char *)ordered : to->data;                                            \
        size_t i = 0;                                                                              \
        for (; contiguous && i + V(LANES) <= n; i += V(LANES)) {                                   \
            V(to_##name)(p, V(load)(from + i));                                                    \
            p += V(LANES) * sizeof(stored);                                                        \
        }                                                                                          \
        for (; i < n; i++) {                                                                       \
            const stored x = narrow(from[i]);                                                      \
            memcpy(p, &x, sizeof x);                                                               \
            p += to->stride;                                                                       \
        }                                                                                          \
        if (streams) {                                                                             \
            V(stream_bytes)(edge, to->data, ordered, n * sizeof(stored));                          \
        }                                                                                          \
    }

#define FLOAT_TO_F16(x) f16_of_float((float)(x))
#define FLOAT_TO_BF16(x) bf16_of_float((float)(x))
#define SAME_REAL(x) ((REAL)(x))
XENT_INLINE void V(to_real)(char *p, V(vec) x) { V(store)((REAL *)(void *)p, x); }
DEFINE_WRITE(f16, uint16_t, FLOAT_TO_F16)
DEFINE_WRITE(bf16, uint16_t, FLOAT_TO_BF16)
DEFINE_WRITE(real, REAL, SAME_REAL)
#undef DEFINE_WRITE
#undef FLOAT_TO_F16
#undef FLOAT_TO_BF16
#undef SAME_REAL

static void V(write)(const void *from, size_t n, const struct xent_strided *to,
                     struct xent_edge *edge) {
    if (to->dtype == XENT_F16) {
        V(write_f16)(from, n, to, edge);
    } else if (to->dtype == XENT_BF16) {
        V(write_bf16)(from, n, to, edge);
    } else {
        V(write_real)(from, n, to, edge);
    }
}
