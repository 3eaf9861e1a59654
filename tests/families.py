"""Families of rows on which accuracy is measured, shared by the tests and bench/accuracy.py.

A family is a function of a seeded generator and a dtype that yields batches: logits, shape (N, K), and the N correct
classes. The rows are made with additions and multiplications alone, so that they are the same on every machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from exact import Rows
from numpy.typing import NDArray

from xent import _core

Batch = tuple[NDArray[Any], NDArray[np.int64]]
Dtype = np.dtype[Any]
Family = Callable[[np.random.Generator, Dtype], Iterator[Batch]]

WORST_ROWS = Path(__file__).with_name("worst_rows.json")
BLOCK = _core.BLOCK_OF_CLASSES  # that the kernels reduce at once
FEW = (2, 3, 5, 10, 16, 17, 31, 33, 64, 100, 128, 129, 200)


def _batch(x: NDArray[Any], dtype: Dtype, target: Any) -> Batch:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, dtype=dtype), np.asarray(target, dtype=np.int64)


def _random(rng: np.random.Generator, dtype: Dtype, x: NDArray[Any]) -> Batch:
    """Return logits with random targets."""
    return _batch(x, dtype, rng.integers(0, x.shape[1], len(x)))


def _deepest(dtype: Dtype) -> float:
    """-ln of the smallest normal number, or a little less."""
    return 87.3 if dtype == np.float32 else 708.3


def ordinary(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Logits of a normal distribution, few classes, targets at random."""
    for classes in FEW:
        for scale in (1, 4):
            yield _random(rng, dtype, rng.normal(size=(16, classes), scale=scale))


