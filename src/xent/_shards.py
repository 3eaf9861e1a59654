"""Classes that are split over processes or files: statistics of each part, and what follows from all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xent import _arrays, _core
from xent._api import Loss, Sparse, _dtypes, _Loss, _Problem, _threads

# What is kept of rows beside their statistics, by the core's names
OF_ROWS = ("target", "indices", "probabilities", "sample_weight")


@dataclass(frozen=True, eq=False, repr=False)
class PartialStatistics:
    r"""What some of the classes leave of rows of logits, from `partial_statistics` or `merge_statistics`.

    It is all that the loss, the logsumexp and the gradient of the rows need of these classes, in plain arrays: the
    object can be pickled, or `blocks` saved or sent by itself, and `dataclasses.replace` puts them in again. The
    classes of a shard are taken in blocks of 4096 from its first on, and of each block of each row there are 128 bytes,
    0.8 % of the size of its float32 logits. With :math:`z = s (u + \mathrm{low})`, where s is the softcap or else the
    scale, and low is 0 without a softcap, the sum of the exponentials of all classes j of a block but one, k, is kept
    as

    .. math:: \sum_{j \ne k} e^{z_j} = (\mathtt{sum} + \mathtt{low}) \cdot 2^{\mathtt{exponent}} \cdot
       e^{s \cdot \mathtt{shift}}

    where k is the label or, if the target is probabilities, sparse or not, the first of the block's largest classes:
    the loss :math:`\ln(1 + \sum_{j \ne c} e^{z_j - z_c})` is then a sum over the blocks, and never a difference.

    Attributes
    ----------
    blocks : ndarray, the shape of the logits without the class axis, with the blocks as last axis
        Its dtype has the fields, all float64 but the first, which is int64:

        - ``kept``: the class k by its number among all classes, -1 where there is none;
        - ``logit``, ``logit_low``, ``slope``: its u, its low, and dz/dx over the scale;
        - ``label``: w_k of a label, :math:`w_k t_k` of probabilities, 0 of a sparse target; ``weight``: w_k, 0 if k is
          masked;
        - ``top``: the largest u of the other classes;
        - ``sum``, ``low``, ``exponent``, ``shift``: as above;
        - ``label_mass``, ``label_spread``: with probabilities, :math:`\sum_{j \ne k} c_j` and
          :math:`\sum_{j \ne k} c_j (\mathtt{top} - z_j / s)` of :math:`c_j = w_j t_j`;
        - ``weight_mass``, ``weight_spread``: the same of :math:`c_j = w_j` over the classes that are not masked;
          ``unmasked``: how many these are. With `label_smoothing` or the tail "uniform" only.

        What is not needed is 0; a row that does not count has nothing.
    ranges : ndarray of int64, shape (blocks, 2)
        The first class of each block, and the one after its last; in ascending order.
    axis : int
        The class axis.
    dtype : dtype
        That of the logits.
    target, indices, probabilities, sample_weight : ndarray or None
        The labels, or what a sparse target lists, with the classes last; and the weights of the rows.
    listed : ndarray or None, the shape of `indices`
        Of each class that is listed, z / s and w in the fields ``logit`` and ``weight``; a weight of -1 says that
        it is not among these classes.
    options : dict
        The options that are numbers: all but `weight` and `class_mask`, which are in the statistics.
    target_kind : {"labels", "probabilities", "sparse", None}
        What the target is.
    plain : bool
        Whether there are no options at all.
    classes : int or None
        How many classes there are in all, where `partial_statistics` was told.
    """

    blocks: NDArray[np.void]
    ranges: NDArray[np.int64]
    axis: int
    dtype: np.dtype[Any]
    target: NDArray[Any] | None = None
    indices: NDArray[Any] | None = None
    probabilities: NDArray[Any] | None = None
    sample_weight: NDArray[np.float64] | None = None
    listed: NDArray[np.void] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    target_kind: str | None = None
    plain: bool = True
    classes: int | None = None

    def __post_init__(self) -> None:
        """Check the shapes and dtypes: the core relies on them."""
        rows = self.blocks.shape[:-1]
        of_rows = [array.shape for array in (self.target, self.sample_weight) if array is not None]
        of_lists = [array.shape for array in (self.indices, self.probabilities, self.listed) if array is not None]
        good = (
            self.ranges.shape == (self.blocks.shape[-1], 2)
            and all(shape == rows for shape in of_rows)
            and all(shape == of_lists[0] and shape[:-1] == rows for shape in of_lists)
            and len(of_lists) in (0, 3)
        )
        if not good:
            raise ValueError("the arrays of these PartialStatistics have shapes that do not go together")
        for name, what in ("target", np.integer), ("indices", np.integer), ("sample_weight", np.float64):
            array = getattr(self, name)
            if array is not None and not (np.issubdtype(array.dtype, what) and array.dtype.isnative):
                raise TypeError(f"{name} of these PartialStatistics must be native {what.__name__}, not {array.dtype}")
        if self.probabilities is not None and not _arrays.is_float(self.probabilities.dtype):
            raise TypeError(f"probabilities of these PartialStatistics must be floats, not {self.probabilities.dtype}")
        if self.sample_weight is not None and not (self.sample_weight >= 0).all():
            raise ValueError("sample_weight of these PartialStatistics has negative numbers")

    def __repr__(self) -> str:
        """Return which classes there are, and of how many rows."""
        classes = ", ".join(f"{first}:{stop}" for first, stop in _joined(self.ranges))
        return f"<PartialStatistics of the classes {classes}, rows of shape {self.blocks.shape[:-1]}>"

    @property
    def n_classes(self) -> int:
        """How many classes there are in all: `classes`, or as many as would be if the last ones are here."""
        return int(self.ranges[-1, 1]) if self.classes is None else self.classes

    def finish(
        self,
        *,
        reduction: str = "mean",
        denominator: float | None = None,
        out: NDArray[Any] | None = None,
        n_threads: int | None = None,
    ) -> Loss:
        r"""Compute the loss of whole rows from the statistics of all their classes.

        Parameters
        ----------
        reduction, denominator, out, n_threads
            As in `cross_entropy`.

        Returns
        -------
        float32 or float64, or an array of them
            As from `cross_entropy`.

        Raises
        ------
        IndexError
            If a label or an index is not one of the classes, unless it is `ignore_index`.
        ValueError
            If classes are missing, there is no target, or an argument does not fit. That the last classes are missing
            is known only if `partial_statistics` got `classes`.
        TypeError
            If an argument has the wrong type.
        MemoryError
            If there is no memory for the threads' workspace. After any error, `out` is as it was.

        Examples
        --------
        >>> import xent
        >>> xent.partial_statistics([[2.0, 1.0, 0.0]], [0]).finish()
        np.float64(0.4076059644443803)
        """
        loss = self._problem(reduction, denominator)
        self._check_target()
        loss.check_loss_out("out", out)
        return loss.run_for_loss(n_threads, out)

    def logsumexp(self, *, out: NDArray[Any] | None = None, n_threads: int | None = None) -> Any:
        r"""Compute the logsumexp of whole rows from the statistics of all their classes.

        .. math:: \mathrm{lse} = \ln \sum_j e^{z_j}

        Parameters
        ----------
        out, n_threads
            As in `xent.logsumexp`.

        Returns
        -------
        float32 or float64, or an array of them
            As from `xent.logsumexp`, but for one thing: below one half its error is not relative to itself, but to
            the largest logit or one half. 0 for rows that do not count.

        Raises
        ------
        IndexError, ValueError, TypeError, MemoryError
            As `finish`.

        Examples
        --------
        >>> import xent
        >>> xent.partial_statistics([[2.0, 1.0, 0.0]], [0]).logsumexp()
        array([2.40760596])
        """
        problem = self._problem("none", None)
        problem.check_loss_out("out", out)
        lse = np.empty(problem.shape)
        _core.run(**problem.arrays, **problem.numbers, lse=lse, threads=_threads(n_threads))
        with _arrays.rounding():
            if out is None:
                return lse.astype(_dtypes(problem.logits)[1], copy=False)[()]
            np.copyto(out, lse, casting="same_kind")
        return out

    def grad(
        self,
        logits: ArrayLike,
        target: ArrayLike | None = None,
        *,
        offset: int = 0,
        weight: ArrayLike | None = None,
        class_mask: ArrayLike | None = None,
        reduction: str = "mean",
        denominator: float | None = None,
        grad_output: ArrayLike = 1.0,
        grad_out: NDArray[Any] | None = None,
        n_threads: int | None = None,
    ) -> NDArray[Any]:
        r"""Compute the gradient with respect to some of the logits from the statistics of all classes.

        .. math:: \frac{\partial \ell}{\partial x_i} = \frac{\partial \ell}{\partial L} (q_i - [i = c]), \qquad
           q_i = e^{x_i - \mathrm{lse}}

        (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function"); with options, as in
        `cross_entropy_and_grad`.

        Parameters
        ----------
        logits : array_like, the shape of the rows with any number of classes on the axis
            The logits of the classes from `offset` on, of the dtype that the statistics are of. They need
            not be one of the shards that the statistics were made of.
        target : array_like of floats, the shape of `logits`, optional
            The probabilities of these classes, if they are what the target is. All other targets are in the
            statistics.
        offset : int
            The number of the first of these classes among all.
        weight, class_mask
            Those of these classes, as they were in `partial_statistics`. The other options are in the statistics.
        reduction, denominator, grad_output, grad_out, n_threads
            As in `cross_entropy_and_grad`. The rows are those of the statistics.

        Returns
        -------
        ndarray, the shape and dtype of `logits`
            That part of the gradient from `cross_entropy_and_grad`. `grad_out` itself if it is given.

        Raises
        ------
        IndexError, ValueError, TypeError, MemoryError
            As `finish`. After any error, `grad_out` is as it was.

        Examples
        --------
        >>> import xent
        >>> whole = xent.partial_statistics([[2.0, 1.0, 0.0]], [0])
        >>> whole.grad([[1.0, 0.0]], offset=1)
        array([[0.24472847, 0.09003057]])
        """
        array = _arrays.floats("logits", logits)
        if _dtypes(array)[0] != self.dtype:
            raise TypeError(f"logits are {array.dtype}, but the statistics are of {self.dtype}")
        rows = _arrays.classes_last("logits", array, self.axis)
        if rows.shape[:-1] != self.blocks.shape[:-1]:
            raise ValueError(
                f"logits of shape {array.shape} have rows of shape {rows.shape[:-1]}, but the statistics are of "
                f"{self.blocks.shape[:-1]}"
            )
        problem = self._problem(reduction, denominator, array, rows)
        self._check_target()
        first = problem.numbers["offset"] = _offset(offset, rows.shape[-1])
        if first + rows.shape[-1] > self.n_classes:
            raise ValueError(
                f"offset {first} and {rows.shape[-1]} classes of logits are beyond {self.n_classes} classes"
            )
        if self.target_kind == "probabilities":
            of_classes = {} if target is None else _arrays.targets("target", target, array, self.axis)
            if _kind_of_target(of_classes) != "probabilities":
                raise ValueError("target must be the probabilities of these classes, for so it is in the statistics")
            problem.arrays |= of_classes
        elif target is not None:
            raise ValueError("target is for probabilities: labels and sparse targets are in the statistics")
        problem.set_class_options(weight, class_mask)
        problem.set_upstream(grad_output)
        grad = problem.set_grad_out("grad_out", grad_out)
        problem.run(n_threads)
        return grad

    def _check_target(self) -> None:
        if self.target_kind is None:
            raise ValueError("the statistics are without a target, and of such there is no loss")

    def _problem(
        self,
        reduction: str,
        denominator: float | None,
        logits: NDArray[Any] | None = None,
        rows: NDArray[Any] | None = None,
    ) -> _Problem:
        """Return what is known of the rows, whose logits may be those of no class."""
        if logits is None or rows is None:
            logits = rows = np.empty((*self.blocks.shape[:-1], 0), self.dtype)
        problem = _Problem(logits, rows, self.axis, reduction, denominator)
        missing = _missing(self.ranges, self.n_classes)
        if missing:
            raise ValueError(f"the statistics are not of whole rows, without {missing}")
        for name in OF_ROWS:
            if getattr(self, name) is not None:
                problem.arrays[name] = getattr(self, name)
        problem.arrays["whole"] = np.require(self.blocks, _core.BLOCK, ["C", "A"])
        if self.listed is not None:
            problem.arrays["whole_listed"] = np.require(self.listed, _core.LISTED_CLASS, ["C", "A"])
        problem.numbers |= {**self.options, "classes": self.n_classes, "plain": self.plain}
        return problem


def partial_statistics(
    logits: ArrayLike,
    target: ArrayLike | Sparse | None = None,
    *,
    offset: int = 0,
    classes: int | None = None,
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
    n_threads: int | None = None,
) -> PartialStatistics:
    r"""Reduce the logits of some of the classes to what the loss and the gradient of all of them need.

    Where the classes are split over processes, as a vocabulary is in tensor parallelism (Shoeybi et al. 2019,
    "Megatron-LM"), or over files, each part is reduced by itself; then `merge_statistics` makes one of them, from which
    come the loss, by its method `finish`, and the gradient of every part, by `grad`. For the label c of a row of
    logits x whose classes are split into sets S, without options,

    .. math:: L = \ln \Big( 1 + \sum_S \sum_{j \in S, j \ne c} e^{x_j - x_c} \Big)

    (Khungurn 2018, "Gradient of Softmax Followed by Cross Entropy Loss Function").

    Merging only collects, so that its order does not matter. Where all parts but that of the last classes have a
    multiple of 4096 of them and all classes are more than 192, losses and gradients have the very bits of
    `cross_entropy_and_grad` on whole rows; else they are as accurate.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., K, ...)
        The logits of K of the classes, as in `cross_entropy`.
    target : array_like, or a tuple of two, optional
        As in `cross_entropy`: labels, and the indices of a sparse target, are numbers of all classes, and
        need not be among these K; probabilities have the shape of `logits`. Without it, for the logsumexp
        alone, there are no options but `class_mask`, `scale` and `softcap`.
    offset : int
        The number of the first of these classes among all.
    classes : int, optional
        How many classes there are in all. Without it, a part that has the last of them and is not merged is not
        missed: then those that are there are taken for all.
    axis
        As in `cross_entropy`.
    weight : array_like of real numbers, shape (K,), optional
        The weights of these classes.
    class_mask : array_like of bool, shape (K,) or one that broadcasts to that of `logits`, optional
        True where one of these classes takes part.
    sample_weight, ignore_index, label_smoothing, z_loss, scale, softcap, tail, n_threads
        As in `cross_entropy`. But for `n_threads` they must be the same for all parts.

    Returns
    -------
    PartialStatistics
        128 bytes for every 4096 classes of a row, and the labels.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `cross_entropy`. Whether labels are among all classes is looked at when there are all.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(4, 5000))
    >>> labels = [3, 4095, 4096, 4999]

    Two processes have some classes each, and exchange their statistics:

    >>> left = xent.partial_statistics(logits[:, :4096], labels)
    >>> right = xent.partial_statistics(logits[:, 4096:], labels, offset=4096)
    >>> whole = xent.merge_statistics([left, right])
    >>> whole.finish() == xent.cross_entropy(logits, labels)
    np.True_

    Each has its part of the gradient:

    >>> grad = whole.grad(logits[:, 4096:], offset=4096)
    >>> np.array_equal(grad, xent.cross_entropy_grad(logits, labels)[:, 4096:])
    True

    A row that is too long for the memory is read from a file in parts; with NumPy, `np.load` with
    ``mmap_mode="r"`` gives such an array:

    >>> parts = range(0, 5000, 4096)
    >>> row = xent.merge_statistics(
    ...     xent.partial_statistics(logits[0, i : i + 4096], 3, offset=i) for i in parts
    ... )
    >>> row.finish() == xent.cross_entropy(logits[0], 3)
    np.True_
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
        reduction="none",
        denominator=None,
        validate=False,
        needs_target=False,
    )
    kind = _kind_of_target(loss.arrays)
    if kind is None and ({"weight", "sample_weight"} & set(loss.arrays) or label_smoothing or z_loss):
        raise ValueError("weights, label_smoothing and z_loss are for a target")
    first = _offset(offset, loss.arrays["logits"].shape[-1])
    stop = first + loss.arrays["logits"].shape[-1]
    in_all = None if classes is None else _arrays.count("classes", classes)
    if in_all is not None and stop > in_all:
        raise ValueError(f"offset {first} and {stop - first} classes of logits are beyond {in_all} classes")
    cuts = np.append(np.arange(first, stop, _core.BLOCK_OF_CLASSES), stop)
    blocks = np.empty((*loss.shape, len(cuts) - 1), _core.BLOCK)
    sparse = loss.arrays.get("indices")
    listed = None if sparse is None else np.empty(sparse.shape, _core.LISTED_CLASS)
    _core.run(
        **loss.arrays, **loss.numbers, noted=blocks, noted_listed=listed, offset=first, threads=_threads(n_threads)
    )
    options = {name: value for name, value in loss.numbers.items() if name != "mean"}
    kept = OF_ROWS if sparse is not None else ("target", "sample_weight")
    of_rows = {name: loss.arrays[name].copy() for name in kept if name in loss.arrays}
    return PartialStatistics(
        blocks=blocks,
        ranges=np.stack([cuts[:-1], cuts[1:]], axis=1),
        axis=loss.axis % loss.logits.ndim,
        dtype=_dtypes(loss.logits)[0],
        listed=listed,
        options=options,
        target_kind=kind,
        plain=_is_plain(loss.arrays, options),
        classes=in_all,
        **of_rows,
    )


