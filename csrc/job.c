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

struct xent_job xent_make_job(const struct xent_problem *problem) {
    const struct xent_array arrays[ARRAYS] = {[LOGITS] = problem->logits,
                                              [VALUES] = problem->values,
                                              [TARGET] = problem->target,
                                              [UPSTREAM] = problem->upstream,
                                              [LSE_IN] = problem->lse_in};
    struct xent_job job = {
        .problem = problem,
        .itemsize = problem->dtype == XENT_F32 ? sizeof(float) : sizeof(double),
        .single = problem->dtype == XENT_F32,
        .rows = 1,
        .dims = 1,
        .shape = {1},
    };
    for (int a = 0; a < ARRAYS; a++) {
        job.arrays[a].data = arrays[a].data;
    }
    for (size_t dim = 0; dim < problem->row_dims; dim++) {
        const size_t size = problem->row_shape[dim];
        job.rows *= size;
        if (size != 1) {
            add_dim(&job, arrays, dim, size);
        }
    }
    return job;
}

static void move(struct xent_cursor *at, const struct xent_job *job, size_t dim, ptrdiff_t steps) {
    for (int a = 0; a < ARRAYS; a++) {
        at->place.offset[a] += steps * job->arrays[a].strides[dim];
    }
}

struct xent_cursor xent_at_row(const struct xent_job *job, size_t row) {
    struct xent_cursor at = {.place = {{0}}};
    for (size_t dim = job->dims; dim-- > 0;) {
        at.index[dim] = row % job->shape[dim];
        row /= job->shape[dim];
        move(&at, job, dim, (ptrdiff_t)at.index[dim]);
    }
    return at;
}

void xent_advance(struct xent_cursor *at, const struct xent_job *job, size_t rows) {
    for (size_t dim = job->dims; dim-- > 0;) {
        move(at, job, dim, (ptrdiff_t)rows);
        at->index[dim] += rows;
        if (at->index[dim] < job->shape[dim]) {
            return;
        }
        move(at, job, dim, -(ptrdiff_t)at->index[dim]);
        at->index[dim] = 0;
        rows = 1;
    }
}

static void copy_strided(char *to, ptrdiff_t to_stride, const char *from, ptrdiff_t from_stride,
                         size_t n, size_t itemsize) {
    for (size_t i = 0; i < n; i++) {
        memcpy(to, from, itemsize);
        to += to_stride;
        from += from_stride;
    }
}

const void *xent_load(const struct xent_job *job, const struct xent_place *at, size_t begin,
                      size_t size, char *buffer) {
    const ptrdiff_t stride = job->problem->logits_stride;
    const char *p = xent_address(job, LOGITS, at) + (ptrdiff_t)begin * stride;
    if (xent_is_contiguous(job, stride)) {
        return p;
    }
    copy_strided(buffer, (ptrdiff_t)job->itemsize, p, stride, size, job->itemsize);
    return buffer;
}

void xent_store(const struct xent_job *job, const struct xent_place *at, size_t begin, size_t size,
                const char *buffer) {
    const ptrdiff_t stride = job->problem->values_stride;
    char *p = xent_address(job, VALUES, at) + (ptrdiff_t)begin * stride;
    copy_strided(p, stride, buffer, (ptrdiff_t)job->itemsize, size, job->itemsize);
}

#define DEFINE_READ(integer)                                                                       \
    static void read_##integer(const char *p, ptrdiff_t stride, size_t n, size_t *class) {         \
        for (size_t i = 0; i < n; i++) {                                                           \
            integer v;                                                                             \
            memcpy(&v, p, sizeof v);                                                               \
            class[i] = (size_t)v;                                                                  \
            p += stride;                                                                           \
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

void xent_read_classes(const struct xent_job *job, const char *target, size_t n, size_t *class) {
    static void (*const read[])(const char *, ptrdiff_t, size_t, size_t *) = {
        [XENT_I8] = read_int8_t,    [XENT_I16] = read_int16_t, [XENT_I32] = read_int32_t,
        [XENT_I64] = read_int64_t,  [XENT_U8] = read_uint8_t,  [XENT_U16] = read_uint16_t,
        [XENT_U32] = read_uint32_t, [XENT_U64] = read_uint64_t};
    read[job->problem->target_type](target, xent_stride(job, TARGET), n, class);
}