def scales(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Logits of a normal distribution, from all but equal ones to one class that has it all."""
    for scale in (1e-30, 1e-6, 1e-3, 0.1, 15, 30, 120, 1000):
        for classes in (3, 17, 200):
            yield _random(rng, dtype, rng.normal(size=(8, classes), scale=scale))


def confident(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Targets whose probability is from 1/2 to 1 - 1e-38, in float64 to 1 - 1e-300; equal and unequal others."""
    margins = np.linspace(0, 1, 40) ** 2 * (_deepest(dtype) - 8)
    for classes in (2, 3, 10, 17, 200, BLOCK + 17):
        for scale in (0, 1):
            x = rng.normal(size=(len(margins), classes), scale=scale) + 0.3
            target = rng.integers(0, classes, len(margins))
            x[np.arange(len(x)), target] = margins + math.log(classes)
            yield _batch(x, dtype, target)


def hopeless(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Targets whose probability is from 1/2 to 1e-38, in float64 to 1e-300, and far less."""
    depths = np.concatenate([np.linspace(0, 1, 40) ** 2 * (_deepest(dtype) - 8), [100, 1000, 5000, 1e6]])
    for classes in (2, 3, 10, 17, 200, BLOCK + 17):
        x = rng.normal(size=(len(depths), classes))
        target = rng.integers(0, classes, len(depths))
        x[np.arange(len(x)), target] = -depths
        yield _batch(x, dtype, target)


def offsets(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Offsets common to a row, up to 1e30, beside which the differences are small or all lost."""
    for offset in (50, -80, 255, 256, -257, 300, 2047, -2049, 1e4, -1e6, 1e8, -1e15, 1e30):
        for scale in (1, 30):
            yield _random(rng, dtype, rng.normal(size=(6, 40), scale=scale) + offset)
        steps = np.spacing(np.asarray(abs(offset), dtype=dtype)).astype(np.float64)
        yield _random(rng, dtype, offset + steps * rng.integers(-30, 30, size=(6, 40)))


def extremes(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Logits over all the floats there are, or beside the largest."""
    largest = float(np.finfo(dtype).max)
    for classes in (2, 3, 16, 40):
        yield _random(rng, dtype, rng.uniform(-1, 1, size=(8, classes)) * largest)
        yield _random(rng, dtype, rng.choice([-1.0, 0.0, 1.0], size=(8, classes)) * largest)
        powers = np.ldexp(1.0, rng.integers(-140, 120, size=(8, classes)))
        yield _random(rng, dtype, rng.choice([-1.0, 1.0], size=(8, classes)) * powers)


def ties(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Equal logits, and few different ones: the same rounding error in every term."""
    for classes in (2, 3, 7, 16, 33, 1000, 3 * BLOCK + 5):
        for value in (0.0, 0.1, -3.3, 87.7, 700.7, -1e10):
            yield _batch(np.full((1, classes), value), dtype, [classes // 2])
        yield _random(rng, dtype, rng.choice([0.1, 1.7, -2.3], size=(4, classes)))


def lengths(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Every number of classes to 140, some to 200, and those about whole blocks; first and last classes as targets."""
    around = [n * BLOCK + extra for n in (1, 2, 3) for extra in (-1, 0, 1, 17)]
    for classes in [*range(1, 141), *range(141, 201, 6), *around]:
        yield _batch(rng.normal(size=(3, classes), scale=3), dtype, [0, classes // 2, classes - 1])


def lanes(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Small classes that are added to the same lane as a large one, each about half a unit of what a sum carries."""
    step = math.log(2) / 8
    for middle in (24.49, 24.51, -15.49, -15.51):  # where exponentials differ most from the nearest power of 2^(1/8)
        x = np.full((40, BLOCK + 600), -np.inf)
        x[:, ::16] = step * middle - np.linspace(17, 22, 40)[:, np.newaxis]
        x[:, 32] = step * middle
        x[:, -1] = step * middle + rng.choice([-5, 10], 40)
        yield _batch(x, dtype, np.full(40, x.shape[1] - 1))


def blocks(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Blocks of one row that differ by orders of magnitude."""
    for steps in ((0, 30, -30), (300, 0, 290), (-300, -260, 10), (1000, 1001, 5000), (-80, 0, -100)):
        x = rng.normal(size=(6, 3, BLOCK)) + np.array(steps)[:, np.newaxis]
        yield _batch(x.reshape(6, -1), dtype, [0, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK - 1, 77])


def masked(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Classes at -inf: single ones, all but one, whole blocks first, last and between; targets there, too."""
    for classes in (2, 5, 16, 33, 200):
        x = rng.normal(size=(12, classes))
        x[rng.random(x.shape) < np.linspace(0.1, 0.9, 12)[:, np.newaxis]] = -np.inf
        x[:, -1] = rng.normal(size=12)
        yield _random(rng, dtype, x)
    x = rng.normal(size=(7, 4, BLOCK), scale=3)
    for row, where in enumerate(([0], [0, 1, 2], [3], [1, 2], [1], [0, 3], [0, 2])):
        x[row, where] = -np.inf
    yield _batch(x.reshape(7, -1), dtype, [5000, 4 * BLOCK - 1, 0, 3 * BLOCK, 0, BLOCK, 2 * BLOCK])


def near_zero(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Rows shifted by their own logsumexp, so that it is as near to 0 as the rounding of the logits leaves it."""
    for rows, classes in ((8, 2), (8, 3), (8, 10), (8, 40), (8, 300), (2, 2 * BLOCK + 900)):
        for ahead in (0, 20):  # of one class, which then is at nearly 0 itself
            x = rng.normal(size=(rows, classes), scale=2)
            x[:, 0] += ahead
            x -= Rows(x).logsumexp().rounded()[:, np.newaxis]
            yield _random(rng, dtype, x)
    deepest = _deepest(dtype)
    for far in (5, 20, 40, deepest - 8, deepest + 2, deepest + 14):  # one has it all, at 0: what is left is the others'
        x = rng.normal(size=(4, 10)) - far
        x[:, 3] = 0
        yield _random(rng, dtype, x)


def cancelling(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Logsumexps nearer to zero still: each class has what the ones before leave of one, but for its own rounding."""
    for classes in (2, 3, 4, 5, 6, 8, 12, 16, 20, 24):
        yield _random(rng, dtype, np.array([_tuned(rng, dtype, classes) for _ in range(4)]))


def _tuned(rng: np.random.Generator, dtype: Dtype, classes: int) -> list[float]:
    row: list[float] = []
    with mpmath.workdps(400):
        left = mpmath.mpf(1)
        for _ in range(classes):
            part = rng.uniform(0.1, 0.9) if not row else 1
            x = dtype.type(mpmath.log(left * part))
            if mpmath.exp(float(x)) >= left:  # the last may leave less than nothing
                x = x if len(row) == classes - 1 else np.nextafter(x, dtype.type(-np.inf))
            left -= mpmath.exp(float(x))
            row.append(float(x))
    return row


def subnormal(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Probabilities about the smallest normal number, and below."""
    x = -_deepest(dtype) - np.linspace(-3, 40, 64) + rng.random((6, 64))
    x[:, 0] = rng.random(6)
    yield _batch(x, dtype, [0, 0, 5, 10, 20, 60])


def _many(rng: np.random.Generator, dtype: Dtype, classes: int) -> Iterator[Batch]:
    yield _random(rng, dtype, rng.normal(size=(1, classes)))
    yield _random(rng, dtype, np.full((1, classes), 0.1))
    x = rng.normal(size=(1, classes))
    x[:, classes // 3] = 30
    yield _batch(x, dtype, [classes // 3])


def vocabulary(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """50 257 classes, as a language model has: normal, equal, and a confident row."""
    return _many(rng, dtype, 50_257)


def million(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """1 000 000 classes: the same rows."""
    return _many(rng, dtype, 1_000_000)


def hundred_million(rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """100 000 000 rows, a thousand of them again and again: the mean of their losses, and nothing else."""
    return iter([_random(rng, dtype, rng.normal(size=(1000, 3), scale=4))])


def worst_found(_rng: np.random.Generator, dtype: Dtype) -> Iterator[Batch]:
    """Rows that bench/accuracy_search.py climbed to, the worst for xent that it found."""
    found = json.loads(WORST_ROWS.read_text())[dtype.name]
    for classes in sorted({len(row["logits"]) for row in found}):
        rows = [row for row in found if len(row["logits"]) == classes]
        logits = [[float.fromhex(v) for v in row["logits"]] for row in rows]
        yield _batch(np.array(logits), dtype, [row["target"] for row in rows])


QUICK: tuple[Family, ...] = (
    ordinary,
    scales,
    confident,
    hopeless,
    offsets,
    extremes,
    ties,
    lengths,
    lanes,
    blocks,
    masked,
    near_zero,
    cancelling,
    subnormal,
    worst_found,
)
LONG: tuple[Family, ...] = (vocabulary, million, hundred_million)


def batches(family: Family, dtype: Any) -> Iterator[Batch]:
    """Return the family's rows, the same every time."""
    seed = [ord(letter) for letter in family.__name__]
    return family(np.random.default_rng(seed), np.dtype(dtype))
