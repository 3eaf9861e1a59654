"""Write the table of the README from what bench/compare.py measured: every target's case, the lost ones included.

python bench/readme_table.py bench/results/NAME.json README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from cases import Case
from marks import replace_between_marks
from peers import CarefulNumpy
from results import Measurement, Result
from targets import TARGETS

OPERATIONS = {
    "forward": "loss",
    "fused given": "loss and gradient",
    "fused fresh": "the same, gradient in a fresh array",
    "fused in place": "the same, gradient over the logits",
    "backward given": "gradient from a saved `lse`",
}


def section(result: Result) -> str:
    """Return the table, and what it depends on."""
    threads = max(result.threads)
    caches = result.machine["caches"]
    others = {key: value for key, value in result.machine.items() if key not in ("cpu", "caches")}
    where = ", ".join(f"{name} {value}" for name, value in (*caches.items(), *others.items()))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"{result.machine['cpu']}, threads: {threads}; {where}; {versions}. In 1e9 logits a second, by medians:",
        "",
        "| logits | operation | NumPy, careful | fastest peer | | xent | times the fastest | of the memory |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
        *rows(result, threads),
        "",
        f"`{result.command}`",
    ]
    return "\n".join(["", *lines, "", ""])


def rows(result: Result, threads: int) -> Iterator[str]:
    """Return a line for each case that was measured."""
    for case in (target.case for target in TARGETS):
        ours = result.ours(case, threads)
        if not ours:
            continue
        best = result.best_rival(case, threads)
        share = result.share_of_bandwidth(case, threads)
        cells = [
            str(case.logits).replace("x", " x "),
            OPERATIONS[case.action],
            throughput(careful_numpy(result, case, threads)),
            throughput(best),
            best.peer if best else "",
            throughput(ours),
            f"{best.seconds.median / ours.seconds.median:.2g}" if best else "-",
            f"{share:.0%}" if share else "-",
        ]
        yield f"| {' | '.join(cells)} |"


def careful_numpy(result: Result, case: Case, threads: int) -> Measurement | None:
    """Return what NumPy does in arrays it is given, in the case's place."""
    return next((m for m in result.rivals(case, threads) if m.peer == CarefulNumpy.name), None)


def throughput(measurement: Measurement | None) -> str:
    """Return 1e9 logits a second, to three digits."""
    return f"{measurement.gelem_per_s:.3g}" if measurement else "-"


def main(result_path: str, readme_path: str) -> None:
    """Replace what is between the marks in the README."""
    replace_between_marks(Path(readme_path), "bench/compare.py", section(Result.read(Path(result_path))))


if __name__ == "__main__":
    main(*sys.argv[1:])
