/* Sums over rows, in parts that a team shares. Knows neither where the numbers come from nor how
 * threads are made. */
#include "total.h"

#include "parallel.h"

/* A part is as many numbers as a thread adds in a microsecond, or more where there are many. */
enum { MOST_PARTS = 64, LEAST_SIZE = 2048 };

struct totals {
    const struct xent_finish_kernels *kernels;
    const double *values;
    size_t n, size, parts; /* of a part; so many of them */
    double unit;
    struct two sums[MOST_PARTS];
};

static void add_parts(void *context, int member, int team) {
    struct totals *const totals = context;
    const struct xent_range range = xent_share(totals->parts, member, team);
    for (size_t i = range.begin; i < range.end; i++) {
        const size_t begin = i * totals->size, left = totals->n - begin;
        const size_t size = left < totals->size ? left : totals->size;
        totals->sums[i] = totals->kernels->add_up(totals->values + begin, size, totals->unit);
    }
}

/* The sum of all numbers times `unit`. */
static double add_all(struct totals *totals, double unit, int threads) {
    totals->unit = unit;
    xent_parallel(totals->parts > 1 ? threads : 1, add_parts, totals);
    struct two sum = {0, 0};
    double plain = 0; /* what an infinity leaves of the sum with errors is NaN */
    for (size_t i = 0; i < totals->parts; i++) {
        sum = add_two(sum, totals->sums[i]);
        plain += totals->sums[i].high;
    }
    return plain - plain == 0 ? sum.high + sum.low : plain;
}

/* Where the sum is beyond the largest number M, it is formed again 2^-64 times as large, for there
 * are not so many numbers. Rounding does not take the mean of n beyond M: the largest sum, n M, is
 * rounded to less than n 2^1024. */
double xent_total(const struct xent_finish_kernels *kernels, const double *values, size_t n,
                  double divisor, int threads) {
    const size_t even = (n + MOST_PARTS - 1) / MOST_PARTS;
    struct totals totals = {.kernels = kernels, .values = values, .n = n};
    totals.size = even > LEAST_SIZE ? even : LEAST_SIZE;
    totals.parts = (n + totals.size - 1) / totals.size;
    const double unit = 0x1p-64, sum = add_all(&totals, 1, threads);
    return sum - sum == 0 ? sum / divisor : add_all(&totals, unit, threads) / divisor / unit;
}
