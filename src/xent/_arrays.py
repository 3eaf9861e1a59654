"""Checks of what the user passes in: every error about an array or an option is made here.

Each function takes a name, for the message, and a value, and returns the value in the form the C core takes.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _array(name: str, value: ArrayLike, what: str) -> NDArray[Any]:
    if value is None:
        raise TypeError(f"{name} must be {what}, not None")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be {what}, not a masked array: put -inf where a class is masked")
    try:
        return np.asarray(value)
    except ValueError as error:  # nested lists of different lengths
        raise ValueError(f"{name} is not {what}: {error}") from None


def floats(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return float32 or float64 in native byte order; integers become float64."""
    array = _array(name, value, "an array of floats")
    native = array.dtype.newbyteorder("=")
    if native in FLOATS:
        return array.astype(native, copy=False)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    raise TypeError(f"{name} must be float32 or float64, not {array.dtype}")


def classes_last(name: str, array: NDArray[Any], axis: int) -> NDArray[Any]:
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
    return array if index in (-1, array.ndim - 1) else np.moveaxis(array, index, -1)


def labels(name: str, value: ArrayLike, shape: tuple[int, ...], logits_shape: tuple[int, ...]) -> NDArray[Any]:
    """Return integers of any width in native byte order, of the given shape."""
    array = _array(name, value, "an array of integers")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, the index of each row's class, not {array.dtype}")
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but logits of shape {logits_shape} need {shape}: "
            "their shape without the class axis"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def row_floats(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return one float64 for each row."""
    array = _array(name, value, "real numbers")
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but the rows have shape {shape}")
    return array.astype(np.float64, copy=False)


def output(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` if results of this shape and dtype can be written to it."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, not {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"{name} has dtype {out.dtype}, but the result is {dtype}")
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}, but the result has {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if any(stride == 0 and length > 1 for stride, length in zip(out.strides, out.shape, strict=True)):
        raise ValueError(f"{name} has elements that share memory: its strides are {out.strides}")
    return out.view(np.ndarray)


def overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether the arrays may share memory; like NumPy's ufuncs, sure of "no" where the answer is cheap."""
    return np.may_share_memory(a, b, max_work=1)  # type: ignore[arg-type] # NumPy's stubs know two of its values


def same_elements(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether each element of one array is the element of the other at the same place."""
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides


def apart_from(out: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
    """Return `array`, or a copy if writing to `out` could change it."""
    return array.copy() if overlap(out, array) else array


def choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value


def threads(name: str, value: int) -> int:
    """Return a positive number of threads."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, not {count}")
    return min(count, 2**16)
