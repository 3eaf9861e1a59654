/* Rows of strided arrays, and blocks of them. */
#include "job.h"

/* Takes a dimension into the job: into the last one there if every array allows it. */
static void add_dim(struct xent_job *job, const struct xent_array *arrays, size_t dim,
                    size_t size) {
    bool merges = true;
    const size_t last = job->dims - 1;
    for (int a = 0; a < ARRAYS; a++) {
        merges = merges && (!arrays[a].data || job->arrays[a].strides[last] ==
                                                   arrays[a].row_strides[dim] * (ptrdiff_t)size);
    }
    const size_t at = merges || job->shape[last] == 1 ? last : job->dims++;
    job->shape[at] = at == last ? job->shape[last] * size : size;
    for (int a = 0; a < ARRAYS; a++) {
        job->arrays[a].strides[at] = arrays[a].data ? arrays[a].row_strides[dim] : 0;
    }
}

/* What is asked of the kernels that know the formulas. */
static struct xent_request request_of(const struct xent_job *job) {
    enum xent_scale own = xent_has(job, LSE_IN) ? XENT_BY_GIVEN_LSE : XENT_BY_OWN_SUM;
    own = job->second ? XENT_FOR_SECOND : own;
    const struct xent_options *options = job->options;
    const double scale = options ? options->scale : 1;
    return (struct xent_request){
        .by = xent_has(job, VALUES) ? own : XENT_NO_SCALE,
        .single = job->single,
        .options = options != NULL,
        .lse = options || job->problem->lse || job->problem->evaluation,
        .scale = job->caps ? options->softcap : scale,
    };
}

static void note_properties(struct xent_job *job) {
    const struct xent_problem *problem = job->problem;
    const struct xent_options *options = job->options;
    job->caps = options && options->softcap > 0;
    job->reads_in_place = problem->dtype == xent_working_dtype(job) && !problem->swapped &&
                          xent_is_contiguous(job, problem->logits_stride) && !xent_has(job, MASK);
    job->loads_in_place = job->reads_in_place && !job->caps;
    const enum xent_dtype values = xent_dtype_of_values(problem, problem->wide_values);
    job->stores_in_place =
        values == xent_working_dtype(job) && xent_is_contiguous(job, problem->values_stride);
    job->rounds_in_place =
        xent_is_half(values) && problem->values_stride == (ptrdiff_t)sizeof(uint16_t);
    /* Of second derivatives it is that of the largest class which has a factor 1 - q near zero. */
    const bool looks = xent_has(job, LABELS) || problem->output == XENT_LOG_SOFTMAX;
    job->keeps_largest = problem->evaluation || job->second || (!xent_has(job, TARGET) && looks);
    job->listed_labels = xent_has(job, INDICES) || (job->second && xent_has(job, TARGET));
    job->dense_labels = xent_has(job, LABELS) && !job->listed_labels;
    job->shares = options && (options->label_smoothing > 0 || options->labels.spread_tail);
    const struct xent_statistics *statistics = problem->statistics;
    job->notes_shard = statistics && statistics->noted;
    job->knows_whole = statistics && statistics->whole;
    job->offset = statistics ? statistics->offset : 0;
    job->request = request_of(job);
}

/* Whether there are options. Those of other shards are not known where a shard is emitted, so that
 * its caller tells; where it is noted, its own are all that matter. */
static bool has_options(const struct xent_problem *problem) {
    const bool knows_whole = problem->statistics && problem->statistics->whole;
    return problem->options && (knows_whole || !xent_say_nothing(problem->options));
}

void xent_make_job(const struct xent_problem *problem, struct xent_job *job) {
    static const struct xent_options none = {.scale = 1};
    const struct xent_options *const options = problem->options ? problem->options : &none;
    const struct xent_array arrays[ARRAYS] = {[LOGITS] = problem->logits,
                                              [VALUES] = problem->values,
                                              [TARGET] = problem->target,
                                              [UPSTREAM] = problem->upstream,
                                              [LSE_IN] = problem->lse_in,
                                              [MASK] = options->mask,
                                              [LABELS] = options->labels.probabilities,
                                              [INDICES] = options->labels.indices,
                                              [ROW_WEIGHT] = options->row_weight,
                                              [CURVATURE] = problem->curvature,
                                              [DIRECTION] = problem->vector};
    const bool second = problem->curvature.data || problem->vector.data;
    /* Most of the five kilobytes are for dimensions that there are not: they stay as they are, for
     * clearing them takes a tenth of the time of a small call. */
    job->problem = problem;
    job->options = second || has_options(problem) ? options : NULL;
    job->second = second;
    job->class_weight = NULL;
    job->denominator = 1;
    job->itemsize = problem->dtype == XENT_F64 ? sizeof(double) : sizeof(float);
    job->single = problem->dtype != XENT_F64;
    job->rows = 1;
    job->dims = 1;
    job->shape[0] = 1;
    for (int a = 0; a < ARRAYS; a++) {
        job->arrays[a].data = arrays[a].data;
        job->arrays[a].strides[0] = 0;
    }
    for (size_t dim = 0; dim < problem->row_dims; dim++) {
        const size_t size = problem->row_shape[dim];
        job->rows *= size;
        if (size != 1) {
            add_dim(job, arrays, dim, size);
        }
    }
    note_properties(job);
}

