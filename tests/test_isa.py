"""Every instruction set of this machine passes the kernels' tests; a wrong XENT_ISA fails clearly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xent

HERE = Path(__file__).parent
ISAS = ("scalar", "avx2", "avx512", "neon")
SUPPORTED = xent.show_config(mode="dicts")["supported_isas"]


def run(code, isa):
    environment = {**os.environ, "XENT_ISA": isa, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, *code], env=environment, capture_output=True, text=True, check=False, cwd=HERE.parent
    )


@pytest.mark.parametrize("isa", SUPPORTED)
def test_kernels(isa):
    tests = [str(HERE / f"test_{name}.py") for name in ("kernels", "special_values", "evaluate")]
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], isa)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("isa", SUPPORTED)
def test_forced(isa):
    assert run(["-c", "import xent; xent.show_config()"], isa).stdout.split("isa: ")[1].startswith(isa)


USE = "import xent, numpy; print('imported'); xent.softmax(numpy.zeros((2, 3)))"


def test_unknown():
    done = run(["-c", USE], "sse9")
    assert done.returncode == 1
    assert "imported" in done.stdout
    assert "ValueError: XENT_ISA='sse9' is not one of scalar, avx2, avx512, neon" in done.stderr


@pytest.mark.parametrize("isa", sorted(set(ISAS) - set(SUPPORTED)))
def test_unsupported(isa):
    done = run(["-c", USE], isa)
    assert done.returncode == 1
    assert f"RuntimeError: XENT_ISA='{isa}' does not run on this machine, which has scalar" in done.stderr
