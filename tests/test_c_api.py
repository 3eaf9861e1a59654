"""The C core without Python: built from its sources alone, it gives what the Python functions give."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import pytest
from build_core import ROOT, build_core, link

import xent
from xent import _core


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


def test_problems_that_are_refused():
    """The loss beside second derivatives would be that of another class than the target."""
    x, target, loss = np.array([[0.0, 3.0, 1.0]]), np.zeros(1, np.int64), np.empty(1)
    given = {"target": target, "upstream_scalar": 1.0, "output": _core.GRADIENT, "values": np.empty_like(x)}
    _core.run(x, **given, curvature=np.empty_like(x))
    with pytest.raises(RuntimeError, match="refused"):
        _core.run(x, **given, curvature=np.empty_like(x), loss=loss)
    with pytest.raises(RuntimeError, match="refused"):
        _core.run(x, **given | {"output": 7})


@pytest.mark.parametrize("label", ["target", "probabilities"])
def test_labels_that_are_summed_and_not_subtracted(label, rng):
    """A softmax beside a loss is not promised, but that nothing else is read than there is."""
    x, values, loss = rng.normal(size=(20, 500)).astype(np.float32), np.empty((20, 500), np.float32), np.empty(20)
    given = {"target": rng.integers(500, size=20), "weight": rng.uniform(0.5, 2, 500), "label_smoothing": 0.1}
    expected = xent.cross_entropy(x, **given, reduction="none")
    if label == "probabilities":
        given = {"probabilities": xent.softmax(x[::-1].copy())}
        expected = xent.cross_entropy(x, given["probabilities"], reduction="none")
    _core.run(x, **given, output=_core.SOFTMAX, upstream_scalar=1.0, values=values, loss=loss)
    np.testing.assert_allclose(loss, expected, rtol=2e-7)


@pytest.mark.parametrize("classes", [3, 1000])
@pytest.mark.parametrize("logit", [400.0, 800.0, np.nan])
def test_lse_of_a_row_that_does_not_count(logit, classes):
    lse = np.empty(2)
    x = np.array([np.full(classes, logit), np.full(classes, 1.0)])
    _core.run(x, target=np.array([-1, 0]), ignore=-1, lse=lse)
    np.testing.assert_allclose(lse, [0, 1 + np.log(classes)], rtol=1e-15)
