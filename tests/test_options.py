"""Options of cross_entropy and its gradients, alone and together, against the oracle; their errors; their promises.

An error of the gradient is relative to the larger of the terms A q_j and B_j that it is the difference of, and to
itself where it can do without: for labels with neither smoothing nor z-loss. That of the loss is relative to its terms,
which are positive. Where there is a scale or softcap, z is rounded to the precision that is computed in, and with it
what is computed of it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from families import BLOCK
from problems import DTYPES, HALVES, WRITEABLE_LAYOUTS, Case, cases, float64_case, laid_out
from ulp import ulps

import xent
from xent import reference

inf, nan = np.inf, np.nan

TOLERANCE = {"float32": 4e-7, "float64": 1e-14, "float16": 1e-3, "bfloat16": 8e-3}
SMALLEST = {"float32": 2.0**-149, "float64": 2.0**-1074, "float16": 2.0**-24, "bfloat16": 2.0**-133}

# What a kept exponential that becomes subnormal may be off by, see contract.py
SUBNORMAL_STEPS = 1.5

# Roundings of z that may be in a logit: of the product with scale, and of softcap's tanh
ROUNDINGS_OF_SCALE = 2
ROUNDINGS_OF_SOFTCAP = 6

FEW = {
    "rows": [(), (1,), (3,), (2, 3), (67,)],
    "classes": [1, 2, 3, 5, 10, 16, 17, 33, 64, 100, 127, 128, 129, 191, 192],
}
MANY = {
    "rows": [(), (1,), (3,)],
    "classes": [129, 130, 193, 200, 1000, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 16, 2 * BLOCK + 3],
}


def examples(max_examples):
    return hypothesis.settings(max_examples=max_examples, deadline=None, derandomize=True, database=None)


def problem_of(case: Case, **more: Any) -> reference.Problem:
    names = inspect.signature(reference.Problem).parameters
    defaults = {p.name: p.default for p in inspect.signature(reference.cross_entropy).parameters.values()}
    given = {**{name: default for name, default in defaults.items() if name in names}, **case.options}
    given |= {"logits": case.logits, "target": case.target, "grad_output": case.grad_output, **more}
    with np.errstate(all="ignore"):
        return reference.Problem(**given)


@dataclass
class Bounds:
    """What the errors of one problem may be, beside what each dtype adds."""

    loss_terms: Any  # of each row
    grad_terms: Any
    step_factor: Any  # by which a probability is multiplied, and with it the step of a subnormal one
    z_error: Any  # of each row, in units of the precision that is computed in
    counts: Any

    @staticmethod
    def of(case: Case) -> Bounds:
        """Return the bounds of a case in float64; the oracle's own quantities say how large what is added is."""
        problem, options = problem_of(case), case.options
        rows, transform, z_loss = problem.rows, problem.transform, problem.z_loss
        scale, softcap = options.get("scale", 1.0), options.get("softcap")
        with np.errstate(all="ignore"):
            size_of_lse = np.abs(rows.z_m) + rows.log_sum
            loss_terms = problem.v[:, np.newaxis] * (rows.loss(problem.b) + z_loss * size_of_lse**2)
            a = problem.total + 2 * z_loss * size_of_lse
            factor = np.abs((problem.upstream * problem.v)[:, np.newaxis] * transform.first)
            terms = np.maximum(a * rows.q, np.abs(problem.b))
            labels = not isinstance(case.target, tuple) and case.target.dtype.kind in "iu"
            if labels and not z_loss and not options.get("label_smoothing"):
                terms = np.where(problem.b > 0, problem.total * rows.q_others, terms)  # of labels nothing is subtracted
            grad_terms = factor * terms
            finite = np.where(np.isfinite(transform.z), np.abs(transform.z), 0)
            roundings = ROUNDINGS_OF_SCALE * (np.frexp(scale)[0] != 0.5) + ROUNDINGS_OF_SOFTCAP * (softcap is not None)
            z_error = roundings * (1 + finite.max(axis=1, keepdims=True, initial=0))
            if softcap is not None:  # sech^2 y changes by twice the error of y
                x = np.where(np.isfinite(problem.transform.z), reference._rows(case.logits, case.axis), 0)
                y = np.abs(scale * x / softcap)
                z_error = z_error + roundings * np.minimum(y, 400).max(axis=1, keepdims=True, initial=0)
        return Bounds(loss_terms, grad_terms, np.maximum(1, factor * a), z_error, problem.counts)


def unit(dtype: Any) -> float:
    """Return the rounding of what is computed in: double for float64, else perhaps float."""
    return 2.0**-53 if dtype == np.float64 else 2.0**-24


def assert_within(actual, exact, bound):
    """Compare, where infinities and NaNs are the same ones; a number that rounds to infinity may be infinite."""
    actual, exact, bound = (np.asarray(part) for part in (actual, exact, bound))
    assert actual.shape == exact.shape
    with np.errstate(all="ignore"):
        rounded = exact.astype(actual.dtype).astype(np.float64)
        wide = actual.astype(np.float64)
        error = np.abs(wide - exact)
        good = (error <= bound) | (wide == rounded) | (np.isnan(wide) & np.isnan(exact))
    if not np.all(good):
        where = tuple(part[0] for part in np.nonzero(~good)) if good.ndim else ()
        off = error[where] / bound[where] if bound[where] else inf
        pytest.fail(f"{wide[where]!r} at {where} is not {exact[where]!r}, and is off by {off:.3g} bounds")


def check_loss(case, exact_case, bounds, loss):
    dtype = np.dtype(np.float32) if case.logits.dtype.itemsize == 2 else case.logits.dtype.newbyteorder("=")
    assert loss.dtype == dtype
    exact = np.asarray(reference.cross_entropy(exact_case.logits, exact_case.target, **case.options))
    problem = problem_of(exact_case)
    with np.errstate(all="ignore"):
        bound = (TOLERANCE[dtype.name] + 2 * unit(dtype) * bounds.z_error[:, :1]) * bounds.loss_terms
        bound = np.where(bounds.counts, bound[:, 0], 0)
        if case.options["reduction"] == "none":
            bound = bound.reshape(case.rows)
        else:
            bound = bound.sum() / problem.divisor if problem.divisor else 0.0
    assert_within(loss, exact, bound + SMALLEST[dtype.name])


def check_grad(case, exact_case, bounds, grad, lse=None, error_of_lse=0.0):
    exact = reference.cross_entropy_grad(
        exact_case.logits, exact_case.target, lse=lse, grad_output=case.grad_output, **case.options
    )
    dtype, name = grad.dtype, grad.dtype.name
    problem = problem_of(exact_case)
    with np.errstate(all="ignore"):
        relative = TOLERANCE[name] + 2 * unit(case.logits.dtype) * bounds.z_error + error_of_lse
        bound = relative * bounds.grad_terms + SUBNORMAL_STEPS * SMALLEST[name] * bounds.step_factor
    bound = reference._unrows(np.where(bounds.counts[:, np.newaxis], bound, 0), exact_case.logits, case.axis)
    if not problem.divisor:  # 0 / 0 of a mean: the gradient is zero; of a row that is NaN that is not said
        assert np.all((np.asarray(grad, np.float64) == 0) | np.isnan(exact))
        return
    assert_within(grad.astype(dtype, copy=False), exact, bound)


def in_place_allowed(logits):
    return (
        logits.flags.writeable
        and logits.dtype.isnative
        and not any(stride == 0 and length > 1 for stride, length in zip(logits.strides, logits.shape, strict=True))
    )


