"""Threads: the same bits for every team, forks, concurrent callers, idle workers, the floating-point environment."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from build_core import CSRC, ROOT

import xent


@pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_000), (6, 70_001), (7, 5000), (1000, 130), (100_000, 3)])
def test_bits_do_not_depend_on_the_threads(dtype, rng, shape):
    x, target = rng.normal(size=shape, scale=5).astype(dtype), rng.integers(shape[1], size=shape[0])
    results = [xent.cross_entropy_and_grad(x, target, n_threads=n) for n in (1, 2, 5, 8)]
    for loss, grad in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grad, results[0][1])
    softmaxes = [xent.log_softmax(x, n_threads=n) for n in (1, 2, 5, 8)]
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


@pytest.fixture
def work(rng):
    """Logits and labels of some milliseconds, and their gradient by one thread."""
    x, target = rng.normal(size=(200, 3000)).astype(np.float32), rng.integers(3000, size=200)
    return x, target, xent.cross_entropy_grad(x, target, n_threads=1)


def give_expected(work, n_threads, calls=1):
    """Whether `calls` calls all give the expected bits."""
    x, target, expected = work
    return all(np.array_equal(xent.cross_entropy_grad(x, target, n_threads=n_threads), expected) for _ in range(calls))


@pytest.mark.parametrize("n_threads", [2, 5])
def test_concurrent_callers(work, n_threads):
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: give_expected(work, n_threads, calls=5), range(32)))


def test_teams_of_changing_size(work):
    assert all(give_expected(work, n_threads) for n_threads in (2, 7, 1, 3, 64, 2, 7))


def threads_of_process():
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - as cheap as can be, in a fork


def _child(work, queue):
    """Say whether the bits are right, and how many threads a team of 3 adds to this process."""
    before = threads_of_process()
    good = give_expected(work, 3)
    queue.put((good, threads_of_process() - before))


needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts threads in /proc")
ignore_fork_warning = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def run_forked(work):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(work, queue))
    child.start()
    try:
        return queue.get(timeout=60)
    finally:
        child.kill()
        child.join()


@needs_fork
@ignore_fork_warning
def test_a_forked_child_makes_its_own_threads(work):
    assert give_expected(work, 3)
    assert run_forked(work) == (True, 2)
    assert give_expected(work, 3)


@needs_fork
@ignore_fork_warning
def test_forks_during_calls_of_other_threads(work):
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(give_expected, work, 3, calls=40) for _ in range(3)]
        for _ in range(5):
            good, added = run_forked(work)
            assert good
            assert added == 2
        assert all(call.result() for call in calls)


ASLEEP = """
import os, time
import numpy as np, xent
def count_sleeps(thread):
    lines = open(f"/proc/self/task/{thread}/status").read().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["voluntary_ctxt_switches"])
def call():
    xent.cross_entropy(np.zeros((1000, 1000)), np.zeros(1000, int), n_threads=2)
before = set(os.listdir("/proc/self/task"))
call()
(made,) = set(os.listdir("/proc/self/task")) - before
for _ in range(5):
    slept = count_sleeps(made)
    call()
    while count_sleeps(made) == slept:  # for ever, if it never sleeps
        time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the states of threads in /proc")
def test_workers_sleep_after_a_call():
    """They may look for work for 20 us; if they did not stop, they would starve the library that is called next.

    How much time they take is measured by ``bench/training_step.py``: no test depends on a clock.
    """
    subprocess.run([sys.executable, "-c", ASLEEP], check=True, timeout=60)


KEPT_OFF = """
import os, time
import numpy as np, xent

def call():
    xent.cross_entropy(np.zeros((1000, 1000)), np.zeros(1000, int), n_threads=2)

before = set(os.listdir("/proc/self/task"))
call()
(made,) = set(os.listdir("/proc/self/task")) - before
while "(sleeping)" not in open(f"/proc/self/task/{made}/status").read():
    time.sleep(0.01)
call()
assert len(os.sched_getaffinity(int(made))) == len(os.sched_getaffinity(0)) - 1
"""


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="affinities of two processors")
def test_a_worker_is_kept_off_the_processor_of_its_caller():
    """It would wait until its caller has had its time on the processor, for milliseconds."""
    subprocess.run([sys.executable, "-c", KEPT_OFF], check=True, timeout=60)


