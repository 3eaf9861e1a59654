"""The same bits on every instruction set with a fused multiply-add, emulated where this machine lacks it.

And from a build that ends at the first access that is not aligned as its type is. The first of `fused_cores` is the
measure of the others. XENT_REQUIRE_CROSS=1 makes a missing tool a failure.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cross import CURVATURES, OUTPUTS, Build, Problem, fused_cores
from families import BLOCK, batches, cancelling, near_zero
from ulp import ulps

from xent import reference

CORES = fused_cores()
LENGTHS = [
    *range(1, 71),
    *range(120, 137),
    *range(250, 260),
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    BLOCK + 907,
    3 * BLOCK,
]


def problems_of(x, rng, **options):
    """Return the problem of every output; every other one has an upstream, and a saved normaliser."""
    rows, classes = x.shape
    target = rng.integers(classes, size=rows)
    upstream = rng.normal(size=rows)
    lse = np.asarray(reference.logsumexp(x.astype(np.float64)))
    return [Problem(x, output, target=target, **options) for output in OUTPUTS] + [
        Problem(x, "softmax", **options),
        Problem(x, "log_softmax", **options),
        Problem(x, "gradient", target=target, upstream=upstream, **options),
        Problem(x, "gradient", target=target, upstream=upstream, lse=lse, **options),
    ]


def every_length(dtype, rng):
    for classes in LENGTHS:
        yield from problems_of((rng.normal(size=(3, classes)) * 4).astype(dtype), rng)


def magnitudes(dtype, rng):
    for classes in (2, 10, 33, 100, 1000, BLOCK + 17):
        for scale in (1e-30, 1e-3, 1, 30, 120, 1000, 1e5, 1e30):
            for offset in (0, -50, 200, -300, 1e4, -1e8, 1e30):
                yield from problems_of((rng.normal(size=(4, classes)) * scale + offset).astype(dtype), rng)


def confident_rows(dtype, rng):
    margins = np.array([5, 10, 17, 20, 40, 80, 104, 300, 1e8], dtype=dtype)
    for classes in (2, 10, 70, BLOCK, BLOCK + 907):
        x = rng.normal(size=(len(margins), classes)).astype(dtype)
        x[:, classes // 2] = margins
        for output in OUTPUTS:
            yield Problem(x, output, target=np.full(len(margins), classes // 2))


def blocks_of_different_magnitude(dtype, rng):
    x = rng.normal(size=(12, 3 * BLOCK)).astype(dtype)
    x[:, :BLOCK] += rng.choice([0, 30, 300, -300, 1000], size=(12, 1)).astype(dtype)
    x[:, -BLOCK:] -= rng.choice([0, 30, 400, -260, 5000], size=(12, 1)).astype(dtype)
    return problems_of(x, rng)


def special_values(dtype, rng):
    info = np.finfo(dtype)
    specials = [np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, info.max, info.min]
    specials += [info.smallest_subnormal, -info.smallest_normal / 2, info.smallest_normal]
    for classes in (1, 2, 10, 16, 17, 40, 129, 193, BLOCK + 17):
        for chance in (0.02, 0.5, 1):
            for special in specials:
                x = rng.normal(size=(4, classes)).astype(dtype)
                x[rng.random(x.shape) < chance] = special
                yield from problems_of(x, rng)
        mixed = np.where(rng.random((40, classes)) < 0.3, rng.choice(specials, size=(40, classes)), 1)
        yield from problems_of(mixed.astype(dtype), rng)
        finite = rng.choice([info.max, info.min, info.max / 3, 0, 1], size=(40, classes))
        yield from problems_of(finite.astype(dtype), rng)
    masked = rng.normal(size=(4, 3 * BLOCK)).astype(dtype)
    masked[:, :BLOCK] = -np.inf
    yield from problems_of(masked, rng)


def subnormal_results(dtype, rng):
    smallest = np.log(np.finfo(dtype).smallest_normal)
    for classes in (20, 200):
        x = np.zeros((5, classes))
        x[:, 1:] = smallest - rng.random(size=(5, classes - 1)) * 40
        yield from problems_of(x.astype(dtype), rng)


def logsumexps_near_zero(dtype, _rng):
    for family in (near_zero, cancelling):
        for x, _ in batches(family, dtype):
            yield Problem(x, "none")


def layouts(dtype, rng):
    for classes in (3, 10, 64, 130, BLOCK + 17):
        for padding in (0, 1, 13):
            shape = (5, classes)
            spaced = np.zeros((5, 3 * classes + padding), dtype)
            transposed = np.zeros((classes, 5 + padding), dtype)
            padded = np.zeros((5, classes + padding), dtype)
            unaligned = np.zeros(5 * classes * spaced.itemsize + padding, np.uint8)
            views = [
                (spaced[:, : 3 * classes : 3], spaced),
                (transposed[:, :5].T, transposed),
                (padded[:, :classes], padded),
                (padded[::-1, classes - 1 :: -1], padded),
                (np.ndarray(shape, dtype, buffer=unaligned, offset=padding), unaligned),
            ]
            for view, memory in views:
                view[...] = rng.normal(size=shape) * 4
                yield from problems_of(view, rng, memory=memory)
                view[0, 0] = -np.inf
                yield Problem(view, target=np.zeros(5, int), memory=memory, options={"label_smoothing": 0.1})


def teams(dtype, rng):
    """Rows shared, and one row's blocks shared."""
    for shape in ((70, 1000), (700, 100), (9000, 10), (1, 40_000), (2, 5 * BLOCK)):
        for threads in (2, 3):
            yield from problems_of((rng.normal(size=shape) * 4).astype(dtype), rng, threads=threads)


