"""What is measured: logits of certain shapes, and what is done with them. Knows nothing of who does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from xent import reference
from xent._bench import LOGITS_SPREAD

CLASS_AXIS = 1  # of every array of logits here
CHECKED_CLASSES = 32
REFERENCE_ELEMENTS = 1 << 20

Dtype = Literal["bf16", "f32", "f64"]
DTYPES: dict[Dtype, np.dtype[Any]] = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
# How far others may be off and still compute the same thing: of bfloat16, their sums are rounded to it, too.
TOLERANCES: dict[Dtype, float] = {"bf16": 0.03, "f32": 1e-4, "f64": 1e-4}
Operation = Literal["forward", "fused", "backward"]
Results = Literal["", "given", "fresh", "in place"]


@dataclass(frozen=True)
class Logits:
    """Random logits: their shape, with the classes on axis 1, their dtype and their memory order."""

    shape: tuple[int, ...]
    dtype: Dtype = "f32"
    order: Literal["C", "F"] = "C"

    def __str__(self) -> str:
        fortran = " Fortran" if self.order == "F" else ""
        return f"{'x'.join(map(str, self.shape))} {self.dtype}{fortran}"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.shape[CLASS_AXIS]

    @property
    def rows(self) -> int:
        """How many rows there are: cells of the shape without the classes."""
        return self.size // self.classes

    @property
    def size(self) -> int:
        """How many logits there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the array."""
        return self.size * DTYPES[self.dtype].itemsize

    def generate(self, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the logits and the targets, which the seed determines."""
        rng = np.random.default_rng(seed)
        stored_shape = self.shape[::-1] if self.order == "F" else self.shape
        drawn = np.float64 if self.dtype == "f64" else np.float32
        stored: NDArray[Any] = rng.standard_normal(stored_shape, dtype=drawn)
        stored *= LOGITS_SPREAD
        stored = stored.astype(DTYPES[self.dtype], copy=False)
        rows = self.shape[:CLASS_AXIS] + self.shape[CLASS_AXIS + 1 :]
        return stored.T if self.order == "F" else stored, rng.integers(self.classes, size=rows)


@dataclass(frozen=True)
class Case:
    """One operation on logits, with the gradient in an array that is given, fresh, or the logits' own."""

    logits: Logits
    operation: Operation
    results: Results = ""

    def __str__(self) -> str:
        return f"{self.logits} {self.action}"

    @property
    def action(self) -> str:
        """The operation and where its results go, as in the name of the case."""
        return f"{self.operation} {self.results}".strip()

    @property
    def method(self) -> str:
        """The method of a peer that does it."""
        return self.action.replace(" ", "_")

    @property
    def bytes_moved(self) -> int:
        """The bytes that must be read and written, as bandwidth.c counts them."""
        return self.logits.nbytes * (1 if self.operation == "forward" else 2)

    @property
    def bandwidth(self) -> str:
        """The kernel of bandwidth.c that moves bytes as the case must."""
        if self.operation == "forward":
            return "read"
        return "update" if self.results == "in place" else "non_temporal_copy"


def cases_of(logits: Logits, *more: Case) -> Iterator[Case]:
    """Return what is measured on all logits, and more."""
    yield Case(logits, "forward")
    yield Case(logits, "fused", "given")
    yield Case(logits, "fused", "fresh")
    yield from more


LONG = Logits((1_024, 32_768))
ALL_LOGITS = (
    LONG,
    Logits((8_192, 1_000)),
    Logits((4_096, 128)),
    *(Logits((65_536, classes)) for classes in (2, 3, 10, 17, 64)),
    Logits((1, 128_256)),
    Logits((64, 10)),
    Logits((1_024, 32_768), "bf16"),
    Logits((1_024, 32_768), "f64"),
    Logits((32, 21, 256, 256)),
    Logits((65_536, 10), order="F"),
    Logits((65_536, 100), order="F"),
)
CASES = tuple(
    case
    for logits in ALL_LOGITS
    for case in cases_of(
        logits, *([Case(LONG, "backward", "given"), Case(LONG, "fused", "in place")] if logits == LONG else [])
    )
)

SWEPT_SIZE = 1 << 24
SWEPT_CLASSES = (2, 4, 8, 10, 16, 32, 64, 100, 128, 256, 1_000, 4_096, 32_768, 131_072)
SWEPT_ROWS = (1, 4, 16, 64, 256, 1_024, 4_096)
CLASSES_OF_ROWS_SWEEP = 1_000


def _sweep(all_logits: Iterator[Logits]) -> tuple[Case, ...]:
    return tuple(case for logits in all_logits for case in cases_of(logits))


CLASSES_SWEEP = _sweep(Logits((SWEPT_SIZE // classes, classes)) for classes in SWEPT_CLASSES)
ROWS_SWEEP = _sweep(Logits((rows, CLASSES_OF_ROWS_SWEEP)) for rows in SWEPT_ROWS)

BY_NAME = {str(case): case for case in (*CASES, *CLASSES_SWEEP, *ROWS_SWEEP)}


@dataclass(frozen=True)
class Truth:
    """The oracle's mean loss, and its gradient in the first row, at most so many classes of it."""

    loss: float
    grad: list[float]

    @classmethod
    def of(cls, logits: NDArray[Any], target: NDArray[np.int64]) -> Truth:
        """Ask the oracle, in stretches that fit the caches: it makes many arrays of float64."""
        step = max(1, REFERENCE_ELEMENTS // math.prod(logits.shape[1:]))
        total = 0.0
        for begin in range(0, len(logits), step):
            part = logits[begin : begin + step].astype(np.float64)
            total += reference.cross_entropy(part, target[begin : begin + step], axis=CLASS_AXIS, reduction="sum")
        first = one_row(logits).astype(np.float64)
        grad = reference.cross_entropy_grad(first, target.flat[:1], axis=CLASS_AXIS, grad_output=1 / target.size)
        return cls(float(total) / target.size, first_row(grad))

    def agrees(self, loss: float | None, grad: list[float] | None, dtype: Dtype = "f32") -> bool:
        """Tell whether a peer computes the same thing; it may be far less accurate than xent."""
        tolerance = TOLERANCES[dtype]
        smallest = tolerance * max(map(abs, self.grad))
        same_grad = grad is None or np.allclose(grad, self.grad, rtol=tolerance, atol=smallest)
        return same_grad and (loss is None or math.isclose(loss, self.loss, rel_tol=tolerance))


def one_row(array: NDArray[Any]) -> NDArray[Any]:
    """Return the first row, as an array of one row."""
    row: NDArray[Any] = array[:1]
    while row.ndim > 2:
        row = row[..., 0]
    return row


def first_row(grad: NDArray[Any]) -> list[float]:
    """Return the first classes of the first row of a gradient."""
    return [float(component) for component in one_row(grad)[0, :CHECKED_CLASSES]]
