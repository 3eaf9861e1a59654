"""Build the C core without Python, by any compiler, with the flags that setup.py gives it."""

from __future__ import annotations

import ast
import functools
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"


@functools.cache
def constants_of_setup() -> dict[str, Any]:
    """Return the literal constants of setup.py, which cannot be imported without the build's requirements."""
    constants = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                constants[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return constants


constants_of_setup()  # before there are threads, in two of which CPython 3.11 cannot parse at once (gh-106905)


def isas_of(machine: str | None = None) -> list[str]:
    """Return the instruction sets that are compiled for a machine, by default this one."""
    isas: list[str] = constants_of_setup()["MACHINE_ISAS"].get((machine or platform.machine()).lower(), ["scalar"])
    return isas


def write_stand_in(folder: Path, isa: str) -> Path:
    """Write a source in the place of an instruction set's: a table without kernels, for who does not use it."""
    source = Path(folder) / f"no_{isa}.c"
    source.write_text(f'#include "kernels.h"\nconst struct xent_kernels xent_kernels_{isa} = {{.isa = "{isa}"}};\n')
    return source


def build_core(
    folder: Path,
    compiler: str = "cc",
    isas: Sequence[str] | None = None,
    extra_flags: Sequence[str] = (),
    csrc: Path = CSRC,
    machine: str | None = None,
) -> list[Path]:
    """Compile the C core into `folder` and return its object files; warnings are errors.

    `isas` are those to compile, which takes a minute each: by default all that `machine` has, for which
    `compiler` compiles, by default this one. Who leaves some out has to say by XENT_ISA which to use.
    `extra_flags` come last and go to every file. The sources are those in `csrc`.
    """
    setup = constants_of_setup()
    wanted = isas_of(machine) if isas is None else isas
    units: list[tuple[Path, list[str]]] = [(csrc / name, []) for name in setup["COMMON_SOURCES"]]
    units += [(csrc / f"isa_{isa}.c", setup["ISA_FLAGS"][isa]) for isa in wanted]
    units += [(write_stand_in(folder, isa), [f"-I{csrc}"]) for isa in isas_of(machine) if isa not in wanted]

    def compile_unit(unit: tuple[Path, list[str]]) -> Path:
        source, own_flags = unit
        built = Path(folder) / f"{source.stem}.o"
        flags = [*setup["FLAGS"], *setup["WARNINGS"], "-Werror", *own_flags, *extra_flags]
        subprocess.run([compiler, *flags, "-c", source, "-o", built], check=True)
        return built

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_unit, units))


def link(program: Path, source: Path, objects: Iterable[Path]) -> None:
    """Compile a program of one file that uses the core."""
    command = ["cc", "-std=c11", "-O2", f"-I{CSRC}", str(source), *map(str, objects), "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
