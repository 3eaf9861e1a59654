/* A vector WIDE of REAL made of two vectors NARROW of N lanes each. Instruction sets narrower than
 * 64 bytes include this once or twice, so that rows.inc.h sees 64-byte vectors on all of them and
 * adds the same numbers in the same order. Two named members, because gcc 12 keeps a struct that
 * holds an array of vectors in memory. */

typedef struct {
    NARROW(vec) a, b;
} WIDE(vec);

#define PAIR(op_a, op_b)                                                                           \
    return (WIDE(vec)) { op_a, op_b }

XENT_INLINE WIDE(vec) WIDE(set1)(REAL x) { PAIR(NARROW(set1)(x), NARROW(set1)(x)); }
XENT_INLINE WIDE(vec) WIDE(load)(const REAL *p) { PAIR(NARROW(load)(p), NARROW(load)(p + N)); }
XENT_INLINE void WIDE(store)(REAL *p, WIDE(vec) x) {
    NARROW(store)(p, x.a);
    NARROW(store)(p + N, x.b);
}
XENT_INLINE void WIDE(stream)(REAL *p, WIDE(vec) x) {
    NARROW(stream)(p, x.a);
    NARROW(stream)(p + N, x.b);
}
XENT_INLINE WIDE(vec) WIDE(add)(WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(add)(x.a, y.a), NARROW(add)(x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(sub)(WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(sub)(x.a, y.a), NARROW(sub)(x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(mul)(WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(mul)(x.a, y.a), NARROW(mul)(x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(div)(WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(div)(x.a, y.a), NARROW(div)(x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(max)(WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(max)(x.a, y.a), NARROW(max)(x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(fma)(WIDE(vec) x, WIDE(vec) y, WIDE(vec) z) {
    PAIR(NARROW(fma)(x.a, y.a, z.a), NARROW(fma)(x.b, y.b, z.b));
}
XENT_INLINE WIDE(vec) WIDE(fms)(WIDE(vec) x, WIDE(vec) y, WIDE(vec) z) {
    PAIR(NARROW(fms)(x.a, y.a, z.a), NARROW(fms)(x.b, y.b, z.b));
}
XENT_INLINE WIDE(vec) WIDE(product_error)(WIDE(vec) x, WIDE(vec) y, WIDE(vec) p) {
    PAIR(NARROW(product_error)(x.a, y.a, p.a), NARROW(product_error)(x.b, y.b, p.b));
}
XENT_INLINE WIDE(vec) WIDE(fnma)(WIDE(vec) x, WIDE(vec) y, WIDE(vec) z) {
    PAIR(NARROW(fnma)(x.a, y.a, z.a), NARROW(fnma)(x.b, y.b, z.b));
}
XENT_INLINE WIDE(vec) WIDE(times_sum)(WIDE(vec) x, WIDE(vec) a, WIDE(vec) b) {
    PAIR(NARROW(times_sum)(x.a, a.a, b.a), NARROW(times_sum)(x.b, a.b, b.b));
}
XENT_INLINE WIDE(vec) WIDE(to_exponent)(WIDE(vec) x) {
    PAIR(NARROW(to_exponent)(x.a), NARROW(to_exponent)(x.b));
}
XENT_INLINE WIDE(vec) WIDE(less)(WIDE(vec) a, WIDE(vec) b, WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(less)(a.a, b.a, x.a, y.a), NARROW(less)(a.b, b.b, x.b, y.b));
}
XENT_INLINE WIDE(vec) WIDE(zero_below)(WIDE(vec) a, WIDE(vec) b, WIDE(vec) x) {
    return WIDE(less)(a, b, WIDE(set1)(0), x);
}
XENT_INLINE WIDE(vec) WIDE(equal)(WIDE(vec) a, WIDE(vec) b, WIDE(vec) x, WIDE(vec) y) {
    PAIR(NARROW(equal)(a.a, b.a, x.a, y.a), NARROW(equal)(a.b, b.b, x.b, y.b));
}
XENT_INLINE uint32_t WIDE(which_less)(WIDE(vec) a, WIDE(vec) b) {
    return NARROW(which_less)(a.a, b.a) | NARROW(which_less)(a.b, b.b) << N;
}
XENT_INLINE bool WIDE(any_less)(WIDE(vec) a, WIDE(vec) b) {
    return NARROW(any_less)(a.a, b.a) | NARROW(any_less)(a.b, b.b);
}
XENT_INLINE REAL WIDE(largest_lane)(WIDE(vec) x) {
    return NARROW(largest_lane)(NARROW(max)(x.a, x.b));
}
XENT_INLINE WIDE(vec) WIDE(exponent)(WIDE(vec) x) {
    PAIR(NARROW(exponent)(x.a), NARROW(exponent)(x.b));
}
XENT_INLINE WIDE(vec) WIDE(mantissa)(WIDE(vec) x) {
    PAIR(NARROW(mantissa)(x.a), NARROW(mantissa)(x.b));
}

#undef PAIR
#undef NARROW
#undef WIDE
#undef N
