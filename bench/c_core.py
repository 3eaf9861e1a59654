"""The C core built by itself, with the flags of setup.py: for its tests and for counting its instructions."""

from __future__ import annotations

import ast
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"


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


def isas_of_machine() -> list[str]:
    """Return the instruction sets that are built here."""
    isas: list[str] = constants_of_setup()["MACHINE_ISAS"].get(platform.machine().lower(), ["scalar"])
    return isas


def compile_core(folder: Path, extra_flags: Sequence[str] = ()) -> list[Path]:
    """Compile the core into a folder, without OpenMP; return its objects."""
    setup = constants_of_setup()
    units: list[tuple[str, list[str]]] = [(name, []) for name in setup["COMMON_SOURCES"]]
    units += [(f"isa_{isa}.c", setup["ISA_FLAGS"][isa]) for isa in isas_of_machine()]
    objects = []
    for name, isa_flags in units:
        objects.append(folder / f"{name}.o")
        flags = [*setup["FLAGS"], *setup["WARNINGS"], *extra_flags, *isa_flags]
        subprocess.run(["cc", *flags, "-c", str(CSRC / name), "-o", str(objects[-1])], check=True)  # noqa: S607
    return objects


def link(program: Path, source: Path, objects: Sequence[Path]) -> None:
    """Compile a program of one file that uses the core."""
    command = ["cc", "-std=c11", "-O2", f"-I{CSRC}", str(source), *map(str, objects), "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
