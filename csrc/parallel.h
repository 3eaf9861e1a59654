/* Teams of threads, whatever makes them. */
#ifndef XENT_PARALLEL_H
#define XENT_PARALLEL_H

#include <fenv.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nothing here is computed by the x87, whose environment takes 0.2 us to set. */
#ifdef __SSE2__
typedef unsigned xent_environment;
#else
typedef fenv_t xent_environment;
#endif

/* Sets the default floating-point environment of this thread, and returns what it was. */
xent_environment xent_set_default_environment(void);
void xent_set_environment(xent_environment environment);

/* What a member of a team does; `member` counts from 0 to `team` - 1. */
typedef void xent_work(void *context, int member, int team);

/* Runs `work` on at most `threads` threads and returns when all are done. Those that are made have
 * the floating-point environment of the caller. */
void xent_parallel(int threads, xent_work *work, void *context);

/* Work in stages, each of which is divided in as many parts. A member takes parts of a stage until
 * none is left, and goes on to the next stage once all parts of this one are done. Until it has
 * taken a part, it may not look at what `between` writes: it may be late, and the stage over. */
struct xent_parts;

struct xent_stages {
    size_t count, parts; /* at least one part */
    void (*work)(void *context, int member, size_t stage, struct xent_parts *parts);
    void (*between)(void *context, size_t stage); /* by one member, once a stage is done; or NULL */
};

/* Runs the stages as `xent_parallel` runs its work. Members that come late find fewer parts left,
 * and nobody waits for those that do not come. */
void xent_parallel_stages(int threads, const struct xent_stages *stages, void *context);

#define XENT_NO_PART SIZE_MAX

/* The next part for this member to do, counted from 0; XENT_NO_PART: none is left. They come in
 * order from the member's own share, which is the same in every stage, as long as it lasts, and
 * then from others' shares. Whoever takes a part does it before his work returns. */
size_t xent_take_part(struct xent_parts *parts);

struct xent_range {
    size_t begin, end;
};

/* The member's share of 0 .. total: consecutive, and as even as can be. */
struct xent_range xent_share(size_t total, int member, int team);

/* Work on 0 .. total, of which a member takes ranges until none is left: who is late, or disturbed
 * by other programs, does less of it. */
struct xent_ranges;
typedef void xent_range_work(void *context, int member, struct xent_ranges *ranges);

/* Runs `work` as `xent_parallel` does. Ranges are of whole units, but for the last; `total` is not
 * zero. */
void xent_parallel_ranges(int threads, size_t total, size_t unit, xent_range_work *work,
                          void *context);

/* The next range for this member, if there is one: most begin where the last has ended. */
bool xent_take_range(struct xent_ranges *ranges, struct xent_range *range);

#endif
