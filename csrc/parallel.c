/* Teams of threads: the only file that makes threads. It knows nothing of logits, and how many
 * threads a team should have is decided elsewhere.
 *
 * The threads are xent's own and not OpenMP's, whose workers spin for milliseconds after a region,
 * in the way of whoever computes next (a BLAS, say), keep a caller waiting for a worker that has
 * lost its processor, and hang in a forked child. Here a worker spins for some microseconds and
 * then sleeps; what it has not begun, the caller takes back and does itself; and a forked child
 * makes workers of its own. docs/performance.md has the figures.
 */
#ifdef __linux__
#    define _GNU_SOURCE /* sched_getaffinity, sched_getcpu */
#else
#    define _POSIX_C_SOURCE 200809L /* clock_gettime, pthread_sigmask */
#endif

#include "parallel.h"

#include "job.h"
#include "xent.h"

#include <stdatomic.h>
#ifdef __SSE2__
#    include <xmmintrin.h>
#endif

/* ---- The floating-point environment ------------------------------------------------------------
 */

#ifdef __SSE2__

enum { SSE_DEFAULT = 0x1f80 }; /* round to nearest, keep subnormals, mask all exceptions */

xent_environment xent_set_default_environment(void) {
    const xent_environment before = _mm_getcsr();
    _mm_setcsr(SSE_DEFAULT);
    return before;
}

void xent_set_environment(xent_environment environment) { _mm_setcsr(environment); }

#else

xent_environment xent_set_default_environment(void) {
    xent_environment before;
    (void)fegetenv(&before);
    (void)fesetenv(FE_DFL_ENV);
    return before;
}

void xent_set_environment(xent_environment environment) { (void)fesetenv(&environment); }

#endif

struct xent_range xent_share(size_t total, int member, int team) {
    const size_t each = total / (size_t)team, extra = total % (size_t)team, i = (size_t)member;
    const size_t begin = i * each + (i < extra ? i : extra);
    return (struct xent_range){begin, begin + each + (i < extra)};
}

#if defined(__unix__) || defined(__APPLE__)

#    include <pthread.h>
#    include <sched.h>
#    include <signal.h>
#    include <stdlib.h>
#    include <time.h>
#    include <unistd.h>

/* ---- A number that threads wait on -------------------------------------------------------------
 */

/* How long to look at it before going to sleep. As long as it takes to be woken (5 to 15 us were
 * measured), so that a loop of calls meets its workers awake. */
static const int64_t SPIN_NANOSECONDS = 20000;

struct signal {
    _Alignas(XENT_CACHE_LINE) atomic_int value;
    atomic_int sleepers; /* some may be on their way out of a sleep */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
};

static bool make_signal(struct signal *signal, int value) {
    atomic_init(&signal->value, value);
    atomic_init(&signal->sleepers, 0);
    if (pthread_mutex_init(&signal->mutex, NULL) != 0) {
        return false;
    }
    if (pthread_cond_init(&signal->changed, NULL) != 0) {
        (void)pthread_mutex_destroy(&signal->mutex);
        return false;
    }
    return true;
}

static void end_signal(struct signal *signal) {
    (void)pthread_cond_destroy(&signal->changed);
    (void)pthread_mutex_destroy(&signal->mutex);
}

static void relax(void) {
#    if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#    elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` does nothing on most cores */
#    endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether the value has become another within the time of spinning. */
static bool spin_while(struct signal *signal, int value) {
    const int64_t end = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < 16; i++) {
            if (atomic_load(&signal->value) != value) {
                return true;
            }
            relax();
        }
    } while (nanoseconds() < end);
    return false;
}

/* Returns once the value may be another. A worker that was woken for work that has been taken back
 * meanwhile looks for the next, which is likely to follow soon, before it sleeps again. */
static void wait_while(struct signal *signal, int value) {
    if (spin_while(signal, value)) {
        return;
    }
    (void)pthread_mutex_lock(&signal->mutex);
    atomic_fetch_add(&signal->sleepers, 1);
    if (atomic_load(&signal->value) == value) {
        (void)pthread_cond_wait(&signal->changed, &signal->mutex);
    }
    atomic_fetch_sub(&signal->sleepers, 1);
    (void)pthread_mutex_unlock(&signal->mutex);
}

static bool is_slept_on(struct signal *signal) { return atomic_load(&signal->sleepers) > 0; }

/* Either the store is seen by who is about to sleep, or the sleeper is seen here: both accesses of
 * both sides are sequentially consistent. */
