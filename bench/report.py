"""Tables of what compare.py measured, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cases import Case
from peers import Xent
from results import Measurement, Result
from targets import Comparison, Figure, Verdict, isa_comparisons, thread_comparisons, verdicts

WIDTH = 160  # in a pipe, and in a narrow terminal, tables are better wide than cut
KERNELS = {"read": "read", "copy": "copy", "non_temporal_copy": "non-temporal copy", "update": "in place"}


def make_console() -> Console:
    """Return where the tables go."""
    console = Console(highlight=False)
    return console if console.width >= WIDTH else Console(width=WIDTH, highlight=False)


def show(console: Console, result: Result) -> None:
    """Print what was measured."""
    for threads in result.threads:
        console.print(speed_table(result, threads))
    if result.bandwidths:
        console.print(bandwidth_table(result))
    for peer, reason in (*result.absent.items(), *result.failed.items()):
        console.print(f"{peer}: {reason}", markup=False)
    console.print(result.command, markup=False, soft_wrap=True)


def check(console: Console, result: Result) -> bool:
    """Print every target with what was measured; return whether all are reached, beside every peer."""
    against_targets = list(verdicts(result))
    against_itself = [*thread_comparisons(result), *isa_comparisons(result)]
    console.print(target_table(against_targets))
    console.print(comparison_table(against_itself))
    short = sum(not v.met for v in against_targets) + sum(not c.figure.met for c in against_itself)
    console.print(f"Fall short: {short} of {len(against_targets) + len(against_itself)}")
    for peer in result.failed:
        console.print(f"{peer} failed: nothing is said against it", markup=False)
    return not short and not result.failed


def _table(title: str, columns: Iterable[str], left: Sequence[str] = ()) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=column in left)
    return table


def speed_table(result: Result, threads: int) -> Table:
    """Return the throughput of everyone in every case, the best in bold."""
    peers = result.peers()
    columns = ("case", "xent us", *(peer.replace(" ", "\n") for peer in peers))
    table = _table(f"1e9 logits a second, threads: {threads} (medians)", columns, left=("case",))
    cases = [case for case in result.cases() if any(result.find(case, peer, threads) for peer in peers)]
    for case in cases:
        measured = [result.find(case, peer, threads) for peer in peers]
        best = max(m.gelem_per_s for m in measured if m)
        ours = result.ours(case, threads)
        table.add_row(
            str(case),
            f"{ours.seconds.median * 1e6:.1f}" if ours else "-",
            *(_throughput(m, best) for m in measured),
            end_section=case.logits != _next(cases, case).logits,
        )
    return table


def _next(cases: Sequence[Case], case: Case) -> Case:
    return cases[min(cases.index(case) + 1, len(cases) - 1)]


def _throughput(measurement: Measurement | None, best: float) -> Text:
    if not measurement:
        return Text("-")
    speed = measurement.gelem_per_s
    return Text(f"{speed:.3f}", style="bold" if speed == best else "")


def bandwidth_table(result: Result) -> Table:
    """Return what the memory gave beside each case."""
    columns = ("case", "threads", *KERNELS.values())
    table = _table("Memory, GB/s: medians and quartiles; bytes read and bytes written count", columns, left=("case",))
    measured = {(b.case, b.threads, b.kernel): b for b in result.bandwidths}
    for case, threads in dict.fromkeys((b.case, b.threads) for b in result.bandwidths):
        bandwidths = [measured[case, threads, kernel] for kernel in KERNELS]
        table.add_row(
            str(case),
            str(threads),
            *(f"{b.median / 1e9:.1f} [{b.lower_quartile / 1e9:.1f}, {b.upper_quartile / 1e9:.1f}]" for b in bandwidths),
        )
    return table


def _figure(figure: Figure | None, unit: Callable[[float], str]) -> tuple[Text | str, str]:
    """Return a measured figure, red if it falls short, and what it must reach."""
    if figure is None:
        return "", ""
    value = "not measured" if figure.value is None else unit(figure.value)
    return Text(value, style="" if figure.met else "red"), unit(figure.bound)


def target_table(against_targets: Iterable[Verdict]) -> Table:
    """Return every target with its figures."""
    columns = ("case", "threads", "best peer", "times it", "needed", "of memory", "needed ", "us", "at most", "verdict")
    table = _table(f"{Xent.name} against what it must reach", columns, left=("case", "best peer", "verdict"))
    for verdict in against_targets:
        table.add_row(
            str(verdict.target.case),
            str(verdict.threads),
            verdict.best_peer or "-",
            *_figure(verdict.peers, "{:.2f}".format),
            *_figure(verdict.memory, "{:.2f}".format),
            *_figure(verdict.microseconds, "{:.1f}".format),
            "reached" if verdict.met else Text("falls short", style="red"),
        )
    return table


def comparison_table(against_itself: Iterable[Comparison]) -> Table:
    """Return xent beside itself."""
    columns = ("case", "what", "ratio", "needed", "verdict")
    table = _table(f"{Xent.name} against itself", columns, left=("case", "what", "verdict"))
    for comparison in against_itself:
        met = comparison.figure.met
        verdict = "reached" if met else Text("falls short", style="red")
        table.add_row(str(comparison.case), comparison.what, *_figure(comparison.figure, "{:.2f}".format), verdict)
    return table
