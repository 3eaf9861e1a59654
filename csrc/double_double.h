/* Numbers of twice double's precision, as unevaluated sums of two doubles. */
#ifndef XENT_DOUBLE_DOUBLE_H
#define XENT_DOUBLE_DOUBLE_H

struct two {
    double high, low;
};

/* a + b without an error (Knuth's TwoSum), for finite results. */
static inline struct two add_exactly(double a, double b) {
    const double sum = a + b, back = sum - a;
    return (struct two){sum, (a - (sum - back)) + (b - back)};
}

static inline struct two add_two(struct two a, struct two b) {
    struct two sum = add_exactly(a.high, b.high);
    sum.low += a.low + b.low;
    return sum;
}

/* sum + x, which may be infinite: what an infinity leaves of the errors is no number. */
static inline struct two add_term(struct two sum, double x) {
    const struct two both = add_two(sum, (struct two){x, 0});
    return both.low - both.low == 0 ? both : (struct two){sum.high + x, 0};
}

#endif
