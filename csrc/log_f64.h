/* The constants of log for double. With f in [1/sqrt(2), sqrt(2)) and s = (f - 1) / (f + 1),
 * ln f = 2 s + s^3 p(s^2), where p is the minimax polynomial for the relative error of ln f, which
 * is 2^-57.5. */
#ifndef XENT_LOG_F64_H
#define XENT_LOG_F64_H

static const double log_poly[] = {0x1.5555555555558p-1, 0x1.999999999506bp-2, 0x1.2492492e34728p-2,
                                  0x1.c71c629297dc8p-3, 0x1.7462cba1f1df6p-3, 0x1.39fb767549a5fp-3,
                                  0x1.2b7b9984cbef7p-3};

/* The same for results that become float: 2^-37.6. */
static const double log_poly_for_float[] = {0x1.555554fd9323fp-1, 0x1.999a7a9d25d9fp-2,
                                            0x1.2438d2c1e2e5ep-2, 0x1.e2f7259af0aa1p-3};

static const double SQRT2 = 0x1.6a09e667f3bcdp+0;

#endif
