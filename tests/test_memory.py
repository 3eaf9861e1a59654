"""Where arrays lie: strides, alignment, in place, overlap, and how much memory a call takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from families import BLOCK
from numpy.lib.stride_tricks import as_strided

import xent

SHAPE = (6, 37)
TARGET = np.array([0, 36, 5, 5, 20, 1])


@pytest.fixture
def x(rng, dtype):
    return rng.normal(size=SHAPE, scale=3).astype(dtype)


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)
    result = memory[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


LAYOUTS = {
    "row gaps": lambda a: np.pad(a, ((0, 0), (0, 5)))[:, : a.shape[1]],
    "class gaps": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "row reversed": lambda a: a[::-1].copy()[::-1],
    "classes reversed": lambda a: a[:, ::-1].copy()[:, ::-1],
    "transposed": np.asfortranarray,
    "misaligned": misaligned,
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(x, layout):
    loss, grad = xent.cross_entropy_and_grad(x, TARGET)
    strided = layout(x)
    np.testing.assert_array_equal(strided, x)
    grad_out = layout(np.full_like(x, 7))
    loss_strided, _ = xent.cross_entropy_and_grad(strided, TARGET, grad_out=grad_out)
    assert loss_strided == loss
    np.testing.assert_array_equal(grad_out, grad)
    for function in (xent.softmax, xent.log_softmax):
        out = layout(np.full_like(x, 7))
        np.testing.assert_array_equal(function(strided, out=out), function(x))
    np.testing.assert_array_equal(xent.logsumexp(strided), xent.logsumexp(x))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_in_place(x, layout):
    _, grad = xent.cross_entropy_and_grad(x, TARGET)
    for function, expected in ((xent.softmax, xent.softmax(x)), (xent.log_softmax, xent.log_softmax(x))):
        inplace = layout(x)
        assert function(inplace, out=inplace) is inplace
        np.testing.assert_array_equal(inplace, expected)
    inplace = layout(x)
    _, result = xent.cross_entropy_and_grad(inplace, TARGET, grad_out=inplace)
    assert result is inplace
    np.testing.assert_array_equal(inplace, grad)


def test_memory_between_strided_elements_is_not_touched(x):
    memory = np.full((SHAPE[0], 2 * SHAPE[1] + 3), 7, x.dtype)
    xent.cross_entropy_grad(x, TARGET, grad_out=memory[:, : 2 * SHAPE[1] : 2])
    np.testing.assert_array_equal(memory[:, 1 : 2 * SHAPE[1] : 2], 7)
    np.testing.assert_array_equal(memory[:, 2 * SHAPE[1] :], 7)


def test_memory_before_and_after_rows_is_not_touched(dtype, rng):
    for classes in (1, 15, 16, 17, 33, BLOCK + 1):
        for start in range(4):
            memory = np.full(3 * classes + 8, 7, dtype)
            out = memory[start : start + 3 * classes].reshape(3, classes)
            xent.cross_entropy_grad(rng.normal(size=(3, classes)).astype(dtype), [0, 0, 0], grad_out=out)
            np.testing.assert_array_equal(memory[:start], 7)
            np.testing.assert_array_equal(memory[start + 3 * classes :], 7)


def test_zero_strides(x):
    row = np.broadcast_to(x[2], SHAPE)
    np.testing.assert_array_equal(xent.cross_entropy_grad(row, TARGET), xent.cross_entropy_grad(row.copy(), TARGET))
    column = np.broadcast_to(x[:, :1], SHAPE)
    np.testing.assert_array_equal(xent.softmax(column), xent.softmax(column.copy()))
    one_target = np.broadcast_to(np.int8(3), SHAPE[:1])
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, one_target), xent.cross_entropy_grad(x, [3] * 6))


@pytest.mark.parametrize("shift", [-40, -37, -1, 1, 3, 37, 74])
def test_partial_overlap_is_as_if_the_logits_had_been_copied(x, shift):
    memory = np.zeros(x.size + 200, x.dtype)
    logits = memory[100 : 100 + x.size].reshape(SHAPE)
    logits[...] = x
    out = memory[100 + shift : 100 + shift + x.size].reshape(SHAPE)
    _, grad = xent.cross_entropy_and_grad(logits, TARGET, grad_out=out)
    np.testing.assert_array_equal(grad, xent.cross_entropy_grad(x, TARGET))


def test_overlap_in_another_order(dtype, rng):
    square = rng.normal(size=(9, 9)).astype(dtype)
    expected = xent.softmax(square)
    xent.softmax(square.copy().T.copy().T, out=square)
    np.testing.assert_array_equal(square, expected)
    x = rng.normal(size=(9, 9)).astype(dtype)
    expected = xent.softmax(x)
    np.testing.assert_array_equal(xent.softmax(x, out=x.T), expected)


def test_targets_and_upstream_in_the_memory_of_the_gradient():
    grad = np.zeros((4, 4))
    target = grad.reshape(-1).view(np.int64)[3:7]
    target[:] = [3, 0, 1, 2]
    upstream = grad.reshape(-1)[8:12]
    upstream[:] = [1, 2, 3, 4]
    x = np.arange(16.0).reshape(4, 4)
    expected = xent.cross_entropy_grad(x, target.copy(), reduction="none", grad_output=upstream.copy())
    xent.cross_entropy_grad(x, target, reduction="none", grad_output=upstream, grad_out=grad)
    np.testing.assert_array_equal(grad, expected)


def test_overlapping_windows(dtype, rng):
    series = rng.normal(size=50).astype(dtype)
    windows = as_strided(series, (40, 10), (series.itemsize, series.itemsize), writeable=False)
    target = np.arange(40) % 10
    np.testing.assert_array_equal(
        xent.cross_entropy_grad(windows, target), xent.cross_entropy_grad(windows.copy(), target)
    )


ROWS, CLASSES = LARGE = 400, 2 * BLOCK + 907  # values that are written past the caches, unless the memory is fresh


@pytest.mark.parametrize("memory", [np.empty, np.ones])
def test_results_larger_than_the_caches(dtype, rng, memory):
    """The values are those of the small ones."""
    x = rng.normal(size=LARGE).astype(dtype)
    target = rng.integers(CLASSES, size=ROWS)
    out = memory(x.size + 3, dtype)[3:].reshape(x.shape)
    _, grad = xent.cross_entropy_and_grad(x, target, reduction="none", grad_out=out)
    for row in (0, 1, ROWS // 2, ROWS - 1):
        np.testing.assert_array_equal(grad[row], xent.cross_entropy_grad(x[row], target[row], reduction="none"))


def given_for(kind, edges, rng):
    """Return the arguments of one kind of target; what there is of labels are these."""
    if kind == "probabilities":
        return {"target": rng.dirichlet(np.ones(CLASSES), size=len(edges))}
    if kind == "listed":
        indices = np.stack([edges, rng.permutation(edges)], axis=1)
        return {"target": (indices, np.full(indices.shape, 0.5))}
    options = {"weighted": {"weight": rng.random(CLASSES)}, "softcap": {"softcap": 2.0}}
    return {"target": edges, **options.get(kind, {})}


@pytest.mark.parametrize("kind", ["labels", "weighted", "probabilities", "listed", "softcap", "float16", "bfloat16"])
@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_lines_that_blocks_and_rows_share(dtype, rng, kind, gap, threads):
    """What is written past the caches goes out as whole lines, with the label's value at any place of one."""
    x = rng.normal(size=LARGE).astype(dtype)
    x[:, [BLOCK - 1, 2 * BLOCK - 1, CLASSES - 1]] += [10, 11, 12]  # the last of each block is its largest
    if kind in ("float16", "bfloat16"):
        dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else np.float16)
        x = np.tile(x, (2, 1)).astype(dtype)
    first, second = range(BLOCK - 2, BLOCK + 2), range(2 * BLOCK - 1, 2 * BLOCK + 1)
    edges = np.resize([0, 1, 15, 16, 17, *first, *second, *range(CLASSES - 3, CLASSES)], len(x))
    given = given_for(kind, edges, rng)
    target = given.pop("target")
    for offset in (0, 1, 3):
        memory = np.full(len(x) * (CLASSES + gap) + 64, 7, dtype)
        rows = memory[offset : offset + len(x) * (CLASSES + gap)].reshape(len(x), -1)
        out = rows[:, :CLASSES]
        xent.cross_entropy_and_grad(x, target, reduction="none", grad_out=out, n_threads=threads, **given)
        few = np.concatenate([np.arange(30), np.arange(ROWS // 2, ROWS // 2 + 20), np.arange(ROWS - 10, ROWS)])
        chosen = tuple(part[few] for part in target) if isinstance(target, tuple) else target[few]
        np.testing.assert_array_equal(out[few], xent.cross_entropy_grad(x[few], chosen, reduction="none", **given))
        out[...] = 7
        np.testing.assert_array_equal(memory, 7)  # nothing beside it was written


@pytest.mark.parametrize("classes", [3, 7, 10, 64])
@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_lines_that_rows_of_few_classes_share(dtype, rng, classes, gap, threads):
    """The same of rows that lie side by side; the second derivatives have lines of their own."""
    rows = (9 << 20) // (classes * np.dtype(dtype).itemsize)
    x = rng.normal(size=(rows, classes)).astype(dtype)
    target = rng.integers(classes, size=rows)
    few = np.r_[0:200, rows // 2 - 100 : rows // 2 + 100, rows - 200 : rows]
    expected = xent.cross_entropy_grad_hess(x[few], target[few], hessian="xgboost", reduction="none")
    for offset in (0, 1, 3):
        memory = np.full((2, rows * (classes + gap) + 64), 7, dtype)
        grad, hess = (part[offset : offset + rows * (classes + gap)].reshape(rows, -1)[:, :classes] for part in memory)
        xent.cross_entropy_and_grad(x, target, reduction="none", grad_out=grad, n_threads=threads)
        np.testing.assert_array_equal(grad[few], xent.cross_entropy_grad(x[few], target[few], reduction="none"))
        xent.cross_entropy_grad_hess(
            x, target, hessian="xgboost", reduction="none", grad_out=grad, hess_out=hess, n_threads=threads
        )
        np.testing.assert_array_equal(grad[few], expected[0])
        np.testing.assert_array_equal(hess[few], expected[1])
        grad[...] = hess[...] = 7
        np.testing.assert_array_equal(memory, 7)  # nothing beside them was written


# ru_maxrss is no less than that of the process that forked this one; the memory of a team grows with its members.
MEASURE = """
import sys
import numpy as np, xent
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0])
xent.set_num_threads(1)
N, K = 800, 20_000
x = np.ones((N, K), np.float32)
grad = np.ones_like(x)
layout = sys.argv[1]
if layout == "transposed":
    x, grad = x.reshape(K, N).T, grad.reshape(K, N).T
target = np.zeros(N, int)
xent.cross_entropy_and_grad(x[:2], target[:2], grad_out=grad[:2])
before = peak()
xent.cross_entropy(x, target)
xent.cross_entropy_and_grad(x, target, grad_out=grad)
xent.softmax(x, out=x)
print((peak() - before) * 1024 / x.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in use in /proc")
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_no_memory_that_grows_with_the_logits(layout):
    run = subprocess.run([sys.executable, "-c", MEASURE, layout], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.03


# A page that nobody may touch before and behind the arrays, as far as their dtypes allow.
GUARDED = """
import ctypes, mmap
import numpy as np, xent
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 40 * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for page in (0, 19, 39):
    assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64, np.float16):
    for classes in (*range(1, 20), 64, 100, 128, 129, 150, 192, 193, 1000):
        for rows in (1, 7, 16, 23, 50):
            size = rows * classes
            nbytes = size * np.dtype(dtype).itemsize
            if nbytes > 17 * PAGE:
                continue
            target = rng.integers(classes, size=rows)
            x = rng.normal(size=(rows, classes)).astype(dtype)
            expected = xent.cross_entropy_grad(x, target)
            for begins in (True, False):
                at = [PAGE, 20 * PAGE] if begins else [19 * PAGE - nbytes, 39 * PAGE - nbytes]
                logits, grad = (np.frombuffer(memory, dtype, size, offset=offset).reshape(x.shape) for offset in at)
                logits[...] = x
                xent.cross_entropy(logits, target)
                xent.cross_entropy_and_grad(logits, target, grad_out=grad)
                np.testing.assert_array_equal(grad, expected)
                xent.softmax(logits, out=logits)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages as Linux does")
def test_nothing_outside_the_arrays_is_touched():
    run = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
