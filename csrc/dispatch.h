/* Which kernels this machine runs. */
#ifndef XENT_DISPATCH_H
#define XENT_DISPATCH_H

#include "kernels.h"
#include "xent.h"

/* The kernels in use: XENT_ISA if it is set, else the widest the machine supports. */
enum xent_status xent_select_kernels(const struct xent_kernels **kernels);

#endif
