"""The oracle itself: against mpmath, finite differences and SciPy."""

from __future__ import annotations

import inspect

import mpmath
import numpy as np
import pytest
import scipy.special
from ulp import ulps

import xent
from xent import reference

TWINS = sorted(name for name in reference.__all__ if name[0].islower())
OTHERS = {"get_num_threads", "reference", "set_num_threads", "show_config"}  # what computes nothing


def exact_row(x, c):
    """Evaluate the paper's equations with 400 digits: loss, gradient and lse of one row."""
    with mpmath.workdps(400):
        exps = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
        total = mpmath.fsum(exps)
        loss = -mpmath.log(exps[c] / total)
        grad = [e / total - (i == c) for i, e in enumerate(exps)]
        return float(loss), [float(g) for g in grad], float(mpmath.log(total))


ROWS = {
    "even": ([0.0, 0.0, 0.0, 0.0], 2),
    "ordinary": ([0.3, -1.2, 2.5, 0.0, -4.0], 0),
    "confident": ([0.0, 30.0, -5.0], 1),
    "very confident": ([0.0, 300.0, 1.0], 1),
    "wrong": ([50.0, -50.0, 3.0], 1),
    "very wrong": ([900.0, -900.0, 3.0], 1),
    "offset": ([1e8, 1e8 + 1, 1e8 - 2], 0),
    "inexact difference": ([1000.1, 900.7, 1000.3], 1),
    "two": ([1e-3, -1e-3], 0),
    "one": ([5.0], 0),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_against_mpmath(row):
    x, c = row
    loss, grad, lse = exact_row(x, c)
    x = np.array([x])
    assert ulps(reference.cross_entropy(x, [c]), loss) <= 4
    assert ulps(reference.cross_entropy_grad(x, [c])[0], grad) <= 8
    assert ulps(reference.logsumexp(x)[0], lse) <= 4


def test_gradient_against_finite_differences(rng):
    x, c = rng.normal(size=(3, 6)), np.array([5, 0, 2])
    upstream = np.array([1.0, -2.0, 0.5])
    grad = reference.cross_entropy_grad(x, c, reduction="none", grad_output=upstream)
    step = 1e-6
    for i, j in np.ndindex(x.shape):
        there, back = x.copy(), x.copy()
        there[i, j] += step
        back[i, j] -= step
        rise = reference.cross_entropy(there, c, reduction="none") - reference.cross_entropy(back, c, reduction="none")
        assert grad[i, j] == pytest.approx(rise @ upstream / (2 * step), rel=1e-7, abs=1e-9)


def test_against_scipy(rng):
    x = rng.normal(size=(2, 5, 3), scale=5)
    for axis in range(3):
        np.testing.assert_allclose(reference.softmax(x, axis=axis), scipy.special.softmax(x, axis=axis), rtol=1e-14)
        np.testing.assert_allclose(
            reference.log_softmax(x, axis=axis), scipy.special.log_softmax(x, axis=axis), rtol=1e-13, atol=1e-15
        )
        np.testing.assert_allclose(reference.logsumexp(x, axis=axis), scipy.special.logsumexp(x, axis=axis), rtol=1e-14)


def test_each_function_has_a_twin():
    assert set(reference.__all__) == set(xent.__all__) - OTHERS


@pytest.mark.parametrize("name", TWINS)
def test_signatures_are_those_of_xent(name):
    ours, oracle = (inspect.signature(getattr(module, name)).parameters for module in (xent, reference))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in oracle.values()
    ]


def test_out_is_returned(rng):
    x, c = rng.normal(size=(4, 3)), np.array([0, 1, 2, 0])
    grad, loss = np.empty_like(x), np.empty(())
    assert reference.cross_entropy_grad(x, c, grad_out=grad) is grad
    assert reference.cross_entropy(x, c, out=loss) is loss
    assert loss == reference.cross_entropy(x, c)
    np.testing.assert_array_equal(grad, reference.cross_entropy_and_grad(x, c)[1])
