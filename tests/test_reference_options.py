"""The oracle with options: against mpmath, finite differences, and the libraries that have the option."""

from __future__ import annotations

import functools
import warnings

import hypothesis
import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from exact_options import OptionRow
from problems import DTYPES, HALVES, Case, cases

from xent import reference

inf, nan = np.inf, np.nan
EPS = 2.0**-52
SMALLEST = 5e-324
ROW_OPTIONS = ("weight", "label_smoothing", "z_loss", "scale", "softcap", "tail")

small = functools.partial(cases, dtypes=[np.dtype(np.float64)], layouts=["C"])
examples = functools.partial(hypothesis.settings, deadline=None, derandomize=True, database=None)


def mask_of(case: Case):
    """Return the class mask in the shape of the logits."""
    mask = np.asarray(case.options.get("class_mask", True))
    if mask.ndim == 1:
        return np.moveaxis(np.broadcast_to(mask, (*case.rows, mask.size)), -1, case.axis)
    return np.broadcast_to(mask, case.logits.shape)


def exact_rows(case: Case):
    """Return a row of mpmath for each that counts, by its index."""
    rows = {}
    for index in np.ndindex(case.rows):
        options = {name: case.options[name] for name in ROW_OPTIONS if name in case.options}
        if "weight" in options:
            options["weight"] = options["weight"].astype(np.float64).tolist()
        options["sample_weight"] = float(np.asarray(case.options.get("sample_weight", np.ones(case.rows)))[index])
        options["class_mask"] = list(case.row(mask_of(case), index))
        if isinstance(case.target, tuple):
            target = tuple([part.item() for part in case.row(part, index)] for part in case.target)
        elif case.target.shape == case.logits.shape and case.target.dtype.kind not in "iu":
            target = [part.item() for part in case.row(case.target.astype(np.float64), index)]
        else:
            target = case.target[index].item()
            if target == case.options.get("ignore_index"):
                continue
        if options["sample_weight"]:
            rows[index] = OptionRow(list(case.row(case.logits, index)), target, **options)
    return rows


def divisor(case: Case, rows):
    """Return what the mean divides by."""
    if case.options["reduction"] != "mean":
        return 1.0
    if "denominator" in case.options:
        return case.options["denominator"]
    return sum(r.sample_weight * (r.weight[r.target] if r.weight and isinstance(r.target, int) else 1) for r in rows)


def size_of_z(row):
    return max(float(abs(z)) for z in row.z if z > -mpmath.inf)


def assert_near(actual, exact, size, rounding):
    """Compare with numbers of mpmath, of which the errors are relative to `size` but for the last digits of mpmath."""
    for a, e, s in zip(np.atleast_1d(actual), exact, size, strict=True):
        if mpmath.isinf(e):
            assert a == e
        else:
            assert abs(mpmath.mpf(float(a)) - e) <= rounding * abs(s) + mpmath.mpf(10) ** -45, (a, e, s)


@mpmath.workdps(60)
def magnitudes(exact, factor):
    """Return the terms that a gradient's components are the differences of."""
    a = mpmath.fsum(exact.b) + 2 * exact.given.z_loss * (abs(exact.lse) + size_of_z(exact))
    slopes = [exact._dz_dx(x) for x in exact.x]
    return [abs(factor) * max(a * q, b) * slope for q, b, slope in zip(exact.q, exact.b, slopes, strict=True)]


