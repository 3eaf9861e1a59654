"""The machine that is measured on: what it is, and what its memory gives."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xent._command import cpu_model

BANDWIDTH_SOURCE = Path(__file__).with_name("bandwidth.c")
BANDWIDTH_REPETITIONS = 5
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def usable_cpus() -> list[int]:
    """Return the processors that this process may run on, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let the processes that are started within run on the same first few processors."""
    before = usable_cpus()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, before[:threads])
    try:
        yield
    finally:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, before)


def description() -> dict[str, Any]:
    """Return what results depend on beside the software."""
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return {
        "cpu": cpu_model(),
        "cpus": len(usable_cpus()),
        "caches": caches(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": compiler.stdout.splitlines()[0],
        "load": round(os.getloadavg()[0], 1),  # of others, if asked for before anything is started
    }


def caches() -> dict[str, str]:
    """Return the sizes of the first processor's caches, where the system tells."""
    sizes = {}
    for cache in sorted(CACHES.glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes[f"L{level}"] = size
    return sizes


def build_bandwidth(folder: Path) -> Path:
    """Compile the program that measures the memory, with the widest vectors of this machine."""
    program = folder / "bandwidth"
    native = ["-march=native"] if platform.machine().lower() in ("x86_64", "amd64") else []
    command = ["cc", "-O3", *native, "-fopenmp", str(BANDWIDTH_SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def run_bandwidth(program: Path, nbytes: int, threads: int) -> dict[str, list[float]]:
    """Return bytes a second of every repetition of every kernel, on arrays of so many bytes."""
    command = [str(program), str(threads), str(nbytes), str(BANDWIDTH_REPETITIONS)]
    with pinned(threads):
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kernels = [json.loads(line) for line in printed.splitlines()]
    return {kernel["kernel"]: [kernel["bytes"] / seconds for seconds in kernel["seconds"]] for kernel in kernels}
