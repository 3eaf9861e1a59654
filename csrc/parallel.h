/* Teams of threads, whatever makes them. */
#ifndef XENT_PARALLEL_H
#define XENT_PARALLEL_H

#include <stddef.h>

/* What a member of a team does; `member` counts from 0 to `team` - 1. */
typedef void xent_work(void *context, int member, int team);

/* Runs `work` on at most `threads` threads, in the default floating-point environment, and returns
 * when all are done. The caller's environment is left as it was. */
void xent_parallel(int threads, xent_work *work, void *context);

struct xent_range {
    size_t begin, end;
};

/* The member's share of 0 .. total: consecutive, and as even as can be. */
struct xent_range xent_share(size_t total, int member, int team);

#endif
