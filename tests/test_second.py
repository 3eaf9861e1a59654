"""Second derivatives against the oracle: the diagonal and what boosting takes for it, products with vectors, blocks.

An error is relative to the terms of the formula, of which q (1 - q) is one: it does not cancel. Where there is a scale
or softcap, z is rounded to the precision that is computed in, and with it what is computed of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from problems import DTYPES, HALVES, WRITEABLE_LAYOUTS, Case, cases, float64_case, laid_out
from test_options import (
    FEW,
    MANY,
    SMALLEST,
    TOLERANCE,
    Bounds,
    assert_within,
    check_grad,
    examples,
    in_place_allowed,
    problem_of,
    unit,
)

import xent
from xent import reference

inf, nan = np.inf, np.nan
KINDS = ("exact", "xgboost", "lightgbm")
PLAIN = st.sampled_from(DTYPES)


def bound_of(case: Case, bounds: Bounds, out: np.dtype[Any], terms: Any, steps: Any = 1.0) -> Any:
    """Return the bound in the shape of the logits, given the terms of rows."""
    with np.errstate(all="ignore"):
        relative = TOLERANCE[out.name] + 4 * unit(case.logits.dtype) * bounds.z_error
        bound = relative * terms + SMALLEST[out.name] * (1 + steps)
    return reference._unrows(np.where(bounds.counts[:, np.newaxis], bound, 0), case.logits, case.axis)


def magnitudes(exact_case: Case) -> tuple[reference.Problem, Any, Any, Any]:
    """Return the problem, |dl/dL v|, A by its terms, and the gradient's terms times z''."""
    problem, z_loss = problem_of(exact_case), exact_case.options.get("z_loss", 0.0)
    with np.errstate(all="ignore"):
        a = problem.total + 2 * z_loss * (np.abs(problem.rows.z_m) + problem.rows.log_sum)
        factor = np.abs(problem.upstream * problem.v)[:, np.newaxis]
        gradient = (a * problem.rows.q + np.abs(problem.b)) * np.abs(problem.transform.second)
    return problem, factor, a, gradient


def steps_of_gradient(case: Case) -> float:
    """Return the steps that a gradient may be off by, if it is subnormal, times what it is multiplied by: z'' / z'."""
    softcap = case.options.get("softcap")
    return 1.5 * 2 * case.options.get("scale", 1.0) / softcap if softcap else 0.0


def undefined(problem: reference.Problem) -> bool:
    """Whether the mean is 0 / 0."""
    return not problem.divisor


def check_curvature(case, exact_case, bounds, hess, kind):
    problem, factor, a, gradient = magnitudes(exact_case)
    exact = reference.cross_entropy_grad_hess(
        exact_case.logits, exact_case.target, hessian=kind, grad_output=case.grad_output, **case.options
    )[1]
    with np.errstate(all="ignore"):
        rows, slope2 = problem.rows, problem.transform.first**2
        terms = factor * (slope2 * a * rows.q * rows.q_others)
        if kind == "exact":
            square = 2 * case.options.get("z_loss", 0.0) * rows.q**2
            terms = factor * (slope2 * (a * rows.q * rows.q_others + square) + gradient)
        steps = np.maximum(1, 4 * factor * slope2 * (a + 1)) + steps_of_gradient(case)
    if undefined(problem):
        assert np.all((np.asarray(hess, np.float64) <= 1e-15) | np.isnan(exact))
        return
    assert_within(hess, exact, bound_of(exact_case, bounds, hess.dtype, 2 * terms, steps))


def check_product(case, exact_case, bounds, u, product):
    problem, factor, a, gradient = magnitudes(exact_case)
    exact = reference.cross_entropy_hvp(
        exact_case.logits, exact_case.target, u, grad_output=case.grad_output, **case.options
    )
    with np.errstate(all="ignore"):
        rows, slope = problem.rows, problem.transform.first
        size = np.abs(reference._rows(np.asarray(u), case.axis))
        mean = np.sum(rows.q * slope * size, axis=1, keepdims=True)
        square = 2 * case.options.get("z_loss", 0.0) * rows.q * mean
        terms = factor * (slope * (a * rows.q * (slope * size + mean) + square) + gradient * size)
        steps = np.maximum(1, 4 * factor * slope * (a + 1) * (slope * size + mean))
        largest = size.max(axis=1, keepdims=True, initial=0)
        steps = steps + (2 + steps_of_gradient(case)) * largest  # a probability is multiplied by u - q.u
    if undefined(problem):
        assert np.all((np.asarray(product, np.float64) == 0) | np.isnan(exact))
        return
    assert_within(product, exact, bound_of(exact_case, bounds, product.dtype, terms, steps))