@examples(max_examples=400)
@hypothesis.given(case=small())
def test_against_mpmath(case):
    """An error of z, by which e^z changes relatively, is of the order of z times float64's."""
    rows = exact_rows(case)
    division = divisor(case, rows.values())
    loss, grad = reference.cross_entropy_and_grad(
        case.logits, case.target, grad_output=case.grad_output, **case.options
    )
    losses = reference.cross_entropy(case.logits, case.target, **{**without_mean(case), "reduction": "none"})
    upstream = np.broadcast_to(case.grad_output, case.rows)
    total = total_size = mpmath.mpf(0)
    for index in np.ndindex(case.rows):
        if index not in rows:
            assert losses[index] == 0
            np.testing.assert_array_equal(case.row(grad, index), 0)
            continue
        row, exact = rows[index], rows[index].evaluated()
        if exact.lse == -inf:  # no class takes part
            assert np.isnan(losses[index])
            assert np.all(np.isnan(case.row(grad, index)))
            total = nan
            continue
        rounding = 6 * EPS * (1 + size_of_z(exact) * ("scale" in case.options or "softcap" in case.options))
        exact_loss = row.loss()
        size = exact_loss + row.sample_weight * row.z_loss * (abs(exact.lse) + size_of_z(exact)) ** 2
        assert_near(losses[index], [exact_loss], [size], rounding)
        total, total_size = total + exact_loss, total_size + size
        factor = float(upstream[index]) / division if division else 0
        exact_grad = [factor * g for g in row.gradient()]
        size = magnitudes(exact, factor * row.sample_weight)
        assert_near(case.row(grad, index), exact_grad, size, rounding)
    if case.options["reduction"] == "none":
        np.testing.assert_array_equal(loss, losses)
    elif not division or mpmath.isnan(total):
        assert np.isnan(loss)
    elif rows:
        rounding = 8 * EPS * (1 + max(size_of_z(row.evaluated()) for row in rows.values()))
        assert_near(loss, [total / division], [total_size / division], rounding)
    else:
        assert loss == 0


def without_mean(case):
    return {name: value for name, value in case.options.items() if name != "denominator"}


@examples(max_examples=60)
@hypothesis.given(case=small(infinities=False, classes=(2, 3, 4)))
def test_exact_gradient_is_the_slope_of_the_exact_loss(case):
    for row in exact_rows(case).values():
        if not mpmath.isinf(row.loss()):
            for j, component in enumerate(row.gradient()):
                if row.class_mask[j]:
                    slope = row.slope(j, OptionRow.loss)
                    assert abs(component - slope) <= mpmath.mpf(10) ** -50 * (1 + abs(slope))


@examples(max_examples=80)
@hypothesis.given(case=small(infinities=False, classes=(1, 2, 3, 4)), seed=st.integers(0, 2**32 - 1))
def test_second_derivatives_against_mpmath(case, seed):
    rows = exact_rows(case)
    division = divisor(case, rows.values())
    u = np.random.default_rng(seed).normal(size=case.logits.shape)
    given = {"grad_output": case.grad_output, **case.options}
    product = reference.cross_entropy_hvp(case.logits, case.target, u, **given)
    grad, diagonal = reference.cross_entropy_grad_hess(case.logits, case.target, **given)
    np.testing.assert_array_equal(grad, reference.cross_entropy_grad(case.logits, case.target, **given))
    upstream = np.broadcast_to(case.grad_output, case.rows)
    for index in np.ndindex(case.rows):
        if index not in rows:
            np.testing.assert_array_equal(case.row(product, index), 0)
            np.testing.assert_array_equal(case.row(diagonal, index), 0)
            continue
        row = rows[index]
        exact = row.evaluated()
        factor = float(upstream[index]) / division if division else 0
        hessian = [[factor * h for h in line] for line in row.hessian()]
        exact_product = [mpmath.fdot(line, map(float, case.row(u, index))) for line in hessian]
        size = [
            mpmath.fsum(abs(h) for h in line) + s * row.scale
            for line, s in zip(hessian, magnitudes(exact, factor * row.sample_weight), strict=True)
        ]
        rounding = 40 * EPS * (1 + size_of_z(exact))
        assert_near(case.row(diagonal, index), [hessian[j][j] for j in range(len(row.x))], size, rounding)
        assert_near(case.row(product, index), exact_product, [4 * s for s in size], rounding)


