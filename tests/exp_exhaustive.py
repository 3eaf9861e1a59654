"""The error of exp on every float, for every instruction set: exp_exhaustive.c, built, run and judged.

    python tests/exp_exhaustive.py [--json FILE]

Prints a table and fails where an error exceeds its bound, or where the checksums of two instruction sets
with a fused multiply-add differ. What this machine emulates computes all results, and every 61st vector is compared:
the checksum says that they are those of its own instruction set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from build_core import CSRC, constants_of_setup
from cross import NATIVE, SANITIZED, Core, fused_cores
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
DTYPES = {"f32": "float32", "f64": "float64"}

# Rounded up from what was measured: these may only shrink. `kept` is the exponential in working precision, from
# which gradients are made; `added` is what the sums get. In ulp, and in units of 2^-24 of a float exponential or
# 2^-53 of a double one, from which docs/accuracy.md derives the bounds of losses and gradients.
KINDS = ("kept", "added")
FUSED_BOUNDS = {
    "f32": {"kept": {"worst_ulp": 0.60, "worst_part": 1.059}, "added": {"worst_ulp": 0.11, "worst_part": 0.123}},
    "f64": {"kept": {"worst_ulp": 1.03, "worst_part": 1.43}, "added": {"worst_ulp": 0.54, "worst_part": 0.73}},
}
UNFUSED_BOUNDS = {
    "f32": {"kept": {"worst_ulp": 0.65, "worst_part": 1.12}, "added": {"worst_ulp": 0.17, "worst_part": 0.18}},
    "f64": {"kept": {"worst_ulp": 0.99, "worst_part": 1.37}, "added": {"worst_ulp": 0.57, "worst_part": 0.78}},
}


def compile_for(core, folder):
    """Build the program for an instruction set, and return it."""
    setup = constants_of_setup()
    program = Path(folder) / core.isa
    flags = [*setup["FLAGS"], *setup["WARNINGS"], "-Werror", "-fopenmp", *setup["ISA_FLAGS"][core.isa]]
    flags += [*core.build.flags, f"-I{CSRC}", f"-DXENT_ISA_NAME={core.isa}"]
    flags += [f'-DXENT_VEC_HEADER="vec_{core.isa}.h"', HERE / "exp_exhaustive.c", "-lm", "-o", program]
    # Where OpenMP is linked statically, the linker warns of something that is not used.
    subprocess.run([core.build.compiler, *flags], check=True, capture_output=bool(core.build.runner))
    return program


def measure(core, program, dtype):
    """Return one row of the table."""
    stride = 1 if core.build is NATIVE else 61
    done = subprocess.run(
        [*core.build.runner, program, dtype, str(stride)], stdout=subprocess.PIPE, text=True, check=True
    )
    arguments, compared, *errors, checksum = done.stdout.split()
    names = ("worst_ulp", "mean_ulp", "worst_part")
    of_kinds = [dict(zip(names, map(float, errors[start : start + 3]), strict=True)) for start in (0, 3)]
    return {
        "isa": core.isa,
        "build": core.build.name,
        "fused": core.isa != "scalar",
        "dtype": dtype,
        "arguments": int(arguments),
        "compared": int(compared),
        **dict(zip(KINDS, of_kinds, strict=True)),
        "checksum": checksum,
    }


def rows():
    """Yield what is measured of every instruction set that can be built and run here, as dictionaries."""
    with tempfile.TemporaryDirectory() as folder:
        for core in [Core("scalar", NATIVE), *(core for core in fused_cores() if core.build is not SANITIZED)]:
            if core.build.missing():
                print(f"{core} needs {core.build.missing()}: left out", file=sys.stderr)
                continue
            program = compile_for(core, folder)
            for dtype in DTYPES:
                yield measure(core, program, dtype)


def faults(results):
    """Return a sentence for every error above its bound and every checksum unlike the first's of its dtype."""
    found = []
    checksums = {}
    for row in results:
        name = f"{row['isa']} {row['dtype']}"
        for kind, bounds in (FUSED_BOUNDS if row["fused"] else UNFUSED_BOUNDS)[row["dtype"]].items():
            for measure, bound in bounds.items():
                if row[kind][measure] > bound:
                    found.append(f"{name}: {kind}, {measure} {row[kind][measure]}, allowed {bound}")
        if row["fused"] and checksums.setdefault(row["dtype"], row["checksum"]) != row["checksum"]:
            found.append(f"{name}: not the bits of the other instruction sets")
    return found


def table(results):
    """Return the results as a table for the terminal."""
    of_kinds = [heading for kind in KINDS for heading in (f"{kind}, ulp", "mean", "part")]
    result = Table("ISA", "build", "dtype", "arguments", "compared", *of_kinds, "bits")
    for row in results:
        errors = [f"{error:.4f}" for kind in KINDS for error in row[kind].values()]
        counts = [f"{row[count]:,}" for count in ("arguments", "compared")]
        result.add_row(row["isa"], row["build"], DTYPES[row["dtype"]], *counts, *errors, row["checksum"])
    return result


def main():
    """Measure, print, and exit with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    results = list(rows())
    Console(width=None if sys.stdout.isatty() else 160).print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit("\n".join(faults(results)) or 0)


if __name__ == "__main__":
    main()
