# cython: language_level=3, binding=True, embedsignature=False, freethreading_compatible=True
"""The binding of ``csrc/xent.h``: fills the problem, releases the GIL, turns a status into an exception.

Arrays come checked from `xent._api`: the right shapes, a dtype of the C core. `run_directly` and
`map_directly` take what the user gave, and check for themselves.
"""

from libc.float cimport DBL_MAX
from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memset

cimport numpy as cnp

import os

import numpy as np

from xent._arrays import place

cnp.import_array()


cdef extern from "numpy/ndarraytypes.h":
    int NPY_USERDEF

cdef extern from "numpy/arrayobject.h":
    object PyArray_Scalar(void *data, cnp.dtype dtype, object base)


cdef extern from "xent.h" nogil:
    enum: XENT_BLOCK
    enum: XENT_MAX_ROW_DIMS

    enum xent_status:
        XENT_OK
        XENT_TARGET_OUT_OF_RANGE
        XENT_NO_MEMORY
        XENT_UNKNOWN_ISA
        XENT_UNSUPPORTED_ISA

    enum xent_dtype:
        XENT_F32
        XENT_F64
        XENT_F16
        XENT_BF16

    enum xent_int:
        XENT_I8
        XENT_I16
        XENT_I32
        XENT_I64
        XENT_U8
        XENT_U16
        XENT_U32
        XENT_U64

    enum xent_values:
        XENT_NO_VALUES
        XENT_GRADIENT
        XENT_SOFTMAX
        XENT_LOG_SOFTMAX
        XENT_PRODUCT

    enum xent_curvature:
        XENT_EXACT
        XENT_XGBOOST
        XENT_LIGHTGBM

    struct xent_array:
        char *data
        const ptrdiff_t *row_strides

    struct xent_labels:
        xent_array probabilities
        ptrdiff_t probabilities_stride
        xent_dtype dtype
        bint swapped
        xent_array indices
        ptrdiff_t indices_stride
        xent_int index_type
        size_t listed
        bint spread_tail

    struct xent_options:
        double scale
        double softcap
        xent_array mask
        ptrdiff_t mask_stride
        xent_labels labels
        double label_smoothing
        double z_loss
        const double *class_weight
        xent_array row_weight
        bint ignores
        int64_t ignored

    struct xent_evaluation:
        double *log_prob
        double *entropy
        int64_t *argmax
        int64_t *rank
        size_t top_k
        double *top_log_probs
        int64_t *top_classes

    struct xent_block:
        int64_t kept
        double logit
        double logit_low
        double slope
        double label
        double weight
        double top
        double sum
        double low
        double exponent
        double shift
        double label_mass
        double label_spread
        double weight_mass
        double weight_spread
        double unmasked

    struct xent_listed_class:
        double logit
        double weight

    struct xent_statistics:
        size_t offset
        xent_block *noted
        xent_listed_class *noted_listed
        const xent_block *whole
        const xent_listed_class *whole_listed
        size_t blocks
        size_t classes

    struct xent_problem:
        xent_dtype dtype
        bint swapped
        bint wide_values
        xent_values output
        size_t row_dims
        const size_t *row_shape
        size_t classes
        xent_array logits
        ptrdiff_t logits_stride
        xent_array values
        ptrdiff_t values_stride
        xent_array curvature
        ptrdiff_t curvature_stride
        xent_curvature curvature_kind
        bint wide_curvature
        xent_array vector
        ptrdiff_t vector_stride
        xent_dtype vector_dtype
        bint vector_swapped
        xent_array target
        xent_int target_type
        xent_array upstream
        double upstream_scalar
        xent_array lse_in
        double *loss
        double *loss_reduced
        bint mean
        double denominator
        double *lse
        const xent_options *options
        const xent_evaluation *evaluation
        const xent_statistics *statistics
        int threads
        size_t bad_row
        size_t bad_label

    xent_status xent_run(xent_problem *problem)
    xent_status c_isa "xent_isa"(const char **name)
    xent_status xent_isa_supported(const char *name)
    int xent_available_threads()
    void xent_set_num_threads(int threads)
    const char *xent_threading()


