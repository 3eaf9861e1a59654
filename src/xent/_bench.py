"""``xent bench``: measures the cross-entropy beside NumPy's, and shows what it found."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from timeit import Timer
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import xent
from xent import _command

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

with contextlib.suppress(ModuleNotFoundError):  # `_command.require` says how to install it
    from rich import box
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

LOGITS_SPREAD = 3.0
MIN_REPETITIONS = 5
# Several calls, for what one side leaves in the caches is written to memory in the time of the other's first: up to a
# millisecond.
MIN_SAMPLE_SECONDS = 2e-2
CHECKED_ROWS = 32


@dataclass(frozen=True)
class Shape:
    """The shape of the logits."""

    rows: int
    classes: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.classes}"


DEFAULT_SHAPES = (
    Shape(1, 10),
    Shape(65_536, 10),
    Shape(1, 1_000),
    Shape(8_192, 1_000),
    Shape(1, 32_768),
    Shape(1_024, 32_768),
    Shape(1, 128_256),
    Shape(256, 128_256),
)


@dataclass(frozen=True)
class Settings:
    """What a run of the benchmark depends on, beside the machine."""

    shapes: tuple[Shape, ...]
    dtype: str
    threads: int
    seed: int
    seconds: float

    def command(self) -> str:
        """Return the command line that repeats the run, with every default spelt out."""
        words = ["xent", "bench", "--dtype", self.dtype, "--threads", str(self.threads)]
        words += ["--seed", str(self.seed), "--seconds", f"{self.seconds:g}"]
        if self.shapes != DEFAULT_SHAPES:
            words += [word for shape in self.shapes for word in ("--shape", str(shape))]
        return shlex.join(words)


@dataclass(frozen=True)
class Timing:
    """Seconds for one call, over the repetitions; each repetition is the mean of so many calls."""

    median: float
    minimum: float
    lower_quartile: float
    upper_quartile: float
    repetitions: int
    calls: int

    @classmethod
    def of(cls, samples: Sequence[float], calls: int) -> Timing:
        """Summarise the repetitions."""
        minimum, lower, median, upper = (float(q) for q in np.percentile(samples, [0, 25, 50, 75]))
        return cls(median, minimum, lower, upper, len(samples), calls)


@dataclass(frozen=True)
class Errors:
    """The largest relative errors; the forward operation has no gradient."""

    loss: float
    grad: float | None


@dataclass(frozen=True)
class Side:
    """What was measured of one of the two implementations."""

    timing: Timing
    errors: Errors


@dataclass(frozen=True)
class Measurement:
    """One operation on one shape, by NumPy and by xent."""

    shape: Shape
    operation: str
    numpy: Side
    xent: Side

    @property
    def speedup(self) -> float:
        """How many times faster xent is, by the medians."""
        return self.numpy.timing.median / self.xent.timing.median

    def throughput(self, side: Side) -> float:
        """Return 1e9 logits a second, by the median."""
        return self.shape.rows * self.shape.classes / side.timing.median / 1e9

    def as_dict(self) -> dict[str, Any]:
        """Return everything that is known, for JSON."""
        sides = {
            name: {
                "seconds": asdict(side.timing),
                "gelem_per_s": self.throughput(side),
                "max_error": asdict(side.errors),
            }
            for name, side in (("numpy", self.numpy), ("xent", self.xent))
        }
        return {**asdict(self.shape), "operation": self.operation, "speedup": self.speedup, **sides}


class NumpyCrossEntropy:
    """The cross-entropy as one writes it in NumPy with care: one exp a logit, every large array made beforehand."""

    def __init__(self, logits: NDArray[Any], target: NDArray[np.intp], out: NDArray[Any], axis: int = 1) -> None:
        self.logits = logits
        self.out = out
        self.axis = axis
        row_indices = np.indices(target.shape, sparse=True)
        self.at_target = (*row_indices[:axis], target, *row_indices[axis:])
        self.largest = np.empty_like(logits, shape=np.expand_dims(target, axis).shape)
        self.sum = np.empty_like(self.largest)

    def loss(self, reduction: str = "mean") -> Any:
        """Compute the loss, and leave the shifted exponentials in `out`."""
        np.max(self.logits, axis=self.axis, keepdims=True, out=self.largest)
        np.subtract(self.logits, self.largest, out=self.out)
        target_logit = self.out[self.at_target]
        np.exp(self.out, out=self.out)
        np.sum(self.out, axis=self.axis, keepdims=True, out=self.sum)
        losses = np.log(self.sum.squeeze(self.axis)) - target_logit
        return losses.mean() if reduction == "mean" else losses

    def loss_and_grad(self, reduction: str = "mean") -> tuple[Any, NDArray[Any]]:
        """Compute the loss and its gradient."""
        loss = self.loss(reduction)
        upstream = 1 / self.sum.size if reduction == "mean" else 1.0
        self.out *= upstream / self.sum
        self.out[self.at_target] -= upstream
        return loss, self.out


@dataclass(frozen=True)
class Operation:
    """One operation by both implementations, which take the same ``reduction`` and write to the same `out`."""

    name: str
    numpy: Callable[..., Any]
    xent: Callable[..., Any]


class Problem:
    """Random logits and targets of one shape."""

    def __init__(self, shape: Shape, settings: Settings) -> None:
        rng = np.random.default_rng(settings.seed)
        dtype = np.float32 if settings.dtype == "float32" else np.float64
        self.threads = settings.threads
        self.logits = rng.standard_normal((shape.rows, shape.classes), dtype=dtype)
        self.logits *= LOGITS_SPREAD
        self.target = rng.integers(shape.classes, size=shape.rows, dtype=np.intp)
        self.checked = np.linspace(0, shape.rows - 1, min(shape.rows, CHECKED_ROWS)).astype(np.intp)

    def operations(self) -> tuple[Operation, ...]:
        """Return what is to be timed."""
        out = np.empty_like(self.logits)
        by_numpy = NumpyCrossEntropy(self.logits, self.target, out)
        arguments: dict[str, Any] = {"logits": self.logits, "target": self.target, "n_threads": self.threads}
        return (
            Operation("forward", by_numpy.loss, partial(xent.cross_entropy, **arguments)),
            Operation(
                "loss + grad",
                by_numpy.loss_and_grad,
                partial(xent.cross_entropy_and_grad, grad_out=out, **arguments),
            ),
        )

    def errors(self, function: Callable[..., Any]) -> Errors:
        """Return the largest relative errors of an operation's function in the checked rows."""
        result = function(reduction="none")
        loss, grad = result if isinstance(result, tuple) else (result, None)
        rows = self.checked
        true_loss, true_grad = xent.reference.cross_entropy_and_grad(
            self.logits[rows].astype(np.float64), self.target[rows], reduction="none"
        )
        return Errors(
            max_relative_error(loss[rows], true_loss),
            None if grad is None else max_relative_error(grad[rows], true_grad),
        )