def check(case, out_layout, wide, in_place):
    """Compare the loss alone, both in one pass, and the gradient alone, from a saved lse, too, with the oracle."""
    given = {"grad_output": case.grad_output, **case.options}
    before = [
        np.array(part) for part in (case.logits, *(case.target if isinstance(case.target, tuple) else [case.target]))
    ]
    exact_case = float64_case(case)
    bounds = Bounds.of(exact_case)
    check_loss(case, exact_case, bounds, xent.cross_entropy(case.logits, case.target, **case.options))

    dtype = case.logits.dtype.newbyteorder("=")
    grad_out = laid_out(np.zeros(case.logits.shape, np.float32 if wide and dtype in HALVES else dtype), out_layout)
    loss, grad = xent.cross_entropy_and_grad(case.logits, case.target, grad_out=grad_out, **given)
    assert grad is grad_out
    check_loss(case, exact_case, bounds, loss)
    check_grad(case, exact_case, bounds, grad)

    grad = xent.cross_entropy_grad(case.logits, case.target, **given)
    assert grad.dtype == dtype
    check_grad(case, exact_case, bounds, grad)

    with np.errstate(all="ignore"):
        lse = problem_of(exact_case).rows.lse[:, 0]
        for saved in (lse, lse.astype(np.float32)):
            error = 4 * np.abs(saved.astype(np.float64) - lse) + 4 * 2.0**-53 * np.abs(lse)
            of_rows = saved.reshape(case.rows)
            grad = xent.cross_entropy_grad(case.logits, case.target, lse=of_rows, **given)
            check_grad(case, exact_case, bounds, grad, lse=of_rows, error_of_lse=error[:, np.newaxis])

    after = (case.logits, *(case.target if isinstance(case.target, tuple) else [case.target]))
    for part, as_it_was in zip(after, before, strict=True):
        np.testing.assert_array_equal(part, as_it_was)
    if in_place and in_place_allowed(case.logits):
        grad = xent.cross_entropy_grad(case.logits, case.target, grad_out=case.logits, **given)
        assert grad is case.logits
        check_grad(case, exact_case, bounds, grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestAgainstTheOracle:
    """Any combination of options, for rows side by side and rows one after the other."""

    @pytest.mark.parametrize(
        ("sizes", "many"),
        [(FEW, 150), ({"plain": True, **FEW}, 100), (MANY, 60)],
        ids=["few classes", "few classes, plain logits", "many classes"],
    )
    def test_losses_and_gradients(self, dtype, sizes, many):
        @examples(many)
        @hypothesis.given(
            case=cases(dtypes=[dtype], **sizes),
            out_layout=st.sampled_from(WRITEABLE_LAYOUTS),
            wide=st.booleans(),
            in_place=st.booleans(),
        )
        def all_good(case, out_layout, wide, in_place):
            check(case, out_layout, wide, in_place)

        all_good()

    def test_what_takes_no_target(self, dtype):
        @examples(100)
        @hypothesis.given(
            case=cases(dtypes=[dtype], rows=FEW["rows"], classes=FEW["classes"] + MANY["classes"]),
            scale=st.sampled_from([1.0, 0.5, 14.3, 0.1]),
        )
        def all_good(case, scale):
            given = {"axis": case.axis, "scale": scale}
            x = case.logits.astype(np.float64)
            with np.errstate(all="ignore"):
                rows = reference.Rows(scale * reference._rows(x, case.axis))
                size = np.where(np.isfinite(rows.z), np.abs(rows.z), 0).max(axis=1, keepdims=True)
                z_error = 2 * unit(dtype) * ROUNDINGS_OF_SCALE * size * (np.frexp(scale)[0] != 0.5)
                tolerance = TOLERANCE[dtype.name]
                bounds = {
                    "softmax": (tolerance + z_error) * rows.q,
                    "log_softmax": (tolerance + z_error) * rows.surprisal(),
                }
                of_sums = np.float32 if dtype in HALVES else dtype
                of_lse = (TOLERANCE[np.dtype(of_sums).name] + z_error) * (size + rows.log_sum)
            for name, bound in bounds.items():
                actual = getattr(xent, name)(case.logits, **given)
                assert actual.dtype == dtype
                of_all = reference._unrows(bound, x, case.axis) + 2 * SMALLEST[dtype.name]
                assert_within(actual, getattr(reference, name)(x, **given), of_all)
            actual = xent.logsumexp(case.logits, **given)
            assert actual.dtype == of_sums
            assert_within(actual, reference.logsumexp(x, **given), of_lse.reshape(case.rows))

        all_good()


# ---- Bits ----------------------------------------------------------------------------------------------------------


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def every_option(rng, shape, kind):
    """Return a target of the kind, and options that it goes with."""
    classes = shape[1]
    options = {
        "weight": rng.random(classes),
        "sample_weight": rng.choice([0, 0.5, 2], size=shape[0]),
        "class_mask": rng.random(shape) < 0.8,
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "scale": 0.7,
        "softcap": 20.0,
    }
    if kind == "labels of plain logits":
        del options["scale"], options["softcap"]
    if kind.startswith("labels"):
        target = rng.integers(classes, size=shape[0])
        options["ignore_index"] = int(target[0])
        options["class_mask"][np.arange(len(target)), target] = True
    elif kind == "probabilities":
        target = rng.dirichlet(np.ones(classes), size=shape[0]) * options["class_mask"]
    else:
        target = rng.integers(classes, size=(shape[0], 3)), rng.dirichlet(np.ones(3), size=shape[0]) / 2
        np.put_along_axis(options["class_mask"], target[0], True, axis=1)
        options["tail"] = "uniform"
    return target, options


@pytest.mark.parametrize("classes", [3, 10, 100, 129, 193, 3000])
def test_a_scale_is_not_rounded(rng, classes):
    """Beside logits far from zero, rounding scale * x to a float would show."""
    x = rng.uniform(-3000, 3000, size=(40, classes)).astype(np.float32)
    x[:20] = 2500 + rng.uniform(-30, 30, size=(20, classes))
    target = np.argmax(x, axis=1)
    given = {"reduction": "none", "scale": 0.1}
    loss, grad = xent.cross_entropy_and_grad(x, target, **given)
    exact_loss, exact_grad = xent.cross_entropy_and_grad(x.astype(np.float64), target, **given)
    assert ulps(loss, exact_loss) <= 1
    assert ulps(grad, exact_grad) <= 2


@pytest.mark.parametrize("given", [{"scale": 1e-30}, {"scale": 1e30}, {"softcap": 1e-30}, {"softcap": 1e30}], ids=str)
@pytest.mark.parametrize("classes", [3, 300])
def test_the_least_and_the_largest_scale(rng, dtype, classes, given):
    x = (rng.uniform(-30, 30, size=(20, classes)) / given.get("scale", 1)).astype(dtype)
    x[::2, 0] = -inf
    target = np.full(20, 1)
    name = np.dtype(dtype).name
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none", **given)
    true_loss, true_grad = xent.reference.cross_entropy_and_grad(x, target, reduction="none", **given)
    np.testing.assert_allclose(loss, true_loss, rtol=TOLERANCE[name])
    # The oracle rounds differences of up to 60.
    np.testing.assert_allclose(grad, true_grad, rtol=4 * TOLERANCE[name], atol=SMALLEST[name])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("classes", [3, 64, 128, 300, BLOCK + 900])
def test_halves_are_rounded_floats(rng, half, classes, order):
    x = rng.normal(size=(60, classes), scale=3)
    x[::3, 1] = 300  # e^300 is no float
    x = np.asarray(x.astype(half), order=order)
    target = rng.integers(classes, size=60)
    loss, grad = xent.cross_entropy_and_grad(x, target)
    wide_loss, wide_grad = xent.cross_entropy_and_grad(x.astype(np.float32), target)
    np.testing.assert_array_equal(grad, wide_grad.astype(half))
    assert loss == wide_loss


KINDS = ("labels", "labels of plain logits", "probabilities", "sparse")
PER_ROW = ("sample_weight", "class_mask")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [3, 40, 128, 129, 192, 193, BLOCK, 2 * BLOCK + 900])
def test_a_row_depends_on_itself_alone(rng, dtype, classes, kind):
    shape = (70 if classes < 200 else 5, classes)
    x = rng.normal(size=shape, scale=4).astype(dtype)
    target, options = every_option(rng, shape, kind)
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none", **options)
    x[1::2] = nan  # the others' neighbours
    for rows in (slice(0, 1), slice(2, 3), slice(4, None, 2), slice(0, None, 2)):
        part = tuple(p[rows] for p in target) if kind == "sparse" else target[rows]
        of_rows = {name: value[rows] if name in PER_ROW else value for name, value in options.items()}
        again = xent.cross_entropy_and_grad(x[rows], part, reduction="none", **of_rows)
        assert same_bits(again[0], loss[rows])
        assert same_bits(again[1], grad[rows])
        assert same_bits(xent.cross_entropy(x[rows], part, reduction="none", **of_rows), loss[rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3000, 10), (100, 300), (1, 300_000), (3, 50_000)])
