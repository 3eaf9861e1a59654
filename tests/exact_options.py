"""Exact results with options: the formulas of docs and docstrings in mpmath, as they are written, one row at a time.

Nothing is rearranged, and what cancels is left to the digits. The gradient is a formula, the Hessian differences of it;
test_reference_options.py compares the gradient with differences of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mpmath

inf = mpmath.inf


def mpf(value: Any) -> Any:
    return value if isinstance(value, mpmath.mpf) else mpmath.mpf(float(value))


@dataclass
class OptionRow:
    """A row of logits `x` and its options. `target` is a label, a list of probabilities, or a tuple of two lists."""

    x: Sequence[Any]
    target: Any
    weight: Sequence[float] | None = None
    sample_weight: float = 1.0
    class_mask: Sequence[bool] | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    scale: float = 1.0
    softcap: float | None = None
    tail: str | None = None
    lse: Any = None
    digits: int = 60

    def evaluated(self) -> Row:
        with mpmath.workdps(self.digits):
            return Row(self)

    def loss(self) -> Any:
        with mpmath.workdps(self.digits):
            return self.evaluated().loss()

    def gradient(self) -> list[Any]:
        with mpmath.workdps(self.digits):
            return self.evaluated().gradient()

    def hessian(self) -> list[list[Any]]:
        """d^2 L / dx_i dx_j, for finite x."""
        columns = [self.slope(i, OptionRow.gradient) for i in range(len(self.x))]
        return [list(row) for row in zip(*columns, strict=True)]

    def slope(self, i: int, function: Any) -> Any:
        """Return the derivative of a function of this row with respect to x_i, by central differences."""
        with mpmath.workdps(3 * self.digits):
            step = mpmath.mpf(10) ** -self.digits
            there, back = (function(self._moved(i, by)) for by in (step, -step))
            if isinstance(there, list):
                return [(a - b) / (2 * step) for a, b in zip(there, back, strict=True)]
            return (there - back) / (2 * step)

    def _moved(self, i: int, step: Any) -> OptionRow:
        x = [mpf(v) for v in self.x]
        x[i] += step
        return replace(self, x=x, digits=3 * self.digits)


class Row:
    """The quantities of one row, by their definitions."""

    def __init__(self, given: OptionRow) -> None:
        self.given = given
        classes = range(len(given.x))
        mask = given.class_mask or [True] * len(given.x)
        self.x = [mpf(v) if takes_part else -inf for v, takes_part in zip(given.x, mask, strict=True)]
        self.z = [self._z(v) for v in self.x]
        unmasked = [j for j in classes if self.z[j] > -inf]
        own_lse = mpmath.log(mpmath.fsum(mpmath.exp(v) for v in self.z))
        self.lse = own_lse if given.lse is None else mpf(given.lse)
        self.q = [mpmath.exp(v - self.lse) for v in self.z]

        t = [mpmath.mpf(0)] * len(given.x)
        if isinstance(given.target, tuple):
            indices, probabilities = given.target
            for i, p in zip(indices, probabilities, strict=True):
                t[i] += mpf(p)
            unlisted = [j for j in unmasked if j not in indices]
            missing = 1 - mpmath.fsum(mpf(p) for p in probabilities)
            if given.tail == "uniform" and missing > 0:
                for j in unlisted:
                    t[j] += missing / len(unlisted)
        elif isinstance(given.target, list):
            t = [mpf(p) for p in given.target]
        else:
            t[given.target] += 1
        e = mpf(given.label_smoothing)
        t = [(1 - e) * t[j] + (e / len(unmasked) if j in unmasked else 0) for j in classes]
        w = [mpf(v) for v in given.weight] if given.weight is not None else [mpmath.mpf(1)] * len(given.x)
        self.b = [w[j] * t[j] for j in classes]

    def _z(self, x: Any) -> Any:
        scale, softcap = mpf(self.given.scale), self.given.softcap
        if softcap is None or mpmath.isinf(x):
            return scale * x
        return mpf(softcap) * mpmath.tanh(scale * x / mpf(softcap))

    def _dz_dx(self, x: Any) -> Any:
        scale, softcap = mpf(self.given.scale), self.given.softcap
        return scale if softcap is None else scale * (1 - mpmath.tanh(scale * x / mpf(softcap)) ** 2)

    def loss(self) -> Any:
        v, z_loss = mpf(self.given.sample_weight), mpf(self.given.z_loss)
        terms = [b * (self.lse - z) for b, z in zip(self.b, self.z, strict=True) if b != 0]
        return v * (mpmath.fsum(terms) + z_loss * self.lse**2)

    def gradient(self) -> list[Any]:
        v, z_loss = mpf(self.given.sample_weight), mpf(self.given.z_loss)
        a = mpmath.fsum(self.b) + 2 * z_loss * self.lse
        return [v * (a * q - b) * self._dz_dx(x) for q, b, x in zip(self.q, self.b, self.x, strict=True)]

    def log_q(self) -> list[Any]:
        return [z - self.lse for z in self.z]

    def entropy(self) -> Any:
        return -mpmath.fsum(q * mpmath.log(q) for q in self.q if q > 0)
