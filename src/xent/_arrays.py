"""Checks of what the user passes in: every error about an array or an option is made here.

Each function takes a name, for the message, and a value, and returns the value in the form the C core takes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

FLOATS = "float16, bfloat16, float32 or float64"
NUMPY_FLOATS = {np.float16, np.float32, np.float64}
BLOCK = 2**16  # numbers that are looked at in one go
LEAST_SCALE, MOST_SCALE = 1e-30, 1e30  # of logits: neither it nor its reciprocal may leave a float's range


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether it is one of `FLOATS`, in any byte order; NumPy has no bfloat16, ml_dtypes names its own so."""
    return dtype.type in NUMPY_FLOATS or (dtype.kind == "V" and dtype.name == "bfloat16")


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" or is_float(dtype)


def rounding() -> np.errstate:
    """Return the context in which results become float32: beyond its ends they are infinite, or zero."""
    return np.errstate(over="ignore", under="ignore")


def place(index: tuple[Any, ...]) -> str:
    """Return an index as it is written after a name; nothing if there is but one place."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def _array(name: str, value: ArrayLike, what: str) -> Array:
    if value is None:
        raise TypeError(f"{name} must be {what}, not None")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be {what}, not a masked array: class_mask and sample_weight say what counts")
    try:
        return np.asarray(value)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{name} is not {what}: {error}") from None


def floats(name: str, value: ArrayLike) -> Array:
    """Return one of `FLOATS` in either byte order; integers become float64."""
    array = _array(name, value, "an array of floats")
    if is_float(array.dtype):
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    raise TypeError(f"{name} must be {FLOATS}, not {array.dtype}")


def classes_last(name: str, array: Array, axis: int) -> Array:
    """Return a view whose last axis is the class axis."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis must be an integer, not {axis!r}") from None
    if array.ndim == 0:
        raise ValueError(f"{name} must have at least one axis, its classes")
    if not -array.ndim <= index < array.ndim:
        raise ValueError(f"axis {index} is out of range for {name} of shape {array.shape}")
    if array.shape[index] == 0:
        raise ValueError(f"{name} of shape {array.shape} has no classes on axis {index}")
    axes = list(range(array.ndim))
    axes.append(axes.pop(index))
    return array.transpose(axes)


def classes_back(array: Array, axis: int) -> Array:
    """Return a view whose last axis is where it was before `classes_last`."""
    axes = list(range(array.ndim))
    axes.insert(operator.index(axis) % array.ndim, axes.pop())
    return array.transpose(axes)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    axis = operator.index(axis) % len(shape)
    return shape[:axis] + shape[axis + 1 :]


def is_sparse(target: Any) -> bool:
    """Whether it is a tuple of two arrays, and not the labels of two rows."""
    return type(target) is tuple and len(target) == 2 and not np.isscalar(target[0])


def targets(name: str, value: Any, logits: Array, axis: int) -> dict[str, Array]:
    """Return the arrays of labels, of probabilities, or of sparse `(indices, probabilities)`, by the core's names.

    The `logits` and their class `axis` have been checked.
    """
    if is_sparse(value):
        return _sparse(name, value[0], value[1], logits, axis)
    array = _array(name, value, "an array of integers")
    rows_shape = _without(logits.shape, axis)
    if is_float(array.dtype) and array.shape != rows_shape:
        if array.shape != logits.shape:
            raise ValueError(
                f"{name} has shape {array.shape}, but probabilities need the shape of the logits, {logits.shape}"
            )
        return {"probabilities": classes_last(name, array, axis)}
    hint = f"; probabilities are floats of the shape of the logits, {logits.shape}"
    return {"target": labels(name, array, logits, axis, hint)}


def labels(name: str, value: ArrayLike, logits: Array, axis: int, hint: str = "") -> Array:
    """Return one integer for each row; the `hint` is for who has something else."""
    array = _array(name, value, "an array of integers")
    rows_shape = _without(logits.shape, axis)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, the index of each row's class, not {array.dtype}{hint}")
    if array.shape != rows_shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but logits of shape {logits.shape} need {rows_shape}: "
            f"their shape without the class axis{hint}"
        )
    return _native(array)


