"""Cores built for other machines and instruction sets, run on the same problems as this machine's own.

A `Build` makes a program of driver.c and the C core; a `Core` is an instruction set that this program is
told to use. AArch64 runs under qemu's user mode; where the processor lacks AVX-512, SIMDe computes its
intrinsics.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from build_core import CSRC, build_core

import xent

HERE = Path(__file__).parent
DTYPES = (np.float32, np.float64, np.float16)  # in the order of enum xent_dtype
OUTPUTS = ("none", "gradient", "softmax", "log_softmax")  # of enum xent_values, which ends with "product"
CURVATURES = ("exact", "xgboost", "lightgbm")  # of enum xent_curvature


@dataclass
class Problem:
    """One call of xent_run. The logits are a view of `memory`, of shape (rows, classes) and any strides."""

    logits: np.ndarray
    output: str = "gradient"
    target: np.ndarray | None = None
    upstream: np.ndarray | None = None
    lse: np.ndarray | None = None
    threads: int = 1
    memory: np.ndarray = field(default=None)
    options: dict[str, float] | None = None  # scale, softcap, label_smoothing, z_loss
    class_weight: np.ndarray | None = None  # this and the next two with options
    labels: np.ndarray | None = None  # probabilities of all classes
    listed: tuple[np.ndarray, np.ndarray] | None = None  # two indices and two probabilities for each row
    top_k: int | None = None  # evaluate, with so many first classes
    curvature: str | None = None  # the second derivatives beside the gradient
    vector: np.ndarray | None = None  # for the product

    def __post_init__(self):
        if self.memory is None:
            self.memory = self.logits

    def pack(self):
        """Return the problem as driver.c reads it."""
        columns = (self.target, self.upstream, self.lse)
        rows, classes = self.logits.shape
        offset = self.logits.ctypes.data - self.memory.ctypes.data
        header = [DTYPES.index(self.logits.dtype.type), (*OUTPUTS, "product").index(self.output), self.threads]
        header += [rows, classes, self.memory.nbytes, offset, *self.logits.strides]
        header += [column is not None for column in columns]
        indices, probabilities = self.listed or (None, None)
        has_labels, has_listed = self.labels is not None, self.listed is not None
        second = self.curvature is not None or self.vector is not None
        labelled = self.target is not None or has_labels or has_listed
        has_loss = labelled and self.top_k is None and not second
        header += [has_loss, self.options is not None, self.class_weight is not None, has_labels, has_listed]
        header += [self.top_k is not None, self.top_k or 0]
        header += [-1 if self.curvature is None else CURVATURES.index(self.curvature), self.vector is not None]
        given = {"scale": 1, "softcap": 0, "label_smoothing": 0, "z_loss": 0, **(self.options or {})}
        arrays = [np.array(header, dtype=np.int64), np.array(list(given.values()), dtype=np.float64), self.memory]
        columns = (*columns, self.class_weight, self.labels, indices, probabilities, self.vector)
        integers = (self.target, indices)
        for column in columns:
            if column is not None:
                is_integer = any(column is integer for integer in integers)
                arrays.append(np.asarray(column, dtype=np.int64 if is_integer else np.float64))
        return b"".join(array.tobytes() for array in arrays)

    def unpack(self, data, at):
        """Return what driver.c wrote from `at` on, and where the next problem's results begin."""
        rows = len(self.logits)
        values_at, loss_at = at + 8, at + 8 + self.memory.nbytes
        lse_at = loss_at + 8 * (rows + 1)
        values = np.ndarray(
            self.logits.shape,
            self.logits.dtype,
            buffer=data,
            offset=values_at + self.logits.ctypes.data - self.memory.ctypes.data,
            strides=self.logits.strides,
        )
        results = {
            "status": np.frombuffer(data, np.int64, 1, at),
            "values": values,
            "loss": np.frombuffer(data, np.float64, rows + 1, loss_at),
            "lse": np.frombuffer(data, np.float64, rows, lse_at),
        }
        at = lse_at + 8 * rows
        if self.top_k is not None:
            top = self.top_k * rows
            sizes = {"log_prob": rows, "entropy": rows, "argmax": rows, "rank": rows, "top_k": top, "top_classes": top}
            for name, size in sizes.items():
                results[name] = np.frombuffer(data, np.float64, size, at)  # integers too: bits are compared
                at += 8 * size
        if self.curvature is not None:
            count = self.logits.size
            results["curvature"] = np.frombuffer(data, self.logits.dtype, count, at)
            at += count * self.logits.itemsize
        return results, at


