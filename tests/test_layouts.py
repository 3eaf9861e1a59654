"""Rows have the same bits wherever their classes are: side by side with their neighbours, as contiguous ones have."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from families import BLOCK

import xent

DTYPES = [np.dtype(dtype) for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]
# The classes are on axis 1. Groups of rows end where lines of the memory do, or those of the array.
SHAPES = [(83, 150), (300, 129), (2, 150, 7, 5), (9, 130, 3), (19, 1000), (40, 3000), (17, BLOCK + 700), (150, 20)]
SHAPES += [(83, 200), (300, 193), (2, 200, 7, 5), (9, 194, 3)]  # floats, too, of so many classes are not in tiles


def side_by_side(array, offset=0):
    """Return the array with the neighbours of a class in memory those of the next row, so many bytes from a line."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    shape = array.shape[::-1] if array.ndim == 2 else array.shape
    laid = np.ndarray(shape, array.dtype, buffer=memory, offset=begin)
    laid = laid.T if array.ndim == 2 else laid
    laid[...] = array
    return laid


def one_after_another(array):
    """Return a copy of the array with every row contiguous."""
    return np.moveaxis(np.array(np.moveaxis(array, 1, -1), order="C"), -1, 1)


@pytest.fixture(params=DTYPES, ids=str)
def given(request, rng):
    """Return a function that makes the arrays of a call: logits, labels, and what options need."""

    def of_shape(shape):
        rows = (shape[0], *shape[2:])
        labels = rng.random(shape).astype(np.float32)
        x = (rng.normal(size=shape) * 4).astype(request.param)
        x[-1, rng.random(shape[1:]) < 0.1] = rng.choice([-np.inf, np.nan])
        return {
            "x": x,
            "weight": rng.random(shape[1]),
            "target": rng.integers(shape[1], size=rows),
            "probabilities": labels / labels.sum(axis=1, keepdims=True),
            "mask": rng.random(shape) < 0.9,
            "vector": rng.normal(size=shape),
            "sample_weight": rng.integers(3, size=rows) / 2,
            "upstream": rng.normal(size=rows),
        }

    return of_shape


def listed_labels(a):
    indices = np.stack([a["target"], (a["target"] + 1) % a["x"].shape[1]], axis=1)
    return indices, np.full(indices.shape, 0.4)


def gradient(a, target, out=None, **options):
    grad = a["x"] if out is None else out
    everything = {"axis": 1, "reduction": "none", "grad_output": a["upstream"], "grad_out": grad, **options}
    return xent.cross_entropy_and_grad(a["x"], target, **everything)


def both_derivatives(a):
    x, target = a["x"], a["target"]
    grad, hess = (np.empty_like(x) for _ in range(2))
    given = {"axis": 1, "reduction": "none", "grad_out": grad, "hess_out": hess}
    return xent.cross_entropy_grad_hess(x, target, label_smoothing=0.1, **given)


def of_saved_lse(a):
    lse = np.asarray(xent.logsumexp(a["x"], axis=1), dtype=np.float64)
    return [xent.cross_entropy_grad(a["x"], a["target"], axis=1, reduction="none", lse=lse)]


def product(a):
    given = {"axis": 1, "reduction": "none", "softcap": 20.0}
    return [xent.cross_entropy_hvp(a["x"], a["target"], a["vector"], out=np.empty_like(a["x"]), **given)]


