"""The C core without Python: built from its sources alone, it gives what the Python functions give."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from build_core import ROOT, build_core, link

import xent


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_example_in_c(tmp_path):
    program = tmp_path / "cross_entropy"
    link(program, ROOT / "examples" / "cross_entropy.c", build_core(tmp_path, isas=["scalar"], extra_flags=["-O1"]))
    environment = {**os.environ, "XENT_ISA": "scalar"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)

    printed = [[float(word) for word in line.replace(":", " ").split()] for line in done.stdout.splitlines()]
    logits = np.array([[2, 1, 0], [0, 30, 0]], dtype=np.float32)
    loss, grad = xent.cross_entropy_and_grad(logits, [0, 1], reduction="none")
    np.testing.assert_allclose([row[0] for row in printed[:2]], loss, rtol=1e-7)
    np.testing.assert_allclose([row[1:] for row in printed[:2]], grad, rtol=1e-7)
    assert printed[2] == pytest.approx([float(np.sum(loss, dtype=np.float64))], rel=1e-6)