def test_threads_change_nothing(rng, dtype, shape, kind):
    x = rng.normal(size=shape, scale=4).astype(dtype)
    target, options = every_option(rng, shape, kind)
    for reduction in ("mean", "sum", "none"):
        one, *more = (
            xent.cross_entropy_and_grad(x, target, reduction=reduction, n_threads=n, **options) for n in (1, 2, 3)
        )
        for several in more:
            assert all(map(same_bits, one, several))


@pytest.mark.parametrize("classes", [5, 200])
def test_means_of_many_rows(rng, dtype, classes):
    """What a mean is divided by is summed row by row, wherever the rows lie."""
    x = rng.normal(size=(7, 100, classes)).astype(dtype)
    target = rng.integers(classes, size=x.shape[:2])
    options = {
        "weight": rng.random(classes),
        "sample_weight": rng.choice([0, 0.5, 2], size=x.shape[:2]),
        "ignore_index": 1,
    }
    loss, grad = xent.cross_entropy_and_grad(x, target, **options)
    assert ulps(loss, np.float64(reference.cross_entropy(x.astype(np.float64), target, **options))) <= 4
    transposed = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)  # of which no rows are in one line
    spaced = {**options, "sample_weight": laid_out(options["sample_weight"], "strided")}
    again = xent.cross_entropy_and_grad(transposed, laid_out(target, "F"), **spaced)
    assert same_bits(again[0], loss)
    assert same_bits(np.ascontiguousarray(again[1]), grad)


@pytest.mark.parametrize("classes", [3, 17, 128, 200, 3000])
def test_options_of_no_effect_change_little(rng, dtype, classes):
    """A weight of ones, a mask of all: the result is that without, within the bounds."""
    x, target = rng.normal(size=(5, classes), scale=3).astype(dtype), rng.integers(classes, size=5)
    loss, grad = xent.cross_entropy_and_grad(x, target)
    for options in (
        {"weight": np.ones(classes)},
        {"sample_weight": np.ones(5)},
        {"class_mask": np.ones(classes, bool)},
        {"label_smoothing": 0.0, "z_loss": 0.0, "scale": 1.0, "softcap": None},
        {"ignore_index": -100},
        {"denominator": 5},
    ):
        again = xent.cross_entropy_and_grad(x, target, **options)
        assert ulps(again[0], loss) <= 4
        assert ulps(again[1], grad) <= 4


# ---- Directed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 16, 40, 128, 129, 192, 193, 2050])
@pytest.mark.parametrize("options", [{"ignore_index": -100}, {"sample_weight": [1.0, 0.0, 2.0, 0.0, 1.0]}])
def test_rows_that_do_not_count_are_zero_whatever_is_in_them(rng, dtype, classes, options):
    x, target = rng.normal(size=(5, classes)).astype(dtype), rng.integers(classes, size=5)
    if "ignore_index" in options:
        target[[1, 3]] = -100
    rubbish = x.copy()
    rubbish[1], rubbish[3, 0] = nan, inf
    rubbish[3, 1:] = -inf
    for reduction in ("mean", "sum", "none"):
        clean = xent.cross_entropy_and_grad(x, target, reduction=reduction, **options)
        loss, grad = xent.cross_entropy_and_grad(rubbish, target, reduction=reduction, **options)
        assert same_bits(loss, clean[0])
        assert same_bits(grad, clean[1])
        assert same_bits(xent.cross_entropy(rubbish, target, reduction=reduction, **options), clean[0])
        lse = np.array([0.5, nan, 0.5, inf, 0.5])
        saved = xent.cross_entropy_grad(rubbish, target, lse=lse, reduction=reduction, **options)
        for rows in (grad[[1, 3]], saved[[1, 3]]):
            np.testing.assert_array_equal(rows, 0)
            assert not np.any(np.signbit(rows))


def test_an_upstream_of_a_row_that_does_not_count_does_not_matter(dtype):
    grad = xent.cross_entropy_grad(
        np.zeros((2, 3), dtype), [0, 7], ignore_index=7, reduction="none", grad_output=[1.0, nan]
    )
    np.testing.assert_array_equal(grad[1], 0)
    assert np.all(np.isfinite(grad[0]))


def test_an_ignored_class_may_be_any_integer(rng, dtype):
    x = rng.normal(size=(4, 3)).astype(dtype)
    kept = xent.cross_entropy(x[[0, 3]], [0, 2])
    for integer in (np.int8, np.uint8, np.int64, np.uint64):
        largest = np.iinfo(integer).max
        assert xent.cross_entropy(x, np.array([0, 1, 1, 2], integer), ignore_index=1) == kept
        assert xent.cross_entropy(x, np.array([0, largest, largest, 2], integer), ignore_index=int(largest)) == kept
        assert xent.cross_entropy(x[[0, 3]], np.array([0, 2], integer), ignore_index=-100) == kept
    assert xent.cross_entropy(x, np.array([0, 255, 255, 2], np.uint8), ignore_index=255) == kept


def test_nothing_counts(dtype):
    x = np.full((2, 3), nan, dtype)
    for target, options in (
        ([1, 1], {"ignore_index": 1}),
        ([1, 1], {"sample_weight": [0, 0]}),
        (np.full((2, 3), 0.5), {"sample_weight": [0, 0]}),
    ):
        assert np.isnan(xent.cross_entropy(x, target, **options))
        assert xent.cross_entropy(x, target, reduction="sum", **options) == 0
        assert xent.cross_entropy(x, target, denominator=3, **options) == 0
        for reduction in ("mean", "sum", "none"):
            np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, reduction=reduction, **options), 0)
    x[...] = 0.5
    loss, grad = xent.cross_entropy_and_grad(x, [1, 1], weight=[1, 0, 1], z_loss=0.1, label_smoothing=0.1)
    assert np.isnan(loss)
    np.testing.assert_array_equal(grad, 0)


@pytest.mark.parametrize("target", [np.zeros(0, int), np.zeros((0, 3)), (np.zeros((0, 2), int), np.zeros((0, 2)))])
def test_no_rows(dtype, target):
    x = np.zeros((0, 3), dtype)
    assert np.isnan(xent.cross_entropy(x, target, z_loss=0.1))
    assert xent.cross_entropy(x, target, reduction="sum", z_loss=0.1) == 0
    assert xent.cross_entropy_grad(x, target, z_loss=0.1).shape == (0, 3)


@pytest.mark.parametrize("classes", [3, 17, 128, 129, 192, 193, 2100])
def test_masked_classes(rng, dtype, classes):
    """A mask, -inf and leaving the classes out are the same; a masked target is infinitely wrong."""
    x = rng.normal(size=(4, classes), scale=3).astype(dtype)
    mask = rng.random(classes) < 0.6
    mask[:2] = True, False
    rubbish = x.copy()
    rubbish[:, ~mask] = nan
    target = rng.choice(np.flatnonzero(mask), size=4)
    loss, grad = xent.cross_entropy_and_grad(rubbish, target, class_mask=mask)
    assert ulps(loss, np.float64(xent.cross_entropy(np.where(mask, x, -inf).astype(dtype), target))) <= 2
    left_out = xent.cross_entropy_and_grad(x[:, mask], (np.cumsum(mask) - 1)[target])
    assert ulps(loss, np.float64(left_out[0])) <= 4
    assert ulps(grad[:, mask], left_out[1]) <= 4
    np.testing.assert_array_equal(grad[:, ~mask], 0)

    loss, grad = xent.cross_entropy_and_grad(
        rubbish, [1, 1, 0, 1], class_mask=mask, weight=np.full(classes, 3), reduction="none", scale=2
    )
    np.testing.assert_array_equal(loss[[0, 1, 3]], inf)
    assert np.isfinite(loss[2])
    np.testing.assert_array_equal(grad[[0, 1, 3], 1], -6)
    expected = 6 * reference.softmax(x[:, mask].astype(np.float64), scale=2)
    np.testing.assert_allclose(grad[[0, 1, 3]][:, mask], expected[[0, 1, 3]], rtol=1e-5)


