"""Pictures of what compare.py measured: speed over classes, time over rows, and what a second thread gives."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from cases import CLASSES_OF_ROWS_SWEEP, CLASSES_SWEEP, ROWS_SWEEP, SWEPT_SIZE, Case
from peers import PEERS, Xent
from results import Measurement, Result
from targets import THREADS_SPEEDUP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPERATIONS = {"forward": "loss", "fused": "loss and gradient"}
ACTIONS = {
    "forward": "loss",
    "fused given": "loss, gradient",
    "fused fresh": "loss, fresh gradient",
    "fused in place": "loss, gradient in place",
    "backward given": "gradient from lse",
}
# Told apart without colour, too: Okabe and Ito's colours and some of Tol's, each with its own marker.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999999"),
    *("#b8a800", "#000000", "#882255", "#117733", "#44aa99", "#332288"),
)
MARKERS = "s^vDP<>X*ph8"


def draw(result: Result, folder: Path) -> None:
    """Draw every picture that there are measurements for."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = set(result.cases())
    if measured & set(CLASSES_SWEEP):
        _save(classes_figure(result), folder / "classes.svg")
    if measured & set(ROWS_SWEEP):
        _save(rows_figure(result), folder / "rows.svg")
    if {1, 2} <= set(result.threads):
        _save(threads_figure(result), folder / "threads.svg")


def _save(figure: Figure, path: Path) -> None:
    with rc_context({"svg.hashsalt": path.name}):  # the same picture is the same file
        figure.savefig(path, metadata={"Date": None}, dpi=150)


def _style(peer: str) -> dict[str, Any]:
    if peer == Xent.name:
        return {"color": "#d55e00", "marker": "o", "linewidth": 2.5, "zorder": 3}
    number = list(PEERS).index(peer)
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "linewidth": 1}


def _cases_of(operation: str, sweep: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return the cases of an operation; for who cannot write to a given array, `_fastest` looks at the fresh ones."""
    return tuple(case for case in sweep if case.operation == operation and case.results != "fresh")


def _fastest(result: Result, case: Case, peer: str) -> Measurement | None:
    """Return what a peer does at best in the case's place."""
    threads = max(result.threads)
    own = result.find(case, peer, threads)
    rivals = (m for m in result.rivals(case, threads) if m.peer == peer)
    return own or min(rivals, key=lambda m: m.seconds.median, default=None)


def _lines(panel: Axes, result: Result, sweep: tuple[Case, ...], of_rows: bool) -> None:
    for peer in result.peers():
        points = [(case, m) for case in sweep if (m := _fastest(result, case, peer))]
        x = [case.logits.rows if of_rows else case.logits.classes for case, _ in points]
        y = [m.seconds.median * 1e6 if of_rows else m.gelem_per_s for _, m in points]
        if points:
            panel.plot(x, y, markersize=5, label=peer, **_style(peer))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.grid(color="0.9")


def _panels(result: Result, title: str) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    axes = figure.subplots(1, len(OPERATIONS), sharey=True)
    cpu, threads = result.machine["cpu"], max(result.threads)
    figure.suptitle(f"{title}\n{cpu}, threads: {threads}, xent {result.versions['xent']}")
    return figure, dict(zip(OPERATIONS, axes, strict=True))


def _legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)


def classes_figure(result: Result) -> Figure:
    """Return the throughput over the number of classes, with what the memory allows above it."""
    figure, panels = _panels(result, f"float32 logits, {SWEPT_SIZE >> 20} Mi of them: more is better")
    for operation, panel in panels.items():
        sweep = _cases_of(operation, CLASSES_SWEEP)
        _lines(panel, result, sweep, of_rows=False)
        roof = _roof(result, sweep)
        if roof:
            panel.axhline(roof, color="black", linestyle="--", linewidth=1, label="the memory's limit")
        panel.set_title(OPERATIONS[operation])
        panel.set_xlabel("classes")
    panels["forward"].set_ylabel("1e9 logits a second")
    _legend(figure, panels["forward"])
    return figure


def _roof(result: Result, sweep: tuple[Case, ...]) -> float | None:
    """Return the logits a second, in 1e9, at which the bytes that must move take all of the bandwidth."""
    threads = max(result.threads)
    roofs = [
        b.median / (b.case.bytes_moved / b.case.logits.size)
        for b in result.bandwidths
        if b.case in sweep and b.threads == threads and b.kernel == b.case.bandwidth
    ]
    return median(roofs) / 1e9 if roofs else None


def rows_figure(result: Result) -> Figure:
    """Return the time of a call over the number of rows."""
    figure, panels = _panels(result, f"float32 logits of {CLASSES_OF_ROWS_SWEEP} classes: less is better")
    for operation, panel in panels.items():
        _lines(panel, result, _cases_of(operation, ROWS_SWEEP), of_rows=True)
        panel.set_title(OPERATIONS[operation])
        panel.set_xlabel("rows")
    panels["forward"].set_ylabel("microseconds a call")
    _legend(figure, panels["forward"])
    return figure


def threads_figure(result: Result) -> Figure:
    """Return how many times faster two threads are than one, of xent and of the fastest peer."""
    cases = [case for case in result.cases() if result.ours(case, 1) and result.ours(case, 2)]
    figure = Figure(figsize=(9, 2 + 0.22 * len(cases)), layout="constrained")
    panel = figure.subplots()
    heights = range(len(cases))
    panel.axvline(1, color="0.5", zorder=1)
    panel.axvline(THREADS_SPEEDUP, color="0.5", linestyle=":", zorder=1, label="the aim where cores are the limit")
    panel.scatter(
        [_speedup(result, case, Xent.name) for case in cases], heights, color="#d55e00", label="xent", zorder=3
    )
    best = [result.best_rival(case, 2) for case in cases]
    rivals = [(height, _speedup(result, m.case, m.peer)) for height, m in zip(heights, best, strict=True) if m]
    panel.scatter([x for _, x in rivals], [y for y, _ in rivals], color="#0072b2", marker="s", label="the fastest peer")
    panel.set_yticks(heights, [f"{case.logits} {ACTIONS[case.action]}" for case in cases])
    panel.set_ylim(len(cases), -1)
    panel.set_xlabel("speed with 2 threads over that with 1: more is better")
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _speedup(result: Result, case: Case, peer: str) -> float:
    one, two = result.find(case, peer, 1), result.find(case, peer, 2)
    return one.seconds.median / two.seconds.median if one and two else float("nan")
