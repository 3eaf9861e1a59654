"""The exact results themselves: double-double arithmetic against mpmath, for all kinds of rows."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from exact import MpRow, Real, Rows, exp, log1p, mean, real
from ulp import distances, is_subnormal, ulps

PRECISION = 2.0**-96  # of a result, relatively; float64's ulp is 2^-52
inf = np.inf


def as_mpf(number, context):
    return context.ldexp(context.mpf(float(number.high)) + context.mpf(float(number.low)), int(number.exponent))


def relative_error(number, exact):
    """Return the largest relative error of numbers in double-double beside those of mpmath."""
    context = mpmath.mp.clone()
    context.dps = 400
    errors = [0.0]
    flat = Real(*map(np.asarray, number.parts)).reshape(-1)
    for i, value in enumerate(exact):
        if abs(value) > context.mpf(2) ** -5000:
            errors.append(float(abs(as_mpf(flat[i], context) / value - 1)))
    return max(errors)


def test_exp(rng):
    x = np.concatenate([-rng.random(300), -4900 * rng.random(300), -(2.0 ** -rng.integers(0, 60, 50)), [0]])
    low = x * 2.0**-54 * rng.random(x.size)
    with mpmath.workdps(60):
        exact = [mpmath.exp(mpmath.mpf(a) + mpmath.mpf(b)) for a, b in zip(x, low, strict=True)]
    assert relative_error(exp((x, low)), exact) < 2.0**-100
    assert exp((np.array([-5001.0]), np.zeros(1))).high == 0


def test_log1p(rng):
    x = np.concatenate([rng.random(300), 1e6 * rng.random(300), 10.0 ** -rng.integers(0, 300, 200)])
    low = x * 2.0**-54 * rng.random(x.size)
    with mpmath.workdps(400):
        exact = [mpmath.log1p(mpmath.mpf(a) + mpmath.mpf(b)) for a, b in zip(x, low, strict=True)]
    assert relative_error(log1p(Real(x, low, np.zeros(x.size, dtype=np.int64))), exact) < 2.0**-100


ROWS = {
    "one": [5.0],
    "two": [1e-3, -1e-3],
    "even": [0.0] * 4,
    "ordinary": [0.3, -1.2, 2.5, 0.0, -4.0],
    "confident": [0.0, 87.5, -5.0, 0.1],
    "very confident": [0.0, 700.1, 1.0],
    "beyond float64": [0.0, 1500.0, -2000.0],
    "offset": [1e30, 1e30, np.nextafter(1e30, 0), 0.0],
    "inexact differences": [1000.1, 900.7, 1000.3],
    "the largest": [1.7e308, 1.7e308, 0.0],
    "from end to end": [3.4e38, -3.4e38, 1.0],
    "masked": [-inf, 0.5, -inf, -0.25],
    "one that is not masked": [-inf, 0.5, -inf],
    "subnormal logits": [5e-324, 0.0, -5e-324],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_rows(row):
    rows, mp = Rows([row] * len(row)), MpRow(row, 900)
    targets = np.arange(len(row))
    finite = [i for i in targets if row[i] > -inf]
    assert relative_error(rows.softmax()[0], mp.softmax()) < PRECISION
    assert relative_error(rows.loss(targets)[finite], [mp.loss(i) for i in finite]) < PRECISION
    assert relative_error(rows.log_softmax()[0, finite], [-mp.loss(i) for i in finite]) < PRECISION
    assert relative_error(rows.logsumexp()[:1], [mp.logsumexp()]) < PRECISION
    for i in targets:
        assert relative_error(rows.gradient(targets)[i], mp.gradient(i)) < PRECISION
    masked = np.setdiff1d(targets, finite)
    assert np.all(rows.loss(targets).high[masked] == inf)
    assert np.all(rows.softmax().high[:, masked] == 0)


def test_random_rows(rng):
    for scale in (1e-20, 1, 30, 1e4):
        x = rng.normal(size=(5, 40), scale=scale)
        targets = np.argmax(x, axis=1) if scale == 30 else rng.integers(0, 40, 5)
        rows, mp = Rows(x), [MpRow(row) for row in x]
        assert relative_error(rows.loss(targets), [m.loss(c) for m, c in zip(mp, targets, strict=True)]) < PRECISION
        assert relative_error(rows.gradient(targets)[0], mp[0].gradient(targets[0])) < PRECISION
        exact = sum(m.loss(c) for m, c in zip(mp, targets, strict=True)) / 5
        assert relative_error(mean(rows.loss(targets)), [exact]) < PRECISION


def test_a_long_row(rng):
    x = rng.normal(size=20_000)
    rows, mp = Rows([x]), MpRow(x, 40)
    assert relative_error(rows.loss(np.array([7])), [mp.loss(7)]) < PRECISION
    assert relative_error(rows.softmax()[0], mp.softmax()) < PRECISION


def test_logsumexp_near_zero(rng):
    for _ in range(20):
        x = rng.normal(size=10)
        x -= Rows([x]).logsumexp().high
        assert relative_error(Rows([x]).logsumexp(), [MpRow(x).logsumexp()]) < 2.0**-60


def test_distances():
    one = np.float32(1)
    assert ulps(np.nextafter(one, np.float32(2)), 1.0) == 1
    assert ulps(np.nextafter(one, np.float32(0)), 1.0) == 0.5  # the binade is that of the exact result
    just_below = Real(np.float64(1), np.float64(-(2.0**-60)), np.int64(0))
    assert ulps(np.nextafter(1.0, 0), just_below) == 1 - 2.0**-7
    assert ulps(np.float32(0), 2.5 * 2.0**-149) == 2.5
    tiny = Real(np.float64(0.75), np.float64(0), np.int64(-1073))
    np.testing.assert_array_equal(distances([0.0, 5e-324, 1e-323], real([0.0, 5e-324, 5e-324])), [0, 0, 1])
    assert ulps(5e-324, tiny) == 0.5
    assert is_subnormal(tiny, np.float64)
    assert ulps(inf, 1e300) == ulps(np.nan, 1.0) == ulps(1.0, np.nan) == inf
    assert ulps(np.float32(inf), 1e300) == ulps(np.nan, np.nan) == ulps(-inf, -inf) == 0
    assert ulps(np.float32(0), 1e-9) == pytest.approx(2**23 * 1.0737, rel=1e-3)
