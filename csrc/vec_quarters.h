/* The 64-byte vectors f32 and f64 of four vectors f32x4 or f64x2 each, which are defined before. */
#ifndef XENT_VEC_QUARTERS_H
#define XENT_VEC_QUARTERS_H

#define REAL float
#define NARROW(name) JOIN(f32x4, name)
#define WIDE(name) JOIN(f32x8, name)
#define N 4
#include "vec_pair.inc.h"
#define NARROW(name) JOIN(f32x8, name)
#define WIDE(name) JOIN(f32, name)
#define N 8
#include "vec_pair.inc.h"
#undef REAL
#define REAL double
#define NARROW(name) JOIN(f64x2, name)
#define WIDE(name) JOIN(f64x4, name)
#define N 2
#include "vec_pair.inc.h"
#define NARROW(name) JOIN(f64x4, name)
#define WIDE(name) JOIN(f64, name)
#define N 4
#include "vec_pair.inc.h"
#undef REAL
XENT_DEFINE_FLOATS(f64x4, f64x2, 2)
XENT_DEFINE_FLOATS(f64, f64x4, 4)
XENT_DEFINE_OF_HALVES(f32x8, f32x4, 4)
XENT_DEFINE_OF_HALVES(f32, f32x8, 8)
#define XENT_DEFINE(name)                                                                          \
    XENT_DEFINE_TO_HALVES(f32x8, f32x4, 4, name)                                                   \
    XENT_DEFINE_TO_HALVES(f32, f32x8, 8, name)                                                     \
    XENT_INLINE void f32_put_##name(char *p, f32_vec x, bool stream) {                             \
        (void)stream;                                                                              \
        f32_to_##name(p, x);                                                                       \
    }
XENT_DEFINE(f16)
XENT_DEFINE(bf16)
#undef XENT_DEFINE

/* Half a table is all of it, and needs two quarters. */
XENT_INLINE f32x8_vec f32x8_power(f32x8_vec y, f32x8_vec table) {
    return (f32x8_vec){f32x4_power(y.a, table.a, table.b), f32x4_power(y.b, table.a, table.b)};
}
XENT_DEFINE_POWER(f32, f32x8, table.a, table.b)

XENT_DEFINE_LOAD_FIRST(f32, float)
XENT_DEFINE_LOAD_FIRST(f64, double)
XENT_DEFINE_STORE_FIRST(f32, float)
XENT_DEFINE_STORE_FIRST(f64, double)
XENT_DEFINE_TRANSPOSE(u16, uint16_t)
XENT_DEFINE_TRANSPOSE(f32, float)
XENT_DEFINE_TRANSPOSE(f64, double)

#endif
