/* How many threads may work. xent_available_threads, in xent.h, is the other half of this. */
#ifndef XENT_TEAM_SIZE_H
#define XENT_TEAM_SIZE_H

/* The team that a problem gets that asks for `threads`: as many, but no more than OMP_THREAD_LIMIT,
 * or what xent_available_threads says if that is 0. */
int xent_team_size(int threads);

#endif