def max_relative_error(values: NDArray[Any], truth: NDArray[np.float64]) -> float:
    """Return the largest relative error of a component; it is 0 where both are 0."""
    error = np.abs(values - truth)
    relative = np.divide(error, np.abs(truth), out=np.zeros_like(truth), where=error != 0)
    return float(relative.max())


def time_alternately(functions: Sequence[Callable[[], Any]], seconds: float) -> list[Timing]:
    """Time warmed-up functions in turn until the seconds are over."""
    timers = [Timer(function) for function in functions]
    calls = [max(1, math.ceil(MIN_SAMPLE_SECONDS / timer.timeit(1))) for timer in timers]
    samples: list[list[float]] = [[] for _ in timers]
    end = time.perf_counter() + seconds
    while len(samples[0]) < MIN_REPETITIONS or time.perf_counter() < end:
        for timer, n, sample in zip(timers, calls, samples, strict=True):
            sample.append(timer.timeit(n) / n)
    return [Timing.of(sample, n) for sample, n in zip(samples, calls, strict=True)]


def measure(settings: Settings) -> Iterator[Measurement]:
    """Measure every operation on every shape."""
    for shape in settings.shapes:
        problem = Problem(shape, settings)
        for operation in problem.operations():
            functions = (operation.numpy, operation.xent)
            errors = [problem.errors(function) for function in functions]  # first, for it warms up
            timings = time_alternately(functions, settings.seconds)
            yield Measurement(shape, operation.name, *map(Side, timings, errors))


def _duration(seconds: float) -> str:
    for unit, length in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 999.995 * length:
            return f"{seconds / length:.2f} {unit}"
    return f"{seconds:.2f} s"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


