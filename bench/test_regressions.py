"""xent beside its own past: ``pytest bench/ --benchmark-autosave``, then ``--benchmark-compare`` after a change.

Only what pytest-benchmark says of one machine is worth reading. Others' speeds are compare.py's business.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xent
from cases import CASES, Case, Logits
from peers import Xent

SEED = 0
LARGEST = 1 << 24  # bytes of logits: a case takes a second, not ten
SHAPES = [(64, 10), (65536, 10), (1024, 8192)]
OPTIONS = ["none", "label_smoothing", "z_loss", "scale", "softcap", "ignore_index", "weight", "sample_weight"]


def options_for(rows: int, classes: int) -> dict[str, Any]:
    """Return a value for every option but "none"."""
    return {
        "label_smoothing": 0.1,
        "z_loss": 1e-4,
        "scale": 0.5,
        "softcap": 30.0,
        "ignore_index": -100,
        "weight": np.ones(classes),
        "sample_weight": np.ones(rows),
    }


@pytest.mark.parametrize("case", [case for case in CASES if case.logits.nbytes <= LARGEST], ids=str)
def test_speed(benchmark: Any, case: Case) -> None:
    """Time one case, with as many threads as xent takes by itself."""
    benchmark.group = case.action
    peer = Xent(*case.logits.generate(SEED), xent.get_num_threads())
    benchmark(peer.call(case.method))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_speed_with_options(benchmark: Any, option: str, shape: tuple[int, int]) -> None:
    """Time the loss and gradient with one option, beside those with none."""
    benchmark.group = f"options of {shape}"
    logits, target = Logits(shape).generate(SEED)
    options = {name: value for name, value in options_for(*shape).items() if name == option}
    benchmark(xent.cross_entropy_and_grad, logits, target, grad_out=np.empty_like(logits), **options)
