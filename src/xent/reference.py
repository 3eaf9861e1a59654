"""The oracle: softmax cross-entropy and its gradient in NumPy's float64, slow and obvious.

Every function of `xent` that computes has a twin here with the same signature, and the tests compare the
two. The equations are those of Khungurn (2018), "Gradient of Softmax Followed by Cross Entropy Loss
Function", in that order. What differs from the paper is written beside it, and is there so that float64
suffices: the largest logit is subtracted from all, which changes neither quotient, and the sum over the
other classes is formed by itself, never as a difference.

Arguments are as in `xent`; ``n_threads`` is accepted and has no effect. Results have the dtype that those
of `xent` have, rounded from float64. The inputs are taken to be what `xent` accepts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]
Classes = NDArray[np.intp]


def _exp_of_difference(a: Float64s, b: Float64s) -> Float64s:
    """Return exp(a - b), with the rounding error of a - b (Knuth's TwoSum) carried into the result."""
    d = a - b
    back = d - a
    error = (a - (d - back)) - (b + back)
    result: Float64s = np.exp(d) * (1 + np.where(np.isfinite(error), error, 0))
    return result


class Rows:
    """Rows of logits `x`, shape (N, K), and what the paper defines of them; `c` are the N correct classes."""

    def __init__(self, x: Float64s) -> None:
        self.x = x
        largest: Float64s = np.max(x, axis=1, keepdims=True)
        self.shift: Float64s = np.where(largest == -np.inf, np.nan, largest)  # nothing but -inf is no distribution
        self.exp = _exp_of_difference(x, self.shift)
        self.sum: Float64s = np.sum(self.exp, axis=1, keepdims=True)

    def softmax(self) -> Float64s:
        """q_i = exp(x_i) / sum_j exp(x_j)."""
        return self.exp / self.sum

    def logsumexp(self) -> Float64s:
        """Return ln sum_j exp(x_j)."""
        return (np.log(self.sum) + self.shift)[:, 0]

    def others(self, c: Classes) -> Float64s:
        """Return sum_{j != c} exp(x_j)."""
        without_target = self.exp.copy()
        np.put_along_axis(without_target, c[:, np.newaxis], 0, axis=1)
        poison = np.where(np.isnan(self.sum), np.nan, 0)  # a NaN at the target makes its row NaN, too
        result: Float64s = np.sum(without_target, axis=1, keepdims=True) + poison
        return result

    def loss(self, c: Classes) -> Float64s:
        """L = -ln q_c = ln( sum_j exp(x_j) / exp(x_c) ) = ln( 1 + sum_{j != c} exp(x_j) / exp(x_c) )."""
        x_c = np.take_along_axis(self.x, c[:, np.newaxis], axis=1)
        ratio = self.others(c) / _exp_of_difference(x_c, self.shift)
        # exp(x_c) underflows where the ratio is large; its logarithm is known
        return np.where(x_c - self.shift > -700, np.log1p(ratio), np.log(self.sum) - (x_c - self.shift))[:, 0]

    def log_softmax(self) -> Float64s:
        """Return ln q_i = (x_i - x_m) - L_m, where m is the largest class."""
        return (self.x - self.shift) - self.loss(np.argmax(self.x, axis=1))[:, np.newaxis]

    def grad(self, c: Classes, upstream: Float64s | float) -> Float64s:
        """dl/dx_i = dl/dL q_i if i != c, and dl/dL (q_c - 1) = -dl/dL sum_{j != c} q_j if i = c."""
        dl_dx = self.softmax()
        np.put_along_axis(dl_dx, c[:, np.newaxis], -self.others(c) / self.sum, axis=1)
        dl_dx *= np.broadcast_to(upstream, len(self.x))[:, np.newaxis]
        return dl_dx


def _rows(logits: NDArray[Any], axis: int) -> Float64s:
    """Return the logits as rows of classes, shape (N, K)."""
    classes_last = np.moveaxis(logits, axis, -1)
    contiguous = classes_last.astype(np.float64, order="C")  # NumPy sums pairwise along contiguous rows only
    rows: Float64s = contiguous.reshape(-1, classes_last.shape[-1])
    return rows


def _unrows(rows: Float64s, logits: NDArray[Any], axis: int, out: NDArray[Any] | None) -> NDArray[Any]:
    """Undo `_rows`, in the dtype of the logits."""
    shape = np.moveaxis(logits, axis, -1).shape
    result: NDArray[Any] = _result(np.moveaxis(rows.reshape(shape), -1, axis), logits.dtype, out)
    return result


def _result(values: Any, dtype: np.dtype[Any], out: NDArray[Any] | None) -> Any:
    with np.errstate(over="ignore"):
        result = np.asarray(values).astype(dtype)
    if out is None:
        return result[()]
    out[...] = result
    return out


def _floats(x: ArrayLike) -> NDArray[Any]:
    array = np.asarray(x)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _loss_and_grad(
    logits: NDArray[Any],
    target: ArrayLike,
    axis: int,
    *,
    reduction: str = "mean",
    grad_output: ArrayLike = 1.0,
    lse: ArrayLike | None = None,
) -> tuple[Any, Float64s]:
    targets = np.asarray(target)
    c = targets.reshape(-1).astype(np.intp)
    with np.errstate(all="ignore"):  # infinities and NaNs have defined results
        rows = Rows(_rows(logits, axis))
        loss: Any = rows.loss(c).reshape(targets.shape)
        upstream = np.asarray(grad_output, dtype=np.float64).reshape(-1)
        if reduction != "none":
            loss = np.sum(loss)
        if reduction == "mean":
            loss, upstream = loss / np.float64(len(c)), upstream / np.float64(len(c))
        if lse is not None:
            rows.sum = np.exp(np.asarray(lse, dtype=np.float64).reshape(-1, 1) - rows.shift)
        return loss, rows.grad(c, upstream)


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001 - the signature of xent.cross_entropy
) -> Any:
    """Compute what `xent.cross_entropy` computes."""
    x = _floats(logits)
    loss, _ = _loss_and_grad(x, target, axis, reduction=reduction)
    return _result(loss, x.dtype, out)


