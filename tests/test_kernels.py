"""Every kernel against the oracle: the tests that run once for each instruction set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ulp import ulps

import xent
from xent import reference

LANES = {np.float32: 16, np.float64: 8}
BLOCK = 2048
LONG = [BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 17, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 40]

# The float32 bounds are those of the numerical contract; without a fused multiply-add a gradient rounds
# once more. In float64 the oracle is itself some ulp away.
FUSED = xent.show_config(mode="dicts")["isa"] != "scalar"
BOUNDS = {np.float32: {"loss": 1, "grad": 2 if FUSED else 3}, np.float64: {"loss": 6, "grad": 10}}


def lengths(dtype):
    return [*range(1, 4 * LANES[dtype] + 2), *LONG]


def check(x, target):
    """Compare loss, gradient, softmax and lse of all rows with the oracle."""
    bounds = BOUNDS[x.dtype.type]
    wide = x.astype(np.float64)
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    exact_loss, exact_grad = reference.cross_entropy_and_grad(wide, target, reduction="none")
    assert ulps(loss, exact_loss) <= bounds["loss"]
    assert ulps(grad, exact_grad) <= bounds["grad"]
    np.testing.assert_array_equal(xent.cross_entropy(x, target, reduction="none"), loss)
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, reduction="none"), grad)
    assert ulps(xent.softmax(x), reference.softmax(wide)) <= bounds["grad"]


def test_every_length(dtype, rng):
    for classes in lengths(dtype):
        x = rng.normal(size=(3, classes), scale=4).astype(dtype)
        check(x, [0, classes // 2, classes - 1])


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


def test_equal_logits_do_not_bias_the_sum(dtype):
    for value in (0.0, 0.1, -3.3, 700.7):
        x = np.full((1, 100_003), value, dtype=dtype)
        check(x, [12345])


def test_log_softmax_and_logsumexp(dtype, rng):
    for classes in lengths(dtype):
        x = rng.normal(size=(2, classes), scale=3).astype(dtype)
        wide = x.astype(np.float64)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(xent.log_softmax(x), reference.log_softmax(wide), rtol=4 * eps)
        np.testing.assert_allclose(xent.logsumexp(x), reference.logsumexp(wide), rtol=4 * eps, atol=2 * eps)


def test_log_softmax_of_a_confident_row_does_not_vanish(dtype):
    x = np.array([[0, 40, 0, 1, 1]], dtype=dtype)
    assert xent.log_softmax(x)[0, 1] == pytest.approx(-math.log1p(2 * math.exp(-40) + 2 * math.exp(-39)), rel=1e-6)


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
    for upstream in (1e-30, 1.0, -3.0, 1e30):
        grad = xent.cross_entropy_grad(x, [1, 2, 3], reduction="sum", grad_output=upstream)
        exact = reference.cross_entropy_grad(x.astype(np.float64), [1, 2, 3], reduction="sum", grad_output=upstream)
        assert ulps(grad, exact) <= BOUNDS[dtype]["grad"]


def test_subnormal_gradients(dtype):
    smallest = np.finfo(dtype).smallest_normal
    x = np.zeros((1, 20), dtype=dtype)
    x[0, 1:] = np.log(smallest) - np.arange(19)
    check(x, [0])
    grad = xent.cross_entropy_grad(x, [0])
    assert np.count_nonzero(grad[0, 3:10]) == 7
