/* Asks the operating system about pages. Knows nothing of what they are for. */
#ifdef __linux__
#    define _GNU_SOURCE /* mincore */
#endif

#include "fresh.h"

#ifdef __linux__

#    include <stdint.h>
#    include <sys/mman.h>
#    include <unistd.h>

bool xent_is_fresh(const char *address) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = (uintptr_t)address / page * page;
    unsigned char resident = 1;
    return mincore((void *)begin, (size_t)page, &resident) == 0 && !(resident & 1);
}

#else

bool xent_is_fresh(const char *address) {
    (void)address;
    return false;
}

#endif
