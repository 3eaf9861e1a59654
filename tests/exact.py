"""Exact results for the tests and for bench/accuracy.py: softmax cross-entropy to some 100 bits.

Two ways, for they check each other. `Rows` is NumPy in double-double arithmetic: a number is an unevaluated sum of two
float64 (Dekker 1971), its relative error at most some 2^-100, and a row may have a million classes. `MpRow` is mpmath,
as precise as one likes, and slow. Both take the logits as given: the result is that of these very numbers, without an
error of having been rounded to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mpmath
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Double = tuple[Floats, Floats]  # high + low, with |low| <= ulp(high) / 2

quiet = np.errstate(all="ignore")  # infinities, and what is too small to matter, have defined results


@dataclass(frozen=True)
class Real:
    """Numbers (high + low) * 2^exponent; the exponent is there for results that float64 would flush to zero."""

    high: Floats
    low: Floats
    exponent: Ints

    @property
    def parts(self) -> tuple[Floats, Floats, Ints]:
        """The three arrays."""
        return self.high, self.low, self.exponent

    def __getitem__(self, index: Any) -> Real:
        return Real(*(np.asarray(part)[index] for part in self.parts))

    def reshape(self, *shape: int) -> Real:
        """Return the numbers in another shape."""
        return Real(self.high.reshape(shape), self.low.reshape(shape), self.exponent.reshape(shape))

    @quiet
    def double(self) -> Double:
        """Return the numbers without the exponent: good where float64 does not underflow, or it does not matter."""
        return np.ldexp(self.high, self.exponent), np.ldexp(self.low, self.exponent)

    def rounded(self) -> Floats:
        """Return the nearest float64."""
        return self.double()[0]


def real(value: ArrayLike | Real) -> Real:
    """Return float64 numbers, or what is a `Real` already, as a `Real`."""
    if isinstance(value, Real):
        return value
    return _real(_widened(np.asarray(value, dtype=np.float64)))


# ---- Double-double arithmetic: Dekker (1971), Knuth; as in Hida, Li and Bailey (2001) ------------------------------


def _widened(a: Floats) -> Double:
    return a, np.zeros_like(a)


def _real(a: Double) -> Real:
    return Real(*a, np.zeros(a[0].shape, dtype=np.int64))


def _where(condition: NDArray[np.bool_], a: Real, b: Real) -> Real:
    return Real(*(np.where(condition, of_a, of_b) for of_a, of_b in zip(a.parts, b.parts, strict=True)))


def two_sum(a: Floats, b: Floats) -> Double:
    """Return a + b exactly; where the sum is infinite, it has no low part."""
    high = a + b
    back = high - a
    low = (a - (high - back)) + (b - back)
    return high, np.where(np.isfinite(high), low, 0)


def _normalized(high: Floats, low: Floats) -> Double:
    total = high + low
    return total, low - (total - high)


def _split(a: Floats) -> Double:
    scaled = a * (2.0**27 + 1)
    high = scaled - (scaled - a)
    return high, a - high


def _two_product(a: Floats, b: Floats) -> Double:
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _add(a: Double, b: Double) -> Double:
    high, error = two_sum(a[0], b[0])
    low, rest = two_sum(a[1], b[1])
    high, error = _normalized(high, error + low)
    return _normalized(high, error + rest)


def _multiply(a: Double, b: Double) -> Double:
    high, low = _two_product(a[0], b[0])
    return _normalized(high, low + (a[0] * b[1] + a[1] * b[0]))


def _negate(a: Double) -> Double:
    return -a[0], -a[1]


def _divide(a: Double, b: Double) -> Double:
    """Long division with three digits, each of them a float64."""
    digits = []
    for _ in range(3):
        digit = a[0] / b[0]
        digits.append(digit)
        a = _add(a, _negate(_multiply(b, _widened(digit))))
    return _add(_normalized(digits[0], digits[1]), _widened(digits[2]))


def _sum(a: Double) -> Double:
    """Return the sum along the last axis, pairwise, so that the error grows with its logarithm."""
    high, low = a
    while (n := high.shape[-1]) > 1:
        half = n // 2
        odd = [(part[..., 2 * half :]) for part in (high, low)]
        high, low = _add((high[..., :half], low[..., :half]), (high[..., half : 2 * half], low[..., half : 2 * half]))
        high, low = (np.concatenate(parts, axis=-1) for parts in zip((high, low), odd, strict=True))
    return high[..., 0], low[..., 0]


# ---- exp and log ---------------------------------------------------------------------------------------------------

_TABLE_STEPS = 256  # to one: the table leaves |s| <= 2^-9
_TABLE_HALF = 90  # steps, a little more than ln(2) / 2
_LOWEST = -5000.0  # exp of it is below 2^-7000: zero, whatever is asked
_CHUNK = 8192  # numbers at once, so that temporaries stay in the cache


_ONE: Double = _widened(np.array(1.0))


def _rounded_twice(value: Any) -> Double:
    high = float(value)
    return np.array(high), np.array(float(value - high))


def real_of(value: Any) -> Real:
    """Return a number of mpmath."""
    return _real(_rounded_twice(value))


def _tables() -> tuple[list[Any], list[Any], tuple[float, float, float], list[Double]]:
    with mpmath.workprec(300):
        steps = [mpmath.mpf(j) / _TABLE_STEPS for j in range(-_TABLE_HALF, _TABLE_HALF + 1)]
        exps = np.array([_rounded_twice(mpmath.exp(s)) for s in steps]).T
        expm1s = np.array([_rounded_twice(mpmath.expm1(s)) for s in steps]).T
        # Parts of 33 bits: times an exponent, of 13 bits, they are exact.
        ln2 = mpmath.log(2)
        first = mpmath.floor(ln2 * 2**33) / 2**33
        second = mpmath.floor((ln2 - first) * 2**66) / 2**66
        parts = (float(first), float(second), float(ln2 - first - second))
        series = [_rounded_twice(1 / mpmath.factorial(k)) for k in range(6)]
    return list(exps), list(expm1s), parts, series


_EXP, _EXPM1, _LN2, _SERIES = _tables()


def _expm1_reduced(x: Double) -> tuple[Double, Ints]:
    """Return (v, n) with exp(x) = 2^n (1 + v), where v is accurate relatively; |x| < 5000.

    x = n ln 2 + j / 256 + s; exp(j / 256) is from a table, and exp(s) - 1 is Taylor's series, of which the terms from
    s^6 on are so small that float64 will do.
    """
    n = np.rint(x[0] / _LN2[0])
    r = two_sum(x[0], -n * _LN2[0])
    r = _add(r, _widened(-n * _LN2[1]))
    r = _add(r, two_sum(x[1], -n * _LN2[2]))
    j = np.rint(r[0] * _TABLE_STEPS)
    s = _add(r, _widened(-j / _TABLE_STEPS))

    tail = np.ones_like(n)
    for k in range(11, 6, -1):
        tail = 1 + s[0] / k * tail
    u = _add(_SERIES[5], _widened(s[0] / 720 * tail))
    for k in (4, 3, 2):
        u = _add(_SERIES[k], _multiply(s, u))
    e = _add(s, _multiply(_multiply(s, s), u))

    at = j.astype(np.int64) + _TABLE_HALF
    v = _add((_EXPM1[0][at], _EXPM1[1][at]), _multiply((_EXP[0][at], _EXP[1][at]), e))
    return v, n.astype(np.int64)


@quiet
def exp(x: Double) -> Real:
    """Return exp(x) for x <= 0; below -5000 it is zero."""
    shape = x[0].shape
    flat = [np.ascontiguousarray(part).reshape(-1) for part in x]
    zero = flat[0] < _LOWEST
    flat = [np.where(zero, 0, part) for part in flat]
    high, low, exponent = np.empty(zero.size), np.empty(zero.size), np.empty(zero.size, dtype=np.int64)
    for begin in range(0, zero.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        v, exponent[part] = _expm1_reduced((flat[0][part], flat[1][part]))
        high[part], low[part] = _add(_ONE, v)
    high[zero] = low[zero] = exponent[zero] = 0
    return Real(high.reshape(shape), low.reshape(shape), exponent.reshape(shape))


@quiet
def log1p(x: Real) -> Real:
    """Return log(1 + x) for 0 <= x < 2^1000, accurate relatively.

    NumPy's logarithm y, corrected by log((1 + x) exp(-y)) = d - d^2 / 2 + ..., d = (x - expm1(y)) / (1 + x).
    Where x < 2^-110 the result is x.
    """
    given = x.double()
    y = np.log1p(given[0])
    v, n = _expm1_reduced(_widened(y))
    expm1 = _add((np.ldexp(v[0], n), np.ldexp(v[1], n)), _widened(np.ldexp(1.0, n) - 1))
    difference, _ = _add(given, _negate(expm1))
    d = difference / (1 + given[0])
    tiny = given[0] < 2.0**-110
    return _where(tiny, x, _real(two_sum(y, d - d * d / 2)))


@quiet
def total(x: Real) -> Real:
    """Return the sum of all, which may be representable where those of float64 overflow."""
    if np.any(np.isinf(x.high)):
        return real(np.inf)
    size = int(np.max(np.frexp(x.high)[1] + x.exponent, initial=0))
    terms = Real(x.high, x.low, x.exponent - size).reshape(-1)
    return Real(*_sum(terms.double()), np.array(size))


@quiet
def mean(x: Real) -> Real:
    """Return the mean of all; of an infinite one it is infinite."""
    sum_of_all = total(x)
    if np.isinf(sum_of_all.high):
        return sum_of_all
    return Real(
        *_divide((sum_of_all.high, sum_of_all.low), _widened(np.array(float(x.high.size)))), sum_of_all.exponent
    )


def times(x: Real, factor: float) -> Real:
    """Return x * factor."""
    mantissa, exponent = math.frexp(factor)
    return Real(*_multiply((x.high, x.low), _widened(np.array(mantissa))), x.exponent + exponent)


# ---- Rows ----------------------------------------------------------------------------------------------------------


class Rows:
    """Rows of finite logits or -inf, shape (N, K), and their exact results; `c` are the N correct classes.

    With t a row's largest class and rest = sum_{j != t} exp(x_j - x_t), nothing below cancels:
    -ln q_i = (x_t - x_i) + log1p(rest), q_i = exp(x_i - x_t) / (1 + rest), and 1 - q_c is rest / (1 + rest) for c = t,
    (1 + rest - exp(x_c - x_t)) / (1 + rest), whose numerator is at least 1, for the others. Only the logsumexp
    x_t + log1p(rest) may cancel; where it does so beyond what the 100 bits can bear, mpmath computes it.
    """

    def __init__(self, x: ArrayLike) -> None:
        self.x: Floats = np.asarray(x).astype(np.float64)
        self._row = np.arange(len(self.x))
        self.top: Ints = np.argmax(self.x, axis=1)
        self._x_top = self.x[self._row, self.top]

    @cached_property
    def _rest(self) -> Real:
        """Sum relative to the second largest logit, for beside the largest it may be too small for float64."""
        others = self.x.copy()
        others[self._row, self.top] = -np.inf
        second = np.max(others, axis=1)
        reference = np.where(np.isfinite(second), second, 0)
        total = _sum(exp(two_sum(others, -reference[:, np.newaxis])).double())
        unit = exp(two_sum(second, -self._x_top))
        return Real(*_multiply(total, (unit.high, unit.low)), unit.exponent)

    @cached_property
    def _log1p_rest(self) -> Real:
        return log1p(self._rest)

    @cached_property
    def _total(self) -> Double:
        """1 + rest."""
        return _add(_ONE, self._rest.double())

    @cached_property
    def _exps(self) -> Real:
        return exp(two_sum(self.x, -self._x_top[:, np.newaxis]))

    def _minus_log(self, gap: Double, log1p_rest: Real) -> Real:
        """Return gap + log1p(rest)."""
        high, low = _add(gap, log1p_rest.double())
        finite = np.isfinite(gap[0])
        total = _real((np.where(finite, high, gap[0]), np.where(finite, low, 0)))
        return _where(gap[0] == 0, log1p_rest, total)

    @quiet
    def loss(self, c: NDArray[Any]) -> Real:
        """Return -ln q_c."""
        return self._minus_log(two_sum(self._x_top, -self.x[self._row, c]), self._log1p_rest)

    @quiet
    def log_softmax(self) -> Real:
        """Return ln q_i."""
        result = self._minus_log(two_sum(self._x_top[:, np.newaxis], -self.x), self._log1p_rest[:, np.newaxis])
        return Real(-result.high, -result.low, result.exponent)

    @quiet
    def softmax(self) -> Real:
        """Return q_i."""
        exps = self._exps
        total = self._total[0][:, np.newaxis], self._total[1][:, np.newaxis]
        return Real(*_divide((exps.high, exps.low), total), exps.exponent)

    @quiet
    def gradient(self, c: NDArray[Any]) -> Real:
        """Return q_i - [i = c]."""
        others = _real(_add(self._total, _negate(self._exps[self._row, c].double())))
        others = _where(self.top == c, self._rest, others)
        at_target = Real(*_divide((others.high, others.low), self._total), others.exponent)
        is_target = np.arange(self.x.shape[1]) == c[:, np.newaxis]
        at_target = Real(-at_target.high, -at_target.low, at_target.exponent)[:, np.newaxis]
        return _where(is_target, at_target, self.softmax())

    @quiet
    def logsumexp(self) -> Real:
        """Return ln sum_j exp(x_j)."""
        high, low = _add(_widened(self._x_top), self._log1p_rest.double())
        cancelled = np.abs(high) < 2.0**-40 * np.abs(self._x_top)
        for i in np.flatnonzero(cancelled):
            value = MpRow(self.x[i], digits=80).logsumexp()
            high[i], low[i] = _rounded_twice(value if abs(value) > 1e-40 else MpRow(self.x[i]).logsumexp())
        return _real((high, low))


class MpRow:
    """One row, in mpmath: the equations as they are written, and enough digits for what cancels."""

    def __init__(self, x: ArrayLike, digits: int = 400) -> None:
        self._context = mpmath.mp.clone()
        self._context.dps = digits
        self._x = [self._context.mpf(float(v)) for v in np.asarray(x, dtype=np.float64)]
        largest = max(self._x)  # so that no exponential has an exponent of more digits than its mantissa
        self._exps = [self._context.exp(v - largest) for v in self._x]
        self._sum = self._context.fsum(self._exps)
        self._largest = largest

    def softmax(self) -> list[Any]:
        """Return q_i."""
        return [e / self._sum for e in self._exps]

    def logsumexp(self) -> Any:
        """Return ln sum_j exp(x_j)."""
        return self._context.log(self._sum) + self._largest

    def loss(self, c: int) -> Any:
        """Return -ln q_c."""
        return self._context.log(self._sum) - (self._x[c] - self._largest)

    def log_softmax(self) -> list[Any]:
        """Return ln q_i."""
        return [-self.loss(i) for i in range(len(self._x))]

    def gradient(self, c: int) -> list[Any]:
        """Return q_i - [i = c]."""
        return [q - (i == c) for i, q in enumerate(self.softmax())]