NO_VALUES = XENT_NO_VALUES
GRADIENT = XENT_GRADIENT
SOFTMAX = XENT_SOFTMAX
LOG_SOFTMAX = XENT_LOG_SOFTMAX
PRODUCT = XENT_PRODUCT

CURVATURES = {"exact": XENT_EXACT, "xgboost": XENT_XGBOOST, "lightgbm": XENT_LIGHTGBM}

BLOCK_OF_CLASSES = XENT_BLOCK
# The dtypes of xent_block and xent_listed_class
BLOCK = np.dtype([
    ("kept", np.int64),
    *((name, np.float64) for name in (
        "logit", "logit_low", "slope", "label", "weight", "top", "sum", "low", "exponent", "shift",
        "label_mass", "label_spread", "weight_mass", "weight_spread", "unmasked",
    )),
])
LISTED_CLASS = np.dtype([("logit", np.float64), ("weight", np.float64)])
assert BLOCK.itemsize == sizeof(xent_block) and LISTED_CLASS.itemsize == sizeof(xent_listed_class)

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

ISAS = ("scalar", "avx2", "avx512", "neon")


cdef xent_int integer_type(cnp.dtype dtype) except *:
    cdef bint is_signed = dtype.kind == "i"
    if dtype.itemsize == 1:
        return XENT_I8 if is_signed else XENT_U8
    if dtype.itemsize == 2:
        return XENT_I16 if is_signed else XENT_U16
    if dtype.itemsize == 4:
        return XENT_I32 if is_signed else XENT_U32
    return XENT_I64 if is_signed else XENT_U64


cdef int bfloat16 = cnp.NPY_NOTYPE  # or its number among NumPy's types, once an array of it has gone the general way


cdef xent_dtype float_type(cnp.ndarray array) except *:
    global bfloat16
    cdef int number = cnp.PyArray_TYPE(array)
    if number == cnp.NPY_FLOAT32:
        return XENT_F32
    if number == cnp.NPY_FLOAT64:
        return XENT_F64
    if number == cnp.NPY_FLOAT16:
        return XENT_F16
    if number != bfloat16:
        if cnp.PyArray_ITEMSIZE(array) != 2 or array.dtype.name != "bfloat16":
            raise TypeError(f"no floats that are known here: {array.dtype}")
        if number >= NPY_USERDEF:  # dtypes of the new style have all the same number
            bfloat16 = number
    return XENT_BF16


cdef ptrdiff_t last_stride(cnp.ndarray array):
    return cnp.PyArray_STRIDE(array, cnp.PyArray_NDIM(array) - 1)


cdef xent_array row_array(cnp.ndarray array):
    cdef xent_array result = xent_array(NULL, NULL)
    if array is not None:
        result.data = <char *>cnp.PyArray_DATA(array)
        result.row_strides = <const ptrdiff_t *>cnp.PyArray_STRIDES(array)
    return result


cdef double *doubles(cnp.ndarray array):
    if array is None:
        return NULL
    return <double *>cnp.PyArray_DATA(array)


cdef int64_t *integers(cnp.ndarray array):
    if array is None:
        return NULL
    return <int64_t *>cnp.PyArray_DATA(array)


cdef int check(xent_status status) except -1:
    """Raise the exception that a status stands for."""
    if status == XENT_OK:
        return 0
    if status == XENT_NO_MEMORY:
        raise MemoryError("no memory for the workspace of xent's threads")
    if status == XENT_UNKNOWN_ISA:
        raise ValueError(f"XENT_ISA={os.environ.get('XENT_ISA')!r} is not one of {', '.join(ISAS)}")
    if status == XENT_UNSUPPORTED_ISA:
        raise RuntimeError(
            f"XENT_ISA={os.environ.get('XENT_ISA')!r} does not run on this machine, which has "
            f"{', '.join(supported_isas())}"
        )
    raise RuntimeError(f"xent's C core refused the problem with status {<int>status}")


