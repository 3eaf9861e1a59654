"""Threads: the same bits for every team, forks, concurrent callers, the floating-point environment."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import xent


@pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_000), (7, 5000), (1000, 130), (100_000, 3)])
def test_bits_do_not_depend_on_the_threads(dtype, rng, shape):
    x, target = rng.normal(size=shape, scale=5).astype(dtype), rng.integers(shape[1], size=shape[0])
    results = [xent.cross_entropy_and_grad(x, target, n_threads=n) for n in (1, 2, 5)]
    for loss, grad in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grad, results[0][1])
    softmaxes = [xent.log_softmax(x, n_threads=n) for n in (1, 2, 5)]
    for result in softmaxes[1:]:
        np.testing.assert_array_equal(result, softmaxes[0])


@pytest.mark.parametrize("classes", [1001, 5000])
@pytest.mark.parametrize("margin", [0, 80])
def test_bits_do_not_depend_on_the_batch(dtype, rng, classes, margin):
    x, target = rng.normal(size=(300, classes)).astype(dtype), rng.integers(classes, size=300)
    x[np.arange(300), target] += margin
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    for row in (0, 1, 150, 299):
        alone = xent.cross_entropy_and_grad(x[row], target[row], reduction="none")
        assert alone[0] == loss[row]
        np.testing.assert_array_equal(alone[1], grad[row])


def test_concurrent_callers(rng):
    x, target = rng.normal(size=(200, 3000)).astype(np.float32), rng.integers(3000, size=200)
    expected = xent.cross_entropy_grad(x, target)
    with ThreadPoolExecutor(8) as pool:
        for grad in pool.map(lambda _: xent.cross_entropy_grad(x, target, n_threads=2), range(32)):
            np.testing.assert_array_equal(grad, expected)


def _child(x, target, expected, queue):
    grad = xent.cross_entropy_grad(x, target, n_threads=2)
    queue.put(bool(np.array_equal(grad, expected)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_hang(rng):
    x, target = rng.normal(size=(200, 3000)).astype(np.float32), rng.integers(3000, size=200)
    expected = xent.cross_entropy_grad(x, target, n_threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(x, target, expected, queue))
    child.start()
    try:
        assert queue.get(timeout=60)
    finally:
        child.kill()
        child.join()


FLUSHING = """
import ctypes, platform, sys
import numpy as np, xent
x = np.zeros((64, 5000), np.float32)
x[:, 1:] = -np.float32(89)
target = np.zeros(64, int)
expected = xent.cross_entropy_grad(x, target, reduction="sum", n_threads=2)
assert np.count_nonzero(expected == 0) == 0 and np.abs(expected[0, 1]) < np.finfo(np.float32).smallest_normal
libm = ctypes.CDLL(None)
FE_TOWARDZERO = 0xC00
before = libm.fegetround()
assert libm.fesetround(FE_TOWARDZERO) == 0
code = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
if code: code.flush_on()
got = xent.cross_entropy_grad(x, target, reduction="sum", n_threads=2)
assert libm.fegetround() == FE_TOWARDZERO
if code: assert code.flushing()
if code: code.flush_off()
libm.fesetround(before)
assert np.array_equal(got.view(np.int32), expected.view(np.int32))
"""

FLUSH_C = """
#include <xmmintrin.h>
void flush_on(void) { _mm_setcsr(_mm_getcsr() | 0x8040); }
void flush_off(void) { _mm_setcsr(_mm_getcsr() & ~0x8040u); }
int flushing(void) { return (_mm_getcsr() & 0x8040) == 0x8040; }
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="sets the MXCSR of x86-64")
def test_the_callers_floating_point_environment_is_neither_used_nor_changed(tmp_path):
    source, library = tmp_path / "flush.c", tmp_path / "flush.so"
    source.write_text(FLUSH_C)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    subprocess.run([sys.executable, "-c", FLUSHING, library], check=True)