static void move(struct xent_cursor *at, const struct xent_job *job, size_t dim, ptrdiff_t steps) {
    const int arrays = job->options ? ARRAYS : OF_OPTIONS;
    for (int a = 0; a < arrays; a++) {
        at->place.offset[a] += steps * job->arrays[a].strides[dim];
    }
}

void xent_at_row(const struct xent_job *job, size_t row, struct xent_cursor *at) {
    at->place = (struct xent_place){{0}};
    for (size_t dim = job->dims; dim-- > 0;) {
        at->index[dim] = row % job->shape[dim];
        row /= job->shape[dim];
        move(at, job, dim, (ptrdiff_t)at->index[dim]);
    }
}

void xent_advance(struct xent_cursor *at, const struct xent_job *job, size_t rows) {
    for (size_t dim = job->dims; dim-- > 0;) {
        move(at, job, dim, (ptrdiff_t)rows);
        at->index[dim] += rows;
        if (at->index[dim] < job->shape[dim]) {
            return;
        }
        rows = at->index[dim] / job->shape[dim];
        move(at, job, dim, -(ptrdiff_t)(rows * job->shape[dim]));
        at->index[dim] -= rows * job->shape[dim];
    }
}

/* Logits that do not load in place, before the softcap. Returns the largest, or NaN. */
static double gather(const struct xent_job *job, const struct xent_place *at, size_t begin,
                     size_t size, char *buffer) {
    const struct xent_strided from = {xent_logits_at(job, at, begin), job->problem->logits_stride,
                                      job->problem->dtype, job->problem->swapped};
    const double largest = job->kernels->read(&from, size, buffer);
    if (!xent_has(job, MASK)) {
        return largest;
    }
    const ptrdiff_t mask_stride = job->options->mask_stride;
    const char *mask = xent_address(job, MASK, at) + (ptrdiff_t)begin * mask_stride;
    job->kernels->mask(buffer, size, mask, mask_stride);
    return NAN;
}

const void *xent_load_uncapped(const struct xent_job *job, const struct xent_place *at,
                               size_t begin, size_t size, char *buffer) {
    if (job->reads_in_place) {
        return xent_logits_at(job, at, begin);
    }
    gather(job, at, begin, size, buffer);
    return buffer;
}

struct xent_logits xent_load_to(const struct xent_job *job, const struct xent_place *at,
                                size_t begin, size_t size, const struct xent_load_space *space) {
    const struct xent_options *options = job->options;
    const double scale = job->request.scale;
    if (job->caps) {
        const void *const uncapped = xent_load_uncapped(job, at, begin, size, space->u);
        job->kernels->cap(uncapped, size, options->scale / scale, scale, space->u, space->low,
                          space->slopes);
        return (struct xent_logits){space->u, space->low, scale, NAN};
    }
    const double largest = gather(job, at, begin, size, space->u);
    return (struct xent_logits){space->u, NULL, scale, largest};
}

double xent_read_uncapped(const struct xent_job *job, const struct xent_place *at, size_t class) {
    double u; /* or a float */
    return xent_real(job, xent_load_uncapped(job, at, class, 1, (char *)&u));
}

double xent_read_logit(const struct xent_job *job, const struct xent_place *at, size_t class) {
    if (job->loads_in_place) {
        return xent_logit(job, at, class);
    }
    double u, low; /* or floats */
    const struct xent_load_space space = {(char *)&u, (char *)&low, NULL};
    const struct xent_logits logits = xent_load(job, at, class, 1, &space);
    const double rest = logits.low ? xent_real(job, logits.low) : 0;
    return xent_real(job, logits.u) + rest;
}

const void *xent_load_labels(const struct xent_job *job, const struct xent_place *at, size_t begin,
                             size_t size, char *buffer) {
    const struct xent_labels *labels = &job->options->labels;
    const ptrdiff_t stride = labels->probabilities_stride;
    char *const p = xent_address(job, LABELS, at) + (ptrdiff_t)begin * stride;
    if (labels->dtype == xent_working_dtype(job) && !labels->swapped &&
        xent_is_contiguous(job, stride)) {
        return p;
    }
    const struct xent_strided from = {p, stride, labels->dtype, labels->swapped};
    job->kernels->read(&from, size, buffer);
    return buffer;
}