cdef void fill_labels(xent_labels *labels, cnp.ndarray probabilities, cnp.ndarray indices, bint tail) except *:
    labels.probabilities = row_array(probabilities)
    labels.probabilities_stride = last_stride(probabilities)
    labels.dtype = float_type(probabilities)
    labels.swapped = not cnp.PyArray_ISNOTSWAPPED(probabilities)
    if indices is not None:
        labels.indices = row_array(indices)
        labels.indices_stride = last_stride(indices)
        labels.index_type = integer_type(indices.dtype)
        labels.listed = <size_t>cnp.PyArray_DIM(indices, cnp.PyArray_NDIM(indices) - 1)
        labels.spread_tail = tail


cdef void fill_logits(xent_problem *problem, cnp.ndarray logits) except *:
    cdef int dims = cnp.PyArray_NDIM(logits)
    problem.dtype = float_type(logits)
    problem.swapped = not cnp.PyArray_ISNOTSWAPPED(logits)
    problem.row_dims = <size_t>(dims - 1)
    problem.row_shape = <const size_t *>cnp.PyArray_DIMS(logits)
    problem.classes = <size_t>cnp.PyArray_DIM(logits, dims - 1)
    problem.logits = row_array(logits)
    problem.logits_stride = last_stride(logits)


cdef void fill_transformation(xent_options *options, cnp.ndarray mask, double scale, double softcap) except *:
    options.scale = scale
    options.softcap = softcap
    options.mask = row_array(mask)
    if mask is not None:
        options.mask_stride = last_stride(mask)


cdef void fill_statistics(
    xent_statistics *statistics, cnp.ndarray noted, cnp.ndarray noted_listed, cnp.ndarray whole,
    cnp.ndarray whole_listed,
) except *:
    memset(statistics, 0, sizeof(statistics[0]))
    if noted is not None:
        statistics.noted = <xent_block *>cnp.PyArray_DATA(noted)
    if noted_listed is not None:
        statistics.noted_listed = <xent_listed_class *>cnp.PyArray_DATA(noted_listed)
    if whole is not None:
        statistics.whole = <const xent_block *>cnp.PyArray_DATA(whole)
        statistics.blocks = <size_t>cnp.PyArray_DIM(whole, cnp.PyArray_NDIM(whole) - 1)
    if whole_listed is not None:
        statistics.whole_listed = <const xent_listed_class *>cnp.PyArray_DATA(whole_listed)


def bad_class(classes, target, row):
    """Return the exception for a label that is no class."""
    index = np.unravel_index(row, target.shape)
    return IndexError(f"target{place(index)} = {target[index]} is out of range for {classes} classes")


def bad_listed_class(classes, indices, row, label):
    """Return the exception for an index of a sparse target that is no class; wherever its class axis is."""
    index = np.unravel_index(row, indices.shape[:-1])
    what = f"number {label} is {indices[(*index, label)]}"
    return IndexError(f"the indices of target{place(index)}: {what}, which is out of range for {classes} classes")


