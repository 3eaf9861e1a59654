/* The kernels for neon; setup.py gives this file, and no other, the flags of that instruction set.
 */
#define XENT_ISA_NAME neon
#include "vec_neon.h"

#include "isa.inc.h"
