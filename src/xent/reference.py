"""The oracle: softmax cross-entropy and its derivatives in NumPy's float64, slow and obvious.

Every function of `xent` that computes has a twin here with the same signature, and the tests compare the
two. The equations are those of Khungurn (2018), "Gradient of Softmax Followed by Cross Entropy Loss
Function", in that order; the options generalise them, and are beside what they change. What else differs
from the paper is there so that float64 suffices: the largest logit is subtracted from all, which changes
neither quotient, and a sum over the other classes is never the difference of nearly equal numbers.

Arguments are as in `xent`; ``n_threads`` and ``validate`` are accepted and have no effect. Results have
the dtype that those of `xent` have, rounded from float64. Nothing is checked: the inputs are taken to be
what `xent` accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Evaluation",
    "PartialStatistics",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_hessian",
    "cross_entropy_hvp",
    "evaluate",
    "log_softmax",
    "logsumexp",
    "merge_statistics",
    "partial_statistics",
    "softmax",
]

Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
Classes = NDArray[np.intp]
Hessian = Literal["exact", "xgboost", "lightgbm"]

quiet = np.errstate(all="ignore")  # infinities and NaNs have defined results


# ---- Rows: softmax and cross-entropy with a distribution -----------------------------------------------------------


def _exp_of_difference(a: Float64s, b: Float64s) -> Float64s:
    """Return exp(a - b), with the rounding error of a - b (Knuth's TwoSum) carried into the result."""
    d = a - b
    back = d - a
    error = (a - (d - back)) - (b + back)
    result: Float64s = np.exp(d) * (1 + np.where(np.isfinite(error), error, 0))
    return result


def _sums_of_others(a: Float64s) -> Float64s:
    """Return sum_{i != j} a_i for every j of a row of positive numbers.

    The sum of all less a_j is as good, unless a_j is more than half of it: that is formed by itself.
    """
    largest = np.argmax(a, axis=1, keepdims=True)
    others: Float64s = np.sum(a, axis=1, keepdims=True) - a
    without_largest = a.copy()
    np.put_along_axis(without_largest, largest, 0, axis=1)
    np.put_along_axis(others, largest, np.sum(without_largest, axis=1, keepdims=True), axis=1)
    return others


class Rows:
    """Rows of logits `z`, shape (N, K), and what the paper defines of them; `m` is the largest class of each.

    `lse` is their logsumexp if it is known from elsewhere: it replaces the one computed here.
    """

    def __init__(self, z: Float64s, lse: Float64s | None = None) -> None:
        self.z = z
        largest: Float64s = np.max(z, axis=1, keepdims=True)
        self.z_m: Float64s = np.where(np.isfinite(largest), largest, np.nan)  # nothing but -inf is no distribution
        self.exp = _exp_of_difference(z, self.z_m)
        self.others = _sums_of_others(self.exp)
        # exp(z_m - z_m) is one: the sum is that and the others
        others_than_m = np.take_along_axis(self.others, np.argmax(z, axis=1, keepdims=True), axis=1) + 0 * self.z_m
        self.log_sum: Float64s = np.log1p(others_than_m)
        self.sum: Float64s = 1 + others_than_m
        self.lse = self.z_m + self.log_sum
        if lse is not None:
            self.lse = lse
            self.sum = _exp_of_difference(lse, self.z_m)

    @cached_property
    def q(self) -> Float64s:
        """q_j = exp(z_j) / sum_i exp(z_i)."""
        return self.exp / self.sum

    @cached_property
    def q_others(self) -> Float64s:
        """1 - q_j = sum_{i != j} q_i."""
        return self.others / self.sum

    def surprisal(self) -> Float64s:
        """-ln q_j = ln sum_i exp(z_i) - z_j = (lse - z_m) + (z_m - z_j), two numbers that are not negative."""
        return self.log_sum + (self.z_m - self.z)

    def expected(self, b: Float64s, of: Float64s) -> Float64s:
        """Return sum_j b_j of_j, where a class of b_j = 0 adds nothing, even if of_j is infinite."""
        terms = np.where(b == 0, 0, b * of)
        result: Float64s = np.sum(terms, axis=1, keepdims=True) + 0 * self.z_m  # a NaN row is NaN
        return result

    def loss(self, b: Float64s) -> Float64s:
        """L = -sum_j b_j ln q_j; of the paper's one-hot b, -ln q_c."""
        return self.expected(b, self.surprisal())

    def grad(self, b: Float64s) -> Float64s:
        """dL/dz_j = W q_j - b_j with W = sum_i b_i; of the paper's one-hot b, q_j if j != c and q_c - 1 if j = c.

        It is sum_{i != j} b_i - W sum_{i != j} q_i, too: without cancellation for a one-hot b, and of smaller
        terms wherever b_j and q_j are large.
        """
        total: Float64s = np.sum(b, axis=1, keepdims=True)
        this, others = (total * self.q, b), (_sums_of_others(b), total * self.q_others)
        sizes = [np.abs(x) + np.abs(y) for x, y in (this, others)]
        return np.where(sizes[0] > sizes[1], others[0] - others[1], this[0] - this[1])

    def curvature(self, u: Float64s) -> Float64s:
        """d^2 lse/dz^2 u = (diag(q) - q q^T) u, in components q_j (u_j - q.u).

        u - q.u does not change with a constant added to u; -u_m makes that of m a sum over the others.
        """
        u = u - np.take_along_axis(u, np.argmax(self.z, axis=1, keepdims=True), axis=1)
        product: Float64s = self.q * (u - np.sum(self.q * u, axis=1, keepdims=True))
        return product


# ---- The options ---------------------------------------------------------------------------------------------------


class Transform(NamedTuple):
    """z = T(x) in each class, and its first and second derivative."""

    z: Float64s
    first: Float64s
    second: Float64s


def _transform(x: Float64s, scale: float, softcap: float | None) -> Transform:
    """T(x) = s x, with a softcap c tanh(s x / c); an infinite logit stays what it is.

    T' = s and T'' = 0; with a softcap T' = s sech^2 and T'' = -2 s^2 / c tanh sech^2, of s x / c.
    """
    if softcap is None:
        return Transform(scale * x, np.full_like(x, scale), np.zeros_like(x))
    tanh = np.tanh(scale * x / softcap)
    sech2 = np.cosh(scale * x / softcap) ** -2.0
    z = np.where(np.isinf(x), x, softcap * tanh)
    return Transform(z, scale * sech2, -2 * scale**2 / softcap * tanh * sech2)


def _one_hot(c: Classes, classes: int) -> Float64s:
    t = np.zeros((len(c), classes))
    np.put_along_axis(t, c[:, np.newaxis], 1, axis=1)
    return t


def _spread(indices: Classes, p: Float64s, unmasked: Bools, tail: str | None) -> Float64s:
    """Return sum_k p_k onehot(i_k); a uniform tail gives what is missing to one to unmasked classes not listed."""
    t = np.zeros(unmasked.shape)
    row = np.arange(len(t))[:, np.newaxis]
    np.add.at(t, (row, indices), p)
    if tail == "uniform":
        rest = unmasked.copy()
        rest[row, indices] = False
        missing = np.maximum(0, 1 - np.sum(p, axis=1, keepdims=True))
        t += np.where(rest, missing / np.sum(rest, axis=1, keepdims=True), 0)
    return t


class Problem:
    """All options in place: losses and derivatives of rows (N, K) with respect to the logits x."""

    def __init__(
        self,
        logits: ArrayLike,
        target: Any,
        axis: int,
        weight: ArrayLike | None,
        sample_weight: ArrayLike | None,
        ignore_index: int | None,
        class_mask: ArrayLike | None,
        label_smoothing: float,
        z_loss: float,
        scale: float,
        softcap: float | None,
        tail: str | None,
        reduction: str,
        denominator: float | None,
        grad_output: ArrayLike = 1.0,
        lse: ArrayLike | None = None,
    ) -> None:
        self.logits, self.axis, self.reduction, self.z_loss = _floats(logits), axis, reduction, z_loss
        x = _masked_rows(self.logits, axis, class_mask)
        rows, classes = x.shape

        # A row does not count if it is ignored or weighs nothing; its logits, whatever they are, are not looked at.
        self.v = _numbers(1.0 if sample_weight is None else sample_weight, rows)
        self.counts = self.v != 0
        labels = None if _is_distribution(target) else np.asarray(target).reshape(-1)
        if labels is not None and ignore_index is not None:
            self.counts &= labels != ignore_index
        x[~self.counts] = 0

        self.transform = _transform(x, scale, softcap)
        self.rows = Rows(self.transform.z, None if lse is None else _numbers(lse, rows)[:, np.newaxis])

        # The target distribution t, and b_j = w_j t_j
        unmasked = self.transform.z > -np.inf
        self.unmasked_classes: Float64s = np.sum(unmasked, axis=1, keepdims=True, dtype=np.float64)
        if labels is not None:
            labels = np.where(self.counts, labels, 0).astype(np.intp)
            t = _one_hot(labels, classes)
        elif isinstance(target, tuple):
            indices, p = (np.asarray(part) for part in target)
            t = _spread(_rows(indices, axis).astype(np.intp), _rows(p, axis), unmasked, tail)
        else:
            t = _rows(np.asarray(target), axis)
        if label_smoothing:
            t = (1 - label_smoothing) * t + np.where(unmasked, label_smoothing / self.unmasked_classes, 0)
        w = _numbers(1.0 if weight is None else weight, classes)
        self.b: Float64s = w * t
        self.total: Float64s = np.sum(self.b, axis=1, keepdims=True)

        # What the losses are divided by, and dl/dL of each
        self.divisor = np.float64(1)
        if reduction == "mean":
            weights = self.v if labels is None else self.v * w[labels]
            self.divisor = np.float64(np.sum(weights[self.counts]) if denominator is None else denominator)
        self.upstream = _numbers(grad_output, rows) * (1 / self.divisor if self.divisor else 0.0)

    def _of_rows_that_count(self, values: Float64s) -> Float64s:
        return np.where(self.counts[:, np.newaxis], values, 0)

    def loss(self) -> NDArray[Any]:
        """L = v ( sum_j b_j (lse - z_j) + lambda lse^2 ), reduced."""
        losses = self.rows.loss(self.b)
        if self.z_loss:
            losses += self.z_loss * self.rows.lse**2
        losses = self._of_rows_that_count(self.v[:, np.newaxis] * losses)
        if self.reduction == "none":
            return losses.reshape(_shape_of_rows(self.logits, self.axis))
        return np.asarray(np.sum(losses) / self.divisor if self.divisor else np.nan)

    @property
    def _dL_dz(self) -> Float64s:  # noqa: N802
        """( W + 2 lambda lse ) q_j - b_j, for v = 1."""
        return self.rows.grad(self.b) + self._twice_z_loss_lse * self.rows.q

    @property
    def _twice_z_loss_lse(self) -> Float64s | float:
        return 2 * self.z_loss * self.rows.lse if self.z_loss else 0.0

    @property
    def _dl_dL(self) -> Float64s:  # noqa: N802
        """dl/dL v, for each row."""
        return (self.upstream * self.v)[:, np.newaxis]

    def grad(self) -> Float64s:
        """dl/dx_j = dl/dL v dL/dz_j dz_j/dx_j."""
        return self._of_rows_that_count(self._dl_dL * self._dL_dz * self.transform.first)

    def hessian_times(self, u: Float64s) -> Float64s:
        """d^2 l/dx^2 u = dl/dL v ( T' (d^2 L/dz^2) T' u + dL/dz T'' u ), row by row.

        There d^2 L/dz^2 = (W + 2 lambda lse) (diag(q) - q q^T) + 2 lambda q q^T.
        """
        du = self.transform.first * u
        in_z = (self.total + self._twice_z_loss_lse) * self.rows.curvature(du)
        in_z += 2 * self.z_loss * self.rows.q * np.sum(self.rows.q * du, axis=1, keepdims=True)
        return self._of_rows_that_count(
            self._dl_dL * (self.transform.first * in_z + self._dL_dz * self.transform.second * u)
        )

    def hessian_diagonal(self) -> Float64s:
        """Return the diagonal of that: (diag(q) - q q^T)_jj is q_j (1 - q_j), (q q^T)_jj is q_j^2."""
        q, q_others = self.rows.q, self.rows.q_others
        in_z = (self.total + self._twice_z_loss_lse) * q * q_others + 2 * self.z_loss * q**2
        return self._of_rows_that_count(
            self._dl_dL * (self.transform.first**2 * in_z + self._dL_dz * self.transform.second)
        )

    def hessian_of_boosting(self, hessian: Hessian) -> Float64s:
        """Return what a library takes for the diagonal: a multiple of h = dl/dL v W T'^2 q_j (1 - q_j)."""
        h = self._dl_dL * self.total * self.transform.first**2 * self.rows.q * self.rows.q_others
        if hessian == "xgboost":
            return self._of_rows_that_count(np.maximum(2 * h, 1e-16))
        return self._of_rows_that_count(h * self.unmasked_classes / np.maximum(self.unmasked_classes - 1, 1))


# ---- Arrays: any axis and dtype to rows of float64, and back --------------------------------------------------------


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.name == "bfloat16"  # NumPy does not know it: the dtype is that of the package ml_dtypes


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or _is_bfloat16(dtype)


def _floats(x: ArrayLike) -> NDArray[Any]:
    array = np.asarray(x)
    return array if _is_float(array.dtype) else array.astype(np.float64)


def _is_distribution(target: Any) -> bool:
    """Whether the target is probabilities, or a tuple of indices and probabilities, and not labels."""
    return isinstance(target, tuple) or _is_float(np.asarray(target).dtype)


def _dtype_of_values(logits: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype of what there is one of for each logit."""
    return logits.dtype.newbyteorder("=")


def _dtype_of_sums(logits: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype of losses and all else that is one number for each row: float32 for half precision."""
    return np.dtype(np.float32) if logits.dtype.itemsize == 2 else _dtype_of_values(logits)


def _shape_of_rows(logits: NDArray[Any], axis: int) -> tuple[int, ...]:
    return np.moveaxis(logits, axis, -1).shape[:-1]


def _numbers(values: ArrayLike, count: int) -> Float64s:
    """Return `count` numbers, of so many given or of one."""
    return np.broadcast_to(np.asarray(values).astype(np.float64).reshape(-1), count)


def _rows(array: NDArray[Any], axis: int) -> Float64s:
    """Return the array as rows of classes, shape (N, K)."""
    classes_last = np.moveaxis(array, axis, -1)
    contiguous = classes_last.astype(np.float64, order="C")  # NumPy sums pairwise along contiguous rows only
    rows: Float64s = contiguous.reshape(-1, classes_last.shape[-1])
    return rows


def _masked_rows(logits: NDArray[Any], axis: int, class_mask: ArrayLike | None) -> Float64s:
    """Return the logits as rows, -inf where a class does not take part."""
    rows = _rows(logits, axis)
    if class_mask is None:
        return rows
    mask = np.asarray(class_mask)
    if mask.ndim == 1:  # one for each class, whichever axis is theirs
        return np.where(mask, rows, -np.inf)
    return np.where(_rows(np.broadcast_to(mask, logits.shape), axis), rows, -np.inf)


def _unrows(rows: NDArray[Any], logits: NDArray[Any], axis: int) -> NDArray[Any]:
    """Undo `_rows`; the class axis may have another length than that of the logits."""
    shape = (*_shape_of_rows(logits, axis), rows.shape[-1])
    return np.moveaxis(rows.reshape(shape), -1, axis)


@quiet
def _result(values: NDArray[Any], dtype: np.dtype[Any], out: NDArray[Any] | None = None) -> Any:
    """Return the values rounded, in `out` if it is given, which may be wider."""
    if out is None:
        return values.astype(dtype)[()]
    out[...] = values.astype(out.dtype)
    return out


# ---- The functions of xent -----------------------------------------------------------------------------------------


@quiet
def cross_entropy(
    logits: ArrayLike,
    target: Any,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001 - the signature of xent.cross_entropy
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> Any:
    """Compute what `xent.cross_entropy` computes."""
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator),
    )
    return _result(problem.loss(), _dtype_of_sums(problem.logits), out)


@quiet
def cross_entropy_and_grad(
    logits: ArrayLike,
    target: Any,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001
    grad_output: ArrayLike = 1.0,
    loss_out: NDArray[Any] | None = None,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> tuple[Any, NDArray[Any]]:
    """Compute what `xent.cross_entropy_and_grad` computes."""
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator, grad_output),
    )
    loss, grad = problem.loss(), _unrows(problem.grad(), problem.logits, axis)
    return (
        _result(loss, _dtype_of_sums(problem.logits), loss_out),
        _result(grad, _dtype_of_values(problem.logits), grad_out),
    )


