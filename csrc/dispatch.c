/* CPU features -> kernel table. The only file that knows which instruction sets there are; it runs
 * none of their code. */
#include "dispatch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#    include <cpuid.h>
#endif

struct candidate {
    const struct xent_kernels *kernels; /* NULL: not on this architecture */
    const char *name;
};

/* The widest first. */
static const struct candidate candidates[] = {
#if defined(__x86_64__)
    {&xent_kernels_avx512, "avx512"},
    {&xent_kernels_avx2, "avx2"},
#else
    {NULL, "avx512"},
    {NULL, "avx2"},
#endif
#if defined(__aarch64__)
    {&xent_kernels_neon, "neon"},
#else
    {NULL, "neon"},
#endif
    {&xent_kernels_scalar, "scalar"},
};

enum { CANDIDATES = sizeof candidates / sizeof candidates[0] };

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows it. */
static bool has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

/* Every feature that setup.py lets the compiler use. __builtin_cpu_supports also asks, by XGETBV,
 * whether the operating system saves the registers. */
static bool machine_supports(const char *name) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (strcmp(name, "avx2") == 0) {
        return avx2;
    }
    if (strcmp(name, "avx512") == 0) {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    }
#endif
    (void)name; /* NEON is part of every AArch64 */
    return true;
}

static enum xent_status find(const char *name, const struct xent_kernels **kernels) {
    for (size_t i = 0; i < CANDIDATES; i++) {
        if (strcmp(candidates[i].name, name) == 0) {
            *kernels = candidates[i].kernels;
            return *kernels && machine_supports(name) ? XENT_OK : XENT_UNSUPPORTED_ISA;
        }
    }
    return XENT_UNKNOWN_ISA;
}

static enum xent_status choose(const struct xent_kernels **kernels) {
    const char *forced = getenv("XENT_ISA");
    if (forced && *forced) {
        return find(forced, kernels);
    }
    size_t i = 0;
    while (find(candidates[i].name, kernels) != XENT_OK) {
        i++; /* stops at scalar, which every machine supports */
    }
    return XENT_OK;
}

enum xent_status xent_select_kernels(const struct xent_kernels **kernels) {
    /* Threads that race here all store the same pointer. */
    static _Atomic(const struct xent_kernels *) chosen;
    *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (*kernels) {
        return XENT_OK;
    }
    const enum xent_status status = choose(kernels);
    if (status == XENT_OK) {
        atomic_store_explicit(&chosen, *kernels, memory_order_relaxed);
    }
    return status;
}

enum xent_status xent_isa(const char **name) {
    const struct xent_kernels *kernels;
    const enum xent_status status = xent_select_kernels(&kernels);
    if (status == XENT_OK) {
        *name = kernels->isa;
    }
    return status;
}

enum xent_status xent_isa_supported(const char *name) {
    const struct xent_kernels *kernels;
    return find(name, &kernels);
}
