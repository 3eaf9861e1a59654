/* Matrices of numbers of any size turned: to[j][i] = from[i][j]. Included once, after the vectors;
 * knows nothing of what the numbers are. */

XENT_DEFINE_TRANSPOSE(u8, uint8_t)

/* The k-th square begins there: the last one overlaps the one before, so that nothing beyond a line
 * is touched. */
XENT_INLINE ptrdiff_t square_at(size_t k, size_t square, size_t length) {
    return (ptrdiff_t)(k + square <= length ? k : length - square);
}

/* Lines so many bytes apart, each of `size` of them. */
struct lines {
    const char *data;
    ptrdiff_t stride;
    size_t count, size;
};

/* Fetches those from `begin` to `end`, to be read or, if `writes`, to be written. */
XENT_INLINE void fetch_lines(const struct lines *lines, size_t begin, size_t end, bool writes) {
    for (size_t line = begin; line < end && line < lines->count; line++) {
        const char *const p = lines->data + (ptrdiff_t)line * lines->stride;
        for (size_t i = 0; i < lines->size; i += XENT_CACHE_LINE) {
            if (writes) {
                __builtin_prefetch(p + i, 1, 3);
            } else {
                __builtin_prefetch(p + i, 0, 3);
            }
        }
    }
}

XENT_INLINE ptrdiff_t size_of_stride(ptrdiff_t stride) { return stride < 0 ? -stride : stride; }

/* Along the longer stride, where every line is in a page of its own, so that the hardware does not
 * foresee the next. */
#define XENT_DEFINE_TURN(prefix, type)                                                             \
    static void prefix##_turn(const char *from, ptrdiff_t from_stride, char *to,                   \
                              ptrdiff_t to_stride, size_t count, size_t size) {                    \
        enum { ITEM = sizeof(type), SQUARE = prefix##_SQUARE, AHEAD = 4 * SQUARE };                \
        if (count < SQUARE || size < SQUARE) {                                                     \
            for (ptrdiff_t i = 0; i < (ptrdiff_t)count; i++) {                                     \
                for (ptrdiff_t j = 0; j < (ptrdiff_t)size; j++) {                                  \
                    memcpy(to + j * to_stride + i * ITEM, from + i * from_stride + j * ITEM,       \
                           ITEM);                                                                  \
                }                                                                                  \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        const struct lines read = {from, from_stride, count, size * ITEM};                         \
        const struct lines written = {to, to_stride, size, count * ITEM};                          \
        const bool reads_far = size_of_stride(from_stride) > size_of_stride(to_stride);            \
        const struct lines *const far = reads_far ? &read : &written;                              \
        for (size_t k = 0; k < far->count; k += SQUARE) {                                          \
            fetch_lines(far, k + AHEAD, k + AHEAD + SQUARE, !reads_far);                           \
            for (size_t n = 0; n < far->size / ITEM; n += SQUARE) {                                \
                const ptrdiff_t i = square_at(reads_far ? k : n, SQUARE, count);                   \
                const ptrdiff_t j = square_at(reads_far ? n : k, SQUARE, size);                    \
                prefix##_transpose(from + i * from_stride + j * ITEM, from_stride,                 \
                                   to + j * to_stride + i * ITEM, to_stride);                      \
            }                                                                                      \
        }                                                                                          \
    }
XENT_DEFINE_TURN(u8, uint8_t)
XENT_DEFINE_TURN(u16, uint16_t)
XENT_DEFINE_TURN(f32, float)
XENT_DEFINE_TURN(f64, double)

static void turn(size_t itemsize, const char *from, ptrdiff_t from_stride, char *to,
                 ptrdiff_t to_stride, size_t count, size_t size) {
    switch (itemsize) {
    case sizeof(uint8_t):
        u8_turn(from, from_stride, to, to_stride, count, size);
        return;
    case sizeof(uint16_t):
        u16_turn(from, from_stride, to, to_stride, count, size);
        return;
    case sizeof(float):
        f32_turn(from, from_stride, to, to_stride, count, size);
        return;
    default:
        f64_turn(from, from_stride, to, to_stride, count, size);
    }
}
