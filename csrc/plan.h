/* How a problem is divided: the one place that chooses. A row's bits never depend on it. */
#ifndef XENT_PLAN_H
#define XENT_PLAN_H

#include "xent.h"

struct xent_plan {
    int threads;
    bool stream;     /* write values past the caches */
    bool by_columns; /* threads share the blocks of one row, then of the next; else they share rows
                      */
};

struct xent_plan xent_plan(const struct xent_problem *problem, size_t rows);

#endif
