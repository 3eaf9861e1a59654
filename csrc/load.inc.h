/* Numbers of any dtype, stride and byte order on their way into contiguous ones of the table's
 * dtype and back, and what is done to logits on that way. Included once per dtype after
 * finish.inc.h. */

#ifndef XENT_CONVERSIONS
#    define XENT_CONVERSIONS

XENT_INLINE float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

XENT_INLINE uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* IEEE 754's 16-bit format has 5 bits of exponent, biased by 15, and 10 of fraction. Taken for a
 * float's high bits a number is 2^-112 times itself, subnormal numbers included. */
XENT_INLINE float float_of_f16(uint16_t half) {
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000)
                                                                       << 16;
    const float scaled = float_of_bits(magnitude) * 0x1p112f;
    const uint32_t no_number = magnitude | 0x7f800000;
    const uint32_t bits = magnitude >= 0x0f800000 ? no_number : bits_of_float(scaled);
    return float_of_bits(bits | sign);
}

/* Rounds to nearest, ties to even. Adding a power of two rounds at the last place that the result
 * has: ten bits below the number's leading one, or 2^-24 among the subnormals. */
XENT_INLINE uint16_t f16_of_float(float x) {
    const uint32_t bits = bits_of_float(x), magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 16 & 0x8000;
    const float subnormal = float_of_bits(magnitude) + 0.5f; /* whose last place is 2^-24 */
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1); /* may carry upwards */
    uint32_t half = magnitude < 0x38800000 ? bits_of_float(subnormal) - 0x3f000000
                                           : (rounded >> 13) - (112u << 10);
    half = magnitude >= 0x477ff000 ? 0x7c00 : half; /* half way beyond the largest */
    half = magnitude > 0x7f800000 ? 0x7e00 : half;  /* NaN */
    return (uint16_t)(half | sign);
}

/* bfloat16 is the high half of a float. */
XENT_INLINE float float_of_bf16(uint16_t half) { return float_of_bits((uint32_t)half << 16); }

XENT_INLINE uint16_t bf16_of_float(float x) {
    const uint32_t bits = bits_of_float(x);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const uint32_t no_number = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? no_number : rounded);
}

XENT_INLINE float same_float(float x) { return x; }
XENT_INLINE double same_double(double x) { return x; }

XENT_INLINE uint16_t swap_2(uint16_t x) { return __builtin_bswap16(x); }
XENT_INLINE uint32_t swap_4(uint32_t x) { return __builtin_bswap32(x); }
XENT_INLINE uint64_t swap_8(uint64_t x) { return __builtin_bswap64(x); }

#endif

/* One loop for contiguous numbers, which the compiler makes vectors of, and one for others. */
#define DEFINE_READ(name, stored, bits, swap, widen)                                               \
    XENT_INLINE stored V(one_##name)(const char *p, bool swapped) {                                \
        bits raw;                                                                                  \
        memcpy(&raw, p, sizeof raw);                                                               \
        raw = swapped ? swap(raw) : raw;                                                           \
        stored x;                                                                                  \
        memcpy(&x, &raw, sizeof x);                                                                \
        return x;                                                                                  \
    }                                                                                              \
    static void V(read_##name)(const struct xent_strided *from, size_t n, REAL *to) {              \
        const char *p = from->data;                                                                \
        if (from->stride == (ptrdiff_t)sizeof(stored) && !from->swapped) {                         \
            for (size_t i = 0; i < n; i++) {                                                       \
                to[i] = (REAL)widen(V(one_##name)(p + i * sizeof(stored), false));                 \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            to[i] = (REAL)widen(V(one_##name)(p, from->swapped));                                  \
            p += from->stride;                                                                     \
        }                                                                                          \
    }

DEFINE_READ(f16, uint16_t, uint16_t, swap_2, float_of_f16)
DEFINE_READ(bf16, uint16_t, uint16_t, swap_2, float_of_bf16)
DEFINE_READ(f32, float, uint32_t, swap_4, same_float)
DEFINE_READ(f64, double, uint64_t, swap_8, same_double)
#undef DEFINE_READ

static void V(read)(const struct xent_strided *from, size_t n, void *to) {
    switch (from->dtype) {
    case XENT_F16:
        V(read_f16)(from, n, to);
        break;
    case XENT_BF16:
        V(read_bf16)(from, n, to);
        break;
    case XENT_F32:
        V(read_f32)(from, n, to);
        break;
    case XENT_F64:
        V(read_f64)(from, n, to);
        break;
    }
}

#define DEFINE_WRITE(name, stored, narrow)                                                         \
    static void V(write_##name)(const REAL *from, size_t n, const struct xent_strided *to) {       \
        char *p = to->data;                                                                        \
        if (to->stride == (ptrdiff_t)sizeof(stored)) {                                             \
            for (size_t i = 0; i < n; i++) {                                                       \
                const stored x = narrow(from[i]);                                                  \
                memcpy(p + i * sizeof x, &x, sizeof x);                                            \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            const stored x = narrow(from[i]);                                                      \
            memcpy(p, &x, sizeof x);                                                               \
            p += to->stride;                                                                       \
        }                                                                                          \
    }

#define FLOAT_TO_F16(x) f16_of_float((float)(x))
#define FLOAT_TO_BF16(x) bf16_of_float((float)(x))
#define SAME_REAL(x) ((REAL)(x))
DEFINE_WRITE(f16, uint16_t, FLOAT_TO_F16)
DEFINE_WRITE(bf16, uint16_t, FLOAT_TO_BF16)
DEFINE_WRITE(real, REAL, SAME_REAL)
#undef DEFINE_WRITE
#undef FLOAT_TO_F16
#undef FLOAT_TO_BF16
#undef SAME_REAL

static void V(write)(const void *from, size_t n, const struct xent_strided *to) {
    if (to->dtype == XENT_F16) {
        V(write_f16)(from, n, to);
    } else if (to->dtype == XENT_BF16) {
        V(write_bf16)(from, n, to);
    } else {
        V(write_real)(from, n, to);
    }
}

static void V(mask)(void *logits, size_t n, const char *mask, ptrdiff_t stride) {
    REAL *const u = logits;
    for (size_t i = 0; i < n; i++) {
        u[i] = *mask ? u[i] : -(REAL)INFINITY;
        mask += stride;
    }
}

/* Eight numbers as doubles. */
XENT_INLINE vec V(widen)(const REAL *x) {
    const void *const p = x;
    return sizeof(REAL) == sizeof(double) ? f64_load(p) : f64_of_floats(p);
}

/* Stores eight doubles, rounded. */
XENT_INLINE void V(narrow)(REAL *p, vec x) {
    void *const to = p;
    if (sizeof(REAL) == sizeof(double)) {
        f64_store(to, x);
    } else {
        f64_to_floats(to, x);
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