@examples(max_examples=60)
@hypothesis.given(case=small(infinities=False))
def test_gradient_against_finite_differences(case):
    """The reduced loss itself, so that what the mean divides by is seen to be in both."""
    options = {**case.options, "softcap": 5.0, "class_mask": None}
    grad = reference.cross_entropy_grad(case.logits, case.target, grad_output=case.grad_output, **options)
    hess = reference.cross_entropy_hvp(
        case.logits, case.target, np.ones_like(case.logits), grad_output=case.grad_output, **options
    )

    def objective(x):
        loss = reference.cross_entropy(x.reshape(case.logits.shape), case.target, **options)
        return np.sum(loss * case.grad_output)

    def slope(x):
        return reference.cross_entropy_grad(
            x.reshape(case.logits.shape), case.target, grad_output=case.grad_output, **options
        ).reshape(-1)

    x = case.logits.reshape(-1)
    if np.isnan(objective(x)):
        np.testing.assert_array_equal(grad, 0)
        return
    scale = options.get("scale", 1.0)
    size = 1 + np.abs(objective(x)) + np.abs(grad).max()
    approximate = scipy.optimize.approx_fprime(x, objective, 1e-7 / scale)
    np.testing.assert_allclose(grad.reshape(-1), approximate, rtol=1e-4, atol=3e-6 * size * max(scale, 1) ** 2)
    step = 1e-6 / scale
    along_ones = (slope(x + step) - slope(x - step)) / (2 * step)
    np.testing.assert_allclose(hess.reshape(-1), along_ones, rtol=1e-4, atol=1e-6 * size * max(scale, 1) ** 2)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("margin", [1.0, 25.0, 300.0])
def test_confident_rows_are_exact_whatever_the_kind_of_target(label, margin):
    x = np.array([[margin, 0.0, -0.5]])
    row = OptionRow(list(x[0]), label, digits=400)
    targets = [np.array([label]), np.eye(3)[[label]], (np.array([[label]]), np.array([[1.0]]))]
    first = reference.cross_entropy_and_grad(x, targets[0])
    np.testing.assert_allclose(first[0], float(row.loss()), rtol=4 * EPS)
    np.testing.assert_allclose(first[1][0], [float(g) for g in row.gradient()], rtol=4 * EPS)
    for target in targets[1:]:
        loss, grad = reference.cross_entropy_and_grad(x, target)
        assert loss == first[0]
        np.testing.assert_array_equal(grad, first[1])


@examples(max_examples=100)
@hypothesis.given(case=small(), error=st.sampled_from([0, 1e-3, -0.2]))
def test_gradient_of_a_saved_lse(case, error):
    """Away from the true one, W q_j - b_j and the sums of others differ by the error; both are answers."""
    options = {name: case.options.get(name) for name in ("class_mask", "softcap")} | {
        "scale": case.options.get("scale", 1.0)
    }
    lse = np.asarray(reference.evaluate(case.logits, axis=case.axis, **options).lse) + error
    rows = exact_rows(case)
    division = divisor(case, rows.values())
    grad = reference.cross_entropy_grad(case.logits, case.target, lse=lse, grad_output=case.grad_output, **case.options)
    for index, row in rows.items():
        if np.isnan(lse[index]):
            assert np.all(np.isnan(case.row(grad, index)))
            continue
        row.lse = lse[index]
        exact = row.evaluated()
        factor = float(np.broadcast_to(case.grad_output, case.rows)[index]) / division if division else 0
        of_others = factor * row.sample_weight * abs(error) * 2 * mpmath.fsum(exact.b) * row.scale
        for a, e, s in zip(
            case.row(grad, index), row.gradient(), magnitudes(exact, factor * row.sample_weight), strict=True
        ):
            assert abs(mpmath.mpf(float(a)) - factor * e) <= SMALLEST + 1e-14 * (1 + size_of_z(exact)) * s + abs(
                of_others
            )


def test_an_lse_with_an_error_changes_each_component_by_a_factor(rng):
    x, labels = rng.normal(size=(4, 5)), np.array([0, 1, 2, 3])
    lse = reference.logsumexp(x)
    expected = np.exp(-0.25) * reference.cross_entropy_grad(x, labels)
    np.testing.assert_allclose(reference.cross_entropy_grad(x, labels, lse=lse + 0.25), expected, rtol=1e-14)