def test_a_mask_of_the_whole_row_is_nan(dtype):
    loss, grad = xent.cross_entropy_and_grad(
        np.zeros((2, 3), dtype), [0, 0], class_mask=[[True] * 3, [False] * 3], reduction="none"
    )
    assert np.isfinite(loss[0])
    assert np.isnan(loss[1])
    assert np.all(np.isnan(grad[1]))
    assert np.all(np.isfinite(grad[0]))


def test_shapes_of_masks(rng, dtype):
    x, target = rng.normal(size=(2, 5, 3)).astype(dtype), rng.integers(5, size=(2, 3))
    mask = np.array([True, True, False, True, True])
    target[target == 2] = 0
    expected = xent.cross_entropy_grad(x, target, axis=1, class_mask=mask)
    for same in (mask[np.newaxis, :, np.newaxis], mask[:, np.newaxis], np.broadcast_to(mask[:, np.newaxis], x.shape)):
        assert same_bits(xent.cross_entropy_grad(x, target, axis=1, class_mask=same), expected)
    square, labels = rng.normal(size=(3, 3)).astype(dtype), np.array([0, 2, 0])
    mask = np.array([True, False, True])  # of the classes, even if they are on the first axis
    expected = xent.cross_entropy_grad(square.T, labels, class_mask=mask)
    assert same_bits(xent.cross_entropy_grad(square, labels, axis=0, class_mask=mask), expected.T.copy())


@pytest.mark.parametrize("classes", [2, 3, 17, 128, 129, 192, 193, BLOCK + 1])
@pytest.mark.parametrize("q_others", [0.4, 1e-9, 1e-30])
def test_one_hot_distributions_are_labels(rng, dtype, classes, q_others):
    """To the last bits of a confident row, of which 1 - q_c is all there is."""
    x = rng.normal(size=(4, classes)).astype(dtype)
    labels = rng.integers(classes, size=4)
    x[np.arange(4), labels] = np.log(classes / q_others)
    loss, grad = xent.cross_entropy_and_grad(x, labels, reduction="none")
    others = np.arange(classes)[np.newaxis] == (labels[:, np.newaxis] + 1) % classes
    for target in (
        np.eye(classes, dtype=dtype)[labels],
        (labels[:, np.newaxis], np.ones((4, 1), dtype)),
        (np.stack([labels, labels, np.nonzero(others)[1]], axis=1), np.tile([0.25, 0.75, 0], (4, 1))),
    ):
        again = xent.cross_entropy_and_grad(x, target, reduction="none")
        assert ulps(again[0], loss) <= 4
        assert ulps(again[1], grad) <= 4
        again = xent.cross_entropy_grad(x, target, reduction="none", lse=reference.logsumexp(x.astype(np.float64)))
        np.testing.assert_allclose(again, grad, rtol=1e-6 if dtype == np.float32 else 4e-14)


def test_a_target_of_weight_zero_costs_nothing(dtype):
    x = np.array([[0.0, -inf], [0.0, 1.0], [0.0, nan]], dtype)
    loss, grad = xent.cross_entropy_and_grad(x, [1, 1, 0], weight=[0, 0], reduction="none")
    np.testing.assert_array_equal(loss[:2], 0)
    np.testing.assert_array_equal(grad[:2], 0)
    assert np.isnan(loss[2])


def test_smoothing_leaves_masked_classes_out(rng, dtype):
    x = rng.normal(size=(3, 6)).astype(dtype)
    x[:, 4] = -inf
    loss, grad = xent.cross_entropy_and_grad(x, [0, 1, 2], label_smoothing=0.3)
    assert np.isfinite(loss)
    np.testing.assert_array_equal(grad[:, 4], 0)
    np.testing.assert_allclose(grad.sum(axis=1, dtype=np.float64), 0, atol=1e-6)
    expected = reference.cross_entropy(x[:, [0, 1, 2, 3, 5]].astype(np.float64), [0, 1, 2], label_smoothing=0.3)
    assert loss == pytest.approx(expected, rel=4e-7)


# The second is one of which sums in float err by four of their ulps
@pytest.mark.parametrize("logit", [-inf, -1922014208.0, -3e38, -200.0, -140.0, 0.04, 250.04])
@pytest.mark.parametrize("classes", [129, 193, 200, BLOCK, 2 * BLOCK + 70])
def test_smoothing_counts_every_logit(rng, dtype, classes, logit):
    """Also those of which the exponentials are zero."""
    x = rng.normal(size=(5, classes)).astype(dtype)
    x[0, ::3] = logit
    x[1, :100] = logit
    x[2, 5:] = logit
    x[3, -1] = logit
    x[4] = logit if logit > -inf else 0
    target = [1, 120, 0, 4, 3]
    loss, grad = xent.cross_entropy_and_grad(x, target, label_smoothing=0.3, reduction="none")
    expected = reference.cross_entropy_and_grad(x.astype(np.float64), target, label_smoothing=0.3, reduction="none")
    rtol = 2.0**-23 if dtype == np.float32 else TOLERANCE["float64"]
    np.testing.assert_allclose(loss, expected[0], rtol=rtol)
    np.testing.assert_allclose(grad, expected[1], atol=1e-6)
    np.testing.assert_array_equal(xent.cross_entropy(x, target, label_smoothing=0.3, reduction="none"), loss)
    for row in range(5):
        alone = xent.cross_entropy(x[row], target[row], label_smoothing=0.3, reduction="none")
        np.testing.assert_array_equal(alone, loss[row])
    x[0, -1] = nan
    assert np.isnan(xent.cross_entropy(x, target, label_smoothing=0.3, reduction="none")).tolist() == [True] + 4 * [
        False
    ]


@pytest.mark.parametrize("classes", [6, 40, 129, 193, 2100])
@pytest.mark.parametrize("weight_of_target", [0.0, 2.0])
def test_smoothing_of_a_masked_target(rng, dtype, classes, weight_of_target):
    """The target gets no share, nor do the others get its."""
    x = rng.normal(size=(3, classes)).astype(dtype)
    x[:2, 4] = -inf
    weight = rng.random(classes) + 0.1
    weight[4] = weight_of_target
    options = {"label_smoothing": 0.3, "weight": weight, "reduction": "none"}
    loss, grad = xent.cross_entropy_and_grad(x, [4, 1, 4], **options)
    exact_loss, exact = reference.cross_entropy_and_grad(x.astype(np.float64), [4, 1, 4], **options)
    assert ulps(loss, exact_loss) <= 4
    np.testing.assert_allclose(grad, exact, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-8)


def test_tails(rng, dtype):
    x = rng.normal(size=(2, 5)).astype(dtype)
    listed = np.array([[3, 0], [1, 1]]), np.array([[0.5, 0.125], [0.25, 0.25]])
    dense = {
        "zero": [[0.125, 0, 0, 0.5, 0], [0, 0.5, 0, 0, 0]],
        "uniform": [[0.125, 0.125, 0.125, 0.5, 0.125], [0.125, 0.5, 0.125, 0.125, 0.125]],
    }
    for tail in ("zero", "uniform"):
        expected = xent.cross_entropy_and_grad(x, dense[tail])
        loss, grad = xent.cross_entropy_and_grad(x, listed, tail=tail)
        assert loss == pytest.approx(expected[0], rel=4e-7)
        np.testing.assert_allclose(grad, expected[1], rtol=1e-5, atol=1e-7)
    assert xent.cross_entropy(x, listed) == xent.cross_entropy(x, listed, tail="zero")


