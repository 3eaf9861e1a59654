/* The kernels for avx512; setup.py gives this file, and no other, the flags of that instruction
 * set. */
#define XENT_ISA_NAME avx512
#include "vec_avx512.h"

#include "isa.inc.h"