def out_for(case, layout, wide):
    dtype = case.logits.dtype.newbyteorder("=")
    return laid_out(np.full(case.logits.shape, 7, np.float32 if wide and dtype in HALVES else dtype), layout)


def check(case, kind, layouts, wide, in_place):
    given = {"grad_output": case.grad_output, **case.options}
    exact_case = float64_case(case)
    bounds = Bounds.of(exact_case)
    outs = {"grad_out": out_for(case, layouts[0], wide[0]), "hess_out": out_for(case, layouts[1], wide[1])}
    grad, hess = xent.cross_entropy_grad_hess(case.logits, case.target, hessian=kind, **outs, **given)
    assert grad is outs["grad_out"]
    assert hess is outs["hess_out"]
    # Of a subnormal gradient beside the label docs/accuracy.md promises 1.5 steps
    check_grad(case, exact_case, dataclasses.replace(bounds, step_factor=1.5 * bounds.step_factor), grad)
    check_curvature(case, exact_case, bounds, hess, kind)

    grad, hess = xent.cross_entropy_grad_hess(case.logits, case.target, hessian=kind, **given)
    assert grad.dtype == hess.dtype == case.logits.dtype.newbyteorder("=")
    check_curvature(case, exact_case, bounds, hess, kind)
    if in_place and in_place_allowed(case.logits):
        name = {"grad": "grad_out", "hess": "hess_out"}[in_place]
        logits = case.logits.copy("K") if case.logits.flags.owndata else case.logits
        again = xent.cross_entropy_grad_hess(logits, case.target, hessian=kind, **{name: logits}, **given)
        np.testing.assert_array_equal(again[0].astype(float), grad.astype(float))
        np.testing.assert_array_equal(again[1].astype(float), hess.astype(float))


def check_hvp(case, seed, layout, wide, vector_dtype):
    given = {"grad_output": case.grad_output, **case.options}
    exact_case = float64_case(case)
    bounds = Bounds.of(exact_case)
    u = np.random.default_rng(seed).integers(-64, 65, size=case.logits.shape) / 16  # exact in every dtype
    out = out_for(case, layout, wide)
    vector = laid_out(u.astype(vector_dtype), layout)
    product = xent.cross_entropy_hvp(case.logits, case.target, vector, out=out, **given)
    assert product is out
    check_product(case, exact_case, bounds, u, product)
    product = xent.cross_entropy_hvp(case.logits, case.target, vector, **given)
    assert product.dtype == case.logits.dtype.newbyteorder("=")
    check_product(case, exact_case, bounds, u, product)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestAgainstTheOracle:
    """Any combination of options, for rows side by side and rows one after the other."""

    def run(self, dtype, sizes, count):
        layouts = st.tuples(*[st.sampled_from(WRITEABLE_LAYOUTS)] * 2)
        wide = st.tuples(st.booleans(), st.booleans())

        @examples(count)
        @hypothesis.given(
            case=cases(dtypes=[dtype], **sizes),
            kind=st.sampled_from(KINDS),
            layouts=layouts,
            wide=wide,
            in_place=st.sampled_from([None, "grad", "hess"]),
        )
        def curvatures(case, kind, layouts, wide, in_place):
            check(case, kind, layouts, wide, in_place)

        @examples(count)
        @hypothesis.given(
            case=cases(dtypes=[dtype], **sizes),
            seed=st.integers(0, 2**32 - 1),
            layout=st.sampled_from(WRITEABLE_LAYOUTS),
            wide=st.booleans(),
            vector_dtype=PLAIN,
        )
        def products(case, seed, layout, wide, vector_dtype):
            check_hvp(case, seed, layout, wide, vector_dtype)

        curvatures()
        products()

    def test_few_classes(self, dtype):
        self.run(dtype, FEW, 150)

    def test_many_classes(self, dtype):
        self.run(dtype, MANY, 40)

    def test_rows_side_by_side(self, dtype, rng):
        """Weights and labels to ignore are all that such rows may have."""
        for classes in (1, 2, 3, 10, 33, 128, 192):
            for options in (
                {"reduction": "mean"},
                {"reduction": "sum"},
                {"reduction": "mean", "sample_weight": rng.choice([0, 1, 2.5], size=200)},
                {"reduction": "none", "ignore_index": 0, "weight": rng.choice([0, 1, 2.5], size=classes)},
            ):
                x = (rng.normal(size=(200, classes)) * 4).astype(dtype)
                x[::7, 0] = 60
                if classes > 2:
                    x[::5, 1] = -inf
                case = Case(x, rng.integers(classes, size=200), {"axis": -1, **options}, -0.5)
                for kind in KINDS:
                    check(case, kind, ("C", "F"), (False, False), None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 100, 129, 193, 5000])
