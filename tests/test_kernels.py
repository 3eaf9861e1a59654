"""Every kernel against exact results: the tests that run once for each instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from contract import PROMISED, broken_promises
from exact import Rows, times
from families import BLOCK
from ulp import ulps

import xent

LANES = {np.float32: 16, np.float64: 8}
LONG = [BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 17, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 40]


def lengths(dtype):
    return [*range(1, 4 * LANES[dtype] + 2), *LONG]


def check(x, target):
    """Hold the promises on all rows; a loss and a gradient alone are those that are computed together."""
    target = np.asarray(target)
    assert broken_promises(x, target) == {}
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    np.testing.assert_array_equal(xent.cross_entropy(x, target, reduction="none"), loss)
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, reduction="none"), grad)


def test_every_length(dtype, rng):
    for classes in lengths(dtype):
        x = rng.normal(size=(3, classes), scale=4).astype(dtype)
        check(x, [0, classes // 2, classes - 1])


@pytest.mark.parametrize("rows", [16, 37])
def test_rows_side_by_side(dtype, rng, rows):
    """Few classes are computed for many rows at once: none reads or writes beyond its own row."""
    for classes in range(1, 24):
        x = rng.normal(size=(rows, classes), scale=4).astype(dtype)
        target = rng.integers(classes, size=rows)
        guarded = np.full((rows + 2) * classes, 7, dtype)
        grad_out = guarded[classes:-classes].reshape(rows, classes)
        _, grad = xent.cross_entropy_and_grad(x, target, reduction="none", grad_out=grad_out)
        alone = [xent.cross_entropy_grad(x[i], target[i], reduction="none") for i in range(rows)]
        np.testing.assert_array_equal(grad, alone)
        np.testing.assert_array_equal(guarded[[*range(classes), *range(-classes, 0)]], 7)


@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 40, BLOCK + 17])
def test_every_target(dtype, rng, classes):
    targets = np.arange(classes) if classes < 64 else np.array([0, 1, 15, 16, 17, BLOCK - 1, BLOCK, classes - 1])
    x = np.broadcast_to(rng.normal(size=classes, scale=3).astype(dtype), (len(targets), classes))
    check(x, targets)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1, 30, 120, 1000, 1e5, 1e30])
@pytest.mark.parametrize("offset", [0, -50, 200, -300, 1e4, -1e8, 1e30])
def test_every_magnitude(dtype, rng, scale, offset):
    x = (rng.normal(size=(4, 100)) * scale + offset).astype(dtype)
    check(x, [0, 3, 50, 99])


@pytest.mark.parametrize("classes", [2, 70, BLOCK, 40_000])
def test_confident_rows(dtype, rng, classes):
    """The others are summed as exactly when the target is far above them."""
    margins = np.array([5, 10, 17, 20, 40, 80], dtype=dtype)
    for others in (np.full(classes, 0.3), rng.normal(size=classes)):
        x = np.broadcast_to(others, (len(margins), classes)).astype(dtype)
        x[:, classes // 2] = margins
        check(x, np.full(len(margins), classes // 2))


def test_blocks_of_different_magnitude(dtype, rng):
    x = rng.normal(size=(6, 3 * BLOCK)).astype(dtype)
    x[:, :BLOCK] += np.array([0, 30, 100, 300, -300, 1000], dtype=dtype)[:, None]
    x[:, -BLOCK:] -= np.array([0, 30, 400, 10, -260, 5000], dtype=dtype)[:, None]
    check(x, [0, BLOCK, 3 * BLOCK - 1, 5, BLOCK + 1, 77])


def test_blocks_on_both_sides_of_the_shift(dtype, rng):
    """The largest logit is subtracted in one block and not in the next: their references differ by all of it."""
    limit = 272 if dtype == np.float32 else 2048
    x = rng.normal(size=(2, 2 * BLOCK)).astype(dtype) + dtype(limit - 60)
    x[:, 7] = limit - 1
    x[:, BLOCK + 7] = limit + 1
    check(x, [7, BLOCK + 9])
    exact = Rows(x)
    assert ulps(xent.softmax(x), exact.softmax()) <= PROMISED[dtype.__name__]["softmax"]


def test_equal_logits_do_not_bias_the_sum(dtype):
    for value in (0.0, 0.1, -3.3, 700.7):
        x = np.full((1, 100_003), value, dtype=dtype)
        check(x, [12345])


def test_saved_lse(dtype, rng):
    x = rng.normal(size=(5, 300), scale=5).astype(dtype)
    target = [0, 299, 7, 8, 9]
    lse = xent.logsumexp(x.astype(np.float64))
    grad = xent.cross_entropy_grad(x, target, lse=lse)
    np.testing.assert_allclose(grad, xent.cross_entropy_grad(x, target), rtol=40 * np.finfo(dtype).eps)
    doubled = xent.cross_entropy_grad(x, target, lse=lse - np.log(2.0))
    np.testing.assert_allclose(doubled, 2 * grad, rtol=40 * np.finfo(dtype).eps)


def test_gradient_is_scaled_once(dtype, rng):
    x = rng.normal(size=(3, 50)).astype(dtype)
    target = np.array([1, 2, 3])
    exact = Rows(x).gradient(target)
    for upstream in (1e-30, 1.0, -3.0, 0.7, 1e30):
        grad = xent.cross_entropy_grad(x, target, reduction="sum", grad_output=upstream)
        assert ulps(grad, times(exact, upstream)) <= PROMISED[dtype.__name__]["gradient elsewhere"]


def test_subnormal_gradients(dtype):
    smallest = np.finfo(dtype).smallest_normal
    x = np.zeros((1, 20), dtype=dtype)
    x[0, 1:] = np.log(smallest) - np.arange(19)
    check(x, [0])
    grad = xent.cross_entropy_grad(x, [0])
    assert np.count_nonzero(grad[0, 3:10]) == 7


@pytest.mark.parametrize("classes", [3, 130])
def test_the_smallest_normal_results(classes):
    """The low part of a factor is not rounded as a subnormal number is: that was half an ulp more than is promised."""
    x = np.full((2, classes), -np.inf, dtype=np.float32)
    x[:, 0] = [float.fromhex("0x1.aaa8dap+2"), float.fromhex("0x1.a4fb5ap+2")]
    x[:, 2] = [float.fromhex("-0x1.401bcp+6"), float.fromhex("-0x1.40b616p+6")]
    check(x, [0, 0])


HALF_OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.7},
    "softcap": {"softcap": 20.0},
    "smoothing": {"label_smoothing": 0.1},
    "weight": {"weight": np.linspace(0, 2, 3 * BLOCK + 907)},
}


@pytest.mark.parametrize("classes", [129, 193, 1000, BLOCK, BLOCK + 17, 3 * BLOCK + 907])
@pytest.mark.parametrize("kind", HALF_OPTIONS)
def test_halves_are_floats_rounded_once(half, rng, classes, kind):
    options = {name: value[:classes] if name == "weight" else value for name, value in HALF_OPTIONS[kind].items()}
    x = (rng.normal(size=(12, classes)) * 6).astype(half)
    target = rng.integers(classes, size=12)
    x[0, target[0]] = 60  # neither in the sum nor the largest in it
    x[1] += half.type(1000)  # the largest is subtracted first
    x[2] = rng.choice(np.array([0, 30, -np.inf], half), size=classes)
    x[3, classes // 3] = np.nan
    x[4, classes // 2] = np.inf
    x[5] = -abs(x[5]) * half.type(8)
    x[6] = -np.inf
    x[7, target[7]] = np.inf
    x[8, -1] = 200  # no less is to be found where it is read
    x[9] = -abs(x[9]) - half.type(300)
    x[10, classes // 3] = -np.float32(np.nan)
    x[11], target[11] = x[11] / half.type(64), classes - 1  # to be told from the others, after the last vector
    single = x.astype(np.float32)
    upstream = rng.normal(size=12) * 1e4
    upstream[0] = np.uint64(2**63 - 1).view(np.float64)  # a NaN of which rounding might make a number
    upstream[11] = np.inf
    wider = np.empty(x.shape, np.float32)

    def check_rounded(values):
        np.testing.assert_array_equal(values.astype(np.float32), wider.astype(half).astype(np.float32))

    for given in ({"reduction": "none"}, {"reduction": "none", "grad_output": upstream}):
        grad = xent.cross_entropy_grad(x, target, **options, **given)
        xent.cross_entropy_grad(x, target, grad_out=wider, **options, **given)
        np.testing.assert_array_equal(wider, xent.cross_entropy_grad(single, target, **options, **given))
        check_rounded(grad)
    loss = xent.cross_entropy(single, target, reduction="none", **options)
    anywhere = np.ndarray(x.shape, half, bytearray(x.nbytes + 1), offset=1)
    anywhere[...] = x
    for logits in (x, anywhere):
        np.testing.assert_array_equal(xent.cross_entropy(logits, target, reduction="none", **options), loss)
    if kind in ("plain", "scale"):
        xent.softmax(x, out=wider, **options)
        check_rounded(xent.softmax(x, **options))
