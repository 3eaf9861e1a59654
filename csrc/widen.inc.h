/* Numbers as doubles and back. Included once per dtype; knows vectors and nothing else. */

/* Eight numbers as doubles. */
XENT_INLINE f64_vec V(widen)(const REAL *x) {
    const void *const p = x;
    return sizeof(REAL) == sizeof(double) ? f64_load(p) : f64_of_floats(p);
}

/* Stores eight doubles, rounded. */
XENT_INLINE void V(narrow)(REAL *p, f64_vec x) {
    void *const to = p;
    if (sizeof(REAL) == sizeof(double)) {
        f64_store(to, x);
    } else {
        f64_to_floats(to, x);
    }
}

/* A whole vector to and from doubles. */
XENT_INLINE void V(to_doubles)(double *to, V(vec) x) {
    REAL lanes[V(LANES)];
    V(store)(lanes, x);
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        f64_store(to + i, V(widen)(lanes + i));
    }
}

XENT_INLINE V(vec) V(of_doubles)(const double *from) {
    REAL lanes[V(LANES)];
    for (size_t i = 0; i < V(LANES); i += f64_LANES) {
        V(narrow)(lanes + i, f64_load(from + i));
    }
    return V(load)(lanes);
}