def merge_statistics(parts: Iterable[PartialStatistics]) -> PartialStatistics:
    """Collect the statistics of some of the classes and those of others, of the same rows, into one.

    Nothing is computed: the result does not depend on the order of the parts, nor on which of them were merged before.

    Parameters
    ----------
    parts : iterable of PartialStatistics
        At least one. Their classes may be in any order and need not be neighbours; all else that is not
        statistics is the same: the shape of the rows, the labels and the options.

    Returns
    -------
    PartialStatistics
        The statistics of all these classes.

    Raises
    ------
    ValueError
        If there are no parts, a class is in two of them, or something else differs.
    TypeError
        If a part is something else.

    Examples
    --------
    >>> import xent
    >>> left = xent.partial_statistics([2.0, 1.0], 0)
    >>> right = xent.partial_statistics([0.0], 0, offset=2)
    >>> xent.merge_statistics([right, left])
    <PartialStatistics of the classes 0:3, rows of shape ()>
    """
    all_parts = list(parts)
    for i, part in enumerate(all_parts):
        if not isinstance(part, PartialStatistics):
            raise TypeError(f"parts[{i}] must be PartialStatistics, not {type(part).__name__}")
    if not all_parts:
        raise ValueError("there are no parts to merge")
    one = all_parts[0]
    for i, part in enumerate(all_parts[1:], 1):
        differing = _difference(one, part)
        if differing:
            raise ValueError(f"parts[0] and parts[{i}] do not go together: {differing}")
    ranges = np.concatenate([part.ranges for part in all_parts])
    order = np.argsort(ranges[:, 0], kind="stable")
    ranges = ranges[order]
    again = np.flatnonzero(ranges[1:, 0] < ranges[:-1, 1])
    if len(again):
        first, stop = ranges[again[0] + 1, 0], min(ranges[again[0], 1], ranges[again[0] + 1, 1])
        raise ValueError(f"two of the parts have {_named(first, stop)}")
    listed = one.listed
    for part in all_parts[1:]:
        if listed is not None and part.listed is not None:
            listed = np.where(listed["weight"] >= 0, listed, part.listed)
    return replace(
        one,
        blocks=np.concatenate([part.blocks for part in all_parts], axis=-1)[..., order],
        ranges=ranges,
        listed=listed,
        plain=all(part.plain for part in all_parts),
    )


