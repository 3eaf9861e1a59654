"""What the user may ask: checks the arguments, makes one problem of them, and hands back what they asked for.

No arithmetic on logits is done here: the formulas are in ``csrc/finish.c``, the loops in ``csrc/rows.inc.h``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xent import _arrays, _core

REDUCTIONS = ("mean", "sum", "none")

Loss = Any  # a float32 or float64 scalar, or an array of them


def _threads(n_threads: int | None) -> int:
    """Return the largest team to use; 0 is what `get_num_threads` says, if the problem is large enough to ask."""
    return 0 if n_threads is None else _arrays.threads("n_threads", n_threads)


class _Rows:
    """Logits and targets, checked."""

    def __init__(self, logits: ArrayLike, target: ArrayLike, axis: int) -> None:
        self.logits = _arrays.floats("logits", logits)
        self.axis = axis
        self.classes_last = _arrays.classes_last("logits", self.logits, axis)
        self.shape = self.classes_last.shape[:-1]
        self.dtype = self.logits.dtype
        self.count = self.classes_last.size // self.classes_last.shape[-1]
        self.target = _arrays.labels("target", target, self.shape, self.logits.shape)

    def upstream(self, grad_output: ArrayLike, reduction: str) -> tuple[float, NDArray[np.float64] | None]:
        """Return dl/dL of every row's loss: one number, or one for each row."""
        given = np.shape(grad_output) if grad_output is not None else ()
        per_row = self.shape if reduction == "none" and given != () else ()
        values = _arrays.row_floats("grad_output", grad_output, per_row)
        if per_row:
            return 1.0, values
        scalar = float(values)
        return (scalar / self.count if reduction == "mean" and self.count else scalar), None

    def values(self, name: str, out: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the array for a gradient, and a view with the classes last."""
        if out is None:
            out = np.empty_like(self.logits, subok=False)
        else:
            array = _arrays.output(name, out, self.logits.shape, self.dtype)
            if not _arrays.same_elements(array, self.logits):
                self.classes_last = _arrays.apart_from(array, self.classes_last)
            self.target = _arrays.apart_from(array, self.target)
        return out, _arrays.classes_last(name, np.asarray(out), self.axis)

    def check_loss_out(self, name: str, out: NDArray[Any] | None, reduction: str) -> None:
        if out is not None:
            _arrays.output(name, out, self.shape if reduction == "none" else (), self.dtype)

    def given(self, losses: NDArray[np.float64], reduced: float, reduction: str, out: NDArray[Any] | None) -> Loss:
        """Return the losses, or what they are reduced to, in the dtype of the logits, in `out` if it is given."""
        result: Any = losses if reduction == "none" else np.float64(reduced)
        with np.errstate(over="ignore"):  # a loss beyond the largest float32 is infinite
            if out is None:
                return result.astype(self.dtype, copy=False)[()]
            np.copyto(out, result, casting="same_kind")
        return out


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    reduction: str = "mean",
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> Loss:
    r"""Compute the softmax cross-entropy of logits against the index of the correct class.

    .. math:: L = -\ln q_c = \ln \Big( \sum_j e^{x_j} \Big) - x_c, \qquad q = \mathrm{softmax}(x)

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"), evaluated as
    :math:`\ln(1 + \sum_{j \ne c} e^{x_j - x_c})`, which does not cancel when the row is confident.

    Parameters
    ----------
    logits : array_like of float32 or float64, shape (..., K, ...)
        The unnormalised log-probabilities. Any strides. Integers are taken as float64. A logit of
        ``-inf`` masks its class.
    target : array_like of integers, the shape of `logits` without `axis`
        The correct class c of every row, ``0 <= c < K``.
    axis : int
        The axis of `logits` that holds the K classes.
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of the rows. Both reductions are summed in float64, in an order that
        depends on the number of rows alone.
    out : ndarray, optional
        Where to write the result; it has the result's shape (``()`` for "mean" and "sum") and the dtype
        of `logits`.
    n_threads : int, optional
        The largest number of threads to use; by default that of `get_num_threads`. The result does
        not depend on it.

    Returns
    -------
    float32 or float64, or an array of them
        In the dtype of `logits`, in nats: a scalar for "mean" and "sum" (NaN and 0 when there are no
        rows), the shape of `target` for "none". `out` itself if it is given. ``inf`` where the target's
        logit is ``-inf``; NaN in a row that has a NaN, ``+inf``, or nothing but ``-inf``.

    Raises
    ------
    IndexError
        If a target is negative or not less than K.
    ValueError
        If a shape, `axis`, `reduction` or `n_threads` does not fit.
    TypeError
        If a dtype is not supported.
    MemoryError
        If there is no memory for the threads' workspace. After any error, `out` is as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]])
    >>> xent.cross_entropy(logits, [0, 1], reduction="none")
    array([4.07605964e-01, 1.87152459e-13])
    """
    if out is None:
        loss = _core.run_plain(logits, target, axis, reduction, 1.0, None, False, n_threads)
        if loss is not None:
            return loss
    _arrays.choice("reduction", reduction, REDUCTIONS)
    rows = _Rows(logits, target, axis)
    rows.check_loss_out("out", out, reduction)
    losses = np.empty(rows.shape)
    mean = reduction == "mean"
    reduced = _core.run(rows.classes_last, target=rows.target, loss=losses, mean=mean, threads=_threads(n_threads))
    return rows.given(losses, reduced, reduction, out)


def cross_entropy_and_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    reduction: str = "mean",
    grad_output: ArrayLike = 1.0,
    loss_out: NDArray[Any] | None = None,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> tuple[Loss, NDArray[Any]]:
    r"""Compute the softmax cross-entropy and its gradient with respect to the logits, in one pass.

    .. math:: L = -\ln q_c, \qquad
       \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} (q_i - [i = c])

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"). The component of the
    correct class is evaluated as :math:`-\sum_{j \ne c} q_j`, which does not cancel when the row is
    confident.

    Parameters
    ----------
    logits, target, axis, reduction, n_threads
        As in `cross_entropy`.
    grad_output : float or array_like of real numbers
        :math:`\partial \ell / \partial L`, by which the gradient is multiplied: a scalar, or for the
        reduction "none" also one number for each row, in the shape of `target`.
    loss_out : ndarray, optional
        Where to write the loss; as `out` in `cross_entropy`.
    grad_out : ndarray, optional
        Where to write the gradient: the shape and dtype of `logits`. It may be `logits` itself. If it
        overlaps an input in any other way, the result is as if the input had been copied first.

    Returns
    -------
    loss : float32 or float64, or an array of them
        As from `cross_entropy`.
    grad : ndarray, the shape and dtype of `logits`
        The gradient of the reduced loss. For the reduction "mean" it is divided by the number of rows.
        Exactly 0 where the logit is ``-inf`` and not the target's.

    Raises
    ------
    IndexError, ValueError, TypeError, MemoryError
        As `cross_entropy`. After any error, `loss_out` and `grad_out` are as they were.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]], dtype=np.float32)
    >>> loss, grad = xent.cross_entropy_and_grad(logits, [0, 1], reduction="sum")
    >>> loss
    np.float32(0.40760598)
    >>> grad
    array([[-3.3475906e-01,  2.4472846e-01,  9.0030573e-02],
           [ 9.3576229e-14, -1.8715246e-13,  9.3576229e-14]], dtype=float32)
    """
    if loss_out is None:
        both = _core.run_plain(logits, target, axis, reduction, grad_output, grad_out, True, n_threads)
        if both is not None:
            return both  # type: ignore[no-any-return]
    _arrays.choice("reduction", reduction, REDUCTIONS)
    rows = _Rows(logits, target, axis)
    upstream_scalar, upstream = rows.upstream(grad_output, reduction)
    rows.check_loss_out("loss_out", loss_out, reduction)
    grad, values = rows.values("grad_out", grad_out)
    if loss_out is not None and _arrays.overlap(loss_out, values):
        raise ValueError("loss_out and grad_out share memory")
    losses = np.empty(rows.shape)
    reduced = _core.run(
        rows.classes_last,
        output=_core.GRADIENT,
        values=values,
        target=rows.target,
        upstream_scalar=upstream_scalar,
        upstream=upstream if upstream is None else _arrays.apart_from(values, upstream),
        loss=losses,
        mean=reduction == "mean",
        threads=_threads(n_threads),
    )
    return rows.given(losses, reduced, reduction, loss_out), grad


def cross_entropy_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    lse: ArrayLike | None = None,
    axis: int = -1,
    reduction: str = "mean",
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the gradient of the softmax cross-entropy with respect to the logits.

    .. math:: \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} (q_i - [i = c]),
       \qquad q_i = e^{x_i - \mathrm{lse}}

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function").

    Parameters
    ----------
    logits, target, axis, reduction, grad_output, grad_out, n_threads
        As in `cross_entropy_and_grad`.
    lse : array_like of real numbers, the shape of `target`, optional
        The rows' `logsumexp`, if it is known from the forward pass. The gradient is as accurate as it:
        an error of d in the lse changes each component by a factor of ``exp(-d)``.

    Returns
    -------
    ndarray, the shape and dtype of `logits`
        As the gradient from `cross_entropy_and_grad`.

    Raises
    ------
    IndexError, ValueError, TypeError, MemoryError
        As `cross_entropy`. After any error, `grad_out` is as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0]])
    >>> xent.cross_entropy_grad(logits, [0])
    array([[-0.33475904,  0.24472847,  0.09003057]])
    >>> xent.cross_entropy_grad(logits, [0], lse=xent.logsumexp(logits))
    array([[-0.33475904,  0.24472847,  0.09003057]])
    """
    _arrays.choice("reduction", reduction, REDUCTIONS)
    rows = _Rows(logits, target, axis)
    upstream_scalar, upstream = rows.upstream(grad_output, reduction)
    saved_lse = None if lse is None else _arrays.row_floats("lse", lse, rows.shape)
    grad, values = rows.values("grad_out", grad_out)
    _core.run(
        rows.classes_last,
        output=_core.GRADIENT,
        values=values,
        target=rows.target,
        upstream_scalar=upstream_scalar,
        upstream=upstream if upstream is None else _arrays.apart_from(values, upstream),
        lse_in=saved_lse if saved_lse is None else _arrays.apart_from(values, saved_lse),
        threads=_threads(n_threads),
    )
    return grad


