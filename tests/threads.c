/* Teams of threads under a race detector: callers of many sizes at once, on one pool. Exits with 0
 * if every member of every team did its work once. */
#include "parallel.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { CALLERS = 6, LARGEST_TEAM = 8, REGIONS = 2000 };

/* Plain numbers: if two threads touch one without an order between them, the detector says so. */
struct tally {
    long regions[LARGEST_TEAM];
};

static void count(void *context, int member, int team) {
    struct tally *tally = context;
    tally->regions[member] += team;
}

static void *call(void *argument) {
    const int team = 1 + *(const int *)argument % LARGEST_TEAM;
    struct tally tally = {{0}};
    for (int i = 0; i < REGIONS; i++) {
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
    return 0;
}