@pytest.mark.parametrize("classes", [2, 10, 24, 25, 30, 46, 123, 128, 129, 193])
def test_listed_labels_are_not_rounded_together(rng, dtype, classes):
    """Neither probabilities of a class that is listed twice nor the shares of a tail."""
    x = (rng.normal(size=(1000, classes)) * rng.choice([0, 3], size=(1000, 1))).astype(dtype)
    indices, probabilities = np.ones((1000, 2), int), (rng.random((1000, 2)) / 2).astype(dtype)
    for listed, given in ((2, {}), (1, {"tail": "uniform"})):
        labels = indices[:, :listed], probabilities[:, :listed]
        actual = xent.cross_entropy(x, labels, reduction="none", **given)
        wide = labels[0], labels[1].astype(np.float64)
        exact = reference.cross_entropy(x.astype(np.float64), wide, reduction="none", **given)
        assert ulps(actual, exact) <= (1 if dtype == np.float32 else 8)  # of float64 the oracle is rounded, too


@pytest.mark.parametrize("classes", [10, 200, 5000])
def test_a_listed_class_beside_a_large_share_of_the_others(rng, dtype, classes):
    """It does not get that share, beside which its own probability is nothing."""
    x = rng.normal(size=(2, classes)).astype(dtype)
    x[:, 1] = -60
    labels = np.array([[1, 0], [3, 1]]), np.array([[1e-14, 1e-3], [1e-3, 1e-14]])
    options = {"tail": "uniform", "label_smoothing": 1e-13, "reduction": "none"}
    rtol = 2e-6 if dtype == np.float32 else 1e-12
    grad = xent.cross_entropy_grad(x, labels, **options)
    exact = reference.cross_entropy_grad(x.astype(np.float64), labels, **options)
    np.testing.assert_allclose(grad[:, 1], exact[:, 1], rtol=rtol)
    for kind in ("exact", "xgboost"):
        second = xent.cross_entropy_grad_hess(x, labels, softcap=40, hessian=kind, **options)
        exact = reference.cross_entropy_grad_hess(x.astype(np.float64), labels, softcap=40, hessian=kind, **options)
        for actual, expected in zip(second, exact, strict=True):
            np.testing.assert_allclose(actual[:, 1], expected[:, 1], rtol=rtol)


@pytest.mark.parametrize("classes", [10, 25, 200, 5000])
def test_the_loss_of_a_listed_class_far_below_the_others(dtype, classes):
    """Its distance times its probability is a number, beside its distance times the others' share."""
    x = np.zeros((1, classes), dtype)
    x[0, 2] = -1e20 if dtype == np.float32 else -1e10
    labels = np.array([[2, 1]]), np.array([[2.0**-46, 0.5]])
    exact = -x[0, 2].astype(np.float64) * 2.0**-46 + np.log(classes - 1)
    assert ulps(xent.cross_entropy(x, labels, tail="uniform"), exact) <= (1 if dtype == np.float32 else 4)


@pytest.mark.parametrize("classes", [11, 200])
def test_probabilities_whose_sum_is_one_but_for_its_rounding(classes):
    """Ten times the double nearest 0.1 are a little more than one, and their sum in double a little less."""
    x = np.zeros((1, classes))
    x[0, 10:] = -70
    labels = np.arange(10)[np.newaxis], np.full((1, 10), 0.1)
    grad = xent.cross_entropy_grad(x, labels, tail="uniform")
    q = xent.softmax(x)
    np.testing.assert_allclose(grad[0, 10:], q[0, 10:], rtol=1e-14)


def test_infinite_logits_with_a_softcap(dtype):
    loss, grad = xent.cross_entropy_and_grad(np.array([[0, -inf, 1]], dtype), [0], softcap=5)
    assert loss == xent.cross_entropy(np.array([[0, 1]], dtype), [0], softcap=5)
    assert grad[0, 1] == 0
    assert np.isnan(xent.cross_entropy(np.array([[0, inf]], dtype), [0], softcap=5))
    largest = np.finfo(dtype).max
    loss = xent.cross_entropy(np.array([[-largest, largest]], dtype), [0], softcap=5, scale=2)
    assert loss == pytest.approx(np.log1p(np.exp(10)), rel=1e-6)


@pytest.mark.parametrize("upstream", [1e-30, 1.0, 1e15, 1e30, 1e37])
def test_slopes_keep_their_digits(dtype, upstream):
    """Of float, e^-100 has few, and none from e^-104 on; what it is multiplied by may make a normal number of it."""
    x = np.linspace(-70, 70, 41)[np.newaxis].astype(dtype)
    given = {"softcap": 1.5, "reduction": "sum", "grad_output": upstream}
    exact = reference.cross_entropy_grad(x.astype(np.float64), [20], **given)
    grad = xent.cross_entropy_grad(x, [20], **given)
    step = np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(grad, exact, rtol=1e-6 if dtype == np.float32 else 1e-13, atol=1.5 * step)


@pytest.mark.parametrize("classes", [10, 300])
def test_softcap_keeps_what_rounding_leaves_over(rng, dtype, classes):
    """The tanh is rounded to the logits' dtype, but what that takes away is kept beside it."""
    x = rng.normal(size=(5, classes), scale=20).astype(dtype)
    target = rng.integers(classes, size=5)
    grad = xent.cross_entropy_grad(x, target, softcap=30.0)
    exact = reference.cross_entropy_grad(x.astype(np.float64), target, softcap=30.0)
    np.testing.assert_allclose(grad, exact, rtol=2.5e-7 if dtype == np.float32 else 1e-13, atol=1e-30)


@pytest.mark.parametrize("classes", [3, 128, 130, 193])
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_a_masked_class_that_is_listed_before_others(dtype, classes, softcap):
    """Its share makes the loss infinite, whatever is added after it."""
    x = np.zeros((1, classes), dtype)
    x[0, :2] = -inf, 1
    half = np.array([[0.5, 0.5]], dtype)
    for order in ([0, 1], [1, 0]):
        assert xent.cross_entropy(x, (np.array([order]), half), softcap=softcap) == inf
    labels = np.array([[0]]), half[:, :1]
    assert xent.cross_entropy(x, labels, tail="uniform", softcap=softcap) == inf


@pytest.mark.parametrize("classes", [3, 10, 130])
@pytest.mark.parametrize("softcap", [1.0, 1e9, 1e15, 1e30])
def test_saturated_logits_are_equal(rng, dtype, classes, softcap):
    """However large the cap: their tanh is one."""
    x = (rng.uniform(20, 200, size=(40, classes)) * min(softcap, 1e30 if dtype == np.float32 else inf)).astype(dtype)
    loss, grad = xent.cross_entropy_and_grad(x, [0] * 40, softcap=softcap, reduction="none")
    np.testing.assert_allclose(loss, np.log(classes), rtol=1e-7)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("classes", [3, 10, 200, 5000])
@pytest.mark.parametrize("softcap", [1e6, 1e9, 1e30])
def test_a_softcap_far_above_large_logits(rng, softcap, classes):
    """Up to 2^20 what float32 lacks of a tanh counts; beyond that it is rounded, and the loss is exact of that."""
    for size in (1e4, 1e5, 1e6, 1e8, 1e12, 1e20):
        large = np.float32(min(size, softcap))
        x = large + np.spacing(large) * rng.integers(-3, 4, size=(20, classes)).astype(np.float32)
        target = rng.integers(classes, size=20)
        tanh = np.tanh(x.astype(float) / softcap)
        z = softcap * (tanh.astype(np.float32).astype(float) if large > 2**20 else tanh)
        loss = xent.cross_entropy(x, target, softcap=softcap, reduction="none")
        np.testing.assert_allclose(loss, reference.cross_entropy(z, target, reduction="none"), rtol=4e-7, atol=1e-40)


