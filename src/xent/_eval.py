"""``xent eval``: the figures of logits and labels in files, block by block, in memory that does not grow with them.

The arithmetic on logits is that of the library; here its results are added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

import xent
from xent._command import Outputs, UsageError, naming, require
from xent._npy import Mapped, Place, new_npy, open_npy

Float64s = NDArray[np.float64]

BLOCK_BYTES = 2**24  # of logits: few enough for the last cache, where one function leaves them to the next
BLOCK_ROWS = 2**16  # for few classes, where rows have more results than logits
HISTOGRAM_BINS = 128
FLOATS = {"float16", "bfloat16", "float32", "float64"}  # NumPy's names, of any byte order, and ml_dtypes' one


@dataclass(frozen=True)
class Settings:
    """What is to be evaluated, and how."""

    logits: Path
    labels: Path
    dtype: str | None
    top_k: tuple[int, ...]
    ignore_index: int | None
    scale: float
    softcap: float | None
    label_smoothing: float
    bins: int
    threads: int


@dataclass(frozen=True)
class Targets:
    """The files to write."""

    grad: Path | None
    per_row: Path | None


# ---- The files -----------------------------------------------------------------------------------------------------


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether the library takes it as it is."""
    return dtype.name in FLOATS


class Inputs:
    """Logits and labels that fit together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.logits = _open_logits(settings.logits, settings.dtype)
        try:
            self.labels = _open_labels(settings.labels, settings.logits, self.logits)
        except BaseException:
            self.logits.file.close()
            raise

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.logits.file.close()
        self.labels.file.close()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[-1]

    @property
    def dtype_of_results(self) -> np.dtype[Any]:
        """That of losses and gradients. One row's part of a mean is often less than the least of float16."""
        return np.dtype(np.float32) if self.dtype.itemsize == 2 else self.dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that the library has for the logits: integers are float64 to it."""
        native = self.logits.dtype.newbyteorder("=")
        return native if is_float(native) else np.dtype(np.float64)

    def count(self, advance: Callable[[int], None]) -> int:
        """Return how many rows count, after a look at every label."""
        counted = 0
        for place in self.labels.places(BLOCK_BYTES // self.labels.dtype.itemsize, len(self.labels.shape)):
            labels = self.labels.read(place)
            counts = self.counts(labels)
            bad = counts & ((labels < 0) | (labels >= self.classes))
            if bad.any():
                where = tuple(int(i[0]) for i in np.nonzero(bad))
                self._refuse(tuple(s.start + i for s, i in zip(place, where, strict=True)), labels[where])
            counted += int(np.count_nonzero(counts))
            advance(labels.nbytes)
        return counted

    def _refuse(self, index: tuple[int, ...], label: int) -> None:
        name = f"{self._settings.labels}[{', '.join(map(str, index))}]"
        hint = f"; --ignore-index {label} leaves such rows out" if self._settings.ignore_index is None else ""
        raise UsageError(f"{name} = {label} is out of range for {self.classes} classes{hint}")

    def counts(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which rows are not ignored."""
        ignore = self._settings.ignore_index
        return np.ones(labels.shape, np.bool_) if ignore is None else np.asarray(labels != ignore)

    def places(self) -> Iterator[Place]:
        """Yield blocks of rows."""
        row_bytes = self.classes * self.dtype.itemsize
        most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))
        return self.logits.places(most, len(self.labels.shape))

    def with_classes(self, place: Place) -> Place:
        """Return the place of rows' logits."""
        return (*place, slice(0, self.classes))


def _open_logits(path: Path, dtype: str | None) -> Mapped:
    array = open_npy(path)
    try:
        array = _as_bfloat16(path, array) if dtype == "bfloat16" else array
        if not is_float(array.dtype) and array.dtype.kind not in "iu":
            bits = array.dtype.kind == "V" and array.dtype.itemsize == 2 and not array.dtype.names
            hint = "; if they are bfloat16, add --dtype bfloat16" if bits else ""
            raise UsageError(
                f"{path} holds {array.dtype}, but logits are float16, bfloat16, float32 or float64, or integers{hint}"
            )
        if len(array.shape) not in {2, 3}:
            raise UsageError(f"{path} has shape {array.shape}, but logits have 2 or 3 axes, the classes last")
        if array.shape[-1] == 0:
            raise UsageError(f"{path} of shape {array.shape} has no classes")
    except BaseException:
        array.file.close()
        raise
    return array