def past_the_caches(dtype, rng):
    """Values so many that they are streamed."""
    for classes in (1024, 3011):
        x = rng.normal(size=(1 + (8 << 20) // (classes * np.dtype(dtype).itemsize), classes)).astype(dtype)
        yield Problem(x, "gradient", target=rng.integers(classes, size=len(x)))


def options(dtype, rng):
    """Every kernel that only options reach."""
    transformations = ({}, {"scale": 0.7}, {"softcap": 20.0, "scale": 1.3}, {"z_loss": 1e-3, "label_smoothing": 0.1})
    for floats in (dtype, np.float16) if dtype == np.float32 else (dtype,):
        for classes in (1, 3, 10, 33, 129, 193, BLOCK + 17, BLOCK + 907):
            x = (rng.normal(size=(5, classes)) * 10).astype(floats)
            x[3, rng.random(classes) < 0.3] = -np.inf
            labels = rng.dirichlet(np.ones(classes), size=5)
            listed = rng.integers(classes, size=(5, 2)), rng.random((5, 2)) / 2
            target = rng.integers(classes, size=5)
            weight = rng.random(classes)
            for given in transformations:
                for output in ("none", "gradient"):
                    for distribution in ({"target": target}, {"labels": labels}, {"listed": listed}):
                        yield Problem(x, output, options=given, **distribution)
                        yield Problem(x, output, options=given, class_weight=weight, **distribution)
            for given in ({}, {"scale": 0.7}):
                yield Problem(x, "softmax", options=given)
                yield Problem(x, "log_softmax", options=given)


def second_derivatives(dtype, rng):
    """Rows side by side and one after the other, with what each has of its own."""
    for floats in (dtype, np.float16) if dtype == np.float32 else (dtype,):
        for classes in (1, 3, 10, 33, 129, 193, BLOCK + 17, BLOCK + 907):
            x = (rng.normal(size=(5, classes)) * 5).astype(floats)
            x[3, rng.random(classes) < 0.3] = -np.inf
            x[4, 0] = 60
            vector = rng.normal(size=x.shape)
            target = rng.integers(classes, size=5)
            for given in ({}, {"softcap": 20.0, "scale": 1.3}, {"z_loss": 1e-3, "label_smoothing": 0.1}):
                for labels in ({"target": target}, {"labels": rng.dirichlet(np.ones(classes), size=5)}):
                    yield Problem(x, "product", vector=vector, options=given, **labels)
                    for kind in CURVATURES:
                        yield Problem(x, curvature=kind, options=given, **labels)


def evaluations(dtype, rng):
    for classes in (1, 3, 10, 33, 129, 193, BLOCK + 17, BLOCK + 907):
        x = (rng.normal(size=(5, classes)) * 4).astype(dtype)
        x[3, rng.random(classes) < 0.3] = -np.inf
        for given in (None, {"scale": 0.7}, {"softcap": 20.0}):
            for top_k in (0, 3):
                yield Problem(x, "none", target=rng.integers(classes, size=5), options=given, top_k=top_k)


FAMILIES = (
    every_length,
    magnitudes,
    confident_rows,
    blocks_of_different_magnitude,
    special_values,
    subnormal_results,
    logsumexps_near_zero,
    layouts,
    teams,
    past_the_caches,
    options,
    second_derivatives,
    evaluations,
)


def make(family, dtype):
    with np.errstate(over="ignore", invalid="ignore"):
        return list(family(dtype, np.random.default_rng(20180927)))


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Return the program of every build that can be made here, all made at once: each takes a minute or two."""
    folders = {core.build: tmp_path_factory.mktemp("core") for core in CORES if not core.build.missing()}
    with ThreadPoolExecutor() as pool:
        made = pool.map(Build.make, folders, folders.values())
        return dict(zip(folders, made, strict=True))


@pytest.fixture
def run(programs):
    """Return a function that runs problems on a core."""

    def run_on(core, problems):
        missing = core.build.missing()
        if missing and os.environ.get("XENT_REQUIRE_CROSS"):
            pytest.fail(f"{core} needs {missing}")
        if missing:
            pytest.skip(f"{core} needs {missing}")
        return core.run(programs[core.build], problems)

    return run_on


def same_bits(a, b):
    """Whether all bits agree; a NaN's payload and sign are the processor's."""
    nan = np.isnan(a) & np.isnan(b)
    return np.where(nan, 0, a).tobytes() == np.where(nan, 0, b).tobytes()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("core", CORES[1:], ids=str)
def test_same_bits(run, core, family, dtype):
    problems = make(family, dtype)
    for problem, ours, theirs in zip(problems, run(CORES[0], problems), run(core, problems), strict=True):
        assert ours["status"] == theirs["status"] == 0
        for name in ours.keys() - {"status"}:
            assert same_bits(ours[name], theirs[name]), (name, problem.output, problem.logits)


@pytest.mark.parametrize("core", CORES, ids=str)
def test_accuracy(run, core, rng):
    """The contract for float32; float64 follows from the bits and the tests of this machine's own kernels."""
    for classes in (2, 10, 100, 1000, BLOCK + 907):
        x = (rng.normal(size=(200, classes)) * rng.choice([0.1, 3, 50, 1e5], size=(200, 1))).astype(np.float32)
        target = rng.integers(classes, size=200)
        (result,) = run(core, [Problem(x, target=target)])
        loss, grad = reference.cross_entropy_and_grad(x.astype(np.float64), target, reduction="none")
        assert ulps(result["loss"][:-1].astype(np.float32), loss) <= 1
        assert ulps(result["values"], grad) <= 2
