"""The C core without Python: built from its sources alone, it gives what the Python functions give."""

from __future__ import annotations

import ast
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import xent

ROOT = Path(__file__).parents[1]


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_example_in_c(tmp_path):
    setup = constants_of_setup()
    isas = setup["MACHINE_ISAS"].get(platform.machine().lower(), ["scalar"])
    sources = [(name, []) for name in setup["COMMON_SOURCES"]]
    sources += [(f"isa_{isa}.c", setup["ISA_FLAGS"][isa]) for isa in isas]
    for name, flags in sources:
        subprocess.run(
            ["cc", *setup["FLAGS"], *setup["WARNINGS"], "-Werror", *flags, "-c", ROOT / "csrc" / name],
            cwd=tmp_path,
            check=True,
        )
    subprocess.run(
        ["cc", "-std=c11", f"-I{ROOT / 'csrc'}", ROOT / "examples" / "cross_entropy.c", *tmp_path.glob("*.o"), "-lm"],
        cwd=tmp_path,
        check=True,
    )
    done = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True)

    printed = [[float(word) for word in line.replace(":", " ").split()] for line in done.stdout.splitlines()]
    logits = np.array([[2, 1, 0], [0, 30, 0]], dtype=np.float32)
    loss, grad = xent.cross_entropy_and_grad(logits, [0, 1], reduction="none")
    np.testing.assert_allclose([row[0] for row in printed[:2]], loss, rtol=1e-7)
    np.testing.assert_allclose([row[1:] for row in printed[:2]], grad, rtol=1e-7)
    assert printed[2] == pytest.approx([float(np.sum(loss, dtype=np.float64))], rel=1e-6)
