"""Arrays in ``.npy`` files of any size, mapped a part at a time.

What is mapped is unmapped with the array that shows it, so that the memory in use does not grow with the file. Nothing
here knows what the numbers mean.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from xent._command import Outputs, UsageError, naming

Place = tuple[slice, ...]  # with start and stop, one for each axis

# Stretches of a file that one window may touch. Of each, whole pages become resident, and Linux adds up to 64 KiB of
# what it has in its cache.
STRETCHES = 64


class Mapped:
    """An array in an open file."""

    def __init__(
        self, file: BinaryIO, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
    ) -> None:
        self.file, self.offset, self.dtype, self.shape, self.fortran = file, offset, dtype, shape, fortran
        from_fastest = range(len(shape)) if fortran else range(len(shape) - 1, -1, -1)
        self.from_fastest = tuple(from_fastest)
        strides = [0] * len(shape)
        stride = dtype.itemsize
        for axis in self.from_fastest:
            strides[axis] = stride
            stride *= shape[axis]
        self.strides = tuple(strides)
        self.nbytes = stride

    def viewed(self, dtype: np.dtype[Any]) -> Mapped:
        """Return the same bytes as another dtype of the same size."""
        return Mapped(self.file, self.offset, dtype, self.shape, self.fortran)

    def places(self, most: int, axes: int) -> Iterator[Place]:
        """Yield where parts are that make up the leading `axes`, each of at most so many of their elements.

        They come in the order of the file, as long in the direction of the file as can be.
        """
        lengths = [1] * axes
        for axis in (axis for axis in self.from_fastest if axis < axes):
            lengths[axis] = max(1, min(self.shape[axis], most))
            most //= lengths[axis]
        steps = [range(0, n, length) for n, length in zip(self.shape[:axes], lengths, strict=True)]
        order = [axis for axis in reversed(self.from_fastest) if axis < axes]
        for starts in _product([steps[axis] for axis in order]):
            place = [slice(0, 0)] * axes
            for axis, start in zip(order, starts, strict=True):
                place[axis] = slice(start, min(start + lengths[axis], self.shape[axis]))
            yield tuple(place)

    def window(self, place: Place, *, write: bool = False) -> NDArray[Any]:
        """Map a part of the array."""
        starts = [s.start for s in place]
        shape = tuple(s.stop - s.start for s in place)
        if 0 in shape:
            return np.empty(shape, self.dtype)
        first = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        length = self.dtype.itemsize + sum((n - 1) * stride for n, stride in zip(shape, self.strides, strict=True))
        ahead = first % mmap.ALLOCATIONGRANULARITY
        access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
        memory = mmap.mmap(self.file.fileno(), length + ahead, access=access, offset=first - ahead)
        return np.ndarray(shape, self.dtype, memory, ahead, self.strides)

    def is_window(self, place: Place) -> bool:
        """Whether a part lies in few enough stretches to be mapped at once."""
        return self._stretches(place) <= STRETCHES

    def read(self, place: Place) -> NDArray[Any]:
        """Return a part of the array: mapped, or a copy of what is scattered over the file."""
        if self.is_window(place):
            return self.window(place)
        values = np.empty([s.stop - s.start for s in place], self.dtype)
        for part, inside in self._windows(place):
            values[inside] = self.window(part)
        return values

    def write(self, place: Place, values: NDArray[Any]) -> None:
        """Write a part of the array."""
        for part, inside in self._windows(place):
            self.window(part, write=True)[...] = values[inside]

    def _stretches(self, place: Place) -> int:
        """Return how many contiguous stretches of the file a part is."""
        count, contiguous = 1, True
        for axis in self.from_fastest:
            length = place[axis].stop - place[axis].start
            if not contiguous:
                count *= length
            contiguous = contiguous and length == self.shape[axis]
        return count

    def _windows(self, place: Place) -> Iterator[tuple[Place, Place]]:
        """Yield places of which each is a window, and where they are inside the `place` that they make up."""
        pending = [place]
        while pending:
            part = pending.pop()
            stretches = self._stretches(part)
            if stretches <= STRETCHES:
                inside = (slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, place, strict=True))
                yield part, tuple(inside)
                continue
            axis = next(a for a in reversed(self.from_fastest) if part[a].stop - part[a].start > 1)
            whole = part[axis]
            step = max(1, STRETCHES * (whole.stop - whole.start) // stretches)
            for start in range(whole.start, whole.stop, step):
                pending.append((*part[:axis], slice(start, min(start + step, whole.stop)), *part[axis + 1 :]))


def _product(ranges: list[range]) -> Iterator[tuple[int, ...]]:
    """Yield what `itertools.product` does, which would make a tuple of each range, and these are long."""
    if not ranges:
        yield ()
        return
    for first in ranges[0]:
        for rest in _product(ranges[1:]):
            yield (first, *rest)


def open_npy(path: Path) -> Mapped:
    """Open a file for reading, after a look at whether it is what it says; the caller closes ``.file``."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is not a regular file")
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _described(path, file)
    except BaseException:
        file.close()
        raise


def _described(path: Path, file: BinaryIO) -> Mapped:
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with warnings.catch_warnings(action="ignore"):  # of Python 2's way to write integers
            shape, fortran, dtype = read_header(file)
        offset = file.tell()
    except Exception:
        raise UsageError(f"{path} is not a .npy file, or its header is damaged") from None
    if version not in {(1, 0), (2, 0), (3, 0)} or any(n < 0 for n in shape):
        raise UsageError(f"{path} has a header that no version of NumPy known here writes")
    if dtype.hasobject:
        raise UsageError(f"{path} holds Python objects, not numbers")
    if dtype.subdtype or not dtype.itemsize:
        raise UsageError(f"{path} holds {dtype}, not numbers")
    needed = offset + dtype.itemsize * math.prod(shape)
    size = os.fstat(file.fileno()).st_size
    if size < needed:
        raise UsageError(f"{path} is truncated: its header says {needed} bytes, and it has {size}")
    return Mapped(file, offset, dtype, shape, fortran)


def new_npy(outputs: Outputs, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> Mapped:
    """Return an array in a new file; its space is there, so that writing to it cannot fail."""
    with naming(path):
        file = outputs.open(path)
        descr = dtype.descr if dtype.names else dtype.str
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran, "shape": shape})
        file.flush()
        array = Mapped(file, file.tell(), dtype, shape, fortran)
        size = array.offset + array.nbytes
        if hasattr(os, "posix_fallocate"):  # into a hole on a full disk, a mapping is written at the price of SIGBUS
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return array
