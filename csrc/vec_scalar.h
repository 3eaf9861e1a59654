/* The portable baseline: 16-byte vectors of the compiler's own, which every target of gcc and
 * clang can compile (SSE2 on x86-64). There is no fused multiply-add, so `fma` rounds twice. */
#ifndef XENT_VEC_SCALAR_H
#define XENT_VEC_SCALAR_H

#include <stdint.h>
#include <string.h>

#define XENT_DEFINE_HW(prefix, real, integer, mantissa_bits)                                       \
    typedef real prefix##_vec __attribute__((vector_size(16)));                                    \
    typedef integer prefix##_bits __attribute__((vector_size(16)));                                \
    static inline prefix##_vec prefix##_set1(real a) { return (prefix##_vec){0} + a; }             \
    static inline prefix##_vec prefix##_load(const real *p) {                                      \
        prefix##_vec r;                                                                            \
        memcpy(&r, p, sizeof r);                                                                   \
        return r;                                                                                  \
    }                                                                                              \
    static inline void prefix##_store(real *p, prefix##_vec a) { memcpy(p, &a, sizeof a); }        \
    static inline prefix##_vec prefix##_add(prefix##_vec a, prefix##_vec b) { return a + b; }      \
    static inline prefix##_vec prefix##_sub(prefix##_vec a, prefix##_vec b) { return a - b; }      \
    static inline prefix##_vec prefix##_mul(prefix##_vec a, prefix##_vec b) { return a * b; }      \
    static inline prefix##_vec prefix##_max(prefix##_vec a, prefix##_vec b) {                      \
        prefix##_bits greater = (prefix##_bits)(a > b);                                            \
        return (prefix##_vec)((greater & (prefix##_bits)a) | (~greater & (prefix##_bits)b));       \
    }                                                                                              \
    static inline prefix##_vec prefix##_fma(prefix##_vec a, prefix##_vec b, prefix##_vec c) {      \
        return a * b + c;                                                                          \
    }                                                                                              \
    static inline prefix##_vec prefix##_fnma(prefix##_vec a, prefix##_vec b, prefix##_vec c) {     \
        return c - a * b;                                                                          \
    }                                                                                              \
    static inline prefix##_vec prefix##_to_exponent(prefix##_vec a) {                              \
        return (prefix##_vec)((prefix##_bits)a << (mantissa_bits));                                \
    }

XENT_DEFINE_HW(hw_f32, float, uint32_t, 23)
XENT_DEFINE_HW(hw_f64, double, uint64_t, 52)

#undef XENT_DEFINE_HW
#endif