def test_confident_rows_do_not_cancel(dtype, classes, rng):
    """Whichever class is sure, the label or another: relative errors, with no slack."""
    x = rng.normal(size=(40, classes)).astype(dtype)
    label = rng.integers(classes, size=40)
    sure = np.where(np.arange(40) % 2, label, (label + 1) % classes)
    x[np.arange(40), sure] = np.linspace(5, 80, 40)
    z = x.astype(np.float64)
    for options in ({}, {"class_mask": np.ones(classes, bool)}, {"label_smoothing": 0.1}):
        grad, hess = xent.cross_entropy_grad_hess(x, label, reduction="sum", **options)
        exact = reference.cross_entropy_grad_hess(z, label, reduction="sum", **options)
        np.testing.assert_allclose(hess, exact[1], rtol=TOLERANCE[dtype.__name__])
        if not options.get("label_smoothing"):
            np.testing.assert_allclose(grad, exact[0], rtol=TOLERANCE[dtype.__name__])
        product = xent.cross_entropy_hvp(x, label, np.eye(classes)[sure], reduction="sum", **options)
        exact_product = reference.cross_entropy_hvp(z, label, np.eye(classes)[sure], reduction="sum", **options)
        np.testing.assert_allclose(product, exact_product, rtol=4 * TOLERANCE[dtype.__name__])


OPTIONS = [
    {},
    {"label_smoothing": 0.2, "weight": np.array([0.5, 1, 2, 0, 1, 3])},
    {"z_loss": 0.3, "scale": 2.0, "sample_weight": np.array([1.0, 2, 0, 0.5])},
    {"softcap": 3.0, "scale": 1.5, "z_loss": 0.1, "label_smoothing": 0.1},
    {"softcap": 2.0, "class_mask": np.array([True, True, False, True, True, True])},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
def test_finite_differences(options, kind, rng):
    x = rng.normal(size=(4, 6)) * 1.5
    target: Any = np.array([0, 1, 3, 4])
    if kind == "probabilities":
        target = rng.dirichlet(np.ones(6), size=4)
    if kind == "sparse":
        target = (rng.integers(6, size=(4, 2)), rng.dirichlet(np.ones(2), size=4))
    given = {"reduction": "mean", "grad_output": 1.7, **options}
    step = 1e-5
    blocks = np.empty((4, 6, 6))
    for j in range(6):
        h = np.zeros(6)
        h[j] = step
        high, low = (xent.cross_entropy_grad(x + s * h, target, **given) for s in (1, -1))
        blocks[..., j] = (high - low) / (2 * step)
    close = {"rtol": 1e-7, "atol": 1e-9}
    _, diagonal = xent.cross_entropy_grad_hess(x, target, **given)
    np.testing.assert_allclose(diagonal, np.einsum("nii->ni", blocks), **close)
    u = rng.normal(size=(4, 6))
    np.testing.assert_allclose(
        xent.cross_entropy_hvp(x, target, u, **given), np.einsum("nij,nj->ni", blocks, u), **close
    )
    full = xent.cross_entropy_hessian(x, target, **given)
    np.testing.assert_allclose(full, blocks, **close)
    np.testing.assert_allclose(reference.cross_entropy_hessian(x, target, **given), blocks, **close)
    np.testing.assert_array_equal(full, np.swapaxes(full, -1, -2))
    out = np.empty((6, 6, 4)).T  # any strides
    moved = (
        target
        if kind == "labels"
        else np.transpose(target)
        if kind == "probabilities"
        else tuple(part.T for part in target)
    )
    assert xent.cross_entropy_hessian(x.T, moved, axis=0, out=out, **given) is out
    np.testing.assert_array_equal(out, full)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 3, 200])
