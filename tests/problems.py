"""Random problems for the tests of options: logits, targets and options in every combination, for hypothesis.

What shrinks is the structure: the shape, which options there are and how arrays lie in memory. The numbers come from a
seeded generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray

INTEGERS = (np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8)

try:
    import ml_dtypes

    HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
except ImportError:
    HALVES = (np.dtype(np.float16),)
DTYPES = (np.dtype(np.float32), np.dtype(np.float64), *HALVES)


def _strided(array: NDArray[Any]) -> NDArray[Any]:
    every_second = (..., *(slice(None, None, 2) for _ in array.shape))
    view: NDArray[Any] = np.zeros([2 * n for n in array.shape], array.dtype)[every_second]
    view[...] = array
    return view


def _unaligned(array: NDArray[Any]) -> NDArray[Any]:
    view: NDArray[Any] = np.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), offset=1)
    view[...] = array
    return view


def _swapped(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "V":  # bfloat16 has no other order of bytes
        return array.copy()
    return array.astype(array.dtype.newbyteorder("S"))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "C": lambda array: np.array(array, order="C"),
    "F": lambda array: np.array(array, order="F"),
    "strided": _strided,
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "unaligned": _unaligned,
    "swapped": _swapped,
    "read-only": _read_only,
    "repeated": lambda array: np.broadcast_to(array[:1], array.shape) if array.ndim else array,  # of other elements
}
WRITEABLE_LAYOUTS = ("C", "F", "strided", "reversed", "unaligned")


def laid_out(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return the array with its elements elsewhere in memory."""
    return LAYOUTS[layout](array)


def _brief(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_brief, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_brief(of_name)}' for name, of_name in value.items())}}}"
    if isinstance(value, np.ndarray) and value.size > 12:
        return f"<{value.dtype} {value.shape} strides {value.strides}>"
    return repr(value)


@dataclass(frozen=True)
class Case:
    """Arguments of cross_entropy and its gradients; `axis` is among the options."""

    logits: NDArray[Any]
    target: Any
    options: dict[str, Any]
    grad_output: Any

    def __repr__(self) -> str:
        """Return what a failing test shows: of long arrays the layout alone, for the numbers can be made again."""
        parts = (self.logits, self.target, self.options, self.grad_output)
        return f"Case({', '.join(map(_brief, parts))})"

    @property
    def axis(self) -> int:
        return self.options["axis"]

    @property
    def rows(self) -> tuple[int, ...]:
        return np.moveaxis(self.logits, self.axis, -1).shape[:-1]

    def row(self, array: NDArray[Any], index: tuple[int, ...]) -> NDArray[Any]:
        """Return the classes of one row of an array of the shape of the logits."""
        return np.moveaxis(array, self.axis, -1)[index]


def _classes_at(axis: int, array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, -1, axis)


