"""Count the instructions a logit costs in every kernel: the same on every machine, unlike time.

python bench/instructions.py            show the counts beside the committed ones
python bench/instructions.py --check    fail if any has grown by more than 2 %
python bench/instructions.py --write    commit to the new ones

Callgrind runs the C core alone, without Python and threads; what is counted is a repetition, the
difference of runs with one and with three. Valgrind knows no AVX-512, so it is the scalar and the AVX2
kernels that are counted: they are made from the same source. The counts are the compiler's as well, so
they are compared with those of the same compiler only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from build_core import build_core, isas_of, link

DRIVER = Path(__file__).with_suffix(".c")
COMMITTED = Path(__file__).with_suffix(".json")
UNKNOWN_TO_VALGRIND = "avx512"
GROWTH = 1.02
REPETITIONS = (1, 3)


@dataclass(frozen=True)
class Problem:
    """Logits that lie as outer x classes x inner, and what is done with them."""

    dtype: str
    outer: int
    classes: int
    inner: int
    operation: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.outer}x{self.classes}x{self.inner} {self.operation}"

    @property
    def size(self) -> int:
        """How many logits there are."""
        return self.outer * self.classes * self.inner

    def arguments(self) -> list[str]:
        """Return the arguments of the driver."""
        return [self.dtype, str(self.outer), str(self.classes), str(self.inner), self.operation]


PROBLEMS = (
    *(Problem("f32", 16, 8_192, 1, operation) for operation in ("forward", "fused", "in_place", "backward")),
    *(Problem("f32", 16, 8_192, 1, operation) for operation in ("log_softmax", "smoothing", "softcap")),
    *(Problem("f32", 16, 8_192, 1, operation) for operation in ("soft_forward", "soft")),
    Problem("f64", 16, 8_192, 1, "fused"),
    *(Problem("bf16", 16, 8_192, 1, operation) for operation in ("forward", "fused")),
    Problem("f16", 16, 8_192, 1, "fused"),
    *(Problem("f32", 1_024, classes, 1, op) for classes, op in product((100, 150), ("forward", "fused"))),
    *(Problem("f32", 128, 1_000, 1, operation) for operation in ("forward", "fused")),
    *(Problem("f32", 4_096, classes, 1, op) for classes, op in product((2, 10, 64), ("forward", "fused"))),
    Problem("f64", 4_096, 10, 1, "fused"),
    *(Problem("f32", 4, 21, 1_024, operation) for operation in ("forward", "fused")),
    Problem("f32", 1, 10, 4_096, "fused"),
    *(Problem("f32", 2, 200, 512, operation) for operation in ("forward", "fused")),
    *(Problem("f32", *shape, 1, "evaluate") for shape in ((4_096, 10), (16, 8_192))),
    *(Problem("f32", 4_096, 10, 1, operation) for operation in ("smoothing", "second", "second_smoothing")),
)

Counts = dict[str, dict[str, float]]  # instructions a logit, by instruction set and problem


def compiler() -> str:
    """Return the compiler's name and major version and its target, which is what the counts depend on."""
    name = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    major = subprocess.run(["cc", "-dumpversion"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    return f"{'clang' if 'clang' in name else 'gcc'} {major.split('.')[0].strip()} for {platform.machine()}"


def count(program: Path, isa: str, problem: Problem) -> float:
    """Return the instructions a logit costs."""
    totals = [instructions_of([str(program), *problem.arguments(), str(n)], isa) for n in REPETITIONS]
    return (totals[1] - totals[0]) / (REPETITIONS[1] - REPETITIONS[0]) / problem.size


def instructions_of(command: list[str], isa: str) -> int:
    """Return how many instructions a program executes."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    environment = {**os.environ, "XENT_ISA": isa}
    done = subprocess.run([*valgrind, *command], env=environment, capture_output=True, text=True, check=False)
    collected = re.search(r"Collected : ([0-9]+)", done.stderr)
    if done.returncode or not collected:
        raise RuntimeError(f"{' '.join(command)} under {isa} failed: {done.stderr}")
    return int(collected[1])


def measure() -> Counts:
    """Count everything, in parallel: counts do not mind."""
    isas = [isa for isa in isas_of() if isa != UNKNOWN_TO_VALGRIND]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        program = Path(name, "instructions")
        link(program, DRIVER, build_core(Path(name), isas=isas))
        return {
            isa: dict(zip(map(str, PROBLEMS), pool.map(partial(count, program, isa), PROBLEMS), strict=True))
            for isa in isas
        }


def grown(counts: Counts, committed: Counts) -> list[str]:
    """Return the problems that have become dearer, or that nobody has committed to."""
    return [
        f"{isa}, {problem}"
        for isa, problems in counts.items()
        for problem, instructions in problems.items()
        if not instructions <= GROWTH * committed.get(isa, {}).get(problem, 0)
    ]


def show(counts: Counts, committed: Counts) -> None:
    """Print the counts beside the committed ones."""
    table = Table("problem (outer x classes x inner)", title="Instructions a logit", title_justify="left")
    for isa in counts:
        table.add_column(isa, justify="right")
        table.add_column("committed", justify="right")
    for problem in map(str, PROBLEMS):
        row = [problem]
        for isa, problems in counts.items():
            before = committed.get(isa, {}).get(problem)
            row += [f"{problems[problem]:.3f}", "-" if before is None else f"{before:.3f}"]
        table.add_row(*row)
    Console(width=110).print(table)


def read_committed() -> dict[str, Any]:
    """Return the committed counts and the compiler they are of."""
    if not COMMITTED.exists():
        return {"compiler": None, "instructions_per_logit": {}}
    content: dict[str, Any] = json.loads(COMMITTED.read_text())
    return content


def write(counts: Counts) -> None:
    """Commit to the counts."""
    rounded = {isa: {name: round(n, 4) for name, n in problems.items()} for isa, problems in counts.items()}
    content = {"compiler": compiler(), "instructions_per_logit": rounded}
    COMMITTED.write_text(json.dumps(content, indent=2) + "\n")


def main() -> int:
    """Count, show, and check or write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="fail if any count has grown by more than 2 %%")
    choice.add_argument("--write", action="store_true", help=f"renew {COMMITTED.name}")
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted")
        return 0 if args.check else 2
    committed, counts = read_committed(), measure()
    show(counts, committed["instructions_per_logit"])
    if args.write:
        write(counts)
    if not args.check:
        return 0
    if compiler() != committed["compiler"]:
        print(f"Not compared: this is {compiler()}, the committed counts are of {committed['compiler']}.")
        return 0
    dearer = grown(counts, committed["instructions_per_logit"])
    for problem in dearer:
        print(f"grown by more than 2 %: {problem}")
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
