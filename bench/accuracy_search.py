"""Search for the rows on which xent errs most, and keep them for the tests and for bench/accuracy.py.

python bench/accuracy_search.py --seconds 60     # twelve minutes for each instruction set
python bench/accuracy_search.py --isa avx2       # four, with one of them

For every instruction set of this machine, dtype and function it climbs from random rows: of many variations of a row
the worst becomes the next row, until none is worse. The worst of what it finds, and of what it found before, is kept
in tests/worst_rows.json: of few classes, whose rows lie side by side, and of many, for those have kernels of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np
from contract import PROMISED, errors, exact_results, worst_of_rows, xent_results
from families import WORST_ROWS
from numpy.typing import NDArray
from rich.console import Console

from isas import isa_executor, supported_isas

FEW, MANY = (2, 3, 4, 5, 8, 13, 16, 17, 24, 32, 40, 70), (193, 199, 208, 224)
LIMIT = 128  # of few classes
VARIATIONS = 256  # of a row, at once
PATIENCE = 15  # steps without success
KEPT = {FEW: 3, MANY: 1}  # rows for each instruction set, dtype and function; the long ones take some space
# Of the whole batch, or of few rows.
NOT_SEARCHED = ("mean of losses", "subnormal results", "subnormal softmax")

Row = dict[str, Any]


class Climb:
    """A search with one instruction set, for one function, among rows of some lengths."""

    def __init__(self, isa: str, dtype: str, function: str, lengths: tuple[int, ...]) -> None:
        self.isa, self.dtype, self.function, self.lengths = isa, np.dtype(dtype), function, lengths
        self.rng = np.random.default_rng([*map(ord, isa + dtype + function), *lengths])

    def _errors(self, x: NDArray[Any], c: NDArray[np.int64]) -> NDArray[np.float64]:
        actual = isa_executor(self.isa).submit(xent_results, x, c).result()
        return worst_of_rows(errors(actual, exact_results(x, c))[self.function])

    def _start(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return random rows, of which some are confident."""
        rng, classes = self.rng, int(self.rng.choice(self.lengths))
        x = rng.normal(size=(VARIATIONS, classes)) * rng.choice([0.1, 1, 5, 20]) + rng.choice([0, 0, 0, 100, -3, 300])
        c = rng.integers(0, classes, VARIATIONS)
        if rng.random() < 0.4:
            x[np.arange(VARIATIONS), c] += rng.uniform(0, 60)
        return x.astype(self.dtype), c

    def _vary(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return variations of a row: few or all logits moved, by little or by much."""
        rng, shape = self.rng, (VARIATIONS, x.size)
        smallest = np.log10(np.finfo(self.dtype).eps)
        step = 10 ** rng.uniform(smallest, 0.5, (VARIATIONS, 1))
        moved = rng.random(shape) < rng.choice([1 / x.size, 0.2, 0.6, 1], (VARIATIONS, 1))
        return (x + step * rng.normal(size=shape) * moved).astype(self.dtype)

    def run(self, seconds: float) -> list[Row]:
        """Return the ends of the climbs that there was time for."""
        end = time.monotonic() + seconds
        ends = []
        while time.monotonic() < end:
            x, c = self._start()
            error = self._errors(x, c)
            best = int(np.argmax(error))
            row, target, worst = x[best], c[best], error[best]
            stale = 0
            while stale < PATIENCE and time.monotonic() < end:
                x = self._vary(row)
                error = self._errors(x, np.full(VARIATIONS, target))
                best = int(np.argmax(error))
                stale += 1
                if error[best] > worst:
                    row, worst, stale = x[best], error[best], 0
            ends.append(self._describe(row, int(target), float(worst)))
        return ends

    def _describe(self, row: NDArray[Any], target: int, error: float) -> Row:
        found_with = {"isa": self.isa, "function": self.function, "ulp": round(error, 3)}
        return {**found_with, "target": target, "logits": [float(v).hex() for v in row]}

    def again(self, row: Row) -> Row:
        """Return a row found earlier with the error it has now."""
        x = np.array([[float.fromhex(v) for v in row["logits"]]], dtype=self.dtype)
        error = float(self._errors(x, np.array([row["target"]]))[0])
        return {**row, "ulp": round(error, 3)}


def worst_of(rows: list[Row], count: int) -> list[Row]:
    """Return the rows to keep, each of them once."""
    different = {(row["target"], *row["logits"]): row for row in rows}
    return sorted(different.values(), key=lambda row: -float(row["ulp"]))[:count]


def write(rows: dict[str, list[Row]]) -> None:
    """Write a line for each row."""
    parts = (f'"{dtype}": [\n' + ",\n".join(map(json.dumps, of_dtype)) + "\n]" for dtype, of_dtype in rows.items())
    WORST_ROWS.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main() -> None:
    """Search, and write the rows."""
    parser = argparse.ArgumentParser(description="Search for the rows on which xent errs most.")
    parser.add_argument("--seconds", type=float, default=20, help="for each instruction set, dtype and function")
    parser.add_argument("--isa", choices=supported_isas(), action="append", help="only with this instruction set")
    args = parser.parse_args()
    isas = args.isa or supported_isas()
    console = Console()
    known = json.loads(WORST_ROWS.read_text()) if WORST_ROWS.exists() else {}
    kept: dict[str, list[Row]] = {dtype: [] for dtype in PROMISED}
    others = {dtype: [row for row in known.get(dtype, []) if row["isa"] not in isas] for dtype in PROMISED}
    for isa in isas:
        for dtype, promised in PROMISED.items():
            for function in (name for name in promised if name not in NOT_SEARCHED):
                earlier = [r for r in known.get(dtype, []) if (r["isa"], r["function"]) == (isa, function)]
                for lengths, count in KEPT.items():
                    climb = Climb(isa, dtype, function, lengths)
                    again = [climb.again(r) for r in earlier if (len(r["logits"]) > LIMIT) == (lengths is MANY)]
                    rows = worst_of(climb.run(args.seconds / len(KEPT)) + again, count)
                    kept[dtype] += rows
                    what = f"{isa:8} {dtype} {function:24} {'many' if lengths is MANY else 'few'} classes"
                    console.print(f"{what}: {rows[0]['ulp']:.3f} ulp, promised {promised[function]}")
    write({dtype: kept[dtype] + others[dtype] for dtype in kept})


if __name__ == "__main__":
    main()
