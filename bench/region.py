"""Measure what a team of two threads costs beside one, by the work to share and the time since the last team.

python bench/region.py

A worker that spins is there at once; one that sleeps must be woken. How the threads of a training step get on with
those of the BLAS is measured by training_step.py.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "bench" / "region.c", *(ROOT / "csrc" / name for name in ("parallel.c", "team_size.c", "quota.c"))]
COLUMNS = ("work", "after", "1 thread", "2 threads", "its 90th percentile")


def measure() -> list[tuple[float, ...]]:
    """Build the C program, run it, and return its rows."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "region")
        flags = ["-std=c11", "-O2", "-pthread", f"-I{ROOT / 'csrc'}"]
        subprocess.run(["cc", *flags, *SOURCES, "-lm", "-o", program], check=True)  # noqa: S607
        printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [tuple(map(float, line.split())) for line in printed.splitlines()]


def main() -> None:
    """Measure and print."""
    table = Table(title="A region, in microseconds")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for work, gap, *times in measure():
        table.add_row(f"{work:g}", f"{gap:g}", *(f"{time:.2f}" for time in times))
    Console().print(table)


if __name__ == "__main__":
    main()