static void change_to(struct signal *signal, int value) {
    atomic_store(&signal->value, value);
    if (is_slept_on(signal)) {
        (void)pthread_mutex_lock(&signal->mutex);
        (void)pthread_cond_broadcast(&signal->changed);
        (void)pthread_mutex_unlock(&signal->mutex);
    }
}

/* ---- A worker and its caller: one slot, which both wait on --------------------------------- */

enum slot_state {
    IDLE,
    OFFERED, /* by a caller, who may still take it back */
    TAKEN    /* by the worker, which makes it IDLE again when it is done */
};

struct worker {
    struct signal state;
    xent_work *work; /* what is offered, with its arguments */
    void *context;
    int member, team;
    pthread_t thread;
    atomic_int processor; /* of the caller, as it offered */
    atomic_int kept_off;  /* the processor that its affinity leaves out, or -1 */
    struct worker *next;  /* in the pool, or in the team it is in */
};

/* Of the worker that takes an offer and the caller that takes it back, one succeeds. */
static bool take_offer(struct worker *worker, enum slot_state next) {
    int offered = OFFERED;
    return atomic_compare_exchange_strong(&worker->state.value, &offered, (int)next);
}

static int this_processor(void) {
#    ifdef __linux__
    return sched_getcpu();
#    else
    return -1;
#    endif
}

/* Keeps a worker off its caller's processor: to where the program's first thread may run at this
 * time. The scheduler likes to wake it there, where every processor is taken (by a BLAS's waiting
 * threads, for instance) or where it ran last; then it interrupts its caller, or waits for
 * milliseconds until that has had its time. */
static void keep_off(struct worker *worker, pthread_t thread, int processor) {
#    ifdef __linux__
    cpu_set_t set[8]; /* as in team_size.c */
    if (processor < 0 || atomic_load(&worker->kept_off) == processor ||
        sched_getaffinity(getpid(), sizeof set, set) != 0) {
        return;
    }
    CPU_CLR_S((size_t)processor, sizeof set, set);
    if (CPU_COUNT_S(sizeof set, set) > 0 && pthread_setaffinity_np(thread, sizeof set, set) == 0) {
        atomic_store(&worker->kept_off, processor);
    }
#    else
    (void)worker, (void)thread, (void)processor;
#    endif
}

static void *work_for_ever(void *argument) {
    struct worker *worker = argument;
    for (;;) {
        wait_while(&worker->state, IDLE);
        const int callers = atomic_load(&worker->processor);
        if (this_processor() == callers) { /* it was not asleep, or its caller has moved */
            keep_off(worker, pthread_self(), callers);
        }
        if (take_offer(worker, TAKEN)) {
            worker->work(worker->context, worker->member, worker->team);
            change_to(&worker->state, IDLE);
        }
    }
    return NULL;
}

/* ---- The pool ------------------------------------------------------------------------------ */

static struct {
    pthread_mutex_t mutex;
    struct worker *idle;
    int workers; /* idle or in a team */
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* A child has the memory of its parent's workers, but not the threads. */
static void before_fork(void) { (void)pthread_mutex_lock(&pool.mutex); }

static void in_parent(void) { (void)pthread_mutex_unlock(&pool.mutex); }

static void in_child(void) {
    pool.idle = NULL;
    pool.workers = 0;
    (void)pthread_mutex_unlock(&pool.mutex);
}

__attribute__((constructor)) static void watch_for_forks(void) {
    (void)pthread_atfork(before_fork, in_parent, in_child);
}

/* Starts the thread of a worker, which nobody joins. Signals are for the threads of the program. */
static bool start(struct worker *worker) {
    pthread_attr_t detached;
    if (pthread_attr_init(&detached) != 0) {
        return false;
    }
    (void)pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&worker->thread, &detached, work_for_ever, worker) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&detached);
    return started;
}

/* A new worker, or NULL. It is never freed. */
static struct worker *make_worker(void) {
    struct worker *worker = aligned_alloc(XENT_CACHE_LINE, sizeof *worker);
    if (!worker) {
        return NULL;
    }
    atomic_init(&worker->processor, -1);
    atomic_init(&worker->kept_off, -1);
    const bool made = make_signal(&worker->state, IDLE);
    if (!made || !start(worker)) {
        if (made) {
            end_signal(&worker->state);
        }
        free(worker);
        return NULL;
    }
    return worker;
}

/* An idle worker. Where there is none, one is made, unless there are as many as this team needs and
 * as there are processors for: concurrent callers share them. NULL: the caller does without. */
static struct worker *borrow(int team) {
    (void)pthread_mutex_lock(&pool.mutex);
    struct worker *worker = pool.idle;
    if (worker) {
        pool.idle = worker->next;
    } else if (pool.workers < team - 1 || pool.workers < xent_available_threads() - 1) {
        worker = make_worker();
        pool.workers += worker != NULL;
    }
    (void)pthread_mutex_unlock(&pool.mutex);
    return worker;
}

