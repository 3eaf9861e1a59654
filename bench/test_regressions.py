"""xent beside its own past: ``pytest bench/ --benchmark-autosave``, then ``--benchmark-compare`` after a change.

Only what pytest-benchmark says of one machine is worth reading. Others' speeds are compare.py's business.
"""

from __future__ import annotations

from typing import Any

import pytest

from cases import CASES, Case
from peers import Xent
from xent import get_num_threads

SEED = 0
LARGEST = 1 << 24  # bytes of logits: a case takes a second, not ten


@pytest.mark.parametrize("case", [case for case in CASES if case.logits.nbytes <= LARGEST], ids=str)
def test_speed(benchmark: Any, case: Case) -> None:
    """Time one case, with as many threads as xent takes by itself."""
    benchmark.group = case.action
    peer = Xent(*case.logits.generate(SEED), get_num_threads())
    benchmark(peer.call(case.method))