def run(
    cnp.ndarray logits not None,
    *,
    int output=XENT_NO_VALUES,
    cnp.ndarray values=None,
    cnp.ndarray curvature=None,
    int curvature_kind=XENT_EXACT,
    cnp.ndarray vector=None,
    cnp.ndarray target=None,
    cnp.ndarray probabilities=None,
    cnp.ndarray indices=None,
    bint tail=False,
    cnp.ndarray mask=None,
    cnp.ndarray weight=None,
    cnp.ndarray sample_weight=None,
    object ignore=None,
    double label_smoothing=0.0,
    double z_loss=0.0,
    double scale=1.0,
    double softcap=0.0,
    bint mean=False,
    double denominator=0.0,
    double upstream_scalar=1.0,
    cnp.ndarray upstream=None,
    cnp.ndarray lse_in=None,
    cnp.ndarray loss=None,
    cnp.ndarray lse=None,
    cnp.ndarray noted=None,
    cnp.ndarray noted_listed=None,
    cnp.ndarray whole=None,
    cnp.ndarray whole_listed=None,
    size_t offset=0,
    size_t classes=0,
    bint plain=True,
    int threads=0,
):
    """Run one problem and return its reduced loss: the sum, or the mean.

    The class axis of `logits`, `values`, `curvature`, `vector`, `mask`, `probabilities` and `indices` is the last; the
    last two have `listed` classes if there are indices. `target`, `upstream`, `lse_in` and `sample_weight` have the
    shape of the other axes; `weight`, `loss` and `lse` are contiguous. Logits, values, curvature, vector and
    probabilities are floats of 16 bits or more, labels and indices integers, `mask` is bool, all else is float64.

    Logits may be a shard of their rows, from the class `offset` on: then its statistics go to `noted`, with the classes
    last, or those of the `whole` rows, which have so many `classes`, are there. Both are contiguous, of `BLOCK`, and
    what there is of listed classes, of `LISTED_CLASS`. Without logits for these the shard has no classes. `plain` says
    that no shard has options.
    """
    cdef xent_problem problem
    cdef xent_options options
    cdef xent_statistics statistics
    cdef xent_status status
    cdef double reduced = 0
    memset(&problem, 0, sizeof(problem))
    memset(&options, 0, sizeof(options))
    fill_logits(&problem, logits)
    problem.output = <xent_values>output
    problem.values = row_array(values)
    if values is not None:
        problem.values_stride = last_stride(values)
        problem.wide_values = float_type(values) != problem.dtype
    problem.curvature = row_array(curvature)
    if curvature is not None:
        problem.curvature_stride = last_stride(curvature)
        problem.curvature_kind = <xent_curvature>curvature_kind
        problem.wide_curvature = float_type(curvature) != problem.dtype
    problem.vector = row_array(vector)
    if vector is not None:
        problem.vector_stride = last_stride(vector)
        problem.vector_dtype = float_type(vector)
        problem.vector_swapped = not cnp.PyArray_ISNOTSWAPPED(vector)
    problem.target = row_array(target)
    if target is not None:
        problem.target_type = integer_type(target.dtype)
    problem.upstream = row_array(upstream)
    problem.upstream_scalar = upstream_scalar
    problem.lse_in = row_array(lse_in)
    problem.loss = doubles(loss)
    problem.loss_reduced = &reduced if loss is not None else NULL
    problem.mean = mean
    problem.denominator = denominator
    problem.lse = doubles(lse)
    problem.threads = threads
    if noted is not None or whole is not None:
        fill_statistics(&statistics, noted, noted_listed, whole, whole_listed)
        statistics.offset = offset
        statistics.classes = classes
        problem.statistics = &statistics

    fill_transformation(&options, mask, scale, softcap)
    if probabilities is not None:
        fill_labels(&options.labels, probabilities, indices, tail)
    options.label_smoothing = label_smoothing
    options.z_loss = z_loss
    options.class_weight = doubles(weight)
    options.row_weight = row_array(sample_weight)
    if ignore is not None and -2**63 <= ignore < 2**64:
        options.ignores = True
        options.ignored = <int64_t>(ignore if ignore < 2**63 else ignore - 2**64)
    if whole is None or not plain:
        problem.options = &options
    with nogil:
        status = xent_run(&problem)
    if status == XENT_TARGET_OUT_OF_RANGE:
        if target is None:
            raise bad_listed_class(classes or problem.classes, indices, problem.bad_row, problem.bad_label)
        raise bad_class(classes or problem.classes, target, problem.bad_row)
    check(status)
    return reduced