@dataclass(frozen=True)
class Build:
    """A way to build the core with some instruction sets, and to run it here."""

    name: str
    isas: tuple[str, ...]
    compiler: str = "cc"
    machine: str = platform.machine()
    flags: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    needed_file: Path | None = None

    def missing(self):
        """Return what this machine lacks for it, a tool or a file, or None."""
        for tool in (self.compiler, *self.runner):
            if shutil.which(tool) is None:
                return tool
        if not self.links():
            return " ".join(self.flags)
        return None if self.needed_file is None or self.needed_file.exists() else self.needed_file

    def links(self):
        """Whether the compiler has what its sanitizers need, if they are asked for."""
        flags = [flag for flag in self.flags if flag.startswith("-fsanitize")]
        with tempfile.TemporaryDirectory() as folder:
            command = [self.compiler, *flags, "-x", "c", "-", "-o", Path(folder) / "program"]
            source = "int main(void) { return 0; }"
            return not flags or not subprocess.run(command, input=source, text=True, check=False).returncode

    def make(self, folder):
        """Compile the core and the driver into `folder`, and return the program."""
        program = Path(folder) / "driver"
        objects = build_core(folder, self.compiler, self.isas, self.flags, machine=self.machine)
        driver = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{CSRC}", HERE / "driver.c"]
        subprocess.run([self.compiler, *self.flags, *driver, *objects, "-lm", "-o", program], check=True)
        return program


# Those with a fused multiply-add.
NATIVE = Build("native", tuple(isa for isa in xent.show_config(mode="dicts")["supported_isas"] if isa != "scalar"))
AARCH64 = Build(
    "aarch64 under qemu",
    ("neon",),
    compiler="aarch64-linux-gnu-gcc",
    machine="aarch64",
    flags=("-static",),
    runner=("qemu-aarch64",),
)
# setup.py's flags for AVX-512 stand before these, which take it away again; dispatch.c is told that the
# processor has everything. -Wno-psabi: no function passes vectors this wide to another file's. -O1: what
# optimizing the stand-ins for intrinsics any further takes is more than the tests gain.
SIMDE = Build(
    "SIMDe",
    ("avx512",),
    flags=(
        *("-isystem", str(HERE / "simde"), "-mno-avx512f", "-Wno-psabi", "-O1"),
        "-D__builtin_cpu_supports(feature)=1",
    ),
    needed_file=Path("/usr/include/simde/x86/avx512.h"),
)
# An access that is not aligned as its type is ends the program. What else gcc can look for makes the kernels take
# minutes to compile.
SANITIZED = Build("sanitized", NATIVE.isas[:1], flags=("-O1", "-fsanitize=alignment", "-fno-sanitize-recover"))


@dataclass(frozen=True)
class Core:
    """An instruction set of a build."""

    isa: str
    build: Build

    def __str__(self):
        return f"{self.isa}, {self.build.name}"

    def run(self, program, problems):
        """Return the results of every problem, computed by the program that the build made."""
        done = subprocess.run(
            [*self.build.runner, program],
            input=b"".join(problem.pack() for problem in problems),
            env={**os.environ, "XENT_ISA": self.isa},
            stdout=subprocess.PIPE,
            check=True,
        )
        results, at = [], 0
        for problem in problems:
            result, at = problem.unpack(done.stdout, at)
            results.append(result)
        assert at == len(done.stdout)
        return results


def fused_cores():
    """Return every instruction set with a fused multiply-add, this machine's own before the emulated ones."""
    cores = [Core(isa, NATIVE) for isa in NATIVE.isas]
    cores += [Core(isa, SANITIZED) for isa in SANITIZED.isas]
    if "avx2" in NATIVE.isas and "avx512" not in NATIVE.isas:
        cores.append(Core("avx512", SIMDE))
    if "neon" not in NATIVE.isas:
        cores.append(Core("neon", AARCH64))
    return cores
