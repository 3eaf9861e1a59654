"""The promises of docs/accuracy.md: on families of rows, on rows sought to break them, and between the results."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from contract import PROMISED, broken_promises, errors, exact_results, worst_of_rows, xent_results
from exact import Rows, mean, real_of, total
from families import BLOCK, QUICK, batches, vocabulary
from ulp import distances, ulps

import xent

inf = np.inf


@pytest.mark.parametrize("family", QUICK, ids=lambda family: family.__name__)
def test_families(family, dtype):
    for x, c in batches(family, dtype):
        assert broken_promises(x, c) == {}


def test_many_classes(dtype):
    for x, c in batches(vocabulary, dtype):
        assert broken_promises(x, c) == {}


def test_a_million_equal_logits(dtype):
    """The same rounding error in every term: the sum over blocks is where it shows."""
    classes = 1_000_000
    x = np.full((1, classes), 0.1, dtype=dtype)
    with mpmath.workdps(40):
        share, log = (real_of(value)[np.newaxis] for value in (mpmath.mpf(1) / classes, mpmath.log(classes)))
        others = real_of(mpmath.mpf(1 - classes) / classes)[np.newaxis]
    loss, grad = xent.cross_entropy_and_grad(x, [classes - 1], reduction="none")
    assert np.unique(grad[:, :-1]).size == np.unique(xent.softmax(x)).size == 1
    assert ulps(grad[0, :1], share) <= PROMISED[dtype.__name__]["gradient elsewhere"]
    assert ulps(xent.softmax(x)[0, :1], share) <= PROMISED[dtype.__name__]["softmax"]
    assert ulps(grad[0, -1:], others) <= PROMISED[dtype.__name__]["gradient at the target"]
    assert ulps(loss, log) <= PROMISED[dtype.__name__]["loss"]
    assert ulps(-xent.log_softmax(x)[0, :1], log) <= PROMISED[dtype.__name__]["log_softmax"]


def test_reductions_do_not_depend_on_threads(rng):
    """Sums in another order differ in their last bit, now and then: so there are many of them."""
    for _ in range(15):
        x = rng.normal(size=(9000, 4), scale=4)
        c = rng.integers(0, 4, len(x))
        for reduction in ("mean", "sum"):
            results = {xent.cross_entropy(x, c, reduction=reduction, n_threads=n) for n in (1, 2, 3)}
            assert len(results) == 1


def test_blocks_cost_no_accuracy(dtype, rng):
    """What a row's sum has beyond double's precision is kept when those of its blocks are merged."""
    error = {}
    for blocks in (1, 3):
        x = rng.normal(size=(20, blocks * BLOCK)).astype(dtype)
        error[blocks] = np.mean(distances(xent.softmax(x), Rows(x).softmax()))
    assert error[3] <= error[1] + 0.05


def rows_of(dtype):
    """Return a strategy for rows that need not be alike: magnitudes, ties, masked classes."""
    width = 8 * np.dtype(dtype).itemsize

    def logits(limit):
        limit = float(dtype(limit))
        value = st.floats(-limit, limit, width=width, allow_subnormal=limit > 1e30)
        elements = st.one_of(value, value, value, st.sampled_from([0.0, -inf]))
        return hypothesis.extra.numpy.arrays(dtype, st.integers(2, 70), elements=elements, fill=value)

    limits = st.sampled_from([1e-3, 1, 20, 90, 700, 3000, 1e20, np.finfo(dtype).max])
    return limits.flatmap(logits).filter(lambda row: np.max(row) > -inf)


@pytest.mark.parametrize("scalar_type", [np.float32, np.float64], ids=["float32", "float64"])
def test_any_row(scalar_type):
    """Hypothesis is told how near to the promise a row comes, and goes on from the nearest."""

    @hypothesis.settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a clock decides it
    )
    @hypothesis.given(row=rows_of(scalar_type), data=st.data())
    def holds(row, data):
        x, c = row[np.newaxis], np.array([data.draw(st.integers(0, row.size - 1))])
        promised = PROMISED[row.dtype.name]
        of_promised = {
            name: float(np.max(worst_of_rows(distance))) / promised[name]
            for name, distance in errors(xent_results(x, c), exact_results(x, c)).items()
        }
        hypothesis.target(max(of_promised.values()))
        assert {name: ratio for name, ratio in of_promised.items() if ratio > 1} == {}

    holds()


def test_reductions(dtype, rng):
    """Means and sums of many losses err no more than one loss may."""
    x = rng.normal(size=(20_000, 5), scale=6).astype(dtype)
    c = rng.integers(0, 5, len(x))
    loss = Rows(x).loss(c)
    promised = PROMISED[dtype.__name__]["mean of losses"]
    assert ulps(xent.cross_entropy(x, c), mean(loss)) <= promised
    assert ulps(xent.cross_entropy(x, c, reduction="sum"), total(loss)) <= promised


@pytest.mark.parametrize("rows", [2, 9, 49, 300])
def test_a_mean_of_losses_whose_sum_is_beyond_float64(rows, rng):
    """Of one batch and of many; the mean of the largest numbers is not beyond them."""
    half = np.finfo(np.float64).max / 2
    x = np.zeros((rows, 2))
    for losses in (np.full(rows, 2.0), np.full(rows, 1.2), rng.uniform(0, 2, rows)):
        x[:, 0], x[:, 1] = -half / 2 * losses, half / 2 * losses
        c = np.zeros(rows, int)
        exact = mean(Rows(x).loss(c))
        assert ulps(xent.cross_entropy(x, c), exact) <= 1
        assert ulps(xent.cross_entropy(np.asfortranarray(x), c), exact) <= 1
        assert ulps(xent.cross_entropy_and_grad(x, c, loss_out=np.empty(()))[0], exact) <= 1
        assert xent.cross_entropy(x, c, reduction="sum") == inf
    x[0] = np.finfo(np.float64).max * np.array([-1, 1])
    assert xent.cross_entropy(x, c) == inf
    x[0, 0] = np.nan
    assert np.isnan(xent.cross_entropy(x, c))


# ---- Relations between results: they hold whatever the exact ones are ------------------------------------------------


def on_a_grid(dtype, rng, shape):
    """Return multiples of 2^-8 below 8: a power of two may be added to them without rounding."""
    return (rng.integers(-2048, 2048, size=shape) / 256).astype(dtype)


@pytest.mark.parametrize("shift", [1, -64, 256, -1024, 2.0**12])
def test_a_common_shift_changes_nothing(dtype, rng, shift):
    for classes in (2, 17, 300, BLOCK + 1):
        x = on_a_grid(dtype, rng, (4, classes))
        c = rng.integers(0, classes, 4)
        shifted = x + dtype(shift)
        assert np.all(shifted - dtype(shift) == x)
        exact = exact_results(x, c)
        del exact["logsumexp"]
        assert broken_promises(shifted, c, exact) == {}


def test_permuting_classes_permutes_results(dtype, rng):
    for classes in (3, 40, 2 * BLOCK + 9):
        x = rng.normal(size=(3, classes), scale=4).astype(dtype)
        c = rng.integers(0, classes, 3)
        order = rng.permutation(classes)
        exact = exact_results(x, c)
        permuted_c = np.argsort(order)[c]
        is_target = np.arange(classes) == permuted_c[:, np.newaxis]
        for name in ("softmax", "log_softmax"):
            exact[name] = exact[name][:, order]
        exact["gradient elsewhere"] = Rows(x).gradient(c)[:, order][~is_target].reshape(3, -1)
        assert broken_promises(x[:, order], permuted_c, exact) == {}


def confident_and_ordinary(dtype, rng):
    for classes in (2, 10, 129, 193, 5000):
        x = rng.normal(size=(8, classes), scale=3).astype(dtype)
        c = rng.integers(0, classes, 8)
        x[::2, :][np.arange(4), c[::2]] += 40
        yield x, c


def test_a_gradient_sums_to_zero(dtype, rng):
    for x, c in confident_and_ordinary(dtype, rng):
        grad = xent.cross_entropy_grad(x, c, reduction="sum").astype(np.float64)
        rounding = PROMISED[dtype.__name__]["gradient elsewhere"] * np.finfo(dtype).eps
        for row in grad:
            assert abs(math.fsum(row)) <= rounding * math.fsum(abs(row))


def test_probabilities_sum_to_one(dtype, rng):
    for x, _ in confident_and_ordinary(dtype, rng):
        rounding = PROMISED[dtype.__name__]["softmax"] * np.finfo(dtype).eps
        for row in xent.softmax(x).astype(np.float64):
            assert abs(math.fsum(row) - 1) <= rounding


def test_the_loss_is_minus_log_softmax_at_the_target(dtype, rng):
    promised = PROMISED[dtype.__name__]
    for x, c in confident_and_ordinary(dtype, rng):
        log_q = np.take_along_axis(xent.log_softmax(x), c[:, np.newaxis], axis=1)[:, 0]
        loss = xent.cross_entropy(x, c, reduction="none")
        assert ulps(loss, -log_q.astype(np.float64)) <= promised["loss"] + promised["log_softmax"]


def test_a_row_has_the_same_bits_alone(dtype, rng):
    for classes in (2, 10, 129, 193, BLOCK + 3):
        x = rng.normal(size=(9, classes), scale=5).astype(dtype)
        x[3] *= 1000
        x[5] = np.nan
        x[7, 1:] = -np.inf
        c = rng.integers(0, classes, 9)
        c[7] = 0
        together = xent_results(x, c)
        del together["mean of losses"]
        for row in range(9):
            alone = xent_results(x[row : row + 1], c[row : row + 1])
            for name, values in together.items():
                np.testing.assert_array_equal(alone[name][0], values[row], err_msg=name)
