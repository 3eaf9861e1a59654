/* xent from C: the loss and gradient of two rows. Compile it with the files of csrc/, the
 * isa_<name>.c ones with the flags that setup.py gives them:
 *
 *     cc -std=c11 -O3 -ffp-contract=off -mavx2 -mfma -mf16c -c csrc/isa_avx2.c
 *     ...
 *     cc -std=c11 -O3 -Icsrc examples/cross_entropy.c *.o -lm -pthread
 */
#include "xent.h"

#include <stdio.h>

int main(void) {
    enum { ROWS = 2, CLASSES = 3 };
    float logits[ROWS][CLASSES] = {{2, 1, 0}, {0, 30, 0}}, gradient[ROWS][CLASSES];
    const unsigned char target[ROWS] = {0, 1};
    double loss[ROWS], loss_sum;

    const size_t row_shape[] = {ROWS};
    const ptrdiff_t row_stride = sizeof logits[0], target_stride = sizeof target[0];
    struct xent_problem problem = {
        .dtype = XENT_F32,
        .output = XENT_GRADIENT,
        .row_dims = 1,
        .row_shape = row_shape,
        .classes = CLASSES,
        .logits = {(char *)logits, &row_stride},
        .logits_stride = sizeof logits[0][0],
        .values = {(char *)gradient, &row_stride},
        .values_stride = sizeof gradient[0][0],
        .target = {(char *)target, &target_stride},
        .target_type = XENT_U8,
        .upstream_scalar = 1,
        .loss = loss,
        .loss_reduced = &loss_sum,
        .threads = xent_available_threads(),
    };
    const enum xent_status status = xent_run(&problem);
    if (status != XENT_OK) {
        fprintf(stderr, "xent_run: status %d, row %zu\n", (int)status, problem.bad_row);
        return 1;
    }
    for (int i = 0; i < ROWS; i++) {
        printf("%.9g: %.8g %.8g %.8g\n", loss[i], (double)gradient[i][0], (double)gradient[i][1],
               (double)gradient[i][2]);
    }
    printf("%.9g\n", loss_sum);
    return 0;
}