def _map_rows(output: int, x: ArrayLike, axis: int, out: NDArray[Any] | None, n_threads: int | None) -> NDArray[Any]:
    """Compute softmax or log_softmax."""
    logits = _arrays.floats("x", x)
    classes_last = _arrays.classes_last("x", logits, axis)
    if out is None:
        out = np.empty_like(logits, subok=False)
    else:
        array = _arrays.output("out", out, logits.shape, logits.dtype)
        if not _arrays.same_elements(array, logits):
            classes_last = _arrays.apart_from(array, classes_last)
    values = _arrays.classes_last("out", np.asarray(out), axis)
    _core.run(classes_last, output=output, values=values, threads=_threads(n_threads))
    return out


def softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the softmax of logits.

    .. math:: q_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function").

    Parameters
    ----------
    x : array_like of float32 or float64, shape (..., K, ...)
        The logits. Any strides. Integers are taken as float64.
    axis : int
        The axis of `x` that holds the K classes.
    out : ndarray, optional
        Where to write the result: the shape and dtype of `x`. It may be `x` itself. If it overlaps `x`
        in any other way, the result is as if `x` had been copied first.
    n_threads : int, optional
        The largest number of threads to use; by default that of `get_num_threads`. The result does
        not depend on it.

    Returns
    -------
    ndarray, the shape and dtype of `x`
        `out` if it is given. NaN in a row that has a NaN, ``+inf``, or nothing but ``-inf``.

    Raises
    ------
    ValueError
        If a shape, `axis` or `n_threads` does not fit.
    TypeError
        If a dtype is not supported.
    MemoryError
        If there is no memory for the threads' workspace. After any error, `out` is as it was.

    Examples
    --------
    >>> import xent
    >>> xent.softmax([2.0, 1.0, 0.0])
    array([0.66524096, 0.24472847, 0.09003057])
    """
    return _map_rows(_core.SOFTMAX, x, axis, out, n_threads)


def log_softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the logarithm of the softmax of logits.

    .. math:: \ln q_i = x_i - \ln \sum_j e^{x_j}

    (the logarithm of Khungurn 2018's softmax).

    Parameters
    ----------
    x, axis, out, n_threads
        As in `softmax`.

    Returns
    -------
    ndarray, the shape and dtype of `x`
        `out` if it is given. NaN in a row that has a NaN, ``+inf``, or nothing but ``-inf``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `softmax`.

    Examples
    --------
    >>> import xent
    >>> xent.log_softmax([2.0, 1.0, 0.0])
    array([-0.40760596, -1.40760596, -2.40760596])
    """
    return _map_rows(_core.LOG_SOFTMAX, x, axis, out, n_threads)