def _probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return distributions in whole 64ths, so that what is missing to one is exact in every dtype."""
    return rng.multinomial(64, np.full(shape[-1], 1 / shape[-1]), size=shape[:-1]) / 64


def _logits(draw: Any, rng: np.random.Generator, shape: tuple[int, ...], *, infinities: bool) -> NDArray[np.float64]:
    x = rng.normal(size=shape) * draw(st.sampled_from([1, 0.01, 4, 30])) + draw(st.sampled_from([0, 0, 40]))
    if draw(st.booleans()):  # confident rows
        np.put_along_axis(x, rng.integers(shape[-1], size=(*shape[:-1], 1)), x.max(initial=0) + 20, axis=-1)
    if infinities and draw(st.booleans()):
        x[rng.random(shape) < 0.2] = -np.inf
        x[..., rng.integers(shape[-1])] = 0.25
    return x


def _labels(
    draw: Any, rng: np.random.Generator, classes: int, rows: tuple[int, ...]
) -> tuple[NDArray[Any], dict[str, Any]]:
    integer = draw(st.sampled_from([t for t in INTEGERS if np.iinfo(t).max >= classes]))
    labels = rng.integers(classes, size=rows)
    options = {}
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([0, np.iinfo(integer).max, -100]))
        if np.can_cast(np.min_scalar_type(options["ignore_index"]), integer) or options["ignore_index"] >= 0:
            ignored = rng.random(rows) < draw(st.sampled_from([0.3, 0.3, 1]))
            return np.where(ignored, options["ignore_index"], labels.astype(integer)).astype(integer), options
    return np.asarray(labels.astype(integer)), options


def _target(
    draw: Any, rng: np.random.Generator, rows: tuple[int, ...], classes: int, axis: int, layouts: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    def floats(p: NDArray[np.float64]) -> NDArray[Any]:
        dtype = draw(st.sampled_from(DTYPES))
        return laid_out(_classes_at(axis, p.astype(dtype)), draw(st.sampled_from(layouts)))

    kind = draw(st.sampled_from(["labels", "probabilities", "sparse"]))
    if kind == "labels":
        labels, options = _labels(draw, rng, classes, rows)
        return laid_out(labels, draw(st.sampled_from(layouts))), options
    if kind == "probabilities":
        if draw(st.booleans()):
            return floats(_probabilities(rng, (*rows, classes))), {}
        return floats(rng.random((*rows, classes)) * (rng.random((*rows, classes)) < 0.5)), {}
    listed = draw(st.integers(1, 5))
    integer = draw(st.sampled_from([t for t in INTEGERS if np.iinfo(t).max >= classes]))
    indices = _classes_at(axis, rng.integers(classes, size=(*rows, listed)).astype(integer))
    p = _probabilities(rng, (*rows, listed)) * draw(st.sampled_from([1, 0.5]))
    options = draw(st.sampled_from([{}, {"tail": None}, {"tail": "zero"}, {"tail": "uniform"}]))
    return (laid_out(indices, draw(st.sampled_from(layouts))), floats(p)), options


def _class_mask(
    draw: Any, rng: np.random.Generator, shape: tuple[int, ...], axis: int, layouts: Sequence[str]
) -> NDArray[np.bool_]:
    """Return one for each class, of the shape of the logits, or of as many axes; one class of each row takes part."""
    mask = rng.random(shape) < 0.7
    mask[..., rng.integers(shape[-1])] = True
    kind = draw(st.sampled_from(["for each class", "for each logit", "broadcast"]))
    if kind == "for each class":
        return laid_out(mask[(0,) * (mask.ndim - 1)], draw(st.sampled_from(layouts)))
    if kind == "broadcast":
        mask = mask[(slice(1),) * (mask.ndim - 1)]
    return laid_out(_classes_at(axis, mask), draw(st.sampled_from(layouts)))


@st.composite
def cases(
    draw: Any,
    dtypes: Sequence[Any] = DTYPES,
    rows: Sequence[tuple[int, ...]] = ((), (1,), (3,), (2, 3)),
    classes: Sequence[int] = (1, 2, 3, 5),
    layouts: Sequence[str] = tuple(LAYOUTS),
    infinities: bool = True,
    plain: bool = False,
) -> Case:
    """Return a strategy for valid arguments; if `plain`, labels are integers and logits are not transformed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (*draw(st.sampled_from(rows)), draw(st.sampled_from(classes)))
    axis = draw(st.sampled_from(range(-len(shape), len(shape))))
    without = tuple(layout for layout in layouts if layout != "repeated")

    def chosen(layouts: Sequence[str] = layouts) -> str:
        return draw(st.sampled_from(layouts))

    x = _logits(draw, rng, shape, infinities=infinities).astype(draw(st.sampled_from(dtypes)))
    logits = laid_out(_classes_at(axis, x), chosen(layouts if len(shape) > 1 else without))
    if plain:
        labels, of_target = _labels(draw, rng, shape[-1], shape[:-1])
        target: Any = laid_out(labels, chosen(without))
    else:
        target, of_target = _target(draw, rng, shape[:-1], shape[-1], axis, without)
    options: dict[str, Any] = {"axis": axis, **of_target}
    if draw(st.booleans()):
        weight = rng.choice([0, 0.5, 1, 2.25], size=shape[-1])
        options["weight"] = laid_out(weight.astype(draw(st.sampled_from(DTYPES))), chosen())
    if draw(st.booleans()):
        sample_weight = rng.choice([0, 0.25, 1, 3], size=shape[:-1])
        options["sample_weight"] = laid_out(sample_weight.astype(draw(st.sampled_from(DTYPES))), chosen())
    if draw(st.booleans()):
        options["class_mask"] = _class_mask(draw, rng, shape, axis, without)
    for name, values in (
        ("label_smoothing", (0.1, 1.0, 0.0, 1e-3)),
        ("z_loss", (1e-4, 0.5, 0.0)),
        ("scale", (0.5, 14.3, 0.1, 1.0)),
        ("softcap", (30.0, 5.0, None)),
    ):
        if draw(st.booleans()) and not (plain and name in ("scale", "softcap")):
            options[name] = draw(st.sampled_from(values))
    options["reduction"] = draw(st.sampled_from(["mean", "sum", "none"]))
    if options["reduction"] == "mean" and draw(st.booleans()):
        options["denominator"] = draw(st.sampled_from([1.0, 12.5]))
    grad_output: Any = draw(st.sampled_from([1.0, -0.5, 3]))
    if options["reduction"] == "none" and draw(st.booleans()):
        grad_output = laid_out(rng.normal(size=shape[:-1]), chosen())
    return Case(logits, target, options, grad_output)


def float64_case(case: Case) -> Case:
    """Return the same numbers as float64 and int64, so that the oracle's results are not rounded."""
    target = case.target
    if isinstance(target, tuple):
        target = target[0], target[1].astype(np.float64)
    return Case(case.logits.astype(np.float64), target, case.options, case.grad_output)
