"""Measure how accurate xent is, in ulp of the exact result, beside other libraries on the same rows.

python bench/accuracy.py            # with every instruction set of this machine, and the peers that are installed
python bench/accuracy.py --check    # is a figure of ours worse than in bench/accuracy.json, or than promised?
python bench/accuracy.py --write    # write bench/accuracy.json and the tables of docs/accuracy.md

The rows are those of tests/families.py, the same on every machine; the exact results are from tests/exact.py. It needs
pip install '.[test]'; the peers are scipy, scikit-learn, torch and jax.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

import numpy as np
from contract import PROMISED, Results, errors, exact_results, xent_mean, xent_results
from families import LONG, QUICK, Family, batches, hundred_million, lengths
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from accuracy_peers import PEERS, installed
from accuracy_tables import Figures, all_tables, families_text
from isas import isa_executor, supported_isas
from marks import replace_between_marks
from xent._command import configuration

RESULT = ROOT / "bench" / "accuracy.json"
PAGE = ROOT / "docs" / "accuracy.md"
NOT_OF_PEERS = (lengths, hundred_million)  # two hundred shapes, each of which JAX compiles; too much memory
TABLE_WIDTH = 140
ROUNDING = 1e-3  # figures are kept to three decimals


class Tally:
    """The errors of one function in one family: their worst and their mean."""

    def __init__(self) -> None:
        self.worst, self.total, self.count = 0.0, 0.0, 0

    def add(self, distance: NDArray[np.float64]) -> None:
        """Count errors; those that are NaN do not count."""
        counted = distance[~np.isnan(distance)]
        if counted.size:
            self.worst = max(self.worst, float(np.max(counted)))
            self.total += float(np.sum(counted))
            self.count += counted.size

    def figure(self) -> dict[str, float]:
        """Return the figure as it is kept."""
        return {"worst": _kept(self.worst), "mean": _kept(self.total / self.count)}


def _kept(ulp: float) -> float:
    return ulp if math.isinf(ulp) else round(ulp, 3) if ulp < 1e6 else float(f"{ulp:.3g}")


class Measurement:
    """What is measured: with which instruction sets, beside which peers, on which families."""

    def __init__(self, families: tuple[Family, ...], peers: list[str]) -> None:
        self.families, self.peers, self.isas = families, peers, supported_isas()
        self.tallies: dict[tuple[str, str, str, str], Tally] = defaultdict(Tally)

    def steps(self) -> list[tuple[Family, str]]:
        """Return the parts in which it is measured."""
        return [(family, dtype) for family in self.families for dtype in PROMISED]

    def measure(self, family: Family, dtype: str) -> None:
        """Measure one part."""
        for x, c in batches(family, dtype):
            exact = exact_results(x, c)
            for subject, results in self._results(family, x, c):
                for function, distance in errors(results, exact).items():
                    self.tallies[subject, dtype, function, family.__name__].add(distance)

    def _results(self, family: Family, x: NDArray[Any], c: NDArray[np.int64]) -> Iterator[tuple[str, Results]]:
        compute = xent_mean if family is hundred_million else xent_results
        pending = [(isa, isa_executor(isa).submit(compute, x, c)) for isa in self.isas]
        if family not in NOT_OF_PEERS:
            for name in self.peers:
                with np.errstate(all="ignore"):
                    yield name, PEERS[name][2](x, c)
        for isa, future in pending:
            yield isa, future.result()

    def figures(self) -> Figures:
        """Return all figures so far."""
        figures: Figures = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
        for (subject, dtype, function, family), tally in self.tallies.items():
            if tally.count:
                figures[subject][dtype][function][family] = tally.figure()
        return figures


def too_large(figures: Figures, isas: list[str]) -> list[str]:
    """Return what is worse than promised, as sentences."""
    found = []
    for isa in isas:
        for dtype, promised in PROMISED.items():
            for function, bound in promised.items():
                for family, figure in figures[isa][dtype].get(function, {}).items():
                    if figure["worst"] > bound:
                        what = f"{isa} {dtype} {function}, {family} rows"
                        found.append(f"{what}: {figure['worst']:g} ulp, promised {bound}")
    return found


def grown(figures: Figures, before: Figures, isas: list[str]) -> list[str]:
    """Return what is worse than before, or is not known from before, as sentences.

    With fused multiply-add all instruction sets give the same bits: one that was not measured before is compared
    with one of those that were.
    """
    fused = next((isa for isa in before if isa in ("avx2", "avx512", "neon")), "scalar")
    found = []
    for isa in isas:
        known = before[isa if isa in before else fused]
        for dtype, functions in figures[isa].items():
            for function, families in functions.items():
                for family, figure in families.items():
                    old = known.get(dtype, {}).get(function, {}).get(family)
                    for which, value in figure.items():
                        if old is None or value > old[which] + ROUNDING:
                            what = f"{isa} {dtype} {function}, {family} rows, {which}"
                            found.append(f"{what}: {value:g} ulp, was {old[which] if old else 'not measured'}")
    return found


def measure(console: Console, families: tuple[Family, ...], peers: list[str]) -> dict[str, Any]:
    """Measure, with a progress bar, and return the figures and what they were made with."""
    measurement = Measurement(families, peers)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(measurement.steps()))
        for family, dtype in measurement.steps():
            progress.update(task, description=f"{family.__name__} {dtype}")
            measurement.measure(family, dtype)
            progress.advance(task)
    versions = installed()
    config = configuration()
    return {
        "command": "python bench/accuracy.py --write",
        "config": {key: config[key] for key in ("cpu", "xent", "python", "numpy")},
        "peers": {name: versions[name] for name in peers},
        "isas": measurement.isas,
        "figures": measurement.figures(),
    }


def origin(result: dict[str, Any]) -> str:
    """Return in a line what the figures were made with."""
    peers = ", ".join(f"{name} {version} ({PEERS[name][1]})" for name, version in result["peers"].items())
    config = result["config"]
    return f"{config['cpu']}; xent {config['xent']}, {peers or 'no other library'}, Python {config['python']}"


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result, a figure a line; an infinite error, which only a peer may have, is null in JSON."""
    text = json.dumps(result, indent=1).replace("Infinity", "null")
    path.write_text(re.sub(r'\{\s+"worst": (\S+)\s+"mean": (\S+)\s+\}', r'{"worst": \1 "mean": \2}', text) + "\n")


