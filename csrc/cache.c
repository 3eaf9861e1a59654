/* Asks the operating system about caches. Knows nothing of what they are for. */
#include "cache.h"

#include <stdatomic.h>
#include <unistd.h>

long xent_l1_cache(void) {
#ifdef _SC_LEVEL1_DCACHE_SIZE
    static atomic_long known = -1; /* the question takes microseconds in a virtual machine */
    long size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size < 0) {
        const long answer = sysconf(_SC_LEVEL1_DCACHE_SIZE);
        size = answer > 0 ? answer : 0;
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
#else
    return 0;
#endif
}
