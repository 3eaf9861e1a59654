"""``xent eval`` as a command: runs the evaluation with a progress bar, and shows and writes what it found."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xent import _command
from xent._command import Outputs, UsageError
from xent._eval import Figures, Inputs, Settings, Targets, evaluate_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

with contextlib.suppress(ModuleNotFoundError):  # `_command.require` says how to install it
    from rich import box
    from rich.console import Console
    from rich.progress import Progress, TransferSpeedColumn
    from rich.table import Table

STDOUT = Path("-")


def run(args: Namespace) -> None:
    """Evaluate, write what is asked for, and show it."""
    if args.plot:
        _command.require("matplotlib")
    config = _command.configuration()
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    top_k = tuple(dict.fromkeys(args.top_k or [5]))
    settings = Settings(**{**given, "top_k": top_k, "threads": args.threads or config["threads"]})
    json_file = args.json if args.json != STDOUT else None
    _refuse_overwriting(
        {"LOGITS.npy": settings.logits, "LABELS.npy": settings.labels},
        {"--grad": args.grad, "--per-row": args.per_row, "--plot": args.plot, "--json": json_file},
    )

    with Inputs(settings) as inputs:
        with _clean_termination(), Outputs() as outputs:
            figures = _evaluate_with_progress(settings, inputs, Targets(args.grad, args.per_row), outputs)
            text = json.dumps(as_json(settings, inputs, figures, config), indent=2, allow_nan=False) + "\n"
            if args.plot:
                outputs.write(args.plot, _command.drawn(evaluation_figure(settings, inputs, figures), args.plot))
            if json_file:
                outputs.write(json_file, text.encode())
        if args.json == STDOUT:
            sys.stdout.write(text)
        else:
            _command.console().print(evaluation_table(inputs, figures))


@contextlib.contextmanager
def _clean_termination() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a closed terminal, end the process as an exception does: no half file stays."""
    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        numbers = set()
    ours = {n for n in numbers if signal.getsignal(n) == signal.SIG_DFL}  # nohup lets SIGHUP be ignored
    for number in ours:
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _refuse_overwriting(inputs: dict[str, Path], outputs: dict[str, Path | None]) -> None:
    """Raise `UsageError` if two names are of one file and one of them is to be written."""
    seen = {path.resolve(): name for name, path in inputs.items()}
    for name, path in outputs.items():
        if path:
            other = seen.setdefault(path.resolve(), name)
            if other != name:
                raise UsageError(f"{name} and {other} are the same file: {path}")