# ---- Directed ------------------------------------------------------------------------------------------------------


def test_rows_that_do_not_count(rng):
    x, labels = rng.normal(size=(4, 3)), np.array([0, -100, 2, 1])
    x[1], x[3] = nan, inf
    options = {"ignore_index": -100, "sample_weight": [1, 1, 2, 0], "weight": [1, 2, 3]}
    losses = reference.cross_entropy(x, labels, reduction="none", **options)
    loss, grad = reference.cross_entropy_and_grad(x, labels, **options)
    np.testing.assert_array_equal(losses[[1, 3]], 0)
    np.testing.assert_array_equal(grad[[1, 3]], 0)
    assert loss == pytest.approx(losses.sum() / (1 * 1 + 2 * 3), rel=1e-15)
    assert reference.cross_entropy(x, labels, denominator=10, **options) == pytest.approx(losses.sum() / 10, rel=1e-15)


def test_no_row_that_counts():
    x, labels = np.full((2, 3), nan), np.array([1, 1])
    assert np.isnan(reference.cross_entropy(x, labels, ignore_index=1))
    assert reference.cross_entropy(x, labels, ignore_index=1, reduction="sum") == 0
    np.testing.assert_array_equal(reference.cross_entropy_grad(x, labels, ignore_index=1), 0)
    assert np.isnan(reference.cross_entropy(np.zeros((2, 3)), labels, weight=[1, 0, 1]))
    np.testing.assert_array_equal(reference.cross_entropy_grad(np.zeros((2, 3)), labels, weight=[1, 0, 1]), 0)


def test_masked_classes():
    x = np.array([[0.5, nan, 2.0, -1.0]])
    mask = np.array([True, False, True, True])
    without = reference.cross_entropy_and_grad(x[:, mask], [1])
    loss, grad = reference.cross_entropy_and_grad(x, [2], class_mask=mask)
    assert loss == without[0]
    np.testing.assert_array_equal(grad[:, mask], without[1])
    assert grad[0, 1] == 0
    loss, grad = reference.cross_entropy_and_grad(x, [1], class_mask=mask, weight=[1, 3, 1, 1], reduction="sum")
    assert loss == inf
    assert grad[0, 1] == -3
    np.testing.assert_allclose(grad[:, mask], 3 * scipy.special.softmax(x[:, mask], axis=1), rtol=1e-15)
    assert np.isnan(reference.cross_entropy(x, [2], class_mask=np.zeros(4, bool)))


def test_a_target_of_weight_zero_costs_nothing_even_if_masked():
    assert reference.cross_entropy([[0.0, -inf]], [1], weight=[1, 0], reduction="sum") == 0
    assert reference.cross_entropy([[0.0, -inf]], [[1.0, 0.0]]) == 0
    assert np.isnan(reference.cross_entropy([[0.0, nan]], [0], weight=[0, 1], reduction="sum"))


def test_smoothing_is_over_the_unmasked_classes(rng):
    x, mask = rng.normal(size=(1, 4)), np.array([True, False, True, True])
    smoothed = reference.cross_entropy(x, [2], class_mask=mask, label_smoothing=0.3)
    assert smoothed == pytest.approx(reference.cross_entropy(x[:, mask], [[0.1, 0.8, 0.1]]), rel=1e-15)


def test_tails(rng):
    x = rng.normal(size=(1, 5))
    listed = np.array([[3, 0]]), np.array([[0.5, 0.125]])
    for tail in (None, "zero"):
        expected = reference.cross_entropy(x, [[0.125, 0, 0, 0.5, 0]])
        assert reference.cross_entropy(x, listed, tail=tail) == expected
    assert reference.cross_entropy(x, listed, tail="uniform") == reference.cross_entropy(
        x, [[0.125, 0.125, 0.125, 0.5, 0.125]]
    )
    mask = np.array([True, False, True, True, True])
    spread = reference.cross_entropy(x, listed, tail="uniform", class_mask=mask)
    assert spread == reference.cross_entropy(x, [[0.125, 0, 0.1875, 0.5, 0.1875]], class_mask=mask)
    everything = np.arange(5)[np.newaxis], np.full((1, 5), 0.1)
    assert reference.cross_entropy(x, everything, tail="uniform") == reference.cross_entropy(x, np.full((1, 5), 0.1))
    twice = np.array([[2, 2]]), np.array([[0.25, 0.75]])
    assert reference.cross_entropy(x, twice) == reference.cross_entropy(x, [2])


