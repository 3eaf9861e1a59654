/* Instantiates the row kernels for both dtypes and exports them as one table. Included by
 * isa_<name>.c after the vector header of that instruction set. */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define QUOTE_(a) #a
#define QUOTE(a) QUOTE_(a)

#define REAL float
#define V(name) JOIN(f32, name)
#include "exp_f32.h"
#include "rows.inc.h"
#undef REAL
#undef V

#define REAL double
#define V(name) JOIN(f64, name)
#include "exp_f64.h"
#include "rows.inc.h"
#undef REAL
#undef V

#define F32_ENTRY(name, result, arguments) .name = f32_##name,
#define F64_ENTRY(name, result, arguments) .name = f64_##name,

const struct xent_kernels JOIN(xent_kernels, XENT_ISA_NAME) = {
    .isa = QUOTE(XENT_ISA_NAME),
    .f32 = {XENT_KERNELS(F32_ENTRY)},
    .f64 = {XENT_KERNELS(F64_ENTRY)},
};