def run_evaluation(
    cnp.ndarray logits not None,
    *,
    cnp.ndarray lse=None,
    cnp.ndarray argmax=None,
    cnp.ndarray entropy=None,
    cnp.ndarray target=None,
    cnp.ndarray log_prob=None,
    cnp.ndarray rank=None,
    cnp.ndarray top_log_probs=None,
    cnp.ndarray top_classes=None,
    cnp.ndarray mask=None,
    double scale=1.0,
    double softcap=0.0,
    int threads=0,
):
    """Evaluate predictions.

    `logits`, `target` and `mask` are as in `run`. The results are contiguous: float64, and int64 for classes and ranks.
    Those that are None are not computed. `log_prob` and `rank` need a target; `top_log_probs` and `top_classes` are
    there both or neither, with the classes last.
    """
    cdef xent_problem problem
    cdef xent_options options
    cdef xent_evaluation evaluation
    cdef xent_status status
    memset(&problem, 0, sizeof(problem))
    memset(&options, 0, sizeof(options))
    fill_logits(&problem, logits)
    problem.target = row_array(target)
    if target is not None:
        problem.target_type = integer_type(target.dtype)
    problem.lse = doubles(lse)
    problem.threads = threads
    fill_transformation(&options, mask, scale, softcap)
    problem.options = &options
    evaluation.log_prob = doubles(log_prob)
    evaluation.entropy = doubles(entropy)
    evaluation.argmax = integers(argmax)
    evaluation.rank = integers(rank)
    evaluation.top_k = 0
    if top_classes is not None:
        evaluation.top_k = <size_t>cnp.PyArray_DIM(top_classes, cnp.PyArray_NDIM(top_classes) - 1)
    evaluation.top_log_probs = doubles(top_log_probs)
    evaluation.top_classes = integers(top_classes)
    problem.evaluation = &evaluation
    with nogil:
        status = xent_run(&problem)
    if status == XENT_TARGET_OUT_OF_RANGE:
        raise bad_class(problem.classes, target, problem.bad_row)
    check(status)


cdef bint is_plain(object array):
    """Whether it is an ndarray itself, in C or Fortran order, aligned and in native byte order."""
    return (
        cnp.PyArray_CheckExact(array)
        and cnp.PyArray_ISONESEGMENT(<cnp.ndarray>array)
        and cnp.PyArray_ISALIGNED(<cnp.ndarray>array)
        and cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>array)
    )


cdef bint are_floats(object array):
    """Whether it is plain, of float32 or float64."""
    return is_plain(array) and cnp.PyArray_TYPE(<cnp.ndarray>array) in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64)


cdef bint are_logits(object array):
    """Whether it is plain, of floats, halves included, and has rows."""
    if not (is_plain(array) and cnp.PyArray_NDIM(<cnp.ndarray>array) >= 2):
        return False
    cdef int number = cnp.PyArray_TYPE(<cnp.ndarray>array)
    return number in (cnp.NPY_FLOAT32, cnp.NPY_FLOAT64, cnp.NPY_FLOAT16) or number == bfloat16


cdef bint have_same_shape(cnp.ndarray a, cnp.ndarray b, int dims):
    """Whether the first has so many dimensions, each as long as the second's."""
    cdef int i
    if cnp.PyArray_NDIM(a) != dims:
        return False
    for i in range(dims):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            return False
    return True


cdef bint has_rows_of(cnp.ndarray array, cnp.ndarray logits):
    """Whether it has one number for each row."""
    return have_same_shape(array, logits, cnp.PyArray_NDIM(logits) - 1)


cdef bint are_labels(object target, cnp.ndarray logits):
    """Whether it is one integer for each row."""
    return (
        is_plain(target)
        and cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(<cnp.ndarray>target))
        and has_rows_of(<cnp.ndarray>target, logits)
    )


cdef bint are_probabilities(object target, cnp.ndarray logits):
    """Whether it is one float32 or float64 for each logit."""
    return are_floats(target) and have_same_shape(<cnp.ndarray>target, logits, cnp.PyArray_NDIM(logits))


cdef bint apart(cnp.ndarray a, cnp.ndarray b):
    """Whether plain arrays share no memory, or the second is None."""
    if b is None:
        return True
    cdef char *a_data = <char *>cnp.PyArray_DATA(a)
    cdef char *b_data = <char *>cnp.PyArray_DATA(b)
    return a_data + cnp.PyArray_NBYTES(a) <= b_data or b_data + cnp.PyArray_NBYTES(b) <= a_data