BLOCKED = """
import os, signal
import numpy as np, xent
before = set(os.listdir("/proc/self/task"))
xent.cross_entropy(np.zeros((1000, 1000)), np.zeros(1000, int), n_threads=3)
made = set(os.listdir("/proc/self/task")) - before
assert len(made) == 2
for thread in made:
    status = dict(line.split(":\\t", 1) for line in open(f"/proc/self/task/{thread}/status"))
    blocked = int(status["SigBlk"], 16)
    assert all(blocked >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM))
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the signal masks in /proc")
def test_signals_are_left_to_the_threads_of_the_program():
    subprocess.run([sys.executable, "-c", BLOCKED], check=True)


def detects_races(folder):
    """Whether programs with the thread sanitizer build and run here: some kernels give them no room."""
    source, program = folder / "probe.c", folder / "probe"
    source.write_text("int main(void) { return 0; }")
    built = subprocess.run(["cc", "-fsanitize=thread", source, "-o", program], capture_output=True, check=False)
    return built.returncode == 0 and subprocess.run([*WITHOUT_ASLR, program], check=False).returncode == 0


# The sanitizers of gcc 12 do not know all the address layouts of newer kernels.
WITHOUT_ASLR = ("setarch", "-R") if shutil.which("setarch") else ()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_teams_have_no_races(tmp_path):
    if not detects_races(tmp_path):
        pytest.skip("needs the thread sanitizer")
    program = tmp_path / "threads"
    flags = ["-std=c11", "-g", "-O1", "-fsanitize=thread", "-pthread", f"-I{CSRC}"]
    sources = [ROOT / "tests" / "threads.c", *(CSRC / name for name in ("parallel.c", "team_size.c", "quota.c"))]
    subprocess.run(["cc", *flags, *sources, "-lm", "-o", program], check=True)
    subprocess.run([*WITHOUT_ASLR, program], check=True)


FLUSHING = """
import ctypes, platform, sys
import numpy as np, xent
x = np.zeros((64, 5000), np.float32)
x[:, 1:] = -np.float32(89)
target = np.zeros(64, int)
expected = xent.cross_entropy_grad(x, target, reduction="sum", n_threads=2)
assert np.count_nonzero(expected == 0) == 0 and np.abs(expected[0, 1]) < np.finfo(np.float32).smallest_normal
rng = np.random.default_rng(0)
wide, weight, rows = rng.normal(size=(50, 3000)), rng.uniform(1, 2, 3000), rng.uniform(1, 2, 50)
labels, narrow = rng.integers(3000, size=50), wide.astype(np.float32)
def weigh():
    of_wide = xent.cross_entropy_and_grad(wide, labels, weight=weight, sample_weight=rows)
    grad = xent.cross_entropy_grad(narrow, labels, weight=weight, label_smoothing=0.1, n_threads=2)
    return of_wide[0].tobytes(), of_wide[1].tobytes(), grad.tobytes()
weighed_before = weigh()
libm = ctypes.CDLL(None)
FE_TOWARDZERO = 0xC00
before = libm.fegetround()
assert libm.fesetround(FE_TOWARDZERO) == 0
code = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 else None
if code: code.flush_on()
got = xent.cross_entropy_grad(x, target, reduction="sum", n_threads=2)
weighed = weigh()
assert libm.fegetround() == FE_TOWARDZERO
if code: assert code.flushing()
if code: code.flush_off()
libm.fesetround(before)
assert np.array_equal(got.view(np.int32), expected.view(np.int32))
assert weighed == weighed_before
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
