/* Teams of threads under a race detector: callers of many sizes at once, on one pool. Exits with 0
 * if every member of every team did its work once, every part of every stage was done once and
 * after the stage before, every number of what is shared out in ranges was met once, and no caller
 * was cancelled before its team was done. */
#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CALLERS = 6, LARGEST_TEAM = 8, REGIONS = 2000 };

/* Plain numbers: if two threads touch one without an order between them, the detector says so. */
struct tally {
    long regions[LARGEST_TEAM];
};

static void count(void *context, int member, int team) {
    struct tally *tally = context;
    tally->regions[member] += team;
}

/* ---- Stages ------------------------------------------------------------------------------------
 */

enum { STAGES = 5, PARTS = 23 };

/* Each part counts on from its neighbours' of the stage before, so that it must come after them. */
struct counts {
    long parts[STAGES][PARTS];
    long after[STAGES]; /* from one part of the stage and from the stage before */
    int region;
};

/* Some wait so long for this part that they go to sleep. */
static void be_slow(const struct counts *counts, size_t stage, size_t part) {
    if (counts->region % 100 == 0 && part == stage * 5) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

static void count_parts(void *context, int member, size_t stage, struct xent_parts *parts) {
    struct counts *counts = context;
    (void)member;
    for (size_t i; (i = xent_take_part(parts)) != XENT_NO_PART;) {
        be_slow(counts, stage, i);
        if (stage == 0) {
            counts->parts[stage][i]++;
        } else {
            const long *before = counts->parts[stage - 1];
            counts->parts[stage][i] +=
                before[i] + before[(i + 1) % PARTS] + counts->after[stage - 1];
        }
    }
}

static void count_stage(void *context, size_t stage) {
    struct counts *counts = context;
    counts->after[stage] +=
        counts->parts[stage][stage] + (stage > 0 ? counts->after[stage - 1] : 0);
}

static void run_stages(int team, int region) {
    static const struct xent_stages stages = {STAGES, PARTS, count_parts, count_stage};
    struct counts counts = {.region = region};
    xent_parallel_stages(team, &stages, &counts);
    long part = 1, after = 1;
    for (size_t stage = 0; stage < STAGES; stage++) {
        for (size_t i = 0; i < PARTS; i++) {
            if (counts.parts[stage][i] != part || counts.after[stage] != after) {
                fprintf(stderr, "stage %zu, part %zu, team of %d, region %d\n", stage, i, team,
                        region);
                exit(1);
            }
        }
        part = 2 * part + after;
        after += part;
    }
}

/* ---- Ranges ------------------------------------------------------------------------------------
 */

enum { TOTAL = 101, UNIT = 3 };

static void count_range(void *context, int member, struct xent_ranges *ranges) {
    long *counts = context;
    (void)member;
    struct xent_range range;
    while (xent_take_range(ranges, &range)) {
        for (size_t i = range.begin; i < range.end; i++) {
            counts[i]++;
        }
    }
}

static void run_ranges(int team, int region) {
    long counts[TOTAL] = {0};
    const size_t total = 1 + (size_t)region % TOTAL; /* also less than the team has members */
    xent_parallel_ranges(team, total, UNIT, count_range, counts);
    for (size_t i = 0; i < TOTAL; i++) {
        if (counts[i] != (i < total)) {
            fprintf(stderr, "%zu of %zu, team of %d, region %d\n", i, total, team, region);
            exit(1);
        }
    }
}

static void *call(void *argument) {
    const int team = 1 + *(const int *)argument % LARGEST_TEAM;
    struct tally tally = {{0}};
    for (int i = 0; i < REGIONS; i++) {
        run_stages(team, i);
        run_ranges(team, i);
        xent_parallel(team, count, &tally);
        for (int member = 0; member < team; member++) {
            if (tally.regions[member] != (long)team * (i + 1)) {
                fprintf(stderr, "member %d of %d, region %d\n", member, team, i);
                exit(1);
            }
        }
    }
    return NULL;
}

static atomic_int begun, ended;

static void be_slow_beside(void *context, int member, int team) {
    (void)context, (void)team;
    atomic_fetch_add(&begun, 1);
    if (member > 0) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    atomic_fetch_add(&ended, 1);
}

static void *call_until_cancelled(void *unused) {
    for (;;) {
        xent_parallel(2, be_slow_beside, NULL);
        pthread_testcancel();
    }
    return unused;
}

/* Whoever is cancelled while he waits for a worker is so when it is done. */
static bool cancel_callers(void) {
    for (int i = 0; i < 50; i++) {
        pthread_t caller;
        struct timespec some = {.tv_nsec = 300000 + 20000 * i};
        void *result;
        if (pthread_create(&caller, NULL, call_until_cancelled, NULL) != 0) {
            return false;
        }
        (void)nanosleep(&some, NULL);
        (void)pthread_cancel(caller);
        if (pthread_join(caller, &result) != 0 || result != PTHREAD_CANCELED) {
            return false;
        }
        if (atomic_load(&begun) != atomic_load(&ended)) {
            fprintf(stderr, "cancelled with work left, caller %d\n", i);
            return false;
        }
    }
    return true;
}

int main(void) {
    pthread_t callers[CALLERS];
    int numbers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        numbers[i] = i * 3;
        if (pthread_create(&callers[i], NULL, call, &numbers[i]) != 0) {
            return 1;
        }
    }
    for (int i = 0; i < CALLERS; i++) {
        (void)pthread_join(callers[i], NULL);
    }
    return cancel_callers() ? 0 : 1;
}