void xent_load_vector(const struct xent_job *job, const struct xent_place *at, size_t begin,
                      size_t size, char *buffer) {
    const struct xent_problem *problem = job->problem;
    const ptrdiff_t stride = problem->vector_stride;
    char *const p = xent_address(job, DIRECTION, at) + (ptrdiff_t)begin * stride;
    const struct xent_strided from = {p, stride, problem->vector_dtype, problem->vector_swapped};
    job->kernels->read(&from, size, buffer);
}

void xent_store(const struct xent_job *job, enum xent_job_array array, const struct xent_place *at,
                size_t begin, size_t size, const char *buffer, struct xent_edge *edge) {
    const struct xent_problem *problem = job->problem;
    const bool curvature = array == CURVATURE;
    const ptrdiff_t stride = curvature ? problem->curvature_stride : problem->values_stride;
    const bool wide = curvature ? problem->wide_curvature : problem->wide_values;
    char *const p = xent_address(job, array, at) + (ptrdiff_t)begin * stride;
    const struct xent_strided to = {p, stride, xent_dtype_of_values(problem, wide), false};
    job->kernels->write(buffer, size, &to, edge);
}

void xent_write_value(const struct xent_job *job, const struct xent_place *at, size_t class,
                      double value) {
    if (job->stores_in_place) {
        xent_set_real(job, xent_address(job, VALUES, at) + class * job->itemsize, value);
        return;
    }
    double real; /* or a float */
    xent_set_real(job, &real, value);
    xent_store(job, VALUES, at, class, 1, (const char *)&real, NULL);
}

/* A negative label is a large number, and none is cut to one that is a class. */
_Static_assert(sizeof(size_t) == sizeof(int64_t), "classes are numbers of 64 bits");

/* What is contiguous has a loop of its own, which becomes vectors, or is copied. */
#define DEFINE_READ(integer)                                                                       \
    static void read_##integer(const char *p, ptrdiff_t stride, size_t n, size_t *class) {         \
        if (stride == sizeof(integer) && sizeof(integer) == sizeof *class) {                       \
            memcpy(class, p, n * sizeof *class);                                                   \
            return;                                                                                \
        }                                                                                          \
        if (stride == sizeof(integer)) {                                                           \
            for (size_t i = 0; i < n; i++) {                                                       \
                integer v;                                                                         \
                memcpy(&v, p + i * sizeof v, sizeof v);                                            \
                class[i] = (size_t)v;                                                              \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            integer v;                                                                             \
            memcpy(&v, p + (ptrdiff_t)i * stride, sizeof v);                                       \
            class[i] = (size_t)v;                                                                  \
        }                                                                                          \
    }
DEFINE_READ(int8_t)
DEFINE_READ(int16_t)
DEFINE_READ(int32_t)
DEFINE_READ(int64_t)
DEFINE_READ(uint8_t)
DEFINE_READ(uint16_t)
DEFINE_READ(uint32_t)
DEFINE_READ(uint64_t)
#undef DEFINE_READ

static void read_integers(enum xent_int type, const char *p, ptrdiff_t stride, size_t n,
                          size_t *class) {
    static void (*const read[])(const char *, ptrdiff_t, size_t, size_t *) = {
        [XENT_I8] = read_int8_t,    [XENT_I16] = read_int16_t, [XENT_I32] = read_int32_t,
        [XENT_I64] = read_int64_t,  [XENT_U8] = read_uint8_t,  [XENT_U16] = read_uint16_t,
        [XENT_U32] = read_uint32_t, [XENT_U64] = read_uint64_t};
    read[type](p, stride, n, class);
}

void xent_read_classes(const struct xent_job *job, const char *target, size_t n, size_t *class) {
    read_integers(job->problem->target_type, target, xent_stride(job, TARGET), n, class);
}

const size_t *xent_find_classes(const struct xent_job *job, const char *target, size_t n,
                                size_t *buffer) {
    const enum xent_int type = job->problem->target_type;
    const bool same = type == XENT_I64 || type == XENT_U64;
    if (same && xent_stride(job, TARGET) == sizeof *buffer &&
        (uintptr_t)target % _Alignof(size_t) == 0) {
        return (const void *)target;
    }
    xent_read_classes(job, target, n, buffer);
    return buffer;
}

void xent_read_indices(const struct xent_job *job, const struct xent_place *at, size_t begin,
                       size_t n, size_t *class) {
    const struct xent_labels *labels = &job->options->labels;
    const char *p = xent_address(job, INDICES, at) + (ptrdiff_t)begin * labels->indices_stride;
    read_integers(labels->index_type, p, labels->indices_stride, n, class);
}
