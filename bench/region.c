/* What a team of threads costs: an amount of work, done by one thread and by two, some time after
 * the last. Prints lines of "work gap one two slow": microseconds, of which the last three are the
 * median for one thread, the median for two, and their 90th percentile. */
#define _POSIX_C_SOURCE 200809L

#include "parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double microseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static void wait_for(double duration) {
    const double end = microseconds() + duration;
    while (microseconds() < end) {
    }
}

/* Counts, because looking at the clock would take as long as the smallest amount of work. */
static void count(double steps) {
    for (volatile long i = 0; i < (long)steps; i++) {
    }
}

static double steps_per_microsecond(void) {
    const double steps = 1e7, begin = microseconds();
    count(steps);
    return steps / (microseconds() - begin);
}

static void share(void *context, int member, int team) {
    (void)member;
    const double *steps = context;
    count(*steps / team);
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { SAMPLES = 1000 };

/* Sorted times of a region. */
static void measure(int team, double steps, double gap, double *times) {
    for (int i = 0; i < SAMPLES; i++) {
        wait_for(gap);
        const double begin = microseconds();
        xent_parallel(team, share, &steps);
        times[i] = microseconds() - begin;
    }
    qsort(times, SAMPLES, sizeof *times, compare);
}

int main(void) {
    static const double WORK[] = {0, 5, 10, 20, 50, 200}, GAPS[] = {0, 10, 100, 1000};
    static double one[SAMPLES], two[SAMPLES];
    count(1e8); /* until the processor runs at its speed */
    const double speed = steps_per_microsecond();
    for (size_t w = 0; w < sizeof WORK / sizeof *WORK; w++) {
        for (size_t g = 0; g < sizeof GAPS / sizeof *GAPS; g++) {
            measure(1, WORK[w] * speed, GAPS[g], one);
            measure(2, WORK[w] * speed, GAPS[g], two);
            printf("%g %g %g %g %g\n", WORK[w], GAPS[g], one[SAMPLES / 2], two[SAMPLES / 2],
                   two[SAMPLES * 9 / 10]);
        }
    }
    return 0;
}