@pytest.mark.parametrize("classes", [2, 10, 100, 300])
@pytest.mark.parametrize("labels", ["smoothed", "dense", "listed"])
def test_a_softcap_rounds_no_distance_from_the_top(rng, dtype, classes, labels):
    """Neither those of what is smoothed nor of labels over several classes: nearly saturated logits tell."""
    x = rng.normal(60, 0.5, size=(1000, classes)).astype(dtype)
    target, given = rng.integers(classes, size=1000), {"softcap": 30.0, "reduction": "none"}
    if labels == "smoothed":
        given["label_smoothing"] = 1.0
    elif labels == "dense":
        target = rng.dirichlet(np.ones(classes), size=1000).astype(dtype)
    else:
        target = rng.integers(classes, size=(1000, 2)), np.tile(np.array([0.75, 0.25], dtype), (1000, 1))
    wide = (target[0], target[1].astype(float)) if labels == "listed" else target
    exact = reference.cross_entropy(x.astype(float), wide.astype(float) if labels == "dense" else wide, **given)
    bound = 1 if dtype == np.float32 else 256  # of float64 tanh itself is rounded
    assert ulps(xent.cross_entropy(x, target, **given), exact) <= bound


def test_slope_of_a_saturated_softcap(dtype):
    """1 - tanh^2 where tanh is nearly one: about 4 e^-2y."""
    x = np.array([[40.0, 3.0, -41.0]], dtype)
    grad = xent.cross_entropy_grad(x, [1], softcap=4)
    np.testing.assert_allclose(grad, reference.cross_entropy_grad(x.astype(float), [1], softcap=4), rtol=1e-5, atol=0)


def test_z_loss_beside_an_offset(dtype):
    loss, grad = xent.cross_entropy_and_grad(np.full((1, 2), 1000, dtype), [0], z_loss=1e-3)
    expected = np.log(2) + 1e-3 * (1000 + np.log(2)) ** 2
    assert loss == pytest.approx(expected, rel=4e-7)
    slope = (1 + 2e-3 * (1000 + np.log(2))) / 2
    np.testing.assert_allclose(grad, [[slope - 1, slope]], rtol=1e-6)


def test_lse_of_a_scale(rng, dtype):
    x, target = rng.normal(size=(5, 7)).astype(dtype), rng.integers(7, size=5)
    lse = xent.logsumexp(x, scale=0.3)
    expected = xent.cross_entropy_grad(x, target, scale=0.3, z_loss=0.1)
    np.testing.assert_allclose(
        xent.cross_entropy_grad(x, target, scale=0.3, z_loss=0.1, lse=lse), expected, rtol=1e-5, atol=1e-7
    )


def test_a_saved_lse_takes_the_place_of_the_true_one(rng, dtype):
    """In q and in the slope of z-loss, also where it is wrong."""
    x = rng.normal(size=(5, 7)).astype(dtype)
    lse = reference.logsumexp(x.astype(np.float64)) + 0.25
    grad = xent.cross_entropy_grad(x, np.zeros(5, int), z_loss=0.5, lse=lse, reduction="sum")
    expected = (1 + lse)[:, np.newaxis] * np.exp(x.astype(np.float64) - lse[:, np.newaxis])
    np.testing.assert_allclose(grad[:, 1:], expected[:, 1:], rtol=1e-6)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision(rng, dtype):
    """The loss of float32, the gradient in half or, if asked, in float32."""
    x, target = rng.normal(size=(6, 9)).astype(dtype), rng.integers(9, size=6)
    wide = x.astype(np.float32)
    loss, grad = xent.cross_entropy_and_grad(x, target)
    expected_loss, expected_grad = xent.cross_entropy_and_grad(wide, target)
    assert same_bits(loss, expected_loss)
    assert grad.dtype == dtype
    assert same_bits(grad, expected_grad.astype(dtype))
    grad_out, loss_out = np.empty(x.shape, np.float32), np.empty((), np.float32)
    assert xent.cross_entropy_grad(x, target, grad_out=grad_out) is grad_out
    assert same_bits(grad_out, expected_grad)
    assert xent.cross_entropy(x, target, out=loss_out) is loss_out
    assert same_bits(loss_out, expected_loss)


def test_numbers_of_other_types_are_taken(rng, dtype):
    x, target = rng.normal(size=(3, 4)).astype(dtype), [0, 3, 1]
    expected = xent.cross_entropy(
        x, target, weight=np.array([1.0, 2.0, 0.0, 4.0]), sample_weight=np.array([1.0, 0.5, 2.0])
    )
    for weight in ([1, 2, 0, 4], np.array([1, 2, 0, 4], np.uint8), np.array([1, 2, 0, 4], np.float16)):
        for sample_weight in ([1, 0.5, 2], np.array([1, 0.5, 2], ">f4")):
            assert xent.cross_entropy(x, target, weight=weight, sample_weight=sample_weight) == expected
    for one in (1, True, np.float32(1), np.int64(1)):
        if one is not True:
            assert xent.cross_entropy(x, target, scale=one) == xent.cross_entropy(x, target)
    assert xent.cross_entropy(x, target, ignore_index=np.int8(3)) == xent.cross_entropy(x[[0, 2]], [0, 1])


# ---- Errors --------------------------------------------------------------------------------------------------------

X = np.zeros((4, 3), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0])
DENSE = np.full((4, 3), 1 / 3)
SPARSE = np.array([[0, 1], [1, 2], [2, 0], [1, 1]]), np.full((4, 2), 0.5)


