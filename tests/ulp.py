"""How close two results are."""

from __future__ import annotations

from typing import Any

import numpy as np
from exact import Real, real
from numpy.typing import ArrayLike, NDArray


def distances(actual: ArrayLike, exact: ArrayLike | Real) -> NDArray[np.float64]:
    """Return how far each of `actual` is from `exact`, in ulp of the dtype of `actual`.

    An ulp is the spacing of the floats in the exact result's binade, [2^e, 2^(e + 1)), and the subnormals' where it is
    less than the smallest normal number. Equal infinities and NaNs are at no distance, as is an infinity from a number
    that rounds to it; a NaN or infinity beside another number is at an infinite distance.
    """
    actual = np.asarray(actual)
    high, low, exponent = real(exact).parts
    assert actual.shape == high.shape, (actual.shape, high.shape)
    limits = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        mantissa, e = np.frexp(high)
        below = (np.abs(mantissa) == 0.5) & (low * mantissa < 0)  # just less than a power of two
        step = np.maximum(e - below + exponent - limits.nmant - 1, limits.minexp - limits.nmant)
        difference = np.ldexp(actual.astype(np.float64), -step) - np.ldexp(high, exponent - step)
        distance = np.abs(difference - np.ldexp(low, exponent - step))
        rounded = np.ldexp(high, exponent).astype(actual.dtype)
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        distance = np.where(same & ~np.isfinite(rounded), 0, distance)
    result: NDArray[np.float64] = np.nan_to_num(distance, nan=np.inf, posinf=np.inf)
    return result


def ulps(actual: ArrayLike, exact: ArrayLike | Real) -> float:
    """Return the largest of the `distances`."""
    return float(np.max(distances(actual, exact), initial=0))


def is_subnormal(exact: ArrayLike | Real, dtype: Any) -> NDArray[np.bool_]:
    """Whether each number is below the smallest normal one of the dtype."""
    number = real(exact)
    with np.errstate(under="ignore"):
        result: NDArray[np.bool_] = np.abs(number.rounded()) < np.finfo(dtype).smallest_normal
    return result
