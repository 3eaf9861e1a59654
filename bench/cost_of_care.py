"""What carrying rounding errors costs: xent's kernels against the same ones without.

    python bench/cost_of_care.py [--rounds N]

Builds the C core twice, once as it is and once with the files of bench/careless in place of csrc's, loads
both and times them in turn, in one process. Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from build_core import build_core

COMPILER = "cc"
SHAPES = ((1024, 32768), (16, 32768))  # as large as the memory, and within the caches
VARIANTS = ("careful", "careless")


def copy_sources(folder: Path, variant: str) -> Path:
    """Return a new folder with the sources of a variant of the core."""
    csrc = folder / variant
    shutil.copytree(ROOT / "csrc", csrc)
    if variant == "careless":
        shutil.copytree(ROOT / "bench" / "careless", csrc, dirs_exist_ok=True)
    return csrc


def build(folder: Path, variant: str) -> ctypes.CDLL:
    """Compile a variant of the core and load it."""
    csrc = copy_sources(folder, variant)
    flags = ["-fPIC"]
    objects = build_core(csrc, COMPILER, extra_flags=flags, csrc=csrc)
    library = folder / f"{variant}.so"
    source = ROOT / "bench" / "cost_of_care.c"
    subprocess.run(
        [COMPILER, "-std=c11", "-shared", *flags, f"-I{csrc}", source, *objects, "-lm", "-o", library], check=True
    )
    return ctypes.CDLL(str(library))


class Case:
    """A shape, a number of threads, and whether there is a gradient."""

    def __init__(self, shape: tuple[int, int], threads: int, fused: bool) -> None:
        rng = np.random.default_rng(0)
        self.logits = rng.standard_normal(shape, dtype=np.float32)
        self.target = rng.integers(shape[1], size=shape[0])
        self.gradient = np.ones_like(self.logits) if fused else None  # ones: its pages are there
        self.loss = np.empty(shape[0])
        self.threads = threads
        self.repeat = max(1, (1 << 25) // self.logits.size)

    def seconds(self, library: ctypes.CDLL) -> float:
        """Return the time of one run, of as many as take some milliseconds."""
        pointers = [None if a is None else a.ctypes.data_as(ctypes.c_void_p) for a in (self.gradient, self.loss)]
        rows, classes = (ctypes.c_size_t(n) for n in self.logits.shape)
        inputs = [a.ctypes.data_as(ctypes.c_void_p) for a in (self.logits, self.target)]
        begin = time.perf_counter()
        for _ in range(self.repeat):
            status = library.run(*inputs, rows, classes, self.threads, *pointers)
        end = time.perf_counter()
        if status != 0:
            raise RuntimeError(f"xent_run returned status {status}")
        return (end - begin) / self.repeat


def measure(case: Case, libraries: dict[str, ctypes.CDLL], rounds: int) -> dict[str, Any]:
    """Return each variant's times, a round of one after a round of the other."""
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for index in range(rounds + 1):
        for variant in VARIANTS[:: 1 if index % 2 else -1]:
            seconds = case.seconds(libraries[variant])
            if index > 0:  # the first round warms up
                times[variant].append(seconds)
    return {variant: np.array(t) for variant, t in times.items()}


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    table = Table("shape", "threads", "operation", "careful", "careless", "ratio of medians", "quartiles of ratios")
    with tempfile.TemporaryDirectory() as folder:
        libraries = {variant: build(Path(folder), variant) for variant in VARIANTS}
        cases = [(shape, threads, fused) for shape in SHAPES for threads in (1, 2) for fused in (False, True)]
        for shape, threads, fused in track(cases, "timing", transient=True):
            times = measure(Case(shape, threads, fused), libraries, options.rounds)
            careful, careless = (float(np.median(times[variant])) for variant in VARIANTS)
            low, high = np.quantile(times["careful"] / times["careless"], (0.25, 0.75))
            table.add_row(
                f"{shape[0]} x {shape[1]}",
                str(threads),
                "fused" if fused else "forward",
                f"{careful * 1e3:.3f} ms",
                f"{careless * 1e3:.3f} ms",
                f"{careful / careless:.3f}",
                f"{low:.3f} - {high:.3f}",
            )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