def _sparse(name: str, indices: ArrayLike, probabilities: ArrayLike, logits: Array, axis: int) -> dict[str, Array]:
    listed = _array(f"{name} indices", indices, "an array of integers")
    given = _array(f"{name} probabilities", probabilities, "an array of floats")
    hint = f"a tuple of two arrays is (indices, probabilities), and labels are one array: np.asarray({name})"
    if listed.dtype.kind not in "iu":
        raise TypeError(f"{name} indices must be integers, not {listed.dtype}; {hint}")
    if not is_float(given.dtype):
        raise TypeError(f"{name} probabilities must be {FLOATS}, not {given.dtype}; {hint}")
    if given.shape != listed.shape:
        raise ValueError(f"{name} probabilities have shape {given.shape}, but {name} indices {listed.shape}")
    any_length: list[Any] = list(logits.shape)
    any_length[axis] = "k"
    if listed.ndim != logits.ndim or any(n not in (m, "k") for m, n in zip(listed.shape, any_length, strict=True)):
        raise ValueError(
            f"{name} indices have shape {listed.shape}, but logits of shape {logits.shape} need "
            f"({', '.join(map(str, any_length))}{',' if logits.ndim == 1 else ''}): k classes for each row"
        )
    return {
        "indices": classes_last(f"{name} indices", _native(listed), axis),
        "probabilities": classes_last(f"{name} probabilities", given, axis),
    }


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_distributions(name: str, probabilities: Array, weight: Array | None, *, rest: bool) -> None:
    """Raise `ValueError` unless each row, the classes last, is a distribution, or a part of one if there is a `rest`.

    Rows of `weight` 0 do not count, whatever they hold.
    """
    # As each probability is rounded to 11 or 8 bits, so may be their sum: by 2^-11 or 2^-8 of it.
    tolerance = {"float16": 1e-3, "bfloat16": 4e-3}.get(probabilities.dtype.name, 1e-5)
    for rows, block in _blocks_of_rows(probabilities):
        with np.errstate(all="ignore"):  # whatever is not finite is found below
            sums = np.sum(block, axis=-1)
        good = (sums <= 1 + tolerance) & (rest | (sums >= 1 - tolerance)) & np.all(block >= 0, axis=-1)
        if weight is not None:
            good |= weight[rows] == 0
        if good.all():
            continue
        bad = int(np.argmin(good))
        where = f"the probabilities of {name}{place(tuple(int(i[bad]) for i in rows))}"
        for j, p in enumerate(block[bad]):
            if not p >= 0:
                what = "not a number" if np.isnan(p) else f"{p:g}, which is negative"
                raise ValueError(f"{where}: number {j} is {what}")
        raise ValueError(f"{where} sum to {sums[bad]:.7g}, {'which is more than' if rest else 'not to'} 1")


def _blocks_of_rows(array: Array) -> Iterator[tuple[tuple[NDArray[np.intp], ...], NDArray[np.float64]]]:
    """Yield the indices of some rows and copies of them, until all have been."""
    shape = array.shape[:-1]
    count = int(np.prod(shape))
    step = max(1, BLOCK // array.shape[-1])
    for start in range(0, count, step):
        flat = np.arange(start, min(start + step, count))
        rows = np.unravel_index(flat, shape) if shape else ()
        yield rows, array[rows].astype(np.float64).reshape(len(flat), -1)


def row_floats(name: str, value: ArrayLike, shape: tuple[int, ...], whose: str = "the rows") -> NDArray[np.float64]:
    """Return one float64 for each row, or for each of what else has the shape."""
    array = _array(name, value, "real numbers")
    if not _is_real(array.dtype):
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but {whose} have shape {shape}")
    return array.astype(np.float64, copy=False)


def weights(name: str, value: ArrayLike, shape: tuple[int, ...], whose: str) -> NDArray[np.float64]:
    """Return one finite float64 for each, none of them negative."""
    array = row_floats(name, value, shape, whose)
    good = (array >= 0) & (array < np.inf)
    if not good.all():
        index = np.unravel_index(np.argmin(good), shape) if shape else ()
        number = float(array[index])
        what = "negative" if number < 0 else "not finite"
        raise ValueError(f"{name}{place(index)} = {number} is {what}")
    return array


def class_mask(name: str, value: ArrayLike, logits: Array, axis: int) -> NDArray[np.bool_]:
    """Return a view of booleans in the shape of the logits, the classes last."""
    array = _array(name, value, "an array of booleans")
    if array.dtype != np.bool_:
        raise TypeError(f"{name} must be booleans, True where a class takes part, not {array.dtype}")
    classes = logits.shape[axis]
    try:
        if array.ndim == 1:  # the classes, whichever axis they are
            return np.broadcast_to(array, (*_without(logits.shape, axis), classes))
        return classes_last(name, np.broadcast_to(array, logits.shape), axis)
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}, but logits of shape {logits.shape} need ({classes},), "
            "or a shape that broadcasts to theirs"
        ) from None


