"""What pyproject.toml cannot say: the flags of each instruction set, and whether there is OpenMP."""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")

# No -ffast-math: it would link in code that switches on flushing to zero for the whole process.
# Contraction is off so that a fused multiply-add is there where the source says fma, and only there.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]

# One object file for each instruction set; dispatch.c checks every feature named here.
ISA_FLAGS = {
    "scalar": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
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
    "by_lanes.c",
    "by_rows.c",
    "dispatch.c",
    "finish.c",
    "job.c",
    "parallel.c",
    "plan.c",
    "quota.c",
    "team_size.c",
    "xent.c",
]

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""


def openmp_flags(compiler: list[str]) -> tuple[list[str], list[str]]:
    """Return the compile and link flags for OpenMP, both empty where a program with it does not build."""
    choices = [(["-fopenmp"], ["-fopenmp"])]
    if sys.platform == "darwin":  # Apple's clang has OpenMP, but no runtime of its own
        choices.append((["-Xpreprocessor", "-fopenmp"], ["-lomp"]))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(OPENMP_PROBE)
        for compile_flags, link_flags in choices:
            command = [*compiler, *compile_flags, str(source), "-o", str(source.with_suffix("")), *link_flags]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return compile_flags, link_flags
    print("xent: no OpenMP found, building for one thread", file=sys.stderr)
    return [], []


class BuildExt(build_ext):
    """Compile each instruction set's file with its own flags."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the C core, then let Cython's module link it."""
        compile_openmp, link_openmp = openmp_flags(self.compiler.compiler_so[:1])
        units = [(name, []) for name in COMMON_SOURCES]
        units += [(f"isa_{isa}.c", ISA_FLAGS[isa]) for isa in ISAS]
        for name, isa_flags in units:
            ext.extra_objects += self.compiler.compile(
                [str(CSRC / name)],
                output_dir=self.build_temp,
                extra_postargs=[*FLAGS, *WARNINGS, *compile_openmp, *isa_flags],
                depends=[str(header) for header in CSRC.glob("*.h")],
            )
        ext.extra_link_args += link_openmp
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
                    depends=[str(path) for path in CSRC.iterdir()],
                )
            ],
        ),
        cmdclass={"build_ext": BuildExt},
    )
