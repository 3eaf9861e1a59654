/* What the memory of this machine gives: the roofline that bench/compare.py holds xent against.
 *
 *     cc -O3 -fopenmp bandwidth.c -o bandwidth        (-march=native for the widest vectors)
 *     ./bandwidth THREADS BYTES REPETITIONS
 *
 * Prints one JSON line for each kernel: the bytes counted, and the seconds of every repetition.
 * Counted are the bytes the program reads and those it writes; not the reading of a line before it
 * is overwritten, which a plain copy costs and a non-temporal one saves. */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __linux__
#    include <sys/mman.h>
#endif

#if defined(__AVX512F__)
#    include <immintrin.h>
typedef __m512i vector;
static inline void stream(vector *to, vector value) { _mm512_stream_si512(to, value); }
static inline void end_of_stream(void) { _mm_sfence(); }
#elif defined(__AVX__)
#    include <immintrin.h>
typedef __m256i vector;
static inline void stream(vector *to, vector value) { _mm256_stream_si256(to, value); }
static inline void end_of_stream(void) { _mm_sfence(); }
#elif defined(__SSE2__)
#    include <emmintrin.h>
typedef __m128i vector;
static inline void stream(vector *to, vector value) { _mm_stream_si128(to, value); }
static inline void end_of_stream(void) { _mm_sfence(); }
#else
typedef long long vector __attribute__((vector_size(16)));
static inline void stream(vector *to, vector value) { *to = value; }
static inline void end_of_stream(void) {}
#endif

enum { UNROLLED = 8, PAGE = 4096, HUGE_PAGE = 2 << 20 };

/* A loop with this in it does not become a call of memcpy, which chooses its own stores. */
#define KEEP_THE_LOOP __asm__ volatile("" ::: "memory")

static void read_vectors(vector *restrict to, const vector *restrict from, size_t n) {
    vector sums[UNROLLED] = {0};
    for (size_t i = 0; i < n; i += UNROLLED)
        for (size_t k = 0; k < UNROLLED; k++)
            sums[k] += from[i + k];
    for (size_t k = 1; k < UNROLLED; k++)
        sums[0] += sums[k];
    to[0] = sums[0]; /* so that the sums are needed */
}

static void copy(vector *restrict to, const vector *restrict from, size_t n) {
    for (size_t i = 0; i < n; i += UNROLLED) {
        for (size_t k = 0; k < UNROLLED; k++)
            to[i + k] = from[i + k];
        KEEP_THE_LOOP;
    }
}

static void copy_non_temporal(vector *restrict to, const vector *restrict from, size_t n) {
    for (size_t i = 0; i < n; i += UNROLLED)
        for (size_t k = 0; k < UNROLLED; k++)
            stream(&to[i + k], from[i + k]);
    end_of_stream();
}

static void update(vector *restrict to, const vector *restrict from, size_t n) {
    (void)from;
    for (size_t i = 0; i < n; i += UNROLLED)
        for (size_t k = 0; k < UNROLLED; k++)
            to[i + k] += to[i + k];
}

typedef void kernel(vector *restrict to, const vector *restrict from, size_t n);

static const struct {
    const char *name;
    kernel *run;
    size_t bytes_counted; /* for each byte of an array */
} KERNELS[] = {
    {"read", read_vectors, 1},
    {"copy", copy, 2},
    {"non_temporal_copy", copy_non_temporal, 2},
    {"update", update, 2},
};

/* Every thread has one stretch of whole pages, the same in every kernel: it is also the first to
 * touch it. */
static double seconds_of(kernel *run, char *to, const char *from, size_t bytes, int threads) {
    const size_t share = bytes / (size_t)threads;
    const double start = omp_get_wtime();
#pragma omp parallel num_threads(threads)
    {
        const size_t begin = (size_t)omp_get_thread_num() * share;
        run((vector *)(to + begin), (const vector *)(from + begin), share / sizeof(vector));
    }
    return omp_get_wtime() - start;
}

static void clear(vector *restrict to, const vector *restrict from, size_t n) {
    (void)from;
    for (size_t i = 0; i < n; i++)
        to[i] = (vector){0};
}

/* In huge pages where the system has them, as NumPy's large arrays are. */
static char *allocate(size_t bytes) {
    char *array = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#ifdef MADV_HUGEPAGE
    if (array)
        madvise(array, bytes, MADV_HUGEPAGE);
#endif
    return array;
}

static void measure(size_t which, char *to, const char *from, size_t bytes, int threads,
                    int repetitions) {
    printf("{\"kernel\": \"%s\", \"threads\": %d, \"bytes\": %zu, \"vector_bytes\": %zu, "
           "\"seconds\": [",
           KERNELS[which].name, threads, bytes * KERNELS[which].bytes_counted, sizeof(vector));
    seconds_of(KERNELS[which].run, to, from, bytes, threads);
    for (int i = 0; i < repetitions; i++)
        printf("%s%.9f", i ? ", " : "", seconds_of(KERNELS[which].run, to, from, bytes, threads));
    printf("]}\n");
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s THREADS BYTES REPETITIONS\n", argv[0]);
        return 2;
    }
    const int threads = atoi(argv[1]), repetitions = atoi(argv[3]);
    if (threads < 1 || repetitions < 1) {
        fprintf(stderr, "%s: THREADS and REPETITIONS are at least 1\n", argv[0]);
        return 2;
    }
    const size_t granule = (size_t)threads * PAGE;
    const size_t bytes = (size_t)strtoull(argv[2], NULL, 10) / granule * granule;
    char *from = allocate(bytes), *to = allocate(bytes);
    if (!bytes || !from || !to) {
        fprintf(stderr, "%s: BYTES is less than a page for each thread, or more than there is\n",
                argv[0]);
        return 1;
    }
    omp_set_dynamic(0);
    seconds_of(clear, from, NULL, bytes, threads);
    seconds_of(clear, to, NULL, bytes, threads);
    for (size_t which = 0; which < sizeof KERNELS / sizeof KERNELS[0]; which++)
        measure(which, to, from, bytes, threads, repetitions);
    free(from);
    free(to);
    return 0;
}
