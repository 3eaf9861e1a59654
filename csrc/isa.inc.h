/* Instantiates the row kernels for both dtypes and exports them as one table. Included by
 * isa_<name>.c after the vector header of that instruction set. */
#include "kernels.h"

#include "double_double.h"
#include "exp_f32.h"
#include "exp_f64.h"
#include "halves.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define QUOTE_(a) #a
#define QUOTE(a) QUOTE_(a)

#define REAL double
#define V(name) JOIN(f64, name)
/* Each builds on the ones before. */
/* clang-format off */
#include "widen.inc.h"
#include "exp.inc.h"
#include "finish.inc.h"
#include "precise.inc.h"
#include "sum.inc.h"
#include "factor.inc.h"
#include "spread.inc.h"
#include "store.inc.h"
#include "rows.inc.h"
#include "load.inc.h"
#include "half_rows.inc.h"
#include "options.inc.h"
#include "lanes.inc.h"
/* clang-format on */
#undef REAL
#undef V

#define REAL float
#define V(name) JOIN(f32, name)
/* clang-format off */
#include "widen.inc.h"
#include "exp.inc.h"
#include "precise.inc.h"
#include "sum.inc.h"
#include "factor.inc.h"
#include "spread.inc.h"
#include "store.inc.h"
#include "rows.inc.h"
#include "load.inc.h"
#include "half_rows.inc.h"
#include "options.inc.h"
#include "lanes.inc.h"
/* clang-format on */
#undef REAL
#undef V

#include "turn.inc.h"

#define F32_ENTRY(name, result, arguments) .name = f32_##name,
#define F64_ENTRY(name, result, arguments) .name = f64_##name,
#define FINISH_ENTRY(name, result, arguments) .name = name,

const struct xent_kernels JOIN(xent_kernels, XENT_ISA_NAME) = {
    .isa = QUOTE(XENT_ISA_NAME),
    .f32 = {XENT_KERNELS(F32_ENTRY)},
    .f64 = {XENT_KERNELS(F64_ENTRY)},
    .finish = {XENT_FINISH_KERNELS(FINISH_ENTRY)},
    .turn = turn,
};
