/* Numbers of any dtype, stride and byte order on their way into contiguous ones of the table's
 * dtype, and what is done to logits on that way. Included once per dtype after finish.inc.h. */

#ifndef XENT_CONVERSIONS
#    define XENT_CONVERSIONS

XENT_INLINE float same_float(float x) { return x; }
XENT_INLINE double same_double(double x) { return x; }

XENT_INLINE uint16_t swap_2(uint16_t x) { return __builtin_bswap16(x); }
XENT_INLINE uint32_t swap_4(uint32_t x) { return __builtin_bswap32(x); }
XENT_INLINE uint64_t swap_8(uint64_t x) { return __builtin_bswap64(x); }

/* Vectors of contiguous numbers, beside those that the vector headers have. */
XENT_INLINE f32_vec f32_of_f32(const char *p) { return f32_load((const float *)(const void *)p); }
XENT_INLINE f64_vec f64_of_f64(const char *p) { return f64_load((const double *)(const void *)p); }
XENT_INLINE f64_vec f64_of_f32(const char *p) {
    return f64_of_floats((const float *)(const void *)p);
}
XENT_INLINE f32_vec f32_of_f64(const char *p) {
    float floats[f32_LANES];
    for (size_t i = 0; i < f32_LANES; i += f64_LANES) {
        f64_to_floats(floats + i, f64_of_f64(p + i * sizeof(double)));
    }
    return f32_load(floats);
}

#endif

/* What is contiguous is read by vectors, of which the last may begin among those before; what is
 * not, number by number. */
#define DEFINE_READ(name, stored, bits, swap, widen)                                               \
    XENT_INLINE V(vec) V(take_##name)(const char *p, size_t i, REAL *to) {                         \
        const V(vec) x = V(of_##name)(p + i * sizeof(stored));                                     \
        V(store)(to + i, x);                                                                       \
        return x;                                                                                  \
    }                                                                                              \
    static double V(read_##name)(const struct xent_strided *from, size_t n, REAL *to) {            \
        const char *p = from->data;                                                                \
        if (from->stride == (ptrdiff_t)sizeof(stored) && !from->swapped && n >= V(LANES)) {        \
            V(vec) m = V(set1)(-(REAL)INFINITY);                                                   \
            size_t i = 0;                                                                          \
            _Pragma("GCC unroll 4") for (; i < n - V(LANES); i += V(LANES)) {                      \
                m = V(max)(V(take_##name)(p, i, to), m);                                           \
            }                                                                                      \
            m = V(max)(V(take_##name)(p, n - V(LANES), to), m);                                    \
            return (double)V(largest_lane)(m);                                                     \
        }                                                                                          \
        REAL largest = -(REAL)INFINITY;                                                            \
        for (size_t i = 0; i < n; i++) {                                                           \
            bits raw;                                                                              \
            memcpy(&raw, p, sizeof raw);                                                           \
            raw = from->swapped ? swap(raw) : raw;                                                 \
            stored x;                                                                              \
            memcpy(&x, &raw, sizeof x);                                                            \
            to[i] = (REAL)widen(x);                                                                \
            largest = to[i] > largest ? to[i] : largest;                                           \
            p += from->stride;                                                                     \
        }                                                                                          \
        return (double)largest;                                                                    \
    }

DEFINE_READ(f16, uint16_t, uint16_t, swap_2, float_of_f16)
DEFINE_READ(bf16, uint16_t, uint16_t, swap_2, float_of_bf16)
DEFINE_READ(f32, float, uint32_t, swap_4, same_float)
DEFINE_READ(f64, double, uint64_t, swap_8, same_double)
#undef DEFINE_READ

static double V(read)(const struct xent_strided *from, size_t n, void *to) {
    switch (from->dtype) {
    case XENT_F16:
        return V(read_f16)(from, n, to);
    case XENT_BF16:
        return V(read_bf16)(from, n, to);
    case XENT_F32:
        return V(read_f32)(from, n, to);
    case XENT_F64:
        return V(read_f64)(from, n, to);
    }
    return -INFINITY; /* no other */
}

static void V(mask)(void *logits, size_t n, const char *mask, ptrdiff_t stride) {
    REAL *const u = logits;
    for (size_t i = 0; i < n; i++) {
        u[i] = *mask ? u[i] : -(REAL)INFINITY;
        mask += stride;
    }
}

/* tanh a = -m / (2 + m) and 1 - tanh^2 a = 4 e / (2 + m)^2, with e = e^(-2a), m = e - 1 and a >= 0:
 * m is formed by itself, for it is small near zero. The slope is in its unit. */
struct V(tanh) {
    vec value, slope;
};

XENT_INLINE struct V(tanh) V(tanh_of)(vec a) {
    const vec most = number(375); /* of double, e^-750 is zero, and in slopes' unit still normal */
    const vec size = minimum(magnitude(a), most);
    const vec x = f64_mul(number(-2), size);
    const vec n = nearest(f64_mul(x, number(f64_LOG2_E)));
    const struct f64_reduced reduced = f64_reduce_by(x, n);
    const vec beside_one = f64_add(reduced.r, f64_exp_tail(&reduced));
    const vec in_units = power_of_two(f64_add(n, number(64)));
    const vec e = f64_fma(in_units, beside_one, in_units);
    const vec power = power_of_two(f64_max(number(-1000), n)); /* nothing beside one */
    const vec m = f64_fma(power, beside_one, f64_sub(power, number(1)));
    const vec sum = f64_add(number(2), m);
    vec value, slope;
    if (sizeof(REAL) == sizeof(float)) { /* a rounding more, of double, does not show */
        const vec inverse = f64_div(number(1), sum);
        value = f64_mul(negative(m), inverse);
        slope = f64_mul(f64_mul(number(4), e), f64_mul(inverse, inverse));
    } else {
        value = f64_div(negative(m), sum);
        slope = f64_div(f64_mul(number(4), e), f64_mul(sum, sum));
    }
    slope = f64_less(magnitude(a), most, slope, number(0));
    return (struct V(tanh)){f64_less(a, number(0), negative(value), value), slope};
}

/* A vector; u may be read and written. */
XENT_INLINE void V(cap_lanes)(REAL *u, vec by, REAL *low, REAL *slope) {
    const vec x = V(widen)(u), size = magnitude(x), infinity = number(INFINITY), zero = number(0);
    const struct V(tanh) tanh = V(tanh_of)(f64_mul(x, by));
    V(narrow)(u, f64_less(size, infinity, tanh.value, x));
    const vec rest = f64_sub(tanh.value, V(widen)(u));
    V(narrow)(low, f64_less(size, infinity, rest, zero));
    V(narrow)(slope, f64_less(size, infinity, tanh.slope, zero));
}

static void V(cap)(void *logits, size_t n, double by, void *low, void *slope) {
    REAL *const u = logits, *const lows = low, *const slopes = slope;
    const vec factor = number(by);
    size_t i = 0;
    for (; i + f64_LANES <= n; i += f64_LANES) {
        V(cap_lanes)(u + i, factor, lows + i, slopes + i);
    }
    if (i < n) {
        REAL part[3][f64_LANES] = {{0}};
        const size_t size = (n - i) * sizeof(REAL);
        memcpy(part[0], u + i, size);
        V(cap_lanes)(part[0], factor, part[1], part[2]);
        memcpy(u + i, part[0], size);
        memcpy(lows + i, part[1], size);
        memcpy(slopes + i, part[2], size);
    }
}
