/* One vector of 64 logical bytes, made of as many hardware vectors as that takes: the order of
 * the lanes, and so of every sum, is the same on every instruction set. Included once per dtype with
 * REAL (float, double) and HW(name) defined; the hardware's operations come from vec_<isa>.h. */

enum { V(LANES) = 64 / sizeof(REAL), V(PARTS) = 64 / sizeof(HW(vec)), V(WIDTH) = sizeof(HW(vec)) / sizeof(REAL) };

typedef struct {
    HW(vec) part[V(PARTS)];
} V(vec);

#define EACH_PART(expression)                                                                      \
    V(vec) r;                                                                                      \
    for (int i = 0; i < V(PARTS); i++) {                                                           \
        r.part[i] = (expression);                                                                  \
    }                                                                                              \
    return r

static inline V(vec) V(set1)(REAL a) { EACH_PART(HW(set1)(a)); }
static inline V(vec) V(load)(const REAL *p) { EACH_PART(HW(load)(p + i * V(WIDTH))); }
static inline V(vec) V(add)(V(vec) a, V(vec) b) { EACH_PART(HW(add)(a.part[i], b.part[i])); }
static inline V(vec) V(sub)(V(vec) a, V(vec) b) { EACH_PART(HW(sub)(a.part[i], b.part[i])); }
static inline V(vec) V(mul)(V(vec) a, V(vec) b) { EACH_PART(HW(mul)(a.part[i], b.part[i])); }
/* b where either is NaN. */
static inline V(vec) V(max)(V(vec) a, V(vec) b) { EACH_PART(HW(max)(a.part[i], b.part[i])); }
/* a * b + c, rounded once where the instruction set fuses. */
static inline V(vec) V(fma)(V(vec) a, V(vec) b, V(vec) c) {
    EACH_PART(HW(fma)(a.part[i], b.part[i], c.part[i]));
}
/* c - a * b, likewise. */
static inline V(vec) V(fnma)(V(vec) a, V(vec) b, V(vec) c) {
    EACH_PART(HW(fnma)(a.part[i], b.part[i], c.part[i]));
}
/* The low bits of a's representation moved to the exponent field: see exp in rows.inc.h. */
static inline V(vec) V(to_exponent)(V(vec) a) { EACH_PART(HW(to_exponent)(a.part[i])); }

#undef EACH_PART

static inline void V(store)(REAL *p, V(vec) a) {
    for (int i = 0; i < V(PARTS); i++) {
        HW(store)(p + i * V(WIDTH), a.part[i]);
    }
}

/* The first n lanes from memory, `fill` in the others. */
static inline V(vec) V(load_first)(const REAL *p, size_t n, REAL fill) {
    REAL lane[V(LANES)];
    for (size_t i = 0; i < V(LANES); i++) {
        lane[i] = fill;
    }
    memcpy(lane, p, n * sizeof(REAL));
    return V(load)(lane);
}

static inline void V(store_first)(REAL *p, size_t n, V(vec) a) {
    REAL lane[V(LANES)];
    V(store)(lane, a);
    memcpy(p, lane, n * sizeof(REAL));
}