def test_infinite_logits_with_a_softcap():
    loss, grad = reference.cross_entropy_and_grad([[0.0, -inf, 1.0]], [0], softcap=5.0)
    assert loss == reference.cross_entropy([[0.0, 1.0]], [0], softcap=5.0)
    assert grad[0, 1] == 0
    assert np.isnan(reference.cross_entropy([[0.0, inf]], [0], softcap=5.0))
    assert reference.cross_entropy([[0.0, 1e308]], [0], softcap=5.0, scale=100) == pytest.approx(np.log1p(np.exp(5)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(rng, dtype):
    x, labels = rng.normal(size=(3, 5)).astype(dtype), np.array([0, 4, 2])
    of_sums = np.float32 if dtype in HALVES else dtype
    exact_loss, exact_grad = reference.cross_entropy_and_grad(x.astype(np.float64), labels)
    loss, grad = reference.cross_entropy_and_grad(x, labels)
    assert (loss.dtype, grad.dtype) == (of_sums, dtype)
    assert loss == exact_loss.astype(of_sums)
    np.testing.assert_array_equal(grad, exact_grad.astype(dtype))
    assert reference.logsumexp(x).dtype == of_sums
    assert reference.softmax(x).dtype == reference.log_softmax(x).dtype == dtype
    wider = np.empty(x.shape, of_sums)
    assert reference.cross_entropy_grad(x, labels, grad_out=wider) is wider
    np.testing.assert_array_equal(wider, exact_grad.astype(of_sums))
    product = reference.cross_entropy_hvp(x, labels, np.ones(x.shape, dtype))
    assert {product.dtype, *(part.dtype for part in reference.cross_entropy_grad_hess(x, labels))} == {dtype}


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_scale_of_what_takes_no_target(rng, name):
    x = rng.normal(size=(3, 5))
    expected = getattr(scipy.special, name)(0.3 * x, axis=-1)
    np.testing.assert_allclose(getattr(reference, name)(x, scale=0.3), expected, rtol=1e-14)


# ---- Boosting, evaluation ------------------------------------------------------------------------------------------


def test_hessians_of_boosting(rng):
    x, labels = rng.normal(size=(3, 4)), np.array([0, 3, 1])
    x[2, 0] = 40
    weights = np.array([1.0, 0.0, 2.5])
    p = scipy.special.softmax(x, axis=1)
    counts = (weights != 0)[:, np.newaxis]
    by_hand = {
        "exact": p * (1 - p) * weights[:, np.newaxis],
        "xgboost": counts * np.maximum(2 * p * (1 - p) * weights[:, np.newaxis], 1e-16),
        "lightgbm": 4 / 3 * p * (1 - p) * weights[:, np.newaxis],
    }
    for hessian, expected in by_hand.items():
        grad, hess = reference.cross_entropy_grad_hess(
            x, labels, hessian=hessian, sample_weight=weights, reduction="sum"
        )
        np.testing.assert_allclose(grad, (p - np.eye(4)[labels]) * weights[:, np.newaxis], rtol=1e-13, atol=1e-16)
        np.testing.assert_allclose(hess, expected, rtol=1e-13, atol=2e-16)
    assert reference.cross_entropy_grad_hess(np.zeros((1, 1)), [0], hessian="lightgbm")[1] == 0


def test_hessian_times_a_constant_vector_is_zero(rng):
    x = rng.normal(size=(3, 4), scale=10)
    product = reference.cross_entropy_hvp(x, [0, 1, 2], np.full((3, 4), 7.7))
    np.testing.assert_array_equal(product, 0)


@pytest.mark.parametrize("axis", [-1, 0])
def test_evaluation(axis):
    x = np.array(
        [[1.0, 3.0, 3.0, -inf, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [1.0, nan, 0.0, 0.0, 0.0], [1.0, inf, 0.0, 0.0, 0.0]]
    )
    labels = np.array([2, 3, 0, 0])
    found = reference.evaluate(np.moveaxis(x, -1, axis), labels, axis=axis, top_k=5)
    np.testing.assert_array_equal(found.argmax, [1, 0, -1, -1])
    np.testing.assert_array_equal(found.rank, [1, 3, -1, -1])
    for values in (found.log_prob, found.lse, found.entropy):
        assert np.all(np.isfinite(values[:2]))
        assert np.all(np.isnan(values[2:]))
    np.testing.assert_allclose(found.lse[:2], scipy.special.logsumexp(x[:2], axis=1), rtol=1e-15)
    q = scipy.special.softmax(x[:2], axis=1)
    np.testing.assert_allclose(found.entropy[:2], scipy.special.entr(q).sum(axis=1), rtol=1e-15)
    indices, log_probs = (np.moveaxis(part, axis, -1) for part in (found.top_k_indices, found.top_k_log_probs))
    np.testing.assert_array_equal(indices, [[1, 2, 4, 0, -1], [0, 1, 2, 3, 4], [-1] * 5, [-1] * 5])
    with np.errstate(divide="ignore"):
        log_q = np.log(q)
    np.testing.assert_allclose(found.log_prob[:2], log_q[[0, 1], [2, 3]], rtol=1e-15)
    np.testing.assert_allclose(log_probs[:2], np.sort(log_q, axis=1)[:, ::-1], rtol=1e-14)
    assert log_probs[0, -1] == -inf
    assert np.all(np.isnan(log_probs[2:]))


def test_evaluation_of_masked_classes_and_more_classes_than_there_are():
    x = np.array([[5.0, 1.0, nan]])
    found = reference.evaluate(x, [0], class_mask=[False, True, False], top_k=4)
    assert (found.log_prob, found.argmax, found.rank, found.entropy) == (-inf, 1, 1, 0)
    np.testing.assert_array_equal(found.top_k_indices, [[1, -1, -1, -1]])
    np.testing.assert_array_equal(found.top_k_log_probs, [[0, -inf, -inf, -inf]])


def test_evaluation_without_labels():
    found = reference.evaluate(np.zeros((2, 3), np.float16))
    assert found.log_prob is None
    assert found.rank is None
    assert found.top_k_indices.shape == (2, 0)
    assert found.lse.dtype == found.entropy.dtype == np.float32


def test_rank_zero_is_the_argmax(rng):
    x = rng.integers(3, size=(50, 6)).astype(float)
    found = reference.evaluate(x, rng.integers(6, size=50))
    again = reference.evaluate(x, found.argmax)
    np.testing.assert_array_equal(again.rank, 0)
    np.testing.assert_array_equal(again.log_prob, -reference.cross_entropy(x, found.argmax, reduction="none"))


# ---- Other libraries -----------------------------------------------------------------------------------------------


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_against_torch(rng, reduction, smoothing, weighted, soft):
    torch = imported("torch")
    x = rng.normal(size=(6, 5, 3), scale=4)  # torch's class axis is the second
    weight = rng.random(5) if weighted else None
    options = {} if soft else {"ignore_index": -7}
    target = rng.dirichlet(np.ones(5), size=(6, 3)).transpose(0, 2, 1) if soft else rng.integers(5, size=(6, 3))
    if not soft:
        target[1, 2] = -7
    theirs = torch.tensor(x, requires_grad=True)
    their_loss = torch.nn.functional.cross_entropy(
        theirs,
        torch.tensor(target),
        weight=None if weight is None else torch.tensor(weight),
        reduction=reduction,
        label_smoothing=smoothing,
        **options,
    )
    ours = {"axis": 1, "weight": weight, "label_smoothing": smoothing, "reduction": reduction, **options}
    loss, grad = reference.cross_entropy_and_grad(x, target, **ours)
    np.testing.assert_allclose(loss, their_loss.detach().numpy(), rtol=1e-12)
    (their_grad,) = torch.autograd.grad(their_loss.sum(), theirs, create_graph=True)
    np.testing.assert_allclose(grad, their_grad.detach().numpy(), rtol=1e-12, atol=1e-15)
    u = rng.normal(size=x.shape)
    (product,) = torch.autograd.grad((their_grad * torch.tensor(u)).sum(), theirs)
    np.testing.assert_allclose(
        reference.cross_entropy_hvp(x, target, u, **ours), product.numpy(), rtol=1e-11, atol=1e-15
    )


def test_against_torch_with_every_option_of_ours(rng):
    torch = imported("torch")
    x, t, v = rng.normal(size=(4, 5), scale=3), rng.dirichlet(np.ones(5), size=4), rng.random(4)
    theirs = torch.tensor(x, requires_grad=True)
    z = 5 * torch.tanh(2.5 * theirs / 5)
    lse = torch.logsumexp(z, dim=1)
    total = (torch.tensor(v) * ((torch.tensor(t) * (lse[:, None] - z)).sum(1) + 0.1 * lse**2)).sum() / v.sum()
    options = {"sample_weight": v, "scale": 2.5, "softcap": 5.0, "z_loss": 0.1}
    loss, grad = reference.cross_entropy_and_grad(x, t, **options)
    assert loss == pytest.approx(total.item(), rel=1e-12)
    (their_grad,) = torch.autograd.grad(total, theirs, create_graph=True)
    np.testing.assert_allclose(grad, their_grad.detach().numpy(), rtol=1e-11, atol=1e-15)
    u = rng.normal(size=x.shape)
    (product,) = torch.autograd.grad((their_grad * torch.tensor(u)).sum(), theirs)
    np.testing.assert_allclose(reference.cross_entropy_hvp(x, t, u, **options), product.numpy(), rtol=1e-9, atol=1e-13)


def test_against_optax(rng):
    jax, optax = imported("jax"), imported("optax")
    x, labels, t = rng.normal(size=(4, 5)), np.array([0, 4, 2, 1]), rng.dirichlet(np.ones(5), size=4)
    mask = np.array([True, True, True, False, True])
    with jax.experimental.enable_x64() if hasattr(jax.experimental, "enable_x64") else jax.enable_x64(True):
        hard = optax.losses.softmax_cross_entropy_with_integer_labels(x, labels, where=mask[np.newaxis])
        soft = optax.losses.softmax_cross_entropy(x, t)
        masked = optax.losses.softmax_cross_entropy(x, np.where(mask, t, 0), where=mask[np.newaxis])
        smoothed = optax.losses.softmax_cross_entropy(x, optax.losses.smooth_labels(np.eye(5)[labels], 0.2))
    none = functools.partial(reference.cross_entropy, reduction="none")
    np.testing.assert_allclose(none(x, labels, class_mask=mask), hard, rtol=1e-12)
    np.testing.assert_allclose(none(x, t), soft, rtol=1e-12)
    np.testing.assert_allclose(none(x, np.where(mask, t, 0), class_mask=mask), masked, rtol=1e-12)
    np.testing.assert_allclose(none(x, labels, label_smoothing=0.2), smoothed, rtol=1e-12)


def test_against_scikit_learn(rng):
    metrics = imported("sklearn.metrics")
    x, labels, v = rng.normal(size=(20, 4)), rng.integers(4, size=20), rng.random(20)
    p = scipy.special.softmax(x, axis=1)
    for options in ({}, {"sample_weight": v}):
        theirs = metrics.log_loss(labels, p, labels=range(4), **options)
        assert reference.cross_entropy(x, labels, **options) == pytest.approx(theirs, rel=1e-12)
    theirs = metrics.top_k_accuracy_score(labels, x, k=2, labels=range(4))
    assert np.mean(reference.evaluate(x, labels).rank < 2) == theirs
