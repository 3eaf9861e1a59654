/* Numbers of any dtype, stride and byte order on their way into contiguous ones of the table's
 * dtype, and what is done to logits on that way. Included once per dtype after finish.inc.h. */

#ifndef XENT_CONVERSIONS
#    define XENT_CONVERSIONS

/* The a from which on the slope of a float is zero, 4 e^(-2a) in its unit being less than half of
 * the smallest float. */
static const double MOST_OF_FLOAT = 75;

/* What the float of a capped logit lacks is added where the steps of its exponential have been
 * counted, so it must be less than a step, ln 2 / 8. Up to 2^20 no logit lacks more than this. */
static const double MOST_LOW = 0x1p-4;

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
    const vec most = number(375); /* e^-750 is zero, and in slopes' unit still normal */
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
    const vec value = f64_div(negative(m), sum);
    const vec slope = f64_div(f64_mul(number(4), e), f64_mul(sum, sum));
    return (struct V(tanh)){f64_less(a, number(0), negative(value), value),
                            f64_less(magnitude(a), most, slope, number(0))};
}

/* So many classes are capped in step. */
enum { V(VECTORS) = V(LANES) / f64_LANES };

/* Where the results become float, a rounding of double more does not show: with e = e^(2a) of
 * either sign, tanh a = m / (2 + m), and one division. The vectors go in step, because each
 * operation has to wait for the one before. */
XENT_INLINE void V(tanh_in_step)(const REAL *from, vec by, bool hold, vec *value, vec *slope) {
    const vec one = number(1), round = number(f64_ROUND + f64_BIAS);
    const vec most = number(2 * MOST_OF_FLOAT);
    enum { TERMS = sizeof f64_exp_poly / sizeof f64_exp_poly[0] };
    vec y[V(VECTORS)], r[V(VECTORS)], q[V(VECTORS)];
    for (int k = 0; k < V(VECTORS); k++) {
        vec x = f64_mul(V(widen)(from + k * f64_LANES), f64_add(by, by));
        x = hold ? f64_max(negative(most), minimum(x, most)) : x;
        y[k] = f64_fma(x, number(f64_LOG2_E), round);
        r[k] = f64_fnma(f64_sub(y[k], round), number(LN2), x);
        q[k] = number(f64_exp_poly[TERMS - 1]);
    }
    for (int term = TERMS - 2; term >= 0; term--) {
        for (int k = 0; k < V(VECTORS); k++) {
            q[k] = f64_fma(q[k], r[k], number(f64_exp_poly[term]));
        }
    }
    for (int k = 0; k < V(VECTORS); k++) {
        const vec beside_one = f64_fma(f64_mul(r[k], r[k]), q[k], r[k]);
        const vec power = f64_to_exponent(y[k]), e = f64_fma(power, beside_one, power);
        const vec m = f64_fma(power, beside_one, f64_sub(power, one));
        const vec sum = f64_add(e, one), inverse = f64_div(one, sum);
        const vec near = f64_mul(m, inverse); /* less than one where the quotient is one */
        const vec in_units = f64_mul(e, number(4 / XENT_SLOPE_UNIT));
        value[k] = f64_fma(f64_fnma(near, sum, m), inverse, near);
        slope[k] = f64_mul(f64_mul(in_units, inverse), inverse);
    }
}

/* Infinite logits are not capped; their slope is zero as it is. */
XENT_INLINE void V(keep_infinities)(V(vec) x, REAL *u, REAL *low) {
    REAL given[V(LANES)];
    V(store)(given, x);
    for (int i = 0; i < V(LANES); i++) {
        const bool keeps = fabs((double)given[i]) == INFINITY;
        u[i] = keeps ? given[i] : u[i];
        low[i] = keeps ? 0 : low[i];
    }
}

/* Of logits so large that u lacks more than MOST_LOW, u is what counts. */
XENT_INLINE void V(drop_large)(double most, REAL *low) {
    for (int i = 0; i < V(LANES); i++) {
        low[i] = fabs((double)low[i]) <= most ? low[i] : 0;
    }
}

/* A vector of classes; `slope` may be NULL. */
XENT_INLINE void V(cap_vector)(const REAL *from, double by, double scale, REAL *u, REAL *low,
                               REAL *slope) {
    const bool single = sizeof(REAL) == sizeof(float);
    const V(vec) x = V(load)(from), size = V(max)(V(sub)(V(set1)(0), x), x);
    const double most = single ? MOST_OF_FLOAT / by : INFINITY, largest = (double)V(LARGEST);
    const bool large = V(any_less)(V(set1)((REAL)(most < largest ? most : largest)), size);
    vec value[V(VECTORS)], slopes[V(VECTORS)];
    if (single && large) { /* whether to hold them is a constant of each loop */
        V(tanh_in_step)(from, number(by), true, value, slopes);
    } else if (single) {
        V(tanh_in_step)(from, number(by), false, value, slopes);
    } else {
        const struct V(tanh) tanh = V(tanh_of)(f64_mul(V(widen)(from), number(by)));
        value[0] = tanh.value;
        slopes[0] = tanh.slope;
    }
    for (int k = 0; k < V(VECTORS); k++) {
        V(narrow)(u + k * f64_LANES, value[k]);
        V(narrow)(low + k * f64_LANES, f64_sub(value[k], V(widen)(u + k * f64_LANES)));
        if (slope) {
            V(narrow)(slope + k * f64_LANES, slopes[k]);
        }
    }
    if (large) {
        V(keep_infinities)(x, u, low);
    }
    if (single && scale * 0x1p-25 > MOST_LOW) {
        V(drop_large)(MOST_LOW / scale, low);
    }
}

static void V(cap)(const void *logits, size_t n, double by, double scale, void *capped, void *lows,
                   void *slopes) {
    const REAL *const from = logits;
    REAL *const u = capped, *const low = lows, *const slope = slopes;
    size_t i = 0;
    for (; i + V(LANES) <= n; i += V(LANES)) {
        V(cap_vector)(from + i, by, scale, u + i, low + i, slope ? slope + i : NULL);
    }
    if (i < n) {
        REAL part[4][V(LANES)] = {{0}};
        const size_t size = (n - i) * sizeof(REAL);
        memcpy(part[0], from + i, size);
        V(cap_vector)(part[0], by, scale, part[1], part[2], part[3]);
        memcpy(u + i, part[1], size);
        memcpy(low + i, part[2], size);
        if (slope) {
            memcpy(slope + i, part[3], size);
        }
    }
}