def bench_table(measurements: Sequence[Measurement], dtype: str) -> Table:
    """Return the measurements as a table."""
    table = Table(
        title=f"Softmax cross-entropy of {dtype} logits",
        caption=f"Times are medians of one call; NumPy and xent alternate, NumPy on one thread. Errors are the largest "
        f"relative ones of a component against xent.reference in float64, in up to {CHECKED_ROWS} evenly spaced rows.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = ("rows", "classes", "operation", "NumPy\ntime", "xent\ntime", "speed-up", "xent\nGelem/s")
    error_columns = ("xent\nloss\nerror", "xent\ngrad\nerror", "NumPy\nloss\nerror", "NumPy\ngrad\nerror")
    for column in columns + error_columns:
        table.add_column(column, justify="left" if column == "operation" else "right", no_wrap=True)
    for i, m in enumerate(measurements):
        errors = (m.xent.errors.loss, m.xent.errors.grad, m.numpy.errors.loss, m.numpy.errors.grad)
        table.add_row(
            str(m.shape.rows),
            str(m.shape.classes),
            m.operation,
            _duration(m.numpy.timing.median),
            _duration(m.xent.timing.median),
            f"{m.speedup:.1f} x",
            f"{m.throughput(m.xent):.3f}",
            *map(_error, errors),
            end_section=i + 1 < len(measurements) and measurements[i + 1].shape != m.shape,
        )
    return table


def summary(config: dict[str, Any], settings: Settings) -> str:
    """Return where the numbers are from and how to repeat them."""
    versions = ", ".join(f"{name} {config[name.lower()]}" for name in ("xent", "NumPy", "Python"))
    return f"{_machine(config, settings)}, {versions}: {settings.command()}"


def _machine(config: dict[str, Any], settings: Settings) -> str:
    threads = "1 thread" if settings.threads == 1 else f"up to {settings.threads} threads"
    return f"{config['cpu']}, {config['isa']}, {threads}"


def bench_figure(measurements: Sequence[Measurement], config: dict[str, Any], settings: Settings) -> Figure:
    """Return the throughputs as a figure, one panel for each operation."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    operations = list(dict.fromkeys(m.operation for m in measurements))
    figure = Figure(figsize=(11, 2.2 + 0.45 * len(settings.shapes)), layout="constrained")
    panels = figure.subplots(1, len(operations), sharex=True, sharey=True)
    for panel, operation in zip(panels, operations, strict=True):
        _draw_panel(panel, [m for m in measurements if m.operation == operation])
        panel.set_title(operation)
    low, high = panels[0].get_xlim()
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))  # of all panels
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].invert_yaxis()
    panels[0].set_ylabel("rows \N{MULTIPLICATION SIGN} classes")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(
        f"Softmax cross-entropy of {settings.dtype} logits, xent {config['xent']}\n{_machine(config, settings)}"
    )
    return figure


def _draw_panel(panel: Axes, measurements: Sequence[Measurement]) -> None:
    """Draw two dots a shape, for a logarithmic axis has no zero that bars could start from."""
    heights = range(len(measurements))
    by_numpy = [m.throughput(m.numpy) for m in measurements]
    by_xent = [m.throughput(m.xent) for m in measurements]
    panel.hlines(heights, by_numpy, by_xent, color="0.75", zorder=1)
    panel.scatter(by_numpy, heights, color="#0072b2", marker="s", label="NumPy, 1 thread")
    panel.scatter(by_xent, heights, color="#d55e00", marker="o", label="xent, and how many times faster")
    for height, m in enumerate(measurements):
        right = max(by_numpy[height], by_xent[height])
        text = f"{m.speedup:.1f}\N{MULTIPLICATION SIGN}"
        panel.annotate(text, (right, height), xytext=(8, 0), textcoords="offset points", va="center", fontsize="small")
    labels = (f"{m.shape.rows:,} \N{MULTIPLICATION SIGN} {m.shape.classes:,}" for m in measurements)
    panel.set_yticks(heights, [label.replace(",", " ") for label in labels])
    panel.set_xscale("log")
    panel.minorticks_off()
    panel.set_xlabel("throughput in Gelem/s")
    panel.margins(x=0.15)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)


def as_json(measurements: Sequence[Measurement], config: dict[str, Any], settings: Settings) -> bytes:
    """Return everything that was measured, and what is needed to measure it again."""
    content = {
        "command": settings.command(),
        "config": config,
        "settings": {**asdict(settings), "checked_rows": CHECKED_ROWS, "logits_spread": LOGITS_SPREAD},
        "measurements": [m.as_dict() for m in measurements],
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def run(args: Namespace) -> None:
    """Measure, show, and write what is asked for."""
    if args.plot:
        _command.require("matplotlib")
    config = _command.configuration()
    threads = args.threads or config["threads"]
    settings = Settings(tuple(args.shape or DEFAULT_SHAPES), args.dtype, threads, args.seed, args.seconds)
    measurements = measure_with_progress(settings)

    try:
        with _command.Outputs() as outputs:
            if args.json:
                outputs.write(args.json, as_json(measurements, config, settings))
            if args.plot:
                outputs.write(args.plot, _command.drawn(bench_figure(measurements, config, settings), args.plot))
    finally:
        console = _command.console()
        console.print(bench_table(measurements, settings.dtype))
        console.print(summary(config, settings), markup=False, soft_wrap=True)


def measure_with_progress(settings: Settings) -> list[Measurement]:
    """Measure, with a progress bar on stderr."""
    console = Console(stderr=True)
    measurements = []
    # A bar that refreshes itself has a thread, which would be measured, too.
    with Progress(console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=2 * len(settings.shapes))
        for measurement in measure(settings):
            measurements.append(measurement)
            progress.update(task, advance=1, refresh=True)
    return measurements
