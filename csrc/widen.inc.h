/* Numbers as doubles and back. Included once per dtype; knows vectors and nothing else. */

#ifndef XENT_DOUBLES
#    define XENT_DOUBLES

#    define DEFINE_DOUBLES(name)                                                                   \
        XENT_INLINE f64_vec f64_of_##name(const char *p) {                                         \
            uint16_t halves[f64_LANES];                                                            \
            float floats[f64_LANES];                                                               \
            memcpy(halves, p, sizeof halves);                                                      \
            for (size_t i = 0; i < f64_LANES; i++) {                                               \
                floats[i] = float_of_##name(halves[i]);                                            \
            }                                                                                      \
            return f64_of_floats(floats);                                                          \
        }
DEFINE_DOUBLES(f16)
DEFINE_DOUBLES(bf16)
#    undef DEFINE_DOUBLES

/* Doubles as halves, as f32_to_f16: rounded to floats first. */
#    define DEFINE_TO_HALVES(name)                                                                 \
        XENT_INLINE void f64_to_##name(char *p, f64_vec x) {                                       \
            float floats[f32_LANES] = {0};                                                         \
            uint16_t halves[f32_LANES];                                                            \
            f64_to_floats(floats, x);                                                              \
            f32_to_##name((char *)halves, f32_load(floats));                                       \
            memcpy(p, halves, f64_LANES * sizeof halves[0]);                                       \
        }                                                                                          \
        XENT_INLINE void f64_put_##name(char *p, f64_vec x, bool stream) {                         \
            (void)stream;                                                                          \
            f64_to_##name(p, x);                                                                   \
        }
DEFINE_TO_HALVES(f16)
DEFINE_TO_HALVES(bf16)
#    undef DEFINE_TO_HALVES

/* In a fixed order. */
XENT_INLINE double sum_of_lanes(f64_vec x) {
    double lanes[f64_LANES];
    f64_store(lanes, x);
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

#endif

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
