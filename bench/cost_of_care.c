/* One call of xent_run on contiguous rows of float, as a function that ctypes can call: what
 * bench/cost_of_care.py times. */
#include "xent.h"

__attribute__((visibility("default"))) int run(const float *logits, const int64_t *target,
                                               size_t rows, size_t classes, int threads,
                                               float *gradient, double *loss);

int run(const float *logits, const int64_t *target, size_t rows, size_t classes, int threads,
        float *gradient, double *loss) {
    const ptrdiff_t row_stride = (ptrdiff_t)(classes * sizeof(float));
    const ptrdiff_t target_stride = sizeof(int64_t);
    struct xent_problem problem = {
        .dtype = XENT_F32,
        .output = gradient ? XENT_GRADIENT : XENT_NO_VALUES,
        .row_dims = 1,
        .row_shape = &rows,
        .classes = classes,
        .logits = {(char *)(uintptr_t)logits, &row_stride},
        .logits_stride = sizeof(float),
        .values = {(char *)gradient, &row_stride},
        .values_stride = sizeof(float),
        .target = {(char *)(uintptr_t)target, &target_stride},
        .target_type = XENT_I64,
        .upstream_scalar = 1,
        .loss = loss,
        .threads = threads,
    };
    return (int)xent_run(&problem);
}