def test_blocks(dtype, classes, rng):
    x = rng.normal(size=(2, 3, classes)).astype(dtype)
    labels = rng.integers(classes, size=(2, 3))
    full = xent.cross_entropy_hessian(x, labels, reduction="none")
    assert full.shape == (2, 3, classes, classes)
    assert full.dtype == dtype
    exact = reference.cross_entropy_hessian(x.astype(np.float64), labels, reduction="none")
    np.testing.assert_allclose(full.astype(float), exact, rtol=TOLERANCE[dtype.name], atol=SMALLEST[dtype.name])


@pytest.mark.parametrize("shape", [(3001, 10), (700, 129), (300, 193), (3, 40_000), (0, 5)])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "softcap": 30.0, "z_loss": 1e-3}])
def test_bits_do_not_depend_on_threads(shape, options, rng):
    x = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(shape[1], size=shape[0])
    u = rng.normal(size=shape).astype(np.float32)
    alone = [*xent.cross_entropy_grad_hess(x, labels, n_threads=1, **options)]
    alone.append(xent.cross_entropy_hvp(x, labels, u, n_threads=1, **options))
    for threads in (2, 3, 8):
        team = [*xent.cross_entropy_grad_hess(x, labels, n_threads=threads, **options)]
        team.append(xent.cross_entropy_hvp(x, labels, u, n_threads=threads, **options))
        for a, b in zip(alone, team, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(9, 193), (3, 4200)])
@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_rows_beside(shape, weighs, label_smoothing, kind, rng):
    """A row is emitted while another is reduced, which may have something else to sum than to subtract."""
    x = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(shape[1], size=shape[0])
    options = {"hessian": kind, "label_smoothing": label_smoothing, "reduction": "sum"}
    if weighs:
        options["weight"] = rng.uniform(0.5, 2, shape[1])
    together = xent.cross_entropy_grad_hess(x, labels, **options)
    for i in range(len(x)):
        alone = xent.cross_entropy_grad_hess(x[i : i + 1], labels[i : i + 1], **options)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a[0], b[i])


@pytest.mark.parametrize("order", "CF")
def test_layout_of_the_results(order, rng):
    x = np.asarray(rng.normal(size=(50, 10)), order=order)
    labels = rng.integers(10, size=50)
    grad, hess = xent.cross_entropy_grad_hess(x, labels)
    flag = f"{order}_CONTIGUOUS"
    assert grad.flags[flag]
    assert hess.flags[flag]
    same = xent.cross_entropy_grad_hess(np.asarray(x, order="CF"[order == "C"]), labels)
    np.testing.assert_array_equal(grad, same[0])
    np.testing.assert_array_equal(hess, same[1])


def test_rows_that_do_not_count_are_not_read():
    x = np.full((4, 5), nan)
    x[1] = 0
    labels = np.array([7, 2, 7, 7])
    for options in ({"ignore_index": 7}, {"ignore_index": 7, "label_smoothing": 0.1}):
        for kind in KINDS:
            for result in xent.cross_entropy_grad_hess(x, labels, hessian=kind, **options):
                assert np.all(result[[0, 2, 3]] == 0)
                assert np.all(np.isfinite(result))
        product = xent.cross_entropy_hvp(x, labels, np.ones((4, 5)), **options)
        assert np.all(abs(product) < 1e-15)