def logsumexp(
    x: ArrayLike,
    *,
    axis: int = -1,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> Any:
    r"""Compute the logarithm of the sum of the exponentials of logits.

    .. math:: \mathrm{lse} = \ln \sum_j e^{x_j}

    (the normaliser of Khungurn 2018's softmax).

    Parameters
    ----------
    x, axis, n_threads
        As in `softmax`.
    out : ndarray, optional
        Where to write the result: the shape of `x` without `axis`, and its dtype.

    Returns
    -------
    float32 or float64, or an array of them
        The shape of `x` without `axis`. `out` if it is given. NaN for a row that has a NaN, ``+inf``,
        or nothing but ``-inf``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `softmax`.

    Examples
    --------
    >>> import xent
    >>> xent.logsumexp([[2.0, 1.0, 0.0], [1000.0, 1000.0, 1000.0]])
    array([   2.40760596, 1001.09861229])
    """
    logits = _arrays.floats("x", x)
    classes_last = _arrays.classes_last("x", logits, axis)
    shape = classes_last.shape[:-1]
    if out is not None:
        _arrays.output("out", out, shape, logits.dtype)
    lse = np.empty(shape)
    _core.run(classes_last, lse=lse, threads=_threads(n_threads))
    if out is None:
        return lse.astype(logits.dtype, copy=False)[()]
    np.copyto(out, lse, casting="same_kind")
    return out