def _evaluate_with_progress(settings: Settings, inputs: Inputs, targets: Targets, outputs: Outputs) -> Figures:
    """Evaluate, with a progress bar on stderr."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluating", total=inputs.logits.nbytes + inputs.labels.nbytes)
        return evaluate_files(settings, inputs, targets, outputs, lambda n: progress.advance(task, n))


def command(settings: Settings) -> str:
    """Return the command line that repeats the evaluation, with every default spelt out."""
    files = (str(path) for path in (settings.logits, settings.labels))
    words = ["xent", "eval", *(f"./{file}" if file.startswith("-") else file for file in files)]
    for name, value in asdict(settings).items():
        if name not in {"logits", "labels"} and value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [word for v in values for word in (f"--{name.replace('_', '-')}", str(v))]
    return shlex.join(words)


def as_json(settings: Settings, inputs: Inputs, figures: Figures, config: dict[str, Any]) -> dict[str, Any]:
    """Return everything that is known; JSON has no NaN and no infinity, which are null."""
    bins = figures.calibration
    losses = figures.losses
    return {
        "command": command(settings),
        "config": config,
        "settings": {**asdict(settings), "logits": str(settings.logits), "labels": str(settings.labels)},
        "logits": {"shape": inputs.logits.shape, "dtype": inputs.logits.dtype.name},
        "results": _finite(figures.as_dict()),
        "reliability": [
            {
                "above": float(bins.edges[i]),
                "up_to": float(bins.edges[i + 1]),
                "rows": int(rows),
                "accuracy": int(bins.right[i]) / int(rows) if rows else None,
                "confidence": float(bins.confidence[i]) / int(rows) if rows else None,
            }
            for i, rows in enumerate(bins.rows)
        ],
        "losses": {"bin_width": losses.width, "rows": losses.counts.tolist()},
    }


def _finite(value: Any) -> Any:
    """Return the value, None for numbers in it that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluation_table(inputs: Inputs, figures: Figures) -> Table:
    """Return the figures as a table."""
    table = Table(
        title=f"{inputs.logits.dtype.name} logits of shape {inputs.logits.shape}",
        caption="Loss and entropy in nats.",
        box=box.SIMPLE_HEAD,
        show_header=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    results = figures.as_dict()
    table.add_row("rows", str(results["rows"]))
    for name, label in (("ignored_rows", "ignored"), ("nan_rows", "NaN"), ("infinite_losses", "of infinite loss")):
        if results[name]:
            table.add_row(f"rows {label}" if label != "NaN" else "rows that are NaN", str(results[name]))
    table.add_row("loss", f"{results['loss']:.6g}")
    table.add_row("perplexity", f"{results['perplexity']:.6g}")
    table.add_row("accuracy", f"{results['accuracy']:.2%}")
    for k, value in results["top_k_accuracy"].items():
        table.add_row(f"top-{k} accuracy", f"{value:.2%}")
    table.add_row("entropy", f"{results['entropy']:.6g}")
    table.add_row("confidence", f"{results['confidence']:.2%}")
    table.add_row("expected calibration error", f"{results['expected_calibration_error']:.2%}")
    return table


def evaluation_figure(settings: Settings, inputs: Inputs, figures: Figures) -> Figure:
    """Return a reliability diagram and a histogram of the losses."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, figures)
    _draw_losses(right, figures)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False, fontsize="small")
    name = settings.logits.name.replace("$", r"\$")  # not a formula
    figure.suptitle(f"{name}: {figures.count:,} rows of {inputs.classes:,} classes".replace(",", " "))
    return figure


def _draw_reliability(panel: Axes, figures: Figures) -> None:
    """Draw each bin's accuracy at its confidence, and how many rows it has as the dot's area."""
    bins = figures.calibration
    filled = bins.rows > 0
    rows = bins.rows[filled]
    accuracy, confidence = bins.right[filled] / rows, bins.confidence[filled] / rows
    width = 1 / len(bins.rows)
    centers = (bins.edges[:-1] + width / 2)[filled]
    panel.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated", zorder=1)
    panel.bar(centers, accuracy, 0.94 * width, color="#0072b2", alpha=0.35, label="accuracy", zorder=2)
    panel.vlines(confidence, confidence, accuracy, color="#d55e00", zorder=3)
    area = 12 + 120 * rows / max(rows, default=1)
    label = "at the mean confidence; area by number of rows"
    panel.scatter(confidence, accuracy, area, color="#d55e00", label=label, zorder=4, clip_on=False)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_aspect("equal")
    panel.set_xlabel("confidence")
    panel.set_ylabel("accuracy")
    panel.set_title(f"expected calibration error {figures.as_dict()['expected_calibration_error']:.2%}")


def _draw_losses(panel: Axes, figures: Figures) -> None:
    """Draw how many rows have which loss; few have a large one, so the axis is logarithmic."""
    losses = figures.losses
    used = int(np.max(np.nonzero(losses.counts), initial=0)) + 1
    edges = np.arange(used + 1) * (losses.width or 1)
    panel.stairs(losses.counts[:used], edges, fill=True, color="#0072b2", alpha=0.6)
    loss = figures.as_dict()["loss"]
    if math.isfinite(loss):
        panel.axvline(loss, color="#d55e00", label=f"mean {loss:.4g}")
        panel.legend(loc="upper right", frameon=False, fontsize="small")
    panel.set_yscale("symlog", linthresh=1)
    panel.set_ylim(bottom=0)
    panel.set_xlim(left=0)
    panel.set_xlabel("loss in nats")
    panel.set_ylabel("rows")
    left_out = figures.infinite + figures.not_a_number
    panel.set_title("losses" + (f", without {left_out} that are infinite or NaN" if left_out else ""))