def test_special_rows():
    x = np.array([[nan, 0, 1], [inf, 0, 1], [-inf, -inf, -inf], [-inf, 2, -inf]])
    for options in ({}, {"scale": 2.0}, {"softcap": 5.0}):
        for kind in KINDS:
            grad, hess = xent.cross_entropy_grad_hess(x, [0, 1, 2, 1], hessian=kind, reduction="sum", **options)
            assert np.all(np.isnan(grad[:3]))
            assert np.all(np.isnan(hess[:3]))
            np.testing.assert_array_equal(grad[3], 0)
            np.testing.assert_array_equal(hess[3], 1e-16 if kind == "xgboost" else 0)


class TestErrors:
    """They leave the outputs as they are."""

    x = np.zeros((2, 3))
    target = np.array([0, 1])

    def fails(self, error, message, function=xent.cross_entropy_grad_hess, *args, **options):
        outs = [np.full((2, 3), 7.0), np.full((2, 3), 7.0)]
        names = ("grad_out", "hess_out") if function is xent.cross_entropy_grad_hess else ("out",)
        given = dict(zip(names, outs, strict=False)) | options
        with pytest.raises(error, match=message):
            function(self.x, given.pop("target", self.target), *args, **given)
        assert np.all(np.stack(outs) == 7)

    def test_hessian(self):
        self.fails(
            ValueError, "hessian must be one of 'exact', 'xgboost', 'lightgbm', not 'diagonal'", hessian="diagonal"
        )
        self.fails(TypeError, "hessian must be one of", hessian=None)

    def test_label(self):
        self.fails(IndexError, r"target\[1\] = 3 is out of range for 3 classes", target=[0, 3])
        self.fails(IndexError, "target", xent.cross_entropy_hvp, np.zeros((2, 3)), target=[0, 3])

    def test_outs(self):
        self.fails(ValueError, "hess_out has shape", hess_out=np.zeros((3, 2)))
        self.fails(TypeError, "hess_out has dtype", hess_out=np.zeros((2, 3), np.float32))
        both = np.zeros((2, 3))
        with pytest.raises(ValueError, match="grad_out and hess_out share memory"):
            xent.cross_entropy_grad_hess(self.x, self.target, grad_out=both, hess_out=both[::-1])
        assert not both.any()

    def test_vector(self):
        self.fails(ValueError, r"vector has shape \(3,\)", xent.cross_entropy_hvp, np.zeros(3))
        self.fails(TypeError, "vector must be", xent.cross_entropy_hvp, np.zeros((2, 3), complex))

    def test_blocks(self):
        many = np.broadcast_to(np.float32(0), (50, 10_000))
        with pytest.raises(ValueError, match=r"shape \(50, 10000, 10000\), would have 5000000000 elements"):
            xent.cross_entropy_hessian(many, np.zeros(50, int))
        self.fails(ValueError, "out has shape", xent.cross_entropy_hessian)

    def test_options(self):
        self.fails(ValueError, r"sample_weight\[1\] = -1.0 is negative", sample_weight=[1, -1])
        self.fails(ValueError, "z_loss", xent.cross_entropy_hvp, np.zeros((2, 3)), z_loss=-1)


def test_outputs_over_inputs(rng):
    """As if the input had been copied first."""
    x, u = rng.normal(size=(2, 30, 7))
    labels = rng.integers(7, size=30)
    expected = xent.cross_entropy_hvp(x, labels, u)
    over_vector = u.copy()
    np.testing.assert_array_equal(xent.cross_entropy_hvp(x, labels, over_vector, out=over_vector), expected)
    over_logits = x.copy()
    np.testing.assert_array_equal(xent.cross_entropy_hvp(over_logits, labels, u, out=over_logits), expected)
    over_logits = x.copy()
    np.testing.assert_array_equal(
        xent.cross_entropy_hvp(over_logits, labels, u, softcap=3.0, out=over_logits),
        xent.cross_entropy_hvp(x, labels, u, softcap=3.0),
    )
    big = np.concatenate([x.copy(), x.copy()])
    expected = xent.cross_entropy_grad_hess(x, labels)
    big[5:35] = x
    grad, hess = xent.cross_entropy_grad_hess(big[5:35], labels, hess_out=big[:30])
    np.testing.assert_array_equal(grad, expected[0])
    np.testing.assert_array_equal(hess, expected[1])