def with_value(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


NUMBERS = {
    "label_smoothing": [-0.1, 1.1, nan, inf],
    "z_loss": [-1e-9, nan, inf],
    "scale": [0, -1, nan, inf],
    "softcap": [0.0, -1.0, nan, inf],
    "denominator": [0, -2.5, nan, inf],
}
BAD = {
    **{
        f"{name}={value}": (ValueError, name, LABELS, {name: value})
        for name, values in NUMBERS.items()
        for value in values
    },
    **{
        f"{name}={value!r}": (TypeError, name, LABELS, {name: value})
        for name in NUMBERS
        for value in ("0.1", 0.1j, [0.1])
    },
    "label_smoothing=None": (TypeError, "label_smoothing", LABELS, {"label_smoothing": None}),
    "weight, short": (ValueError, "weight", LABELS, {"weight": [1, 1]}),
    "weight, one for all": (ValueError, "weight", LABELS, {"weight": 1.0}),
    "weight, column": (ValueError, "weight", LABELS, {"weight": np.ones((3, 1))}),
    "weight, negative": (ValueError, r"^weight\[2\] = -1\.0 is negative", LABELS, {"weight": [1, 1, -1]}),
    "weight, NaN": (ValueError, r"^weight\[1\] = nan", LABELS, {"weight": [1, nan, 1]}),
    "weight, infinite": (ValueError, r"^weight\[0\] = inf", LABELS, {"weight": [inf, 1, 1]}),
    "weight, complex": (TypeError, "weight", LABELS, {"weight": [1j, 1, 1]}),
    "sample_weight, short": (ValueError, "sample_weight", LABELS, {"sample_weight": [1, 1, 1]}),
    "sample_weight, of classes": (ValueError, "sample_weight", LABELS, {"sample_weight": np.ones((4, 3))}),
    "sample_weight, negative": (
        ValueError,
        r"^sample_weight\[3\] = -0\.5 is negative",
        LABELS,
        {"sample_weight": [1, 0, 1, -0.5]},
    ),
    "sample_weight, NaN": (ValueError, r"^sample_weight\[0\] = nan", LABELS, {"sample_weight": [nan, 1, 1, 1]}),
    "sample_weight, infinite": (ValueError, r"^sample_weight\[1\] = inf", LABELS, {"sample_weight": [1, inf, 1, 1]}),
    "sample_weight, text": (TypeError, "sample_weight", LABELS, {"sample_weight": ["a"] * 4}),
    "label not ignored": (
        IndexError,
        r"target\[2\] = -1 is out of range for 3 classes",
        [0, -100, -1, 0],
        {"ignore_index": -100},
    ),
    "label that is no negative number": (
        IndexError,
        r"target\[1\] = 255 is out of range for 3 classes",
        np.array([0, 255, 1, 0], np.uint8),
        {"ignore_index": -1},
    ),
    "ignore_index, float": (TypeError, "ignore_index", LABELS, {"ignore_index": 1.0}),
    "ignore_index, text": (TypeError, "ignore_index", LABELS, {"ignore_index": "1"}),
    "ignore_index with probabilities": (ValueError, "ignore_index", DENSE, {"ignore_index": 1}),
    "ignore_index with sparse": (ValueError, "ignore_index", SPARSE, {"ignore_index": 1}),
    "class_mask, integers": (TypeError, "class_mask", LABELS, {"class_mask": [1, 0, 1]}),
    "class_mask, floats": (TypeError, "class_mask", LABELS, {"class_mask": np.ones((4, 3))}),
    "class_mask, of rows": (ValueError, "class_mask", LABELS, {"class_mask": np.ones(4, bool)}),
    "class_mask, transposed": (ValueError, "class_mask", LABELS, {"class_mask": np.ones((3, 4), bool)}),
    "class_mask, too many axes": (ValueError, "class_mask", LABELS, {"class_mask": np.ones((1, 4, 3), bool)}),
    "tail with labels": (ValueError, "tail", LABELS, {"tail": "uniform"}),
    "tail with probabilities": (ValueError, "tail", DENSE, {"tail": "zero"}),
    "tail, unknown": (ValueError, "tail", SPARSE, {"tail": "normal"}),
    "denominator of a sum": (ValueError, "denominator", LABELS, {"denominator": 2.0, "reduction": "sum"}),
    "denominator of no reduction": (ValueError, "denominator", LABELS, {"denominator": 2.0, "reduction": "none"}),
    "probabilities, too few classes": (ValueError, "target", DENSE[:, :2], {}),
    "probabilities, transposed": (ValueError, "target", DENSE.T, {}),
    "probabilities, complex": (TypeError, "target", DENSE + 0j, {}),
    "sparse, different shapes": (ValueError, "target", (SPARSE[0], SPARSE[1][:, :1]), {}),
    "sparse, too few rows": (ValueError, "target", (SPARSE[0][:3], SPARSE[1][:3]), {}),
    "sparse, one axis": (ValueError, "target", (SPARSE[0][0], SPARSE[1][0]), {}),
    "sparse, three parts": ((ValueError, TypeError), "target", (*SPARSE, SPARSE[1]), {}),
    "sparse, indices of floats": (TypeError, "target", (SPARSE[1], SPARSE[1]), {}),
    "sparse, complex": (TypeError, "target", (SPARSE[0], SPARSE[1] + 0j), {}),
    "sparse, too large": (
        IndexError,
        r"target\[2\]: number 1 is 3, ",
        (with_value(SPARSE[0], (2, 1), 3), SPARSE[1]),
        {},
    ),
    "sparse, negative": (
        IndexError,
        r"target\[3\]: number 0 is -1, ",
        (with_value(SPARSE[0], (3, 0), -1), SPARSE[1]),
        {},
    ),
}


def fails_everywhere(error, message, x, target, **options):
    """All three functions raise, and neither the loss nor the gradient is written."""
    reduction = options.get("reduction", "mean")
    loss = np.full(x.shape[:-1] if reduction == "none" else (), 7, np.float32 if x.dtype.itemsize == 2 else x.dtype)
    grad = np.full_like(x, 7)
    with pytest.raises(error, match=message):
        xent.cross_entropy(x, target, out=loss, **options)
    with pytest.raises(error, match=message):
        xent.cross_entropy_and_grad(x, target, loss_out=loss, grad_out=grad, **options)
    with pytest.raises(error, match=message):
        xent.cross_entropy_grad(x, target, grad_out=grad, **options)
    np.testing.assert_array_equal(loss, 7)
    np.testing.assert_array_equal(grad, 7)


@pytest.mark.parametrize(("error", "message", "target", "options"), BAD.values(), ids=BAD.keys())
def test_errors(error, message, target, options):
    fails_everywhere(error, message, X, target, **options)


@pytest.mark.parametrize("value", [0, -1.0, nan, inf, "1", None])
def test_errors_of_scale_without_a_target(value):
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        with pytest.raises((ValueError, TypeError), match="scale"):
            function(X, scale=value)


def test_a_bad_weight_among_many_is_named_by_all_its_indices():
    weight = np.ones((3, 5))
    weight[2, 4] = -2
    fails_everywhere(
        ValueError, r"^sample_weight\[2, 4\] = -2\.0 is negative", np.zeros((3, 5, 4)), np.zeros((3, 5), int),
        sample_weight=weight,
    )  # fmt: skip
    many = np.zeros(100_000, int)
    many[-1] = 8
    fails_everywhere(
        IndexError, r"^target\[99999\] = 8 is out of range", np.zeros((100_000, 8), np.float32), many, ignore_index=-1
    )


def test_labels_of_rows_that_weigh_nothing_must_be_in_range():
    fails_everywhere(IndexError, r"target\[1\] = 9 is out of range", X, [0, 9, 0, 0], sample_weight=[1, 0, 1, 1])


INVALID = {
    "negative": (with_value(DENSE, (2, 0), -1 / 3), "2"),
    "NaN": (with_value(DENSE, (1, 1), nan), "1"),
    "too little": (with_value(DENSE, (3, 0), 0.3), "3"),
    "too much": (with_value(DENSE, (0, 0), 0.4), "0"),
    "sparse, negative": ((SPARSE[0], with_value(SPARSE[1], 2, [1.5, -0.5])), "2"),
    "sparse, NaN": ((SPARSE[0], with_value(SPARSE[1], (1, 0), nan)), "1"),
    "sparse, too little": ((SPARSE[0], with_value(SPARSE[1], (3, 0), 0.4)), "3"),
    "sparse, too much": ((SPARSE[0], with_value(SPARSE[1], (3, 0), 0.6)), "3"),
}


@pytest.mark.parametrize(("target", "row"), INVALID.values(), ids=INVALID.keys())
def test_validation(target, row):
    fails_everywhere(ValueError, rf"target.*\b{row}\b", X, target, validate=True)
    xent.cross_entropy_and_grad(X, target)  # as given, if one does not ask


def test_validation_of_a_tail():
    less = SPARSE[0], with_value(SPARSE[1], (3, 0), 0.1)
    xent.cross_entropy(X, less, tail="uniform", validate=True)
    fails_everywhere(ValueError, r"target.*\b3\b", X, less, tail="zero", validate=True)
    more = SPARSE[0], with_value(SPARSE[1], (3, 0), 0.6)
    fails_everywhere(ValueError, r"target.*\b3\b", X, more, tail="uniform", validate=True)


def test_tolerance_of_validation():
    for target in (LABELS, DENSE, DENSE.astype(np.float32), DENSE.astype(np.float16), SPARSE):
        xent.cross_entropy(X, target, validate=True)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    xent.cross_entropy(np.zeros((1, 2)), np.array([[0.1, 0.9]], bfloat16), validate=True)  # of the sum 0.9985
    off = np.array([[0.1, 0.895]], bfloat16)
    fails_everywhere(ValueError, r"target.*\b0\b", np.zeros((1, 2)), off, validate=True)
    nearly = with_value(DENSE, (1, 1), 1 / 3 + 5e-6)
    xent.cross_entropy(X, nearly, validate=True)
    rougher = with_value(DENSE, (1, 1), 1 / 3 + 5e-4)
    xent.cross_entropy(X, rougher.astype(np.float16), validate=True)
    fails_everywhere(ValueError, r"target.*\b1\b", X, rougher, validate=True)
    fails_everywhere(
        ValueError, r"target.*\b1\b", X, (rougher + 2e-3 * (rougher > 0.3334)).astype(np.float16), validate=True
    )


def test_wider_outputs_are_for_half_precision_alone():
    for logits, out in (
        (X, np.zeros((4, 3))),
        (X.astype(np.float64), X.copy()),
        (X.astype(np.float16), np.zeros((4, 3), np.int16)),
    ):
        with pytest.raises(TypeError, match="grad_out has dtype"):
            xent.cross_entropy_grad(logits, LABELS, grad_out=out)


@pytest.mark.parametrize("kind", ["dense", "listed"])
def test_classes_that_are_large_beside_their_own_block(dtype, kind):
    """Each block keeps its largest class out of its sum; in units of the others its term would overflow."""
    far = 100 if dtype == np.float32 else 1500
    x = np.random.default_rng(0).normal(size=(3, 6000)).astype(dtype)
    large = np.array([7, 3000, 5999])
    x[:, large] = far + np.array([1, 0, 0.5], dtype)
    listed = np.tile(large, (3, 1)), np.full((3, 3), 0.25)
    dense = np.zeros(x.shape)
    np.put_along_axis(dense, *listed, axis=1)
    target = dense if kind == "dense" else listed
    for options in ({}, {"label_smoothing": 0.1}, {"scale": 2, "softcap": 3000}):
        loss, grad = xent.cross_entropy_and_grad(x, target, **options)
        exact_loss, exact = reference.cross_entropy_and_grad(x.astype(np.float64), target, **options)
        assert loss == pytest.approx(exact_loss, rel=4e-6)
        np.testing.assert_allclose(grad, exact, rtol=2e-5, atol=1e-8)


def beside_each_other(rng, shape):
    """Return options that subtract something else from every class, each with its target."""
    labels, dense = rng.integers(shape[1], size=shape[0]), rng.random(shape, dtype=np.float32)
    dense /= dense.sum(axis=1, keepdims=True)
    weight = rng.random(shape[1])
    return [
        (labels, {"label_smoothing": 0.1}),
        (labels, {"label_smoothing": 0.1, "weight": weight}),
        (dense, {}),
        (dense, {"label_smoothing": 0.1}),
        (dense, {"weight": weight}),
        (dense, {"weight": weight, "label_smoothing": 0.1}),
        (labels, {"scale": 0.7, "label_smoothing": 0.1}),
    ]


@pytest.mark.parametrize("shift", [0, 1, 15])
def test_gradients_past_the_caches_are_those_of_each_row(rng, dtype, shift):
    """Large results start where their lines do, and what is subtracted there goes along."""
    shape = (30, 100_001)
    x = rng.normal(size=shape).astype(dtype)
    grad = np.zeros(x.size + shift, dtype)[shift:].reshape(shape)
    grad[:] = 1  # pages that are there
    for target, options in beside_each_other(rng, shape):
        xent.cross_entropy_grad(x, target, reduction="sum", grad_out=grad, **options)
        for row in (0, 1, 29):
            part = slice(row, row + 1)
            assert same_bits(grad[part], xent.cross_entropy_grad(x[part], target[part], reduction="sum", **options))


@pytest.mark.parametrize("classes", [5, 100, 130, BLOCK, 2 * BLOCK + 15])
@pytest.mark.parametrize(
    "kind", ["wide", "of any size", "far above", "one value", "rounded down", "shifted", "infinite"]
)
def test_what_options_spread_keeps_its_digits(rng, dtype, classes, kind):
    """To what is added up of all classes, each sum in double contributes less than a hundredth of a float's ulp."""
    x = {
        "wide": rng.normal(size=(2, classes), scale=30),
        "of any size": rng.choice([-1, 1], size=(2, classes)) * 2.0 ** rng.uniform(-60, 6, size=(2, classes)),
        "far above": rng.normal(size=(2, classes)),
        "one value": np.full((2, classes), -3.3),
        # From 64 of them on, a sum of doubles loses nearly half a unit with each that is added
        "rounded down": np.where(np.arange(classes) == 1, 0, np.full((2, classes), -64 * (1 + 2.0**-47 - 2.0**-52))),
        "shifted": rng.normal(size=(2, classes), scale=30) - 1e5,
        "infinite": np.where(rng.random((2, classes)) < 0.1, -inf, rng.normal(size=(2, classes), scale=30)),
    }[kind].astype(dtype)
    labels = np.array([classes // 2, classes - 1])
    x[[0, 1], labels] = {"far above": 1e4, "infinite": 3}.get(kind, x[0, 0])
    present = x > -inf
    dense = rng.random((2, classes)) * present
    weight = rng.random(classes)
    weight[::7] = 0
    with np.errstate(all="ignore"):
        top = x.max(axis=1, keepdims=True).astype(np.longdouble)
        surprisal = top + np.log(np.sum(np.exp(x - top), axis=1, keepdims=True)) - x
    for target, options, coefficients in (
        (labels, {"label_smoothing": 1.0}, present / present.sum(axis=1, keepdims=True)),
        (labels, {"label_smoothing": 1.0, "weight": weight}, weight * present / present.sum(axis=1, keepdims=True)),
        (dense.astype(dtype), {}, dense.astype(dtype)),
        (dense.astype(dtype), {"weight": weight}, dense.astype(dtype) * weight.astype(dtype).astype(np.longdouble)),
    ):
        loss = xent.cross_entropy(x, target, reduction="none", **options)
        with np.errstate(all="ignore"):
            exact = np.sum(np.where(coefficients > 0, coefficients * surprisal, 0), axis=1)
        bound = 2.0**-24 * 1.1 + 2.0**-24 * ("weight" in options) if dtype == np.float32 else 8 * 2.0**-53
        assert np.all(np.abs(loss - exact) <= bound * exact)


@pytest.mark.parametrize("classes", [10, 128, 129, 192, 193])
def test_a_class_that_is_listed_often(classes):
    """Its probability is their sum, which is formed before it is rounded."""
    x = np.zeros((1, classes), np.float32)
    x[0, 5] = 5
    target = np.full((1, 1000), 3), np.full((1, 1000), 1e-3, np.float32)
    exact = reference.cross_entropy_grad(x.astype(np.float64), target)
    assert ulps(xent.cross_entropy_grad(x, target), exact) <= 2


@pytest.mark.parametrize("classes", [3, 129, 193])
def test_a_masked_class_that_is_listed_twice(classes):
    x = np.zeros((1, classes))
    x[0, 1] = -inf
    assert xent.cross_entropy(x, (np.array([[0, 1, 1]]), np.array([[1.0, 0.7, -0.5]]))) == inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distance", [1.0, 20.0, 40.0, 300.0])
def test_a_label_that_weighs_nothing(dtype, distance):
    x = np.array([[0, distance]], dtype)
    options = {"weight": [0.0, 1.0], "label_smoothing": 0.1, "reduction": "none"}
    loss, exact = (of(x, [0], **options) for of in (xent.cross_entropy, reference.cross_entropy))
    assert loss >= 0
    np.testing.assert_allclose(loss, exact, rtol=0, atol=0.05 * distance * (2**-30 if dtype == np.float32 else 2**-52))


def test_weights_at_any_address(monkeypatch):
    """The core takes them for an aligned array, whatever the processor makes of one that is not."""
    weight = np.frombuffer(bytearray(8 * 3 + 1), np.uint8)[1:].view(np.float64)
    weight[:] = [1, 2, 3]
    assert not weight.flags.aligned
    run, aligned = xent._core.run, []

    def look_and_run(**arguments):
        aligned.append(arguments["weight"].flags.aligned)
        return run(**arguments)

    monkeypatch.setattr("xent._core.run", look_and_run)
    loss = xent.cross_entropy(np.eye(3), [0, 1, 2], weight=weight)
    assert aligned == [True]
    assert loss == xent.cross_entropy(np.eye(3), [0, 1, 2], weight=[1, 2, 3])
