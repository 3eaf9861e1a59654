/* The coefficients of second derivatives, see second.h. */
#include "second.h"

#include <math.h>

double xent_curvature_factor(const struct xent_job *job, double unmasked) {
    if (!xent_has(job, CURVATURE)) {
        return 1;
    }
    switch (job->problem->curvature_kind) {
    case XENT_XGBOOST:
        return 2;
    case XENT_LIGHTGBM:
        return unmasked / fmax(unmasked - 1, 1);
    case XENT_EXACT:
        break;
    }
    return 1;
}

double xent_curvature_floor(const struct xent_job *job) {
    const bool xgboost = xent_has(job, CURVATURE) && job->problem->curvature_kind == XENT_XGBOOST;
    return xgboost ? 1e-16 : -INFINITY;
}

struct xent_second xent_second_of(const struct xent_job *job, const struct xent_rows *rows,
                                  size_t lane, double unmasked) {
    const struct xent_options *options = job->options;
    const bool exact = !xent_has(job, CURVATURE) || job->problem->curvature_kind == XENT_EXACT;
    /* upstream has one factor scale of dz/dx already */
    const double upstream = rows->upstream[lane] * options->scale;
    const double square = exact ? 2 * rows->square[lane] : 0;
    double all = rows->own[lane] + rows->rest[lane];
    all += square != 0 ? square * rows->lse[lane] : 0; /* which may be no number */
    struct xent_second second = {
        .by = upstream * all * xent_curvature_factor(job, unmasked),
        .square = square != 0 ? upstream * square : 0,
        .floor = xent_curvature_floor(job),
    };
    if (exact && options->softcap > 0) {
        second.by_tanh = -2 * options->scale / options->softcap;
    }
    return second;
}

double xent_second_at(const struct xent_job *job, const struct xent_second *second,
                      const struct xent_point *at) {
    const bool product = xent_has(job, DIRECTION);
    double x;
    if (product) {
        x = at->slope * (second->by * at->q * at->away + second->square * at->q * second->mean);
    } else {
        const double in_z = second->by * at->q * at->others + second->square * at->q * at->q;
        x = at->slope * at->slope * in_z;
    }
    if (second->by_tanh != 0) {
        x += at->gradient * second->by_tanh * at->tanh * (product ? at->component : 1);
    }
    return x < second->floor ? second->floor : x;
}