CALLS = {
    "losses": lambda a: [xent.cross_entropy(a["x"], a["target"], axis=1, reduction="none")],
    "mean": lambda a: [xent.cross_entropy(a["x"], a["target"], axis=1, sample_weight=a["sample_weight"])],
    "gradient": lambda a: gradient(a, a["target"], np.empty_like(a["x"])),
    "in place": lambda a: gradient(a, a["target"]),
    "elsewhere": lambda a: gradient(a, a["target"], one_after_another(np.empty_like(a["x"]))),
    "saved lse": of_saved_lse,
    "softmax": lambda a: [xent.softmax(a["x"], axis=1), xent.log_softmax(a["x"], axis=1, out=a["x"])],
    "logsumexp": lambda a: [xent.logsumexp(a["x"], axis=1, scale=0.7)],
    "mask": lambda a: gradient(a, a["target"], class_mask=a["mask"], sample_weight=a["sample_weight"]),
    "softcap": lambda a: gradient(a, a["target"], softcap=20.0, ignore_index=3),
    "weight": lambda a: gradient(a, a["target"], weight=a["weight"], label_smoothing=0.1),
    "probabilities": lambda a: gradient(a, a["probabilities"], z_loss=1e-3),
    "listed": lambda a: gradient(a, listed_labels(a), tail="uniform"),
    "evaluate": lambda a: xent.evaluate(a["x"], a["target"], axis=1, top_k=4),
    "second derivatives": both_derivatives,
    "product": product,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_side_by_side(given, name, shape):
    arrays = given(shape)
    laid = {key: one_after_another(a) if a.shape == shape else a for key, a in arrays.items()}
    expected = [part.copy() for part in CALLS[name](laid)]
    for offset in (0, 1, 24):
        laid = {key: side_by_side(a, offset) if a.shape == shape else a for key, a in arrays.items()}
        for part, as_expected in zip(CALLS[name](laid), expected, strict=True):
            assert part.dtype == as_expected.dtype
            np.testing.assert_array_equal(part.astype(np.float64), as_expected.astype(np.float64))


def test_nothing_is_written_beside_them(rng):
    memory = np.full(83 * 150 + 40, 7, np.float32)
    grad = memory[20:-20].reshape(150, 83).T
    x, target = side_by_side(rng.normal(size=(83, 150)).astype(np.float32)), rng.integers(150, size=83)
    xent.cross_entropy_and_grad(x, target, grad_out=grad)
    grad[...] = 7
    np.testing.assert_array_equal(memory, 7)


def test_reversed_and_swapped(rng):
    x, target = rng.normal(size=(100, 300)), rng.integers(300, size=100)
    expected = xent.cross_entropy(np.ascontiguousarray(x[:, ::-1]), target, reduction="none")
    np.testing.assert_array_equal(xent.cross_entropy(side_by_side(x)[:, ::-1], target, reduction="none"), expected)
    swapped = side_by_side(x.astype(x.dtype.newbyteorder()))[:, ::-1]
    np.testing.assert_array_equal(xent.cross_entropy(swapped, target, reduction="none"), expected)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 200, 40, 40), (1, 9000, 17)], ids=str)
def test_teams_share_groups(rng, shape, threads):
    x, target = rng.normal(size=shape).astype(np.float32), rng.integers(shape[1], size=(shape[0], *shape[2:]))
    given = {"axis": 1, "reduction": "none"}
    loss, grad = xent.cross_entropy_and_grad(x, target, n_threads=threads, **given)
    expected = xent.cross_entropy_and_grad(one_after_another(x), target, n_threads=1, **given)
    np.testing.assert_array_equal(loss, expected[0])
    np.testing.assert_array_equal(grad, expected[1])


@pytest.mark.parametrize("classes", [20, 200])
def test_few_of_many_short_lines_are_near_zero(rng, classes):
    """The lse of these is formed again: from the row that it is of, however many lines are between two of them."""
    whole = rng.normal(5, 1, size=(60, 3, 4, classes))
    whole[::7, 0, 1] = np.log(1.2 / classes)
    x = whole[:, :2, 1:]  # no two dimensions of rows are as one
    lse = xent.logsumexp(x)
    np.testing.assert_array_equal(lse, xent.logsumexp(np.ascontiguousarray(x)))
    np.testing.assert_allclose(lse[::7, 0, 0], np.log(1.2), rtol=1e-14)