def write(result: dict[str, Any]) -> None:
    """Write the result and the tables of the page."""
    write_json(RESULT, result)
    parts = [table.markdown() for table in all_tables(result)]
    parts += ["The rows:", "", families_text(), f"`{result['command']}`, on {origin(result)}."]
    replace_between_marks(PAGE, "bench/accuracy.py", "\n".join(parts) + "\n")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="without very many classes, and very many rows")
    parser.add_argument("--no-peers", action="store_true", help="xent alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help=f"compare xent alone with {RESULT.relative_to(ROOT)}")
    action.add_argument("--write", action="store_true", help=f"write that file, and {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()

    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    peers = [] if args.no_peers or args.check else list(installed())
    for name in PEERS.keys() - set(peers):
        if not (args.no_peers or args.check):
            console.print(f"{name} is not installed: skipped", style="yellow")
    result = measure(console, QUICK if args.quick else QUICK + LONG, peers)
    for table in all_tables(result):
        console.print(table.title, style="bold")
        console.print(table.rich())
    console.print(origin(result), markup=False, soft_wrap=True)
    if args.json:
        write_json(args.json, result)
    if args.write:
        write(result)
    complaints = too_large(result["figures"], result["isas"])
    if args.check:
        complaints += grown(result["figures"], json.loads(RESULT.read_text())["figures"], result["isas"])
    for complaint in complaints:
        console.print(complaint, style="bold red", markup=False, soft_wrap=True)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
