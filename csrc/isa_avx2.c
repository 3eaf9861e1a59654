/* The kernels for avx2; setup.py gives this file, and no other, the flags of that instruction set.
 */
#define XENT_ISA_NAME avx2
#include "vec_avx2.h"

#include "isa.inc.h"
