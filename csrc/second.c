/* The coefficients of second derivatives, see second.h. */
#include "second.h"

#include <math.h>

static bool is_kind(const struct xent_job *job, enum xent_curvature kind) {
    return xent_has(job, CURVATURE) && job->problem->curvature_kind == kind;
}

/* Of the loss itself, not what a library takes for it. */
static bool is_exact(const struct xent_job *job) {
    return !is_kind(job, XENT_XGBOOST) && !is_kind(job, XENT_LIGHTGBM);
}

double xent_curvature_floor(const struct xent_job *job) {
    return is_kind(job, XENT_XGBOOST) ? 1e-16 : -INFINITY;
}

bool xent_bends_square(const struct xent_job *job) {
    return is_exact(job) && job->options->z_loss != 0;
}

void xent_second_of_rows(const struct xent_job *job, const struct xent_rows *rows, size_t lane,
                         size_t n, const double *unmasked, double *by, double *square) {
    const double scale = job->options->scale; /* upstream has one factor dz/dx already */
    const double factor = is_kind(job, XENT_XGBOOST) ? 2 : 1;
    for (size_t i = 0; i < n; i++) {
        const size_t at = lane + i;
        by[i] = rows->upstream[at] * scale * (rows->own[at] + rows->rest[at]) * factor;
        square[i] = 0;
    }
    for (size_t i = 0; xent_bends_square(job) && i < n; i++) {
        const size_t at = lane + i;
        if (rows->square[at] != 0) { /* or lse may be no number */
            square[i] = rows->upstream[at] * scale * 2 * rows->square[at];
            by[i] += square[i] * rows->lse[at];
        }
    }
    for (size_t i = 0; is_kind(job, XENT_LIGHTGBM) && i < n; i++) {
        by[i] *= unmasked[i] / fmax(unmasked[i] - 1, 1);
    }
}

struct xent_second xent_second_of(const struct xent_job *job, const struct xent_rows *rows,
                                  size_t lane, double unmasked) {
    const struct xent_options *options = job->options;
    struct xent_second second = {.floor = xent_curvature_floor(job)};
    xent_second_of_rows(job, rows, lane, 1, &unmasked, &second.by, &second.square);
    if (is_exact(job) && options->softcap > 0) {
        second.by_tanh = -2 * options->scale / options->softcap;
    }
    return second;
}

double xent_second_at(const struct xent_job *job, const struct xent_second *second,
                      const struct xent_point *at) {
    const bool product = xent_has(job, DIRECTION);
    double x;
    if (product) {
        x = at->slope *
            xent_product_in_z(second->by, second->square, at->q, at->away, second->mean);
    } else {
        x = at->slope * at->slope *
            xent_curvature_in_z(second->by, second->square, at->q, at->others);
    }
    if (second->by_tanh != 0) {
        x += at->gradient * second->by_tanh * at->tanh * (product ? at->component : 1);
    }
    return x < second->floor ? second->floor : x;
}
