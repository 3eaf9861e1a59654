/* Blocks of contiguous halves reduced where they are, where no terms are kept: beside those,
 * converting halves in the same loop takes longer than reading them before. Included once per dtype
 * after load.inc.h. */

#ifndef XENT_LARGEST_HALF
#    define XENT_LARGEST_HALF

/* At any address. */
typedef uint16_t some_half __attribute__((aligned(1), may_alias));

/* Taken for integers, halves without a sign grow with their numbers, those with one fall. */
struct halves_found {
    int16_t most;   /* of those without, or it is negative */
    uint16_t least; /* of those with, or of all */
};

XENT_INLINE struct halves_found look_at_halves(struct halves_found found, const some_half *halves,
                                               size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int16_t bits = (int16_t)halves[i];
        found.most = bits > found.most ? bits : found.most;
        found.least = halves[i] < found.least ? halves[i] : found.least;
    }
    return found;
}

/* The largest of the halves but `skip`. NaN if there are none, or one is NaN without a sign; NaNs
 * with one do not count. */
static double largest_of_halves(const void *halves, enum xent_dtype dtype, size_t n, size_t skip) {
    const some_half *const h = halves;
    const size_t before = skip < n ? skip : n, after = skip < n ? skip + 1 : n;
    struct halves_found found = {INT16_MIN, UINT16_MAX};
    found = look_at_halves(found, h, before);
    found = look_at_halves(found, h + after, n - after);
    const uint16_t largest = found.most < 0 ? found.least : (uint16_t)found.most;
    return (double)(dtype == XENT_F16 ? float_of_f16(largest) : float_of_bf16(largest));
}

#endif

static void V(reduce_halves)(const struct xent_strided *from, size_t n, size_t skip,
                             struct xent_aside *aside, struct xent_sum *sum) {
    const bool is_f16 = from->dtype == XENT_F16;
    const struct xent_logits halves = {from->data, NULL, 1, NAN};
    const double max = largest_of_halves(from->data, from->dtype, n, skip);
    if (sizeof(REAL) == sizeof(float) && !V(is_shifted)(max)) {
        (is_f16 ? V(reduce_f16) : V(reduce_bf16))(&halves, n, skip, max, aside, sum);
        return;
    }
    REAL wide[XENT_BLOCK];
    V(read)(from, n, wide);
    const struct xent_logits logits = {wide, NULL, 1, NAN};
    V(reduce)(&logits, n, skip, V(largest)(wide, n, skip, NULL), aside, sum);
}