cdef bint are_in_place(cnp.ndarray values, cnp.ndarray logits):
    """Whether two plain arrays of one shape and dtype are the same."""
    return (
        cnp.PyArray_DATA(values) == cnp.PyArray_DATA(logits)
        and cnp.PyArray_IS_C_CONTIGUOUS(values) == cnp.PyArray_IS_C_CONTIGUOUS(logits)
    )


cdef bint takes_values(object out, cnp.ndarray logits):
    """Whether values can be written to `out`: over the logits, or away from them."""
    if not is_plain(out):
        return False
    cdef cnp.ndarray array = <cnp.ndarray>out
    return (
        cnp.PyArray_TYPE(array) == cnp.PyArray_TYPE(logits)
        and have_same_shape(array, logits, cnp.PyArray_NDIM(logits))
        and cnp.PyArray_ISWRITEABLE(array)
        and (are_in_place(array, logits) or apart(array, logits))
    )


cdef cnp.ndarray new_values(cnp.ndarray logits):
    """Return an array like them, not filled."""
    cdef bint fortran = not cnp.PyArray_IS_C_CONTIGUOUS(logits)
    return cnp.PyArray_EMPTY(
        cnp.PyArray_NDIM(logits), cnp.PyArray_DIMS(logits), cnp.PyArray_TYPE(logits), fortran
    )


cdef cnp.ndarray new_rows(cnp.ndarray logits, int dtype):
    """Return an array of one number for each row, not filled."""
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(logits) - 1, cnp.PyArray_DIMS(logits), dtype, 0)


cdef cnp.ndarray plain_doubles(object given):
    """Return `given` in float64 if it is plain, of float32 or float64; else None."""
    if not are_floats(given):
        return None
    if cnp.PyArray_TYPE(<cnp.ndarray>given) == cnp.NPY_FLOAT64:
        return <cnp.ndarray>given
    return cnp.PyArray_Cast(<cnp.ndarray>given, cnp.NPY_FLOAT64)


cdef cnp.ndarray plain_of_rows(object given, cnp.ndarray logits):
    """Return `given` in float64 if it is plain, one of float32 or float64 for each row; else None."""
    cdef cnp.ndarray numbers = plain_doubles(given)
    return numbers if numbers is not None and has_rows_of(numbers, logits) else None


cdef cnp.ndarray plain_of_classes(object given, cnp.npy_intp classes):
    """Return `given` in float64 if it is plain, one of float32 or float64 for each class; else None."""
    cdef cnp.ndarray numbers = plain_doubles(given)
    if numbers is None or cnp.PyArray_NDIM(numbers) != 1 or cnp.PyArray_DIM(numbers, 0) != classes:
        return None
    return numbers


cdef cnp.ndarray good_weights(cnp.ndarray weights):
    """Return them if there are any, and none is negative, infinite or not a number; else None."""
    if weights is None:
        return None
    cdef double *w = doubles(weights)
    cdef bint good = True
    cdef cnp.npy_intp i
    for i in range(cnp.PyArray_SIZE(weights)):
        good &= 0 <= w[i] <= DBL_MAX
    return weights if good else None


cdef bint is_last(object axis, cnp.ndarray array):
    """Whether it is the array's last axis, as an integer itself."""
    return type(axis) is int and (axis == -1 or axis == cnp.PyArray_NDIM(array) - 1)


cdef bint is_team(object n_threads):
    """Whether it is a number of threads as an integer itself, or the default."""
    return n_threads is None or (type(n_threads) is int and 1 <= n_threads <= 1024)


cdef bint is_number(object x, double least, double most):
    """Whether it is a float, or an integer itself of 64 bits at the most, in its limits."""
    if type(x) is int:
        return -2**63 <= x < 2**63 and least <= <double>x <= most
    return isinstance(x, float) and least <= <double>x <= most