def _as_bfloat16(path: Path, array: Mapped) -> Mapped:
    if array.dtype.itemsize != 2 or array.dtype.kind not in "Vu" or array.dtype.names or not array.dtype.isnative:
        raise UsageError(
            f"{path} holds {array.dtype}, not bfloat16, which .npy files have as V2, or its bits as uint16"
        )
    require("ml_dtypes")
    import ml_dtypes  # noqa: PLC0415 - optional

    return array.viewed(np.dtype(ml_dtypes.bfloat16))


def _open_labels(path: Path, logits_path: Path, logits: Mapped) -> Mapped:
    array = open_npy(path)
    if array.dtype.kind in "iu" and array.shape == logits.shape[:-1]:
        return array
    array.file.close()
    if array.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {array.dtype}, but labels are integers, the index of each row's class")
    raise UsageError(
        f"{path} has shape {array.shape}, but {logits_path} of shape {logits.shape} needs {logits.shape[:-1]}: "
        "one label for each row"
    )


# ---- Sums over blocks ----------------------------------------------------------------------------------------------


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return a + b and its rounding error (Knuth's TwoSum)."""
    total = a + b
    b_seen = total - a
    return total, (a - (total - b_seen)) + (b - b_seen)


class Sum:
    """A sum in twice the precision, for that of a billion rows is to be as good as that of ten, in blocks of any size.

    NaN and infinities have the sum that IEEE 754 gives them.
    """

    def __init__(self) -> None:
        self._high = 0.0
        self._low = 0.0
        self._special = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Add numbers: halves of them to each other, and the rounding errors beside."""
        x = values.astype(np.float64).reshape(-1)
        if not np.isfinite(x).all():
            self._special += float(np.sum(x[~np.isfinite(x)]))
            return
        while x.size > 1:
            half = x.size // 2
            odd = x[2 * half :]
            x, errors = _two_sum(x[:half], x[half : 2 * half])
            self._low += float(np.sum(errors))
            x = np.concatenate((x, odd))
        for number in x:
            self._high, error = _two_sum(self._high, float(number))
            self._low += error

    def mean(self, count: int) -> float:
        """Return the sum divided by a number; NaN if that is 0."""
        total = self._high + self._low if self._special == 0 else self._special
        return total / count if count else math.nan


class Calibration:
    """Rows by their confidence, the probability of the largest class, in bins of equal width (Guo et al. 2017).

    Bin m of M has the confidences in ((m - 1) / M, m / M].
    """

    def __init__(self, bins: int) -> None:
        self.edges = np.linspace(0, 1, bins + 1)
        self.rows = np.zeros(bins, np.int64)
        self.right = np.zeros(bins, np.int64)
        self._high = np.zeros(bins)
        self._low = np.zeros(bins)

    def add(self, confidence: Float64s, right: NDArray[np.bool_]) -> None:
        """Add rows, of which none is NaN."""
        bins = len(self.rows)
        index = np.clip(np.searchsorted(self.edges, confidence, side="left") - 1, 0, bins - 1)
        self.rows += np.bincount(index, minlength=bins)
        self.right += np.bincount(index[right], minlength=bins)
        self._high, error = _two_sum(self._high, np.bincount(index, confidence, minlength=bins))
        self._low += error

    @property
    def confidence(self) -> Float64s:
        """The sum of the confidences in each bin."""
        return self._high + self._low

    def error(self, count: int) -> float:
        """Return the expected calibration error: the rows' mean distance of accuracy and confidence in their bin."""
        return math.fsum(np.abs(self.right - self.confidence)) / count if count else math.nan


class Histogram:
    """Counts of numbers in bins from 0 on, whose width doubles until the largest finite one has its place.

    Widths are powers of two: the result does not depend on how the numbers come in blocks.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(HISTOGRAM_BINS, np.int64)
        self.width = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Add what is finite of some numbers; what is below 0 by rounding is in the first bin."""
        x = np.maximum(values[np.isfinite(values)].astype(np.float64), 0)
        largest = float(np.max(x, initial=0))
        if largest > 0:
            width = math.ldexp(1, max(math.frexp(largest / HISTOGRAM_BINS)[1], -1000))  # > largest / HISTOGRAM_BINS
            self.width = self.width or width
            while self.width < width:
                pairs = self.counts.reshape(-1, 2).sum(axis=1)
                self.counts = np.concatenate((pairs, np.zeros_like(pairs)))
                self.width *= 2
        index = (x / self.width).astype(np.intp) if self.width else np.zeros(len(x), np.intp)
        self.counts += np.bincount(index, minlength=HISTOGRAM_BINS)


# ---- The evaluation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """The results of some rows. Those of an ignored row are NaN, -1 and the loss 0."""

    labels: NDArray[Any]
    counts: NDArray[np.bool_]
    loss: NDArray[Any]
    log_prob: NDArray[Any]
    prediction: NDArray[Any]
    rank: NDArray[Any]
    confidence: NDArray[Any]
    entropy: NDArray[Any]


PER_ROW = ("label", "loss", "log_prob", "prediction", "rank", "confidence", "entropy")


class Figures:
    """The figures of all rows."""

    def __init__(self, settings: Settings, count: int, ignored: int) -> None:
        self.count, self.ignored = count, ignored
        self.not_a_number = self.infinite = 0
        self._loss, self._log_prob, self._entropy, self._confidence = Sum(), Sum(), Sum(), Sum()
        self._hits = dict.fromkeys((1, *settings.top_k), 0)
        self.calibration = Calibration(settings.bins)
        self.losses = Histogram()

    def add(self, block: Block) -> None:
        """Add the rows of a block that count."""
        c = block.counts
        loss, rank, confidence = block.loss[c], block.rank[c], block.confidence[c].astype(np.float64)
        self._loss.add(loss)
        self._log_prob.add(block.log_prob[c])
        self._entropy.add(block.entropy[c])
        self._confidence.add(confidence)
        number = ~np.isnan(confidence)
        self.not_a_number += int(np.count_nonzero(~number))
        self.infinite += int(np.count_nonzero(np.isinf(loss)))
        for k in self._hits:
            self._hits[k] += int(np.count_nonzero(number & (rank < k)))
        self.calibration.add(confidence[number], (rank == 0)[number])
        self.losses.add(loss)

    def accuracy(self, k: int = 1) -> float:
        """Return the part of the rows whose label is one of the k largest classes."""
        return self._hits[k] / self.count if self.count else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        nll = -self._log_prob.mean(self.count)
        return {
            "rows": self.count,
            "ignored_rows": self.ignored,
            "nan_rows": self.not_a_number,
            "infinite_losses": self.infinite,
            "loss": self._loss.mean(self.count),
            "perplexity": math.exp(nll) if not nll > 709 else math.inf,
            "accuracy": self.accuracy(),
            "top_k_accuracy": {str(k): self.accuracy(k) for k in self._hits if k > 1},
            "entropy": self._entropy.mean(self.count),
            "confidence": self._confidence.mean(self.count),
            "expected_calibration_error": math.nan if self.not_a_number else self.calibration.error(self.count),
        }


def evaluate_files(
    settings: Settings, inputs: Inputs, targets: Targets, outputs: Outputs, advance: Callable[[int], None]
) -> Figures:
    """Evaluate all blocks, and write what there is for each; `advance` is told of the bytes that have been read."""
    count = inputs.count(advance)
    figures = Figures(settings, count, math.prod(inputs.labels.shape) - count)
    grad = None
    if targets.grad:
        grad = new_npy(outputs, targets.grad, inputs.dtype_of_results, inputs.logits.shape, inputs.logits.fortran)
    write_rows = _row_writer(targets.per_row, inputs, outputs)
    for place in inputs.places():
        block = _evaluate(settings, inputs, place, grad, count)
        figures.add(block)
        write_rows(place, block)
        advance(block.labels.size * inputs.classes * inputs.logits.dtype.itemsize)
    return figures


def _evaluate(settings: Settings, inputs: Inputs, place: Place, grad: Mapped | None, count: int) -> Block:
    """Evaluate a block of rows, and write its gradient."""
    logits = inputs.logits.read(inputs.with_classes(place))
    logits = logits if is_float(logits.dtype) else logits.astype(np.float64)
    labels = inputs.labels.read(place)
    counts = inputs.counts(labels)
    of_logits: dict[str, Any] = {"scale": settings.scale, "softcap": settings.softcap, "n_threads": settings.threads}

    valid = np.where(counts, labels, 0).astype(np.intp)
    found = xent.evaluate(logits, valid, top_k=1, **of_logits)
    loss = 0 - found.log_prob
    if settings.label_smoothing or grad:
        of_loss = {**of_logits, "label_smoothing": settings.label_smoothing, "reduction": "none"}
        of_loss["ignore_index"] = settings.ignore_index
        if grad:
            smoothed = _write_grad(grad, inputs.with_classes(place), logits, labels, 1 / max(count, 1), of_loss)
        else:
            smoothed = xent.cross_entropy(logits, labels, **of_loss)
        if settings.label_smoothing:  # else it is the same but for rounding, and no figure is to depend on an output
            loss = smoothed
    nothing = found.log_prob.dtype.type(np.nan)
    return Block(
        labels=labels,
        counts=counts,
        loss=np.where(counts, loss, 0),
        log_prob=np.where(counts, found.log_prob, nothing),
        prediction=np.where(counts, found.argmax, -1),
        rank=np.where(counts, found.rank, -1),
        confidence=np.where(counts, np.exp(found.top_k_log_probs[..., 0]), nothing),
        entropy=np.where(counts, found.entropy, nothing),
    )


def _write_grad(
    grad: Mapped, place: Place, logits: NDArray[Any], labels: NDArray[Any], upstream: float, of_loss: dict[str, Any]
) -> Any:
    """Write the gradient of a block, and return its losses."""
    mapped = grad.is_window(place)
    out = grad.window(place, write=True) if mapped else np.empty(logits.shape, grad.dtype)
    loss, _ = xent.cross_entropy_and_grad(logits, labels, grad_output=upstream, grad_out=out, **of_loss)
    if not mapped:
        grad.write(place, out)
    return loss


# ---- The values of each row ----------------------------------------------------------------------------------------


def _row_writer(path: Path | None, inputs: Inputs, outputs: Outputs) -> Callable[[Place, Block], None]:
    """Return a function that writes a block's rows to the file."""
    if path is None:
        return lambda _place, _block: None
    if path.suffix == ".csv":
        return _CsvRows(path, outputs.open(path), len(inputs.labels.shape))
    dtypes = {"label": inputs.labels.dtype.newbyteorder("="), "prediction": np.int64, "rank": np.int64}
    dtype = np.dtype([(name, dtypes.get(name, inputs.dtype_of_results)) for name in PER_ROW])
    return _NpyRows(new_npy(outputs, path, dtype, inputs.labels.shape, inputs.logits.fortran))


def _columns(block: Block) -> dict[str, NDArray[Any]]:
    return {name: getattr(block, "labels" if name == "label" else name) for name in PER_ROW}


class _NpyRows:
    """One record for each row, in the shape of the labels."""

    def __init__(self, array: Mapped) -> None:
        self._array = array

    def __call__(self, place: Place, block: Block) -> None:
        rows = self._array.window(place, write=True)
        for name, values in _columns(block).items():
            rows[name] = values


class _CsvRows:
    """One line for each row, with its index; floats in the fewest digits that are read back as the same number."""

    def __init__(self, path: Path, file: BinaryIO, axes: int) -> None:
        self._path, self._file = path, file
        index = ["row"] if axes == 1 else [f"row_{axis}" for axis in range(axes)]
        self._write_lines([[*index, *PER_ROW]])

    def _write_lines(self, lines: Iterable[Iterable[str]]) -> None:
        with naming(self._path):
            self._file.writelines((",".join(line) + "\n").encode() for line in lines)

    def __call__(self, place: Place, block: Block) -> None:
        index = np.indices(block.labels.shape).reshape(block.labels.ndim, -1)
        columns = [i + s.start for i, s in zip(index, place, strict=True)]
        columns += [values.reshape(-1) for values in _columns(block).values()]
        self._write_lines(zip(*(column.astype(np.str_).tolist() for column in columns), strict=True))
