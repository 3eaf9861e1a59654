/* How many threads may work: what the environment, the processors and the control groups allow.
 * Knows neither how threads are made nor what they do. */
#ifdef __linux__
#    define _GNU_SOURCE /* sched_getaffinity */
#endif

#include "team_size.h"

#include "quota.h"
#include "xent.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifdef __linux__
#    include <sched.h>
#else
#    include <unistd.h>
#endif

/* What is read once, when the library is loaded, as OpenMP's runtimes do with these variables. */
static struct {
    int num_threads; /* OMP_NUM_THREADS */
    int limit;       /* OMP_THREAD_LIMIT */
    int quota;
} allowed;

static atomic_int set_num_threads; /* by the program; 0: OMP_NUM_THREADS holds */

static int smaller(int a, int b) { return a < b ? a : b; }

/* The number a variable begins with; OMP_NUM_THREADS may go on with those of nested teams. What is
 * no positive number sets no limit. */
static int variable(const char *name) {
    const char *text = getenv(name);
    if (!text) {
        return INT_MAX;
    }
    char *end;
    const long value = strtol(text, &end, 10);
    const bool ends = *end == '\0' || *end == ',' || *end == ' ';
    return ends && value >= 1 && value < INT_MAX ? (int)value : INT_MAX;
}

__attribute__((constructor)) static void read_limits(void) {
    allowed.num_threads = variable("OMP_NUM_THREADS");
    allowed.limit = variable("OMP_THREAD_LIMIT");
    const int quota = xent_quota("");
    allowed.quota = quota > 0 ? quota : INT_MAX;
}

/* Asked for anew each time, because a program may change its affinity; it takes some 0.4 us, so it
 * is not asked for by a call too small to be shared. */
static int processors(void) {
#ifdef __linux__
    cpu_set_t set[8]; /* Linux wants room for all it was built for; x86-64's most are 8192 */
    if (sched_getaffinity(0, sizeof set, set) == 0) {
        return CPU_COUNT_S(sizeof set, set);
    }
    return 1;
#else
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online >= 1 ? (int)online : 1;
#endif
}

int xent_available_threads(void) {
    const int set = atomic_load(&set_num_threads);
    const int wanted = set > 0 ? set : allowed.num_threads;
    return smaller(smaller(wanted, processors()), smaller(allowed.quota, allowed.limit));
}

void xent_set_num_threads(int threads) { atomic_store(&set_num_threads, threads); }

int xent_team_size(int threads) {
    return threads > 0 ? smaller(threads, allowed.limit) : xent_available_threads();
}