/* The first member's worker ends up on top, so that it is the first member's the next time: what is
 * in its caches is of use. */
static void give_back(struct worker *last) {
    if (!last) {
        return;
    }
    (void)pthread_mutex_lock(&pool.mutex);
    while (last) {
        struct worker *const worker = last;
        last = worker->next;
        worker->next = pool.idle;
        pool.idle = worker;
    }
    (void)pthread_mutex_unlock(&pool.mutex);
}

/* ---- Teams --------------------------------------------------------------------------------- */

/* The workers that were found, the last member's first. */
static struct worker *offer(xent_work *work, void *context, int team) {
    struct worker *last = NULL;
    const int processor = this_processor();
    for (int member = 1; member < team; member++) {
        struct worker *worker = borrow(team);
        if (!worker) {
            break;
        }
        worker->work = work;
        worker->context = context;
        worker->member = member;
        worker->team = team;
        atomic_store(&worker->processor, processor);
        worker->next = last;
        last = worker;
        if (is_slept_on(&worker->state)) {
            keep_off(worker, worker->thread, processor);
        }
        change_to(&worker->state, OFFERED);
    }
    return last;
}

/* The caller's own part, what no worker was found for, and what none has begun. */
static void do_the_rest(struct worker *last, xent_work *work, void *context, int team) {
    work(context, 0, team);
    for (int member = last ? last->member + 1 : 1; member < team; member++) {
        work(context, member, team);
    }
    for (; last; last = last->next) {
        if (take_offer(last, IDLE)) {
            work(context, last->member, team);
        }
    }
}

/* The workers have the caller's stack: it cannot be cancelled while it waits for them. */
static void run_team(xent_work *work, void *context, int team) {
    int cancels;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancels);
    struct worker *const last = offer(work, context, team);
    do_the_rest(last, work, context, team);
    for (struct worker *worker = last; worker; worker = worker->next) {
        while (atomic_load(&worker->state.value) == TAKEN) {
            wait_while(&worker->state, TAKEN);
        }
    }
    give_back(last);
    (void)pthread_setcancelstate(cancels, NULL);
}

const char *xent_threading(void) { return "pthreads"; }

#else

/* A single thread waits for nobody. */
struct signal {
    atomic_int value;
};

static bool make_signal(struct signal *signal, int value) {
    atomic_init(&signal->value, value);
    return true;
}

static void end_signal(struct signal *signal) { (void)signal; }

static void wait_while(struct signal *signal, int value) { (void)signal, (void)value; }

static void change_to(struct signal *signal, int value) { atomic_store(&signal->value, value); }

static void run_team(xent_work *work, void *context, int team) {
    for (int member = 0; member < team; member++) {
        work(context, member, team);
    }
}

const char *xent_threading(void) { return "none"; }

#endif

void xent_parallel(int threads, xent_work *work, void *context) {
    if (threads == 1) {
        work(context, 0, 1);
    } else {
        run_team(work, context, threads);
    }
}

/* ---- Stages ------------------------------------------------------------------------------------
 */

/* Members beyond so many begin with the share of another. */
enum { SHARES = 64 };

/* A stage's parts that one member takes one after the other, as long as no other has run out. */
struct share {
    _Alignas(XENT_CACHE_LINE) atomic_size_t taken; /* in this stage and all before it */
    struct xent_range parts;
};

struct team {
    const struct xent_stages *stages;
    void *context;
    size_t shares, members;
    struct signal stage;                          /* that is being done; the last is never left */
    _Alignas(XENT_CACHE_LINE) atomic_size_t done; /* parts, of this stage and all before it */
    struct share share[SHARES];
};

struct xent_parts {
    struct team *team;
    size_t stage;
    size_t home, visited;   /* the share to begin with, and how many are used up */
    struct xent_range held; /* parts that are taken and not begun */
    size_t count;           /* of all that were taken */
};

/* How many to take at once of so many parts that are left of a share: neighbours, which are done
 * one after the other, but few enough that the others find something to take. */
static size_t portion(const struct xent_parts *parts, size_t left) {
    const size_t members = parts->team->members, split = parts->visited == 0 ? 4 : 2 * members;
    return (left + split - 1) / split;
}

/* Since `taken` never starts anew, who is late takes nothing of another stage: as long as this one
 * has parts left, there is no other. */
