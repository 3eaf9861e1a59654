"""Build the C core without Python, by any compiler, with the flags that setup.py gives it."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"


def constants_of_setup():
    """Return the literal constants of setup.py, which cannot be imported without the build's requirements."""
    constants = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign):
            try:
                constants[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return constants


def isas_of(machine=None):
    """Return the instruction sets that are compiled for a machine, by default this one."""
    return constants_of_setup()["MACHINE_ISAS"].get((machine or platform.machine()).lower(), ["scalar"])


def build_core(folder, compiler="cc", isas=None, extra_flags=(), csrc=CSRC):
    """Compile the C core into `folder` and return its object files; warnings are errors.

    `isas` are those of the machine that `compiler` compiles for, by default this one. `extra_flags` come
    last and go to every file. The sources are those in `csrc`.
    """
    setup = constants_of_setup()
    units = [(name, []) for name in setup["COMMON_SOURCES"]]
    units += [(f"isa_{isa}.c", setup["ISA_FLAGS"][isa]) for isa in isas or isas_of()]

    def compile_unit(unit):
        name, isa_flags = unit
        built = (Path(folder) / name).with_suffix(".o")
        flags = [*setup["FLAGS"], *setup["WARNINGS"], "-Werror", *isa_flags, *extra_flags]
        subprocess.run([compiler, *flags, "-c", csrc / name, "-o", built], check=True)
        return built

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_unit, units))