cdef bint is_label(object x, cnp.ndarray labels):
    """Whether it is an integer itself that one of the labels can equal, and less than 2^63."""
    cdef int unused = 64 - 8 * <int>cnp.PyArray_ITEMSIZE(labels)
    if type(x) is not int:
        return False
    if cnp.PyTypeNum_ISSIGNED(cnp.PyArray_TYPE(labels)):
        return -1 - (INT64_MAX >> unused) <= x <= INT64_MAX >> unused
    return 0 <= x <= INT64_MAX >> max(unused - 1, 0)


cdef object rounded(cnp.ndarray numbers, int dtype):
    """Return one number for each row, in float32 if that is not float64; one beyond its largest is infinite."""
    cdef cnp.npy_intp i
    cdef cnp.ndarray result
    cdef double *wide = doubles(numbers)
    cdef float *narrow
    if dtype == cnp.NPY_FLOAT64:
        return numbers
    result = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(numbers), cnp.PyArray_DIMS(numbers), cnp.NPY_FLOAT32, 0)
    narrow = <float *>cnp.PyArray_DATA(result)
    for i in range(cnp.PyArray_SIZE(numbers)):
        narrow[i] = <float>wide[i]
    return result


def run_directly(
    object logits,
    object target,
    object weight,
    object sample_weight,
    object ignore,
    object label_smoothing,
    object z_loss,
    object scale,
    object softcap,
    object lse,
    object axis,
    object reduction,
    object grad_output,
    object grad_out,
    bint wants_loss,
    bint wants_gradient,
    object n_threads,
):
    """Run a call whose arguments are plain, and return the loss, the gradient or both; ``None`` if it is another call.

    The arguments are those of `xent.cross_entropy` and its like, as they come from the user. Small batches are decided
    by what happens before and after the arithmetic, so this does nothing that can be avoided. Whatever is not plain,
    errors included, is left to the general way.
    """
    if type(reduction) is not str:
        return None
    cdef bint mean = reduction == "mean"
    cdef bint each = not mean and reduction == "none"
    if not (mean or each or reduction == "sum"):
        return None
    if not (is_team(n_threads) and is_number(grad_output, -DBL_MAX, DBL_MAX)):
        return None
    if not (is_number(label_smoothing, 0, 1) and is_number(z_loss, 0, DBL_MAX) and is_number(scale, 1e-30, 1e30)):
        return None
    if not (are_logits(logits) and (softcap is None or is_number(softcap, 1e-30, 1e30))):
        return None
    cdef cnp.ndarray x = <cnp.ndarray>logits
    cdef bint labels = are_labels(target, x)
    if not (is_last(axis, x) and cnp.PyArray_SIZE(x) > 0 and (labels or are_probabilities(target, x))):
        return None
    cdef cnp.npy_intp classes = cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)
    cdef cnp.ndarray t = <cnp.ndarray>target
    if ignore is not None and not (labels and is_label(ignore, t)):
        return None
    cdef cnp.ndarray class_weight = None if weight is None else good_weights(plain_of_classes(weight, classes))
    cdef cnp.ndarray row_weight = None if sample_weight is None else good_weights(plain_of_rows(sample_weight, x))
    cdef cnp.ndarray lse_in = None if lse is None else plain_of_rows(lse, x)
    if (
        (class_weight is None and weight is not None)
        or (row_weight is None and sample_weight is not None)
        or (lse_in is None and lse is not None)
    ):
        return None
    cdef cnp.ndarray values = None
    if wants_gradient and grad_out is None:
        values = new_values(x)
    elif wants_gradient:
        if not takes_values(grad_out, x):
            return None
        values = <cnp.ndarray>grad_out
        if not (apart(values, t) and apart(values, class_weight) and apart(values, row_weight)
                and apart(values, lse_in)):
            return None

    cdef double reduced = 0
    cdef double few_losses[256]
    cdef cnp.ndarray many_losses = None
    cdef xent_problem problem
    cdef xent_options options
    cdef xent_status status
    memset(&problem, 0, sizeof(problem))
    fill_logits(&problem, x)
    if wants_gradient:
        problem.output = XENT_GRADIENT
        problem.values = row_array(values)
        problem.values_stride = last_stride(values)
    if labels:
        problem.target = row_array(t)
        problem.target_type = integer_type(t.dtype)
    problem.lse_in = row_array(lse_in)
    problem.upstream_scalar = <double>grad_output
    problem.threads = 0 if n_threads is None else <int>n_threads
    if wants_loss:
        if each or cnp.PyArray_SIZE(x) > 256 * classes:  # in an array: NumPy asks for huge pages where it is large
            many_losses = new_rows(x, cnp.NPY_DOUBLE)
            problem.loss = doubles(many_losses)
        else:
            problem.loss = few_losses
        problem.loss_reduced = &reduced
    problem.mean = mean
    memset(&options, 0, sizeof(options))
    if not labels:
        fill_labels(&options.labels, t, None, False)
    if ignore is not None:
        options.ignores = True
        options.ignored = <int64_t>ignore
    options.class_weight = doubles(class_weight)
    options.row_weight = row_array(row_weight)
    options.label_smoothing = <double>label_smoothing
    options.z_loss = <double>z_loss
    fill_transformation(&options, None, scale, 0 if softcap is None else softcap)
    problem.options = &options
    with nogil:
        status = xent_run(&problem)
    if status == XENT_TARGET_OUT_OF_RANGE:
        return None
    check(status)
    if not wants_loss:
        return values

    cdef float single = <float>reduced
    if each:
        loss = rounded(many_losses, cnp.PyArray_TYPE(x))
    elif problem.dtype == XENT_F64:
        loss = PyArray_Scalar(&reduced, FLOAT64, None)
    else:
        loss = PyArray_Scalar(&single, FLOAT32, None)
    return (loss, values) if wants_gradient else loss


