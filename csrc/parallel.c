/* Teams of threads. The only file that names OpenMP; it knows nothing of logits. */
#include "parallel.h"

#include "xent.h"

#include <fenv.h>

#ifdef _OPENMP
#    include <omp.h>
#endif

#if defined(__unix__) || defined(__APPLE__)
#    include <pthread.h>
#endif

/* libgomp's pool does not survive a fork: a region in the child waits for ever for threads that
 * only the parent has. So a child works alone. */
static bool forked;

#if defined(__unix__) || defined(__APPLE__)
static void note_fork(void) { forked = true; }

__attribute__((constructor)) static void watch_for_forks(void) {
    (void)pthread_atfork(NULL, NULL, note_fork);
}
#endif

/* The caller may have switched on flushing to zero or another rounding, and a thread of the pool
 * keeps the environment it was created in, so every member sets its own. */
static void run_member(xent_work *work, void *context, int member, int team) {
    fenv_t environment;
    (void)fegetenv(&environment);
    (void)fesetenv(FE_DFL_ENV);
    work(context, member, team);
    (void)fesetenv(&environment);
}

void xent_parallel(int threads, xent_work *work, void *context) {
#ifdef _OPENMP
    if (threads > 1 && !forked) {
#    pragma omp parallel num_threads(threads)
        run_member(work, context, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    (void)threads;
    run_member(work, context, 0, 1);
}

struct xent_range xent_share(size_t total, int member, int team) {
    const size_t each = total / (size_t)team, extra = total % (size_t)team, i = (size_t)member;
    const size_t begin = i * each + (i < extra ? i : extra);
    return (struct xent_range){begin, begin + each + (i < extra)};
}

const char *xent_threading(void) {
#ifdef _OPENMP
#    define XENT_TEXT_(a) #a
#    define XENT_TEXT(a) XENT_TEXT_(a)
    return "OpenMP " XENT_TEXT(_OPENMP); /* the specification's year and month */
#else
    return "none";
#endif
}
