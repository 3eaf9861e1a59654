"""How close two results are."""

from __future__ import annotations

import numpy as np


def ulps(actual, exact):
    """Return the largest distance of `actual` from the float64 `exact`, in ulp of the dtype of `actual`.

    Equal infinities and NaNs are at no distance; a NaN or infinity beside a number is at an infinite one.
    """
    actual = np.asarray(actual)
    exact = np.asarray(exact, dtype=np.float64)
    assert actual.shape == exact.shape
    with np.errstate(all="ignore"):
        rounded = exact.astype(actual.dtype)
        step = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1))).astype(np.float64)
        distance = np.abs(actual.astype(np.float64) - exact) / step
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        distance = np.where(same & ~np.isfinite(rounded), 0, distance)
    return float(np.max(np.nan_to_num(distance, nan=np.inf), initial=0))