def _kind_of_target(arrays: dict[str, Any]) -> str | None:
    kinds = {"target": "labels", "indices": "sparse", "probabilities": "probabilities"}
    return next((kind for name, kind in kinds.items() if name in arrays), None)


def _is_plain(arrays: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a part has no options: the core, which asks this of whole rows, sees one part of them at a time."""
    others = set(arrays) - {"logits", "target"}
    defaults = {"label_smoothing": 0, "z_loss": 0, "scale": 1, "ignore": None}
    return not others and all(defaults.get(name, ...) == value for name, value in options.items())


def _offset(offset: int, classes: int) -> int:
    first = _arrays.count("offset", offset)
    if first > np.iinfo(np.int64).max - classes:
        raise ValueError(f"offset {first} is beyond the numbers of classes")
    return first


def _named(first: int, stop: int) -> str:
    return f"class {first}" if stop == first + 1 else f"classes {first} to {stop - 1}"


def _joined(ranges: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return ranges of classes, neighbours as one."""
    starts = np.append(True, ranges[1:, 0] != ranges[:-1, 1])
    stops = np.append(starts[1:], True)
    return list(zip(ranges[starts, 0].tolist(), ranges[stops, 1].tolist(), strict=True))


def _missing(ranges: NDArray[np.int64], classes: int) -> str:
    """Return the names of those of so many classes that are not there."""
    joined = _joined(ranges)
    gaps = zip([0, *(stop for _, stop in joined)], [*(first for first, _ in joined), classes], strict=True)
    return ", ".join(_named(start, first) for start, first in gaps if start < first)


def _difference(one: PartialStatistics, other: PartialStatistics) -> str:
    """Return what they do not have in common, though parts of the same rows would."""
    if one.blocks.shape[:-1] != other.blocks.shape[:-1]:
        return f"their rows have the shapes {one.blocks.shape[:-1]} and {other.blocks.shape[:-1]}"
    for name in ("axis", "dtype", "target_kind", "classes"):
        if getattr(one, name) != getattr(other, name):
            return f"{name} is {getattr(one, name)} and {getattr(other, name)}"
    for name in sorted({*one.options, *other.options}):
        if one.options.get(name) != other.options.get(name):
            return f"{name} is {one.options.get(name)} and {other.options.get(name)}"
    for name in OF_ROWS:
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")):
            return f"{name} is not the same"
    return ""