def output(name: str, out: Any, shape: tuple[int, ...], *dtypes: np.dtype[Any]) -> Array:
    """Return `out` if results of this shape and of one of the dtypes can be written to it."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, not {type(out).__name__}")
    if out.dtype not in dtypes:
        raise TypeError(f"{name} has dtype {out.dtype}, but the result is {' or '.join(map(str, dtypes))}")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, but the result has {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if out.size and any(stride == 0 and length > 1 for stride, length in zip(out.strides, out.shape, strict=True)):
        raise ValueError(f"{name} has elements that share memory: its strides are {out.strides}")
    return out.view(np.ndarray)


def overlap(a: Array, b: Array) -> bool:
    """Whether the arrays may share memory; like NumPy's ufuncs, sure of "no" where the answer is cheap."""
    return np.may_share_memory(a, b, max_work=1)  # type: ignore[arg-type] # NumPy's stubs know two of its values


def same_elements(a: Array, b: Array) -> bool:
    """Whether each element of one array is the element of the other at the same place."""
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.dtype == b.dtype


def apart_from(out: Array, array: Array) -> Array:
    """Return `array`, or a copy if writing to `out` could change it."""
    if not overlap(out, array):
        return array
    once = array[tuple(slice(1) if stride == 0 else slice(None) for stride in array.strides)]  # what is broadcast
    return np.broadcast_to(once.copy(), array.shape)


def choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices."""
    if isinstance(value, str) and value in choices:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def choices(name: str, values: Iterable[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values, each of which is to be one of the known ones: by default all of them."""
    if values is None:
        return known
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be an iterable of strings, not {values!r}")
    return tuple(choice(f"{name}[{i}]", value, known) for i, value in enumerate(values))


def flag(name: str, value: bool) -> bool:
    """Return True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {value!r}")


def number(
    name: str, value: float, *, above: float | None = None, least: float = -np.inf, most: float = np.inf
) -> float:
    """Return a finite float, greater than `above`, at least `least` and at most `most`."""
    if type(value) is int:  # of any size
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite, and is beyond the largest float") from None
    elif type(value) is not float:
        array = _array(name, value, "a real number")
        if array.ndim or not _is_real(array.dtype):
            raise TypeError(f"{name} must be a real number, not {value!r}")
        value = float(array)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be greater than {above:g}, not {value}")
    if not least <= value <= most:
        limits = f"at least {least:g}" if most == np.inf else f"between {least:g} and {most:g}"
        raise ValueError(f"{name} must be {limits}, not {value}")
    return value


def scale(name: str, value: float) -> float:
    """Return what multiplies logits."""
    return number(name, value, least=LEAST_SCALE, most=MOST_SCALE)


def label(name: str, value: int, labels: Array | None) -> int | None:
    """Return an integer if one of the labels' dtype can equal it."""
    try:
        index = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if labels is None:
        raise ValueError(f"{name} is for a target of labels")
    limits = np.iinfo(labels.dtype)
    return index if limits.min <= index <= limits.max else None


def count(name: str, value: int, least: int = 0) -> int:
    """Return an integer that is at least so large."""
    try:
        index = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if index < least:
        raise ValueError(f"{name} must be at least {least}, not {index}")
    return index


def threads(name: str, value: int) -> int:
    """Return a positive number of threads."""
    return min(count(name, value, 1), 2**16)
