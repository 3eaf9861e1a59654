"""What pyproject.toml cannot say: the flags of each instruction set."""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")

# No -ffast-math: it would link in code that switches on flushing to zero for the whole process.
# Contraction is off so that a fused multiply-add is there where the source says fma, and only there.
# CPython's own flags have -fwrapv, which CFLAGS in the environment replaces; it changes the loops' order.
FLAGS = [
    "-O3",
    "-std=c11",
    "-pthread",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",
    "-fvisibility=hidden",
]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]

# One object file for each instruction set; dispatch.c checks every feature named here.
ISA_FLAGS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    "neon": [],
}
MACHINE_ISAS = {
    "x86_64": ["scalar", "avx2", "avx512"],
    "amd64": ["scalar", "avx2", "avx512"],
    "aarch64": ["scalar", "neon"],
    "arm64": ["scalar", "neon"],
}
ISAS = MACHINE_ISAS.get(platform.machine().lower(), ["scalar"])

COMMON_SOURCES = [
    "by_groups.c",
    "by_lanes.c",
    "by_rows.c",
    "cache.c",
    "dispatch.c",
    "evaluate.c",
    "finish.c",
    "fixed.c",
    "fresh.c",
    "job.c",
    "options.c",
    "parallel.c",
    "plan.c",
    "quota.c",
    "second.c",
    "shards.c",
    "team_size.c",
    "total.c",
    "xent.c",
]


class BuildExt(build_ext):
    """Compile each instruction set's file with its own flags."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the C core, then let Cython's module link it."""
        headers = [str(header) for header in CSRC.glob("*.h")]

        def compile_unit(name: str, isa_flags: list[str]) -> list[str]:
            flags = [*FLAGS, *WARNINGS, *isa_flags]
            source = str(CSRC / name)
            return self.compiler.compile([source], output_dir=self.build_temp, extra_postargs=flags, depends=headers)

        units = [(f"isa_{isa}.c", ISA_FLAGS[isa]) for isa in ISAS]  # first, because they take a minute
        units += [(name, []) for name in COMMON_SOURCES]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for objects in pool.map(compile_unit, *zip(*units, strict=True)):
                ext.extra_objects += objects
        super().build_extension(ext)


if __name__ == "__main__":
    setup(
        ext_modules=cythonize(
            [
                Extension(
                    "xent._core",
                    ["src/xent/_core.pyx"],
                    include_dirs=[str(CSRC), numpy.get_include()],
                    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
                    extra_compile_args=["-O2", "-fvisibility=hidden"],
                    extra_link_args=["-pthread"],
                    depends=[str(path) for path in CSRC.iterdir()],
                )
            ],
        ),
        cmdclass={"build_ext": BuildExt},
    )