static bool take_from(struct share *share, struct xent_parts *parts) {
    const size_t size = share->parts.end - share->parts.begin, end = size * (parts->stage + 1);
    size_t taken = atomic_load(&share->taken), n;
    do {
        if (taken >= end) {
            return false;
        }
        n = portion(parts, end - taken);
    } while (!atomic_compare_exchange_weak(&share->taken, &taken, taken + n));
    const size_t begin = share->parts.end - (end - taken);
    parts->held = (struct xent_range){begin, begin + n};
    parts->count += n;
    return true;
}

size_t xent_take_part(struct xent_parts *parts) {
    struct team *team = parts->team;
    while (parts->held.begin == parts->held.end) {
        if (parts->visited == team->shares) {
            return XENT_NO_PART;
        }
        if (!take_from(&team->share[(parts->home + parts->visited) % team->shares], parts)) {
            parts->visited++;
        }
    }
    return parts->held.begin++;
}

/* The member whose parts complete a stage ends it. One that took none cannot be it. */
static void run_stages(void *context, int member, int size) {
    (void)size;
    struct team *team = context;
    const struct xent_stages *stages = team->stages;
    int stage = atomic_load(&team->stage.value);
    while ((size_t)stage < stages->count) {
        struct xent_parts parts = {
            .team = team, .stage = (size_t)stage, .home = (size_t)member % team->shares};
        stages->work(team->context, member, (size_t)stage, &parts);
        const size_t all = stages->parts * ((size_t)stage + 1);
        const bool completes =
            parts.count > 0 && atomic_fetch_add(&team->done, parts.count) + parts.count == all;
        if (completes && stages->between) {
            stages->between(team->context, (size_t)stage);
        }
        if ((size_t)stage + 1 == stages->count) {
            return; /* the caller waits for all, nobody else need */
        }
        if (completes) {
            change_to(&team->stage, stage + 1);
        }
        int now;
        while ((now = atomic_load(&team->stage.value)) == stage) {
            wait_while(&team->stage, stage);
        }
        stage = now;
    }
}

void xent_parallel_stages(int threads, const struct xent_stages *stages, void *context) {
    struct team team; /* more than need be cleared */
    team.stages = stages;
    team.context = context;
    team.shares = threads < SHARES ? (size_t)threads : SHARES;
    team.members = (size_t)threads;
    const bool waits = make_signal(&team.stage, 0);
    atomic_init(&team.done, 0);
    for (size_t i = 0; i < team.shares; i++) {
        atomic_init(&team.share[i].taken, 0);
        team.share[i].parts = xent_share(stages->parts, (int)i, (int)team.shares);
    }
    xent_parallel(waits ? threads : 1, run_stages, &team);
    if (waits) {
        end_signal(&team.stage);
    }
}

/* ---- Ranges ------------------------------------------------------------------------------------
 */

/* Enough for a member that is disturbed to leave some to others. */
enum { RANGES_PER_MEMBER = 16 };

struct xent_ranges {
    size_t total, unit, units; /* whole units but for the last */
    size_t count;              /* of ranges that can be taken one by one */
    xent_range_work *work;
    void *context;
    struct xent_parts *parts; /* a range each, of one member */
};

/* Where a part begins, or the last has ended. */
static size_t begin_of_part(const struct xent_ranges *ranges, size_t part) {
    const size_t begin = xent_share(ranges->units, (int)part, (int)ranges->count).begin;
    return begin < ranges->units ? begin * ranges->unit : ranges->total;
}

bool xent_take_range(struct xent_ranges *ranges, struct xent_range *range) {
    const size_t part = xent_take_part(ranges->parts);
    if (part == XENT_NO_PART) {
        return false;
    }
    struct xent_range *const held = &ranges->parts->held; /* that follow it */
    range->begin = begin_of_part(ranges, part);
    range->end = begin_of_part(ranges, held->end);
    held->begin = held->end;
    return true;
}

static void work_on_ranges(void *context, int member, size_t stage, struct xent_parts *parts) {
    (void)stage;
    struct xent_ranges ranges = *(const struct xent_ranges *)context;
    ranges.parts = parts;
    ranges.work(ranges.context, member, &ranges);
}

void xent_parallel_ranges(int threads, size_t total, size_t unit, xent_range_work *work,
                          void *context) {
    const size_t units = (total + unit - 1) / unit;
    const size_t most = threads == 1 ? 1 : (size_t)threads * RANGES_PER_MEMBER;
    struct xent_ranges ranges = {.total = total,
                                 .unit = unit,
                                 .units = units,
                                 .count = units < most ? units : most,
                                 .work = work,
                                 .context = context};
    const struct xent_stages stages = {.count = 1, .parts = ranges.count, .work = work_on_ranges};
    xent_parallel_stages(threads, &stages, &ranges);
}