@quiet
def cross_entropy_grad(
    logits: ArrayLike,
    target: Any,
    *,
    lse: ArrayLike | None = None,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.cross_entropy_grad` computes."""
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator, grad_output, lse),
    )
    grad = _unrows(problem.grad(), problem.logits, axis)
    return _result(grad, _dtype_of_values(problem.logits), grad_out)  # type: ignore[no-any-return]


@quiet
def cross_entropy_grad_hess(
    logits: ArrayLike,
    target: Any,
    *,
    hessian: Hessian = "exact",
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    hess_out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute the gradient, and the diagonal of the Hessian or what libraries of boosted trees take for it.

    With h_j = dl/dL v W q_j (1 - q_j), without options just q_j (1 - q_j):

    - "exact": the second derivatives themselves, h_j and what z_loss and softcap add.
    - "xgboost": max(2 h_j, 1e-16) in the rows that count, as XGBoost's ``multi:softprob`` has it
      (``GetGradient`` in its src/objective/multiclass_obj.cu: ``fmax(2 p (1 - p) wt, eps)``).
    - "lightgbm": K / (K - 1) h_j, as LightGBM's ``multiclass`` has it (``factor_`` in ``MulticlassSoftmax``, its
      src/objective/multiclass_objective.hpp, after Friedman 2001, "Greedy Function Approximation: A Gradient
      Boosting Machine", section 4.6); K are the unmasked classes.
    """
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator, grad_output),
    )
    hess = problem.hessian_diagonal() if hessian == "exact" else problem.hessian_of_boosting(hessian)
    dtype = _dtype_of_values(problem.logits)
    return (
        _result(_unrows(problem.grad(), problem.logits, axis), dtype, grad_out),
        _result(_unrows(hess, problem.logits, axis), dtype, hess_out),
    )


@quiet
def cross_entropy_hvp(
    logits: ArrayLike,
    target: Any,
    vector: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001
    grad_output: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute the Hessian of the reduced loss times a vector of the shape of the logits."""
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator, grad_output),
    )
    product = problem.hessian_times(_rows(np.asarray(vector), axis))
    return _result(_unrows(product, problem.logits, axis), _dtype_of_values(problem.logits), out)  # type: ignore[no-any-return]


@quiet
def cross_entropy_hessian(
    logits: ArrayLike,
    target: Any,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    reduction: str = "mean",
    denominator: float | None = None,
    validate: bool = False,  # noqa: ARG001
    grad_output: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute the blocks of the Hessian: its products with the unit vector of each class, beside each other."""
    problem = Problem(
        *(logits, target, axis, weight, sample_weight, ignore_index, class_mask, label_smoothing),
        *(z_loss, scale, softcap, tail, reduction, denominator, grad_output),
    )
    classes = problem.logits.shape[axis]
    blocks = np.stack([problem.hessian_times(unit) for unit in np.eye(classes)], axis=-1)
    shape = (*_shape_of_rows(problem.logits, axis), classes, classes)
    return _result(blocks.reshape(shape), _dtype_of_values(problem.logits), out)  # type: ignore[no-any-return]


@quiet
def softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.softmax` computes."""
    logits = _floats(x)
    q = Rows(scale * _rows(logits, axis)).q
    return _result(_unrows(q, logits, axis), _dtype_of_values(logits), out)  # type: ignore[no-any-return]


@quiet
def log_softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> NDArray[Any]:
    """Compute what `xent.log_softmax` computes."""
    logits = _floats(x)
    log_q = -Rows(scale * _rows(logits, axis)).surprisal()
    return _result(_unrows(log_q, logits, axis), _dtype_of_values(logits), out)  # type: ignore[no-any-return]


@quiet
def logsumexp(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> Any:
    """Compute what `xent.logsumexp` computes."""
    logits = _floats(x)
    lse = Rows(scale * _rows(logits, axis)).lse
    return _result(lse.reshape(_shape_of_rows(logits, axis)), _dtype_of_sums(logits), out)


class Evaluation(NamedTuple):
    """What `evaluate` finds of each row: its shape is that of the logits without the class axis.

    The two of the best classes have the class axis, of length `top_k`.
    """

    log_prob: Any
    """ln q_c of the label, None without labels."""
    lse: Any
    """ln sum_j exp(z_j)."""
    argmax: Any
    """The first of the largest classes."""
    rank: Any
    """How many classes are before the label: larger, or equal and of smaller index. None without labels."""
    entropy: Any
    """-sum_j q_j ln q_j."""
    top_k_log_probs: NDArray[Any]
    """ln q_j of the largest classes, from the largest on; -inf where there are too few."""
    top_k_indices: NDArray[Any]
    """These classes, -1 where there are too few."""


@quiet
def evaluate(
    logits: ArrayLike,
    target: ArrayLike | None = None,
    *,
    axis: int = -1,
    class_mask: ArrayLike | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    top_k: int = 0,
    outputs: Iterable[str] | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> Evaluation:
    """Compute what `xent.evaluate` computes; a row that is NaN has NaN, and -1 for a class or rank."""
    given = _floats(logits)
    x = _masked_rows(given, axis, class_mask)
    rows = Rows(_transform(x, scale, softcap).z)
    bad = np.isnan(rows.z_m)
    log_q = -rows.surprisal()
    entropy = -rows.expected(rows.q, log_q)

    order = np.where(bad, -1, np.argsort(-x, axis=1, stable=True))  # of the logits as they are: T may round two to one
    rank = log_prob = None
    if target is not None:
        labels = np.asarray(target).astype(np.intp).reshape(-1, 1)
        rank = np.where(bad, -1, np.argmax(order == labels, axis=1, keepdims=True))
        log_prob = np.take_along_axis(log_q, labels, axis=1)

    best = np.full((len(x), top_k), -1)
    best_log_q = np.full((len(x), top_k), -np.inf) + 0 * rows.z_m
    found = min(top_k, x.shape[1])
    best_log_q[:, :found] = np.take_along_axis(log_q, order[:, :found], axis=1)
    best[:, :found] = np.where(np.isneginf(best_log_q[:, :found]), -1, order[:, :found])

    def per_row(values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(_shape_of_rows(given, axis))

    floats = _dtype_of_sums(given)
    found = Evaluation(
        log_prob=None if log_prob is None else _result(per_row(log_prob), floats),
        lse=_result(per_row(rows.lse), floats),
        argmax=per_row(order[:, :1])[()],
        rank=None if rank is None else per_row(rank)[()],
        entropy=_result(per_row(entropy), floats),
        top_k_log_probs=_result(_unrows(best_log_q, given, axis), floats),
        top_k_indices=_unrows(best, given, axis),
    )
    of_rows = {"log_prob", "lse", "argmax", "rank", "entropy"}
    absent: dict[str, Any] = dict.fromkeys(of_rows - set(of_rows if outputs is None else outputs))
    return found._replace(**absent)


class PartialStatistics:
    """Some of the classes of rows: here the logits themselves, which say all there is to know of them.

    `shards` are by their first class: (logits, target, weight, class_mask), each as it was given but for None.
    """

    def __init__(self, shards: dict[int, tuple[NDArray[Any], Any, Float64s, Bools]], options: dict[str, Any]) -> None:
        self.shards, self.options = shards, options

    def _whole(self) -> dict[str, Any]:
        """Return the arguments of whole rows: all shards beside each other, in order of their classes."""
        axis = self.options["axis"]
        logits, targets, weights, masks = zip(*(self.shards[first] for first in sorted(self.shards)), strict=True)
        target = targets[0]
        if target is None:  # any will do for the logsumexp
            target = np.zeros(_shape_of_rows(logits[0], axis), np.intp)
        elif not isinstance(target, tuple) and _is_distribution(target):
            target = np.concatenate(targets, axis=axis)
        return {
            **self.options,
            "logits": np.concatenate(logits, axis=axis),
            "target": target,
            "weight": np.concatenate(weights),
            "class_mask": np.concatenate(masks, axis=axis),
        }

    def finish(
        self,
        *,
        reduction: str = "mean",
        denominator: float | None = None,
        out: NDArray[Any] | None = None,
        n_threads: int | None = None,  # noqa: ARG002
    ) -> Any:
        """Compute what the method of `xent.PartialStatistics` computes."""
        return cross_entropy(**self._whole(), reduction=reduction, denominator=denominator, out=out)

    @quiet
    def logsumexp(self, *, out: NDArray[Any] | None = None, n_threads: int | None = None) -> Any:  # noqa: ARG002
        """Compute what the method of `xent.PartialStatistics` computes."""
        problem = Problem(**self._whole(), reduction="none", denominator=None)
        lse = np.where(problem.counts, problem.rows.lse[:, 0], 0)
        shape = _shape_of_rows(problem.logits, problem.axis)
        return _result(lse.reshape(shape), _dtype_of_sums(problem.logits), out)

    def grad(
        self,
        logits: ArrayLike,
        target: ArrayLike | None = None,  # noqa: ARG002 - all but the shape of the logits is known
        *,
        offset: int = 0,
        weight: ArrayLike | None = None,  # noqa: ARG002
        class_mask: ArrayLike | None = None,  # noqa: ARG002
        reduction: str = "mean",
        denominator: float | None = None,
        grad_output: ArrayLike = 1.0,
        grad_out: NDArray[Any] | None = None,
        n_threads: int | None = None,  # noqa: ARG002
    ) -> NDArray[Any]:
        """Compute what the method of `xent.PartialStatistics` computes."""
        axis = self.options["axis"]
        grad = cross_entropy_grad(
            **self._whole(), reduction=reduction, denominator=denominator, grad_output=grad_output
        )
        classes = range(offset, offset + _floats(logits).shape[axis])
        return _result(np.take(grad, classes, axis), grad.dtype, grad_out)  # type: ignore[no-any-return]


def partial_statistics(
    logits: ArrayLike,
    target: Any = None,
    *,
    offset: int = 0,
    classes: int | None = None,  # noqa: ARG001
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    class_mask: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float | None = None,
    tail: str | None = None,
    n_threads: int | None = None,  # noqa: ARG001
) -> PartialStatistics:
    """Take a shard of the classes."""
    array = _floats(logits)
    mask = np.ones(array.shape, np.bool_)
    if class_mask is not None:
        mask = _unrows(_masked_rows(np.zeros(array.shape), axis, class_mask) == 0, array, axis)
    w = np.array(_numbers(1.0 if weight is None else weight, array.shape[axis]))
    options = {
        "axis": axis,
        "sample_weight": sample_weight,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "scale": scale,
        "softcap": softcap,
        "tail": tail,
    }
    return PartialStatistics({offset: (array, target, w, mask)}, options)


def merge_statistics(parts: Iterable[PartialStatistics]) -> PartialStatistics:
    """Collect shards of the same rows."""
    all_parts = list(parts)
    return PartialStatistics({k: v for part in all_parts for k, v in part.shards.items()}, all_parts[0].options)
