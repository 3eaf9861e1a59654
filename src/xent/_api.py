"""What the user may ask: checks the arguments, makes one problem of them, and hands back what they asked for.

No arithmetic on logits is done here: the formulas are in ``csrc/finish.inc.h``, the loops in ``csrc/rows.inc.h``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xent import _arrays, _core

REDUCTIONS = ("mean", "sum", "none")
TAILS = ("zero", "uniform")
MOST_IN_BLOCKS = 2**31  # elements of all blocks of a Hessian: 16 GiB of float64

Loss = Any  # a float32 or float64 scalar, or an array of them
Sparse = tuple[ArrayLike, ArrayLike]


def _threads(n_threads: int | None) -> int:
    """Return the largest team to use; 0 is what `get_num_threads` says, if the problem is large enough to ask."""
    return 0 if n_threads is None else _arrays.threads("n_threads", n_threads)


def _dtypes(logits: NDArray[Any]) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the dtype of what has the shape of the logits, and that of what there is once for a row."""
    dtype = logits.dtype.newbyteorder("=")
    return dtype, np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def _values(
    name: str, out: NDArray[Any] | None, logits: NDArray[Any], axis: int, inputs: dict[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the array for results in the shape of the logits, and a view with the classes last.

    Of the `inputs` those are copied that would change while it is written. The logits in its very place
    would not: a row is read before it is written.
    """
    dtypes = _dtypes(logits)
    if out is None:
        out = np.empty_like(logits, dtypes[0], subok=False)
        return out, _arrays.classes_last(name, out, axis)
    values = _arrays.classes_last(name, _arrays.output(name, out, logits.shape, *dict.fromkeys(dtypes)), axis)
    for key, array in inputs.items():
        if key != "logits" or not _arrays.same_elements(values, array):
            inputs[key] = _arrays.apart_from(values, array)
    return out, values


class _Problem:
    """What is asked of rows of logits, its arguments checked: all there is to say to the core but where results go.

    `arrays` and `numbers` are the arguments of `_core.run`, by its names. `rows` are the logits with the classes last.
    """

    def __init__(
        self, logits: NDArray[Any], rows: NDArray[Any], axis: int, reduction: str, denominator: float | None
    ) -> None:
        self.reduction = _arrays.choice("reduction", reduction, REDUCTIONS)
        self.numbers: dict[str, Any] = {"mean": reduction == "mean"}
        if denominator is not None:
            self.numbers["denominator"] = _arrays.number("denominator", denominator, above=0)
            if reduction != "mean":
                raise ValueError(f"denominator is for the reduction 'mean', not for {reduction!r}")
        self.axis = axis
        self.logits = logits
        self.shape = rows.shape[:-1]
        self.arrays: dict[str, Any] = {"logits": rows}

    def set_class_options(self, weight: ArrayLike | None, class_mask: ArrayLike | None) -> None:
        if weight is not None:
            of_classes = _arrays.weights("weight", weight, self.arrays["logits"].shape[-1:], "the classes")
            self.arrays["weight"] = np.require(of_classes, requirements=["C", "A"])
        if class_mask is not None:
            self.arrays["mask"] = _arrays.class_mask("class_mask", class_mask, self.logits, self.axis)

    def set_upstream(self, grad_output: ArrayLike) -> None:
        """Take dl/dL of every row's loss: one number, or one for each row."""
        given = np.shape(grad_output) if grad_output is not None else ()
        per_row = self.shape if self.reduction == "none" and given != () else ()
        losses = "the losses" if self.reduction == "none" else f"losses reduced by {self.reduction!r}"
        upstream = _arrays.row_floats("grad_output", grad_output, per_row, losses)
        if per_row:
            self.arrays["upstream"] = upstream
        else:
            self.numbers["upstream_scalar"] = float(upstream)

    def check_loss_out(self, name: str, out: NDArray[Any] | None) -> None:
        if out is not None:
            _arrays.output(name, out, self.shape if self.reduction == "none" else (), _dtypes(self.logits)[1])

    def set_grad_out(self, name: str, out: NDArray[Any] | None) -> NDArray[Any]:
        """Ask for the gradient, and return where it will be."""
        self.numbers["output"] = _core.GRADIENT
        out, self.arrays["values"] = _values(name, out, self.logits, self.axis, self.arrays)
        return out

    def set_second_out(
        self, grad_out: NDArray[Any] | None, hess_out: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ask for the gradient and the curvature, and return where they will be."""
        grad = self.set_grad_out("grad_out", grad_out)
        values = self.arrays.pop("values")
        hess, curvature = _values("hess_out", hess_out, self.logits, self.axis, self.arrays)
        if _arrays.overlap(grad, hess):
            raise ValueError("grad_out and hess_out share memory")
        self.arrays |= {"values": values, "curvature": curvature}
        return grad, hess

    def set_vector(self, vector: ArrayLike) -> None:
        """Take what the Hessian is to be multiplied by."""
        array = _arrays.floats("vector", vector)
        if array.shape != self.logits.shape:
            raise ValueError(f"vector has shape {array.shape}, but the logits have shape {self.logits.shape}")
        self.arrays["vector"] = _arrays.classes_last("vector", array, self.axis)

    def set_blocks_out(self, name: str, out: NDArray[Any] | None) -> NDArray[Any]:
        """Return where the blocks of the Hessian will be."""
        classes = self.arrays["logits"].shape[-1]
        shape = (*self.shape, classes, classes)
        size = math.prod(shape)
        if size > MOST_IN_BLOCKS:
            raise ValueError(
                f"the blocks of the Hessian, of shape {shape}, would have {size} elements, more than "
                f"{MOST_IN_BLOCKS}: use cross_entropy_hvp, or cross_entropy_grad_hess for their diagonal"
            )
        dtypes = _dtypes(self.logits)
        if out is None:
            return np.empty(shape, dtypes[0])
        blocks = _arrays.output(name, out, shape, *dict.fromkeys(dtypes))
        for key, array in self.arrays.items():
            self.arrays[key] = _arrays.apart_from(blocks, array)
        return out

    def run_for_blocks(self, n_threads: int | None, blocks: NDArray[Any]) -> None:
        """Compute the blocks of the Hessian, as products with the unit vectors."""
        unit_vectors = np.eye(blocks.shape[-1], dtype=_dtypes(self.logits)[1])
        for i, vector in enumerate(unit_vectors):
            self.arrays["vector"] = np.broadcast_to(vector, self.arrays["logits"].shape)
            self.arrays["values"] = blocks[..., i, :]
            self.run(n_threads)
            blocks[..., i, :i] = blocks[..., :i, i]  # which the products agree on but for their rounding

    def run(self, n_threads: int | None, losses: NDArray[np.float64] | None = None) -> float:
        """Compute the gradient, if it was asked for, and the losses, and return these reduced."""
        return _core.run(**self.arrays, **self.numbers, loss=losses, threads=_threads(n_threads))

    def run_for_loss(self, n_threads: int | None, out: NDArray[Any] | None) -> Loss:
        """Compute the same and return the losses reduced and in their dtype, in `out` if it is given."""
        losses = np.empty(self.shape)
        total = self.run(n_threads, losses)
        result: Any = losses if self.reduction == "none" else np.float64(total)
        with _arrays.rounding():
            if out is None:
                return result.astype(_dtypes(self.logits)[1], copy=False)[()]
            np.copyto(out, result, casting="same_kind")
        return out


class _Loss(_Problem):
    """A loss of rows of logits, with options."""

    def __init__(
        self,
        logits: ArrayLike,
        target: ArrayLike | Sparse | None,
        *,
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
        validate: bool,
        needs_target: bool = True,
    ) -> None:
        array = _arrays.floats("logits", logits)
        rows = _arrays.classes_last("logits", array, axis)
        super().__init__(array, rows, axis, reduction, denominator)
        self.numbers |= {
            "label_smoothing": _arrays.number("label_smoothing", label_smoothing, least=0, most=1),
            "z_loss": _arrays.number("z_loss", z_loss, least=0),
            "scale": _arrays.scale("scale", scale),
        }
        if softcap is not None:
            self.numbers["softcap"] = _arrays.scale("softcap", softcap)
        if target is not None or needs_target:
            self.arrays |= _arrays.targets("target", target, self.logits, axis)
        if sample_weight is not None:
            self.arrays["sample_weight"] = _arrays.weights("sample_weight", sample_weight, self.shape, "the rows")
        self.set_class_options(weight, class_mask)
        self._describe_targets(ignore_index, tail, validate)

    def _describe_targets(self, ignore_index: int | None, tail: str | None, validate: bool) -> None:
        """Check the options that some kinds of targets have and others have not."""
        labels, probabilities = self.arrays.get("target"), self.arrays.get("probabilities")
        if ignore_index is not None:
            self.numbers["ignore"] = _arrays.label("ignore_index", ignore_index, labels)
        if tail is not None:
            self.numbers["tail"] = _arrays.choice("tail", tail, TAILS) == "uniform"
            if "indices" not in self.arrays:
                raise ValueError("tail is for a target of (indices, probabilities)")
        if _arrays.flag("validate", validate) and probabilities is not None:
            _arrays.check_distributions(
                "target", probabilities, self.arrays.get("sample_weight"), rest=self.numbers.get("tail", False)
            )

    def set_lse(self, lse: ArrayLike) -> None:
        """Take the rows' logsumexp from whoever has computed it."""
        self.arrays["lse_in"] = _arrays.row_floats("lse", lse, self.shape)


def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
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
    validate: bool = False,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> Loss:
    r"""Compute the softmax cross-entropy of logits against labels or probabilities of the classes.

    For the label c of a row of logits x, without options,

    .. math:: L = -\ln q_c = \ln \Big( \sum_j e^{x_j} \Big) - x_c, \qquad q = \mathrm{softmax}(x)

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"), evaluated as
    :math:`\ln(1 + \sum_{j \ne c} e^{x_j - x_c})`, which does not cancel when the row is confident. With all
    options, for a row of weight v whose classes have the target distribution t and the weights w,

    .. math:: L = v \Big( \sum_j w_j t_j (\mathrm{lse} - z_j) + \lambda \, \mathrm{lse}^2 \Big), \qquad
       \mathrm{lse} = \ln \sum_j e^{z_j},

    where z are the logits after `scale`, `softcap` and `class_mask`, and :math:`\lambda` is `z_loss`.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., K, ...)
        The unnormalised log-probabilities. Any strides and byte order; bfloat16 is that of ml_dtypes.
        Integers are taken as float64. A logit of ``-inf`` masks its class.
    target : array_like, or a tuple of two
        What is right, in one of three forms:

        - labels: integers, the shape of `logits` without `axis`. The correct class c of every row,
          ``0 <= c < K``: t is 1 there, else 0;
        - probabilities: floats (of any of the four dtypes), the shape of `logits`: t itself, taken as it
          is (float32 beside logits that are not float64) and not normalised. They should be finite: a NaN
          makes its row NaN;
        - sparse: a tuple ``(indices, probabilities)`` of arrays of integers and floats, both of the shape
          of `logits` with any number k of classes on `axis`: t is the sum of the listed probabilities, an
          index that is listed twice has the sum of both. Two labels mixed as in mixup (Zhang et al. 2018)
          are ``k = 2``, the k best of a teacher's classes (Hinton et al. 2015) are another use.
    axis : int
        The axis of `logits` that holds the K classes.
    weight : array_like of real numbers, shape (K,), optional
        The weights w of the classes: finite, none negative; by default 1. As in PyTorch, "mean" divides by
        the weights of the labels.
    sample_weight : array_like of real numbers, the shape of `logits` without `axis`, optional
        The weights v of the rows, as in scikit-learn: finite, none negative; by default 1. A row of weight
        0 does not count: its loss is 0 whatever its logits are.
    ignore_index : int, optional
        A row with this label does not count, either (PyTorch's name, and often -100 there). It need not be
        a class. With labels only.
    class_mask : array_like of bool, shape (K,) or one that broadcasts to that of `logits`, optional
        True where the class takes part, as ``where`` in JAX. Elsewhere it is as if the logit were ``-inf``.
        One dimension is always that of the classes, whichever `axis` they are on.
    label_smoothing : float
        e in [0, 1]: t becomes :math:`(1 - e) t + e / K'` on all the K' classes that are not masked
        (Szegedy et al. 2016, "Rethinking the Inception Architecture"; PyTorch's formula). 0 is none.
    z_loss : float
        :math:`\lambda`, finite and at least 0: adds :math:`\lambda \, \mathrm{lse}^2`, which keeps the logits'
        normaliser near 1 (Chowdhery et al. 2022, PaLM, which uses 1e-4; Zoph et al. 2022, ST-MoE).
    scale : float
        :math:`z_j = \mathrm{scale} \cdot x_j`, from 1e-30 to 1e30: the inverse of a temperature
        (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
    softcap : float, optional
        c, from 1e-30 to 1e30: :math:`z_j = c \tanh(\mathrm{scale} \cdot x_j / c)`, so that no logit
        exceeds c (Gemma 2, 2024, which uses 30). ``-inf`` and ``+inf`` stay what they are.
    tail : {"zero", "uniform"}, optional
        What the classes have that a sparse target does not list: nothing, which is the default, or what is
        left of its sum to 1, if anything, in equal parts (over those that are not masked).
    reduction : {"mean", "sum", "none"}
        What becomes of the losses of the rows. "mean" divides their sum by :math:`\sum v w_c` over the rows
        that count for labels, by :math:`\sum v` for probabilities. Both reductions are summed in float64, in
        an order that depends on the number of rows alone.
    denominator : float, optional
        What "mean" divides by instead, finite and greater than 0: the number of all labels, say, where
        a batch is computed in parts.
    validate : bool
        Whether to look if each row's probabilities are a distribution: none negative or NaN, of the sum 1
        within 1e-5, or 1e-3 of float16 and 4e-3 of bfloat16 (at most 1, with the tail "uniform"). Rows of
        `sample_weight` 0 are passed over. Labels are always looked at.
    out : ndarray, optional
        Where to write the result; it has the result's shape (``()`` for "mean" and "sum") and dtype.
    n_threads : int, optional
        The largest number of threads to use; by default that of `get_num_threads`. The result does
        not depend on it.

    Returns
    -------
    float32 or float64, or an array of them
        In the dtype of `logits`, float32 if that is half precision, in nats: a scalar for "mean" and "sum"
        (0 when no rows count, but NaN for a "mean" without `denominator`), the shape of `logits` without `axis`
        for "none". `out` itself if it is given. ``inf`` where a class of the target has a logit of ``-inf`` or
        is masked; NaN in a row that has a NaN, ``+inf``, or nothing but ``-inf``.

    Raises
    ------
    IndexError
        If a label or an index is negative or not less than K, unless it is `ignore_index`.
    ValueError
        If a shape does not fit, an option is out of its range, a weight is negative or not finite, an option
        is given that the kind of target or the reduction does not have, or `validate` finds a row that is no
        distribution.
    TypeError
        If a dtype is not supported or an option has the wrong type.
    MemoryError
        If there is no memory for the threads' workspace. After any error, `out` is as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]])
    >>> xent.cross_entropy(logits, [0, 1], reduction="none")
    array([4.07605964e-01, 1.87152459e-13])

    The second row does not count, and the first has its label smoothed:

    >>> xent.cross_entropy(logits, [0, -100], ignore_index=-100, label_smoothing=0.1, reduction="none")
    array([0.50760596, 0.        ])

    Two labels, mixed 7 to 3, and the same as probabilities:

    >>> xent.cross_entropy(logits[:1], ([[0, 2]], [[0.7, 0.3]]), reduction="none")
    array([1.00760596])
    >>> xent.cross_entropy(logits[:1], [[0.7, 0.0, 0.3]], reduction="none")
    array([1.00760596])
    """
    if out is None and class_mask is None and tail is None and denominator is None and validate is False:
        result = _core.run_directly(
            logits, target, weight, sample_weight, ignore_index, label_smoothing, z_loss, scale, softcap,
            None, axis, reduction, 1.0, None, True, False, n_threads,
        )  # fmt: skip
        if result is not None:
            return result
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.check_loss_out("out", out)
    return loss.run_for_loss(n_threads, out)


def cross_entropy_and_grad(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
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
    validate: bool = False,
    grad_output: ArrayLike = 1.0,
    loss_out: NDArray[Any] | None = None,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> tuple[Loss, NDArray[Any]]:
    r"""Compute the softmax cross-entropy and its gradient with respect to the logits, in one pass.

    For the label c of a row of logits x, without options,

    .. math:: L = -\ln q_c, \qquad
       \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} (q_i - [i = c])

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"). The component of the
    correct class is evaluated as :math:`-\sum_{j \ne c} q_j`, which does not cancel when the row is
    confident. With all options, in the symbols of `cross_entropy` and with :math:`W = \sum_j w_j t_j`,

    .. math:: \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} \, v
       \big( (W + 2 \lambda \, \mathrm{lse}) q_i - w_i t_i \big) \frac{d z_i}{d x_i}, \qquad
       \frac{d z_i}{d x_i} = \mathrm{scale} \, (1 - \tanh^2(\mathrm{scale} \cdot x_i / c))

    with the last factor only where there is a `softcap` c.

    Parameters
    ----------
    logits, target, axis, n_threads
        As in `cross_entropy`.
    weight, sample_weight, ignore_index, class_mask, label_smoothing, z_loss, scale, softcap, tail
        The options of the loss, as in `cross_entropy`.
    reduction, denominator, validate
        As in `cross_entropy`.
    grad_output : float or array_like of real numbers
        :math:`\partial \ell / \partial L`, by which the gradient is multiplied: a scalar, or for the
        reduction "none" also one number for each row, in the shape of `logits` without `axis`.
    loss_out : ndarray, optional
        Where to write the loss; as `out` in `cross_entropy`.
    grad_out : ndarray, optional
        Where to write the gradient: the shape and dtype of `logits`, or float32 if that is half precision.
        It may be `logits` itself. If it overlaps an input in any other way, the result is as if the input
        had been copied first.

    Returns
    -------
    loss : float32 or float64, or an array of them
        As from `cross_entropy`.
    grad : ndarray, the shape and dtype of `logits`
        The gradient of the reduced loss: for the reduction "mean" it is divided by what the loss is divided
        by. `grad_out` itself if it is given. Zeros in rows that do not count. Exactly 0 where the logit is
        ``-inf`` or masked and the target is 0.

    Raises
    ------
    IndexError, ValueError, TypeError, MemoryError
        As `cross_entropy`; `ValueError` also if `loss_out` and `grad_out` share memory. After any error, both
        are as they were.

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

    The second row counts three times as much, and the last class takes no part:

    >>> loss, grad = xent.cross_entropy_and_grad(
    ...     logits.astype(float), [0, 0], sample_weight=[1, 3], class_mask=[True, True, False]
    ... )
    >>> loss.round(8)
    np.float64(22.57831542)
    >>> grad
    array([[-0.06723536,  0.06723536,  0.        ],
           [-0.75      ,  0.75      ,  0.        ]])
    """
    if loss_out is None and class_mask is None and tail is None and denominator is None and validate is False:
        both = _core.run_directly(
            logits, target, weight, sample_weight, ignore_index, label_smoothing, z_loss, scale, softcap,
            None, axis, reduction, grad_output, grad_out, True, True, n_threads,
        )  # fmt: skip
        if both is not None:
            return both  # type: ignore[no-any-return]
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.set_upstream(grad_output)
    loss.check_loss_out("loss_out", loss_out)
    grad = loss.set_grad_out("grad_out", grad_out)
    if loss_out is not None and _arrays.overlap(loss_out, grad):
        raise ValueError("loss_out and grad_out share memory")
    return loss.run_for_loss(n_threads, loss_out), grad


def cross_entropy_grad(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
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
    validate: bool = False,
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the gradient of the softmax cross-entropy with respect to the logits.

    For the label c of a row of logits x, without options,

    .. math:: \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} (q_i - [i = c]),
       \qquad q_i = e^{x_i - \mathrm{lse}}

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"); with them, as in
    `cross_entropy_and_grad`.

    Parameters
    ----------
    lse : array_like of real numbers, the shape of `logits` without `axis`, optional
        The rows' `logsumexp`, if it is known from the forward pass: that of the logits after `scale`,
        `softcap` and `class_mask`. The gradient is as accurate as it: an error of d in the lse changes each
        q by a factor of ``exp(-d)``.
    logits, target, axis, n_threads
        As in `cross_entropy`.
    weight, sample_weight, ignore_index, class_mask, label_smoothing, z_loss, scale, softcap, tail
        The options of the loss, as in `cross_entropy`.
    reduction, denominator, validate
        As in `cross_entropy`.
    grad_output, grad_out
        As in `cross_entropy_and_grad`.

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

    At half the temperature, with a z-loss, from the `logsumexp` at that temperature:

    >>> lse = xent.logsumexp(logits, scale=2.0)
    >>> xent.cross_entropy_grad(logits, [0], lse=lse, scale=2.0, z_loss=1e-2)
    array([[-0.1227274 ,  0.25406122,  0.03438345]])
    """
    if class_mask is None and tail is None and denominator is None and validate is False:
        result = _core.run_directly(
            logits, target, weight, sample_weight, ignore_index, label_smoothing, z_loss, scale, softcap,
            lse, axis, reduction, grad_output, grad_out, False, True, n_threads,
        )  # fmt: skip
        if result is not None:
            return result  # type: ignore[no-any-return]
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.set_upstream(grad_output)
    if lse is not None:
        loss.set_lse(lse)
    grad = loss.set_grad_out("grad_out", grad_out)
    loss.run(n_threads)
    return grad


def cross_entropy_grad_hess(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
    *,
    hessian: str = "exact",
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
    validate: bool = False,
    grad_output: ArrayLike = 1.0,
    grad_out: NDArray[Any] | None = None,
    hess_out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    r"""Compute the gradient, and the diagonal of the Hessian or what boosting libraries take for it.

    With respect to the logits of a row, without options,

    .. math:: \frac{\partial^2 \ell}{\partial x_i^2} = \frac{\partial \ell}{\partial L} \, q_i (1 - q_i), \qquad
       q = \mathrm{softmax}(x)

    (the derivative of the gradient of Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss
    Function"). In the row's largest class :math:`1 - q_i` is evaluated as :math:`\sum_{j \ne i} q_j`, and
    nowhere else is q more than one half: neither cancels when the row is confident. With all options, in
    the symbols of `cross_entropy_and_grad` and with :math:`z'_i = d z_i / d x_i`,

    .. math:: \frac{\partial^2 \ell}{\partial x_i^2} = \frac{\partial \ell}{\partial L} \, v \Big(
       {z'_i}^2 \big( (W + 2 \lambda \, \mathrm{lse}) q_i (1 - q_i) + 2 \lambda q_i^2 \big)
       + z''_i \big( (W + 2 \lambda \, \mathrm{lse}) q_i - w_i t_i \big) \Big),

    where :math:`z''` is zero unless there is a `softcap`.

    Parameters
    ----------
    logits, target, axis, n_threads
        As in `cross_entropy`.
    hessian : {"exact", "xgboost", "lightgbm"}
        What the second result is, with
        :math:`h_i = \partial \ell / \partial L \, v W {z'_i}^2 q_i (1 - q_i)`:

        - "exact": the second derivatives themselves, as above;
        - "xgboost": :math:`\max(2 h_i, 10^{-16})`, as XGBoost's ``multi:softprob`` has it, in all rows that
          count (float16 has nothing so small but 0: take a float32 `hess_out`);
        - "lightgbm": :math:`K' / (K' - 1) \, h_i`, as LightGBM's ``multiclass`` has it (Friedman 2001,
          "Greedy Function Approximation: A Gradient Boosting Machine"); K' of the classes are not masked.
          :math:`h_i` itself where K' is 1.
    weight, sample_weight, ignore_index, class_mask, label_smoothing, z_loss, scale, softcap, tail
        The options of the loss, as in `cross_entropy`.
    reduction, denominator, validate
        As in `cross_entropy`. Boosting wants "sum" (or "none"): the derivatives of each row's own loss.
    grad_output, grad_out
        As in `cross_entropy_and_grad`.
    hess_out : ndarray, optional
        Where to write the second result; as `grad_out`. Both may have any strides.

    Returns
    -------
    grad : ndarray, the shape and dtype of `logits`
        The gradient, as from `cross_entropy_grad` (but a last bit may differ). `grad_out` itself if it is
        given.
    hess : ndarray, the shape and dtype of `logits`
        `hess_out` itself if it is given. Zeros in rows that do not count.

    Raises
    ------
    IndexError, ValueError, TypeError, MemoryError
        As `cross_entropy`; `ValueError` also if `grad_out` and `hess_out` share memory. After any error, both
        are as they were.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]])
    >>> grad, hess = xent.cross_entropy_grad_hess(logits, [0, 1], reduction="sum")
    >>> grad
    array([[-3.34759044e-01,  2.44728471e-01,  9.00305732e-02],
           [ 9.35762297e-14, -1.87152459e-13,  9.35762297e-14]])
    >>> hess
    array([[2.22695427e-01, 1.84836447e-01, 8.19250691e-02],
           [9.35762297e-14, 1.87152459e-13, 9.35762297e-14]])

    A custom objective for ``xgboost.train``, which hands over the margins of all rows and classes and wants
    both in the same shape:

    >>> def objective(margins, data):
    ...     return xent.cross_entropy_grad_hess(
    ...         margins,
    ...         data.get_label().astype(np.int32),
    ...         sample_weight=data.get_weight() if data.get_weight().size else None,
    ...         hessian="xgboost",
    ...         reduction="sum",
    ...     )

    LightGBM has the rows of a class side by side. The results lie in memory as the logits do:

    >>> scores = np.asfortranarray(logits)
    >>> grad, hess = xent.cross_entropy_grad_hess(scores, [0, 1], hessian="lightgbm", reduction="sum")
    >>> hess[0]
    array([0.33404314, 0.27725467, 0.1228876 ])
    >>> hess.flags.f_contiguous
    True
    """
    kind = _arrays.choice("hessian", hessian, tuple(_core.CURVATURES))
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.set_upstream(grad_output)
    grad, hess = loss.set_second_out(grad_out, hess_out)
    loss.numbers["curvature_kind"] = _core.CURVATURES[kind]
    loss.run(n_threads)
    return grad, hess


def cross_entropy_hvp(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
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
    validate: bool = False,
    grad_output: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the product of the Hessian of the loss with a vector, for Newton's method with conjugate gradients.

    The Hessian of the rows' losses with respect to all logits has a block for each row and zeros beside them.
    Of a row, without options,

    .. math:: (H u)_i = \frac{\partial \ell}{\partial L} \, q_i (u_i - q \cdot u)

    (the derivative of the gradient of Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss
    Function"). With all options, in the symbols of `cross_entropy_grad_hess` and with :math:`u'_i = z'_i u_i`,

    .. math:: (H u)_i = \frac{\partial \ell}{\partial L} \, v \Big(
       z'_i \big( (W + 2 \lambda \, \mathrm{lse}) q_i (u'_i - q \cdot u') + 2 \lambda q_i (q \cdot u') \big)
       + z''_i \big( (W + 2 \lambda \, \mathrm{lse}) q_i - w_i t_i \big) u_i \Big).

    Parameters
    ----------
    logits, target, axis, n_threads
        As in `cross_entropy`.
    vector : array_like of float16, bfloat16, float32 or float64, the shape of `logits`
        u, taken in the precision that the logits are computed in: float64 for these, else float32.
    weight, sample_weight, ignore_index, class_mask, label_smoothing, z_loss, scale, softcap, tail
        The options of the loss, as in `cross_entropy`.
    reduction, denominator, validate
        As in `cross_entropy`.
    grad_output
        As in `cross_entropy_and_grad`.
    out : ndarray, optional
        Where to write the result: the shape and dtype of `logits`, or float32 if that is half precision. If it
        overlaps an input, the result is as if the input had been copied first.

    Returns
    -------
    ndarray, the shape and dtype of `logits`
        The product. `out` itself if it is given. Zeros in rows that do not count.

    Raises
    ------
    IndexError, ValueError, TypeError, MemoryError
        As `cross_entropy`. After any error, `out` is as it was.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0]])
    >>> xent.cross_entropy_hvp(logits, [0], [[1.0, 0.0, 0.0]])
    array([[ 0.22269543, -0.1628034 , -0.05989202]])

    Adding a constant to all logits changes nothing:

    >>> bool(np.all(abs(xent.cross_entropy_hvp(logits, [0], np.ones((1, 3)))) < 1e-15))
    True
    """
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.set_upstream(grad_output)
    loss.set_vector(vector)
    product = loss.set_grad_out("out", out)
    loss.numbers["output"] = _core.PRODUCT
    loss.run(n_threads)
    return product


def cross_entropy_hessian(
    logits: ArrayLike,
    target: ArrayLike | Sparse,
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
    validate: bool = False,
    grad_output: ArrayLike = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the blocks of the Hessian of the loss: a K by K matrix for each row, for few classes.

    Of a row, without options,

    .. math:: H_{ij} = \frac{\partial \ell}{\partial L} \, q_i ([i = j] - q_j)

    (the derivative of the gradient of Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss
    Function"); with them, the matrix that `cross_entropy_hvp` multiplies by. It is computed as its products
    with the K unit vectors, and so takes about as long as K calls of `cross_entropy_hvp`. For many classes
    use that, or the diagonal alone: `cross_entropy_grad_hess`.

    Parameters
    ----------
    logits, target, axis, n_threads
        As in `cross_entropy`.
    weight, sample_weight, ignore_index, class_mask, label_smoothing, z_loss, scale, softcap, tail
        The options of the loss, as in `cross_entropy`.
    reduction, denominator, validate
        As in `cross_entropy`.
    grad_output
        As in `cross_entropy_and_grad`.
    out : ndarray, optional
        Where to write the result: its shape, and the dtype of `logits`, or float32 if that is half precision.
        If it overlaps an input, the result is as if the input had been copied first.

    Returns
    -------
    ndarray of the dtype of `logits`
        The shape of `logits` without `axis`, and then (K, K): symmetric matrices. `out` itself if it is given.
        Zeros in rows that do not count.

    Raises
    ------
    ValueError
        Also if the result would have more than 2**31 elements.
    IndexError, TypeError, MemoryError
        As `cross_entropy`. After any error, `out` is as it was.

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_hessian([2.0, 1.0, 0.0], 0)
    array([[ 0.22269543, -0.1628034 , -0.05989202],
           [-0.1628034 ,  0.18483645, -0.02203304],
           [-0.05989202, -0.02203304,  0.08192507]])
    """
    loss = _Loss(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        class_mask=class_mask,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        scale=scale,
        softcap=softcap,
        tail=tail,
        reduction=reduction,
        denominator=denominator,
        validate=validate,
    )
    loss.set_upstream(grad_output)
    blocks = loss.set_blocks_out("out", out)
    loss.numbers["output"] = _core.PRODUCT
    loss.run_for_blocks(n_threads, blocks)
    return blocks


def _map_rows(
    output: int, x: ArrayLike, axis: int, scale: float, out: NDArray[Any] | None, n_threads: int | None
) -> NDArray[Any]:
    """Compute softmax or log_softmax."""
    result = _core.map_directly(x, axis, scale, out, output, n_threads)
    if result is not None:
        return result  # type: ignore[no-any-return]
    scale = _arrays.scale("scale", scale)
    logits = _arrays.floats("x", x)
    inputs: dict[str, Any] = {"logits": _arrays.classes_last("x", logits, axis)}
    out, values = _values("out", out, logits, axis, inputs)
    _core.run(**inputs, output=output, values=values, scale=scale, threads=_threads(n_threads))
    return out


def softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the softmax of logits.

    .. math:: q_i = \frac{e^{z_i}}{\sum_j e^{z_j}}, \qquad z = \mathrm{scale} \cdot x

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function").

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64, shape (..., K, ...)
        The logits. Any strides and byte order; bfloat16 is that of ml_dtypes. Integers are taken as float64.
    axis : int
        The axis of `x` that holds the K classes.
    scale : float
        By which the logits are multiplied, from 1e-30 to 1e30: the inverse of a temperature
        (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").
    out : ndarray, optional
        Where to write the result: the shape and dtype of `x`, or float32 if that is half precision. It may
        be `x` itself. If it overlaps `x` in any other way, the result is as if `x` had been copied first.
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
        If a shape, `axis`, `scale` or `n_threads` does not fit.
    TypeError
        If a dtype is not supported or an option has the wrong type.
    MemoryError
        If there is no memory for the threads' workspace. After any error, `out` is as it was.

    Examples
    --------
    >>> import xent
    >>> xent.softmax([2.0, 1.0, 0.0])
    array([0.66524096, 0.24472847, 0.09003057])
    >>> xent.softmax([2.0, 1.0, 0.0], scale=0.5)  # at twice the temperature
    array([0.50648039, 0.30719589, 0.18632372])
    """
    return _map_rows(_core.SOFTMAX, x, axis, scale, out, n_threads)


def log_softmax(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    r"""Compute the logarithm of the softmax of logits.

    .. math:: \ln q_i = z_i - \ln \sum_j e^{z_j}, \qquad z = \mathrm{scale} \cdot x

    (the logarithm of Khungurn 2018's softmax).

    Parameters
    ----------
    x, axis, scale, out, n_threads
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
    return _map_rows(_core.LOG_SOFTMAX, x, axis, scale, out, n_threads)


def logsumexp(
    x: ArrayLike,
    *,
    axis: int = -1,
    scale: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> Any:
    r"""Compute the logarithm of the sum of the exponentials of logits.

    .. math:: \mathrm{lse} = \ln \sum_j e^{z_j}, \qquad z = \mathrm{scale} \cdot x

    (the normaliser of Khungurn 2018's softmax).

    Parameters
    ----------
    x, axis, scale, n_threads
        As in `softmax`.
    out : ndarray, optional
        Where to write the result: the shape of `x` without `axis`, and the result's dtype.

    Returns
    -------
    float32 or float64, or an array of them
        The shape of `x` without `axis`, in its dtype, float32 if that is half precision. `out` if it is
        given. NaN for a row that has a NaN, ``+inf``, or nothing but ``-inf``.

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
    result = _core.map_directly(x, axis, scale, out, _core.NO_VALUES, n_threads)
    if result is not None:
        return result
    scale = _arrays.scale("scale", scale)
    logits = _arrays.floats("x", x)
    rows = _arrays.classes_last("x", logits, axis)
    shape, dtype = rows.shape[:-1], _dtypes(logits)[1]
    if out is not None:
        _arrays.output("out", out, shape, dtype)
    lse = np.empty(shape)
    _core.run(rows, lse=lse, scale=scale, threads=_threads(n_threads))
    with _arrays.rounding():
        if out is None:
            return lse.astype(dtype, copy=False)[()]
        np.copyto(out, lse, casting="same_kind")
    return out


class Evaluation(NamedTuple):
    """What `evaluate` knows of each row's prediction; None of what is not among its `outputs`.

    Numbers are in the shape of the logits without the class axis; those of `top_k` classes have that axis, of that
    length. Classes are in order of their logits, the largest first, and of equal ones the first is first. In a row that
    has a NaN, ``+inf``, or nothing but ``-inf``, numbers are NaN, and classes and ranks are -1.
    """

    log_prob: Any
    """ln q of the label; None without labels."""
    lse: Any
    """The logsumexp."""
    argmax: Any
    """The first class."""
    rank: Any
    """How many classes are before the label, so that 0 is right; None without labels."""
    entropy: Any
    """That of the predicted distribution q, in nats."""
    top_k_log_probs: NDArray[Any]
    """ln q of the first classes; ``-inf`` where there are too few that are not masked."""
    top_k_indices: NDArray[np.intp]
    """These classes; -1 where there are too few."""


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
    n_threads: int | None = None,
) -> Evaluation:
    r"""Compute what there is to know of predictions, in one pass over the logits.

    Of the distribution q = softmax(z) (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss
    Function"), with m its largest class and c the label,

    .. math:: \ln q_c = (z_c - z_m) - \ell_m, \qquad
       H = -\sum_j q_j \ln q_j = \ell_m + \sum_{j \ne m} q_j (z_m - z_j), \qquad
       \ell_m = \ln \Big( 1 + \sum_{j \ne m} e^{z_j - z_m} \Big)

    of which nothing cancels: the entropy of a confident row is as accurate as any.

    Parameters
    ----------
    logits, axis, class_mask, scale, softcap
        As in `cross_entropy`. The order of the classes is that of the logits before a `softcap`, which may
        round two of them to the same.
    target : array_like of integers, the shape of `logits` without `axis`, optional
        The labels, ``0 <= c < K``.
    top_k : int
        How many of the first classes to list; it may be more than there are.
    outputs : iterable of str, optional
        Which of ``"log_prob"``, ``"lse"``, ``"argmax"``, ``"rank"`` and ``"entropy"`` to compute: what is not asked for
        takes no time. All there are, by default: log_prob and rank with `target`.
    n_threads : int, optional
        As in `cross_entropy`.

    Returns
    -------
    Evaluation
        A named tuple of `log_prob`, `lse`, `argmax`, `rank`, `entropy`, `top_k_log_probs` and `top_k_indices`.
        Numbers have the dtype of `logits`, float32 if that is half precision; classes and ranks are integers.

    Raises
    ------
    IndexError
        If a label is not one of the classes.
    ValueError
        If a shape, `axis`, an option or `n_threads` does not fit, or `outputs` names what there is not.
    TypeError
        If a dtype is not supported or an option has the wrong type.
    MemoryError
        If there is no memory for the results or the threads' workspace.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> found = xent.evaluate(np.array([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]]), [1, 1], top_k=2)
    >>> found.log_prob
    array([-1.40760596e+00, -1.87152459e-13])
    >>> found.rank
    array([1, 0])
    >>> found.entropy
    array([8.32395582e-01, 5.80172624e-12])
    >>> found.top_k_indices
    array([[0, 1],
           [1, 0]])
    >>> xent.evaluate(np.array([[2.0, 1.0, 0.0]]), outputs=["entropy"]).argmax is None
    True
    """
    numbers: dict[str, Any] = {"scale": _arrays.scale("scale", scale)}
    if softcap is not None:
        numbers["softcap"] = _arrays.scale("softcap", softcap)
    listed = _arrays.count("top_k", top_k)
    wanted = _arrays.choices("outputs", outputs, ("log_prob", "rank", "lse", "argmax", "entropy"))
    of_target = [name for name in wanted if name in {"log_prob", "rank"}]
    if target is None:
        if outputs is not None and of_target:
            raise ValueError(f"outputs has {of_target[0]!r}, which needs a target")
        wanted = tuple(name for name in wanted if name not in of_target)
    array = _arrays.floats("logits", logits)
    rows = _arrays.classes_last("logits", array, axis)
    if listed > sys.maxsize // 8 // max(1, math.prod(rows.shape[:-1])):
        raise ValueError(f"top_k = {listed} classes of each row are more than any array has")
    inputs: dict[str, Any] = {"logits": rows}
    results: dict[str, Any] = {}
    if target is not None:
        inputs["target"] = _arrays.labels("target", target, array, axis)
    if class_mask is not None:
        inputs["mask"] = _arrays.class_mask("class_mask", class_mask, array, axis)
    for name in wanted:
        results[name] = np.empty(rows.shape[:-1], np.int64 if name in {"argmax", "rank"} else np.float64)
    results["top_log_probs"] = np.empty((*rows.shape[:-1], listed))
    results["top_classes"] = np.empty((*rows.shape[:-1], listed), np.int64)
    _core.run_evaluation(**inputs, **results, **numbers, threads=_threads(n_threads))

    floats = _dtypes(array)[1]
    with _arrays.rounding():
        results = {
            name: result.astype(floats if result.dtype == np.float64 else np.intp, copy=False)
            for name, result in results.items()
        }

    def of_rows(name: str) -> Any:
        """Return one number for each row, None if it was not asked for."""
        return results[name][()] if name in results else None

    return Evaluation(
        log_prob=of_rows("log_prob"),
        lse=of_rows("lse"),
        argmax=of_rows("argmax"),
        rank=of_rows("rank"),
        entropy=of_rows("entropy"),
        top_k_log_probs=_arrays.classes_back(results["top_log_probs"], axis),
        top_k_indices=_arrays.classes_back(results["top_classes"], axis),
    )