def map_directly(object logits, object axis, object scale, object out, int output, object n_threads):
    """Return softmax or log_softmax, or without such an `output` logsumexp, if all is plain; else ``None``.

    As in `run_directly`, whatever is not plain is left to the general way.
    """
    if not (are_logits(logits) and is_team(n_threads) and is_number(scale, 1e-30, 1e30)):
        return None
    cdef cnp.ndarray x = <cnp.ndarray>logits
    cdef cnp.ndarray result
    if not is_last(axis, x) or cnp.PyArray_SIZE(x) == 0:
        return None
    if output == XENT_NO_VALUES and out is None:
        result = new_rows(x, cnp.NPY_FLOAT64)
    elif out is None:
        result = new_values(x)
    elif output != XENT_NO_VALUES and takes_values(out, x):
        result = <cnp.ndarray>out
    else:
        return None

    cdef xent_problem problem
    cdef xent_options options
    cdef xent_status status
    memset(&problem, 0, sizeof(problem))
    fill_logits(&problem, x)
    problem.output = <xent_values>output
    problem.upstream_scalar = 1
    problem.threads = 0 if n_threads is None else <int>n_threads
    if output == XENT_NO_VALUES:
        problem.lse = doubles(result)
    else:
        problem.values = row_array(result)
        problem.values_stride = last_stride(result)
    memset(&options, 0, sizeof(options))
    fill_transformation(&options, None, scale, 0)
    problem.options = &options
    with nogil:
        status = xent_run(&problem)
    check(status)
    return rounded(result, cnp.PyArray_TYPE(x)) if output == XENT_NO_VALUES else result


def isa():
    """Return the name of the instruction set in use."""
    cdef const char *name
    check(c_isa(&name))
    return name.decode()


def supported_isas():
    """Return the names of the instruction sets that this machine and build can run."""
    return [name for name in ISAS if xent_isa_supported(name.encode()) == XENT_OK]


def available_threads():
    """Return the most threads that a call may use now that asks for 0."""
    return xent_available_threads()


def set_num_threads(int n):
    """Let `n` take the place of ``OMP_NUM_THREADS``."""
    xent_set_num_threads(n)


def threading():
    """Return what makes the threads, ``"pthreads"`` or ``"none"``."""
    return xent_threading().decode()