def cross_entropy_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    reduction: str = "mean",
    grad_output: ArrayLike = 1.0,
    loss_out: NDArray[Any] | None = None,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> tuple[Any, NDArray[Any]]:
    """Compute what `xent.cross_entropy_and_grad` computes."""
    x = _floats(logits)
    loss, grad = _loss_and_grad(x, target, axis, reduction=reduction, grad_output=grad_output)
    return _result(loss, x.dtype, loss_out), _unrows(grad, x, axis, grad_out)


def cross_entropy_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    lse: ArrayLike | None = None,
    axis: int = -1,
    reduction: str = "mean",
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.cross_entropy_grad` computes."""
    x = _floats(logits)
    _, grad = _loss_and_grad(x, target, axis, reduction=reduction, grad_output=grad_output, lse=lse)
    return _unrows(grad, x, axis, grad_out)


def softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.softmax` computes."""
    logits = _floats(x)
    with np.errstate(all="ignore"):
        return _unrows(Rows(_rows(logits, axis)).softmax(), logits, axis, out)


def log_softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.log_softmax` computes."""
    logits = _floats(x)
    with np.errstate(all="ignore"):
        return _unrows(Rows(_rows(logits, axis)).log_softmax(), logits, axis, out)


def logsumexp(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> Any:
    """Compute what `xent.logsumexp` computes."""
    logits = _floats(x)
    with np.errstate(all="ignore"):
        lse = Rows(_rows(logits, axis)).logsumexp()
        return _result(lse.reshape(np.moveaxis(logits, axis, -1).shape[:-1]), logits.dtype, out)
