/* The kernels for scalar; setup.py gives this file, and no other, the flags of that instruction
 * set. */
#define XENT_ISA_NAME scalar
#include "vec_scalar.h"

#include "isa.inc.h"
