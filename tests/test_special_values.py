"""NaN, infinities, the largest and the smallest numbers."""

from __future__ import annotations

import numpy as np
import pytest
from contract import broken_promises
from families import BLOCK

import xent

inf, nan = np.inf, np.nan


@pytest.mark.parametrize("classes", [2, 7, 16, 33, BLOCK + 1, 10_000])
def test_masked_classes(dtype, rng, classes):
    """Half of the classes, in the long rows whole blocks first, and all but the target."""
    x = rng.normal(size=(5, classes)).astype(dtype)
    x[:, : classes // 2] = -inf
    target = np.array([classes - 1, classes // 2, 0, classes - 1, classes - 1])
    x[4, :-1] = -inf
    assert broken_promises(x, target) == {}
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    assert loss[2] == inf
    assert grad[2, 0] == -1
    assert loss[4] == grad[4, -1] == 0
    assert not np.signbit(loss[4])
    np.testing.assert_array_equal(grad[[0, 1, 3], : classes // 2], 0)
    assert np.all(xent.softmax(x)[:, : classes // 2] == 0)
    assert np.all(xent.log_softmax(x)[:, : classes // 2] == -inf)


@pytest.mark.parametrize("classes", [2, 16, 33, 100, BLOCK + 1])
def test_a_masked_class_at_every_position(dtype, rng, classes):
    positions = np.arange(classes) if classes <= 100 else np.array([0, 15, 16, BLOCK - 2, BLOCK - 1, BLOCK])
    x = rng.normal(size=(len(positions), classes)).astype(dtype)
    x[np.arange(len(x)), positions] = -inf
    assert broken_promises(x, (positions + 1) % classes) == {}
    assert np.all(xent.cross_entropy(x, positions, reduction="none") == inf)


@pytest.mark.parametrize("bad", [nan, inf])
@pytest.mark.parametrize("classes", [1, 3, 16, 40, 2050])
def test_a_bad_logit_spoils_its_row_alone(dtype, rng, bad, classes):
    x = rng.normal(size=(5, classes)).astype(dtype)
    target = np.zeros(5, dtype=int)
    clean = xent.cross_entropy_and_grad(x, target, reduction="none")
    for position in {0, classes // 2, classes - 1}:
        spoiled = x.copy()
        spoiled[2, position] = bad
        loss, grad = xent.cross_entropy_and_grad(spoiled, target, reduction="none")
        assert np.isnan(loss[2])
        assert np.all(np.isnan(grad[2]))
        assert np.all(np.isnan(xent.softmax(spoiled)[2]))
        assert np.all(np.isnan(xent.log_softmax(spoiled)[2]))
        assert np.isnan(xent.logsumexp(spoiled)[2])
        others = [0, 1, 3, 4]
        np.testing.assert_array_equal(loss[others], clean[0][others])
        np.testing.assert_array_equal(grad[others], clean[1][others])


def spoiled_targets(probabilities, position):
    """Return targets whose third row has a NaN in one class: as they are, alone in its row, and listed."""
    spoiled = probabilities.copy()
    spoiled[2, position] = nan
    alone = probabilities.copy()
    alone[2] = np.where(np.arange(alone.shape[1]) == position, nan, 0)
    indices = np.arange(alone.shape[1])[::-1]
    listed = tuple(np.ascontiguousarray(part) for part in (np.broadcast_to(indices, spoiled.shape), spoiled[:, ::-1]))
    return spoiled, alone, listed


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3}, {"softcap": 3.0}], ids=str)
@pytest.mark.parametrize("classes", [1, 3, 16, 40, 2050])
def test_a_bad_probability_spoils_its_row_alone(dtype, rng, classes, options):
    x = rng.normal(size=(5, classes)).astype(dtype)
    x[2, -1] = -inf if classes > 1 else x[2, -1]
    probabilities = rng.dirichlet(np.ones(classes), size=5).astype(dtype)
    probabilities[2, -1] *= classes == 1
    u = rng.normal(size=x.shape).astype(dtype)

    def results(target):
        return [
            *xent.cross_entropy_and_grad(x, target, reduction="none", **options),
            xent.cross_entropy_grad_hess(x, target, reduction="none", **options)[1],
            xent.cross_entropy_hvp(x, target, u, reduction="none", **options),
        ]

    clean = results(probabilities)
    for position in {0, classes // 2, classes - 1}:
        for target in spoiled_targets(probabilities, position):
            sparse = isinstance(target, tuple)
            for result, without in zip(results(target), clean, strict=True):
                assert np.all(np.isnan(result[2]))
                if not sparse:
                    np.testing.assert_array_equal(np.delete(result, 2, 0), np.delete(without, 2, 0))
                assert not np.any(np.isnan(np.delete(result, 2, 0)))
    assert not any(np.any(np.isnan(result)) for result in clean)


@pytest.mark.parametrize("classes", [1, 5, 16, 4100])
def test_nothing_but_minus_infinity_is_nan(dtype, classes):
    x = np.full((1, classes), -inf, dtype=dtype)
    loss, grad = xent.cross_entropy_and_grad(x, [0])
    assert np.isnan(loss)
    assert np.all(np.isnan(grad))
    assert np.all(np.isnan(xent.softmax(x)))
    assert np.isnan(xent.logsumexp(x)[0])


def test_one_class(dtype):
    x = np.array([[3.0], [-1e30], [0.0]], dtype=dtype)
    loss, grad = xent.cross_entropy_and_grad(x, [0, 0, 0], reduction="none")
    np.testing.assert_array_equal(loss, 0)
    np.testing.assert_array_equal(grad, 0)
    assert not np.any(np.signbit(loss))
    np.testing.assert_array_equal(xent.softmax(x), 1)
    np.testing.assert_array_equal(xent.log_softmax(x), 0)
    np.testing.assert_array_equal(xent.logsumexp(x), x[:, 0])


def test_the_largest_numbers(dtype):
    largest = np.finfo(dtype).max
    x = np.array([[largest, largest, -largest], [largest, -largest, 0], [-largest, -largest, -largest]], dtype=dtype)
    loss, grad = xent.cross_entropy_and_grad(x, [0, 0, 0], reduction="none")
    np.testing.assert_allclose(loss, [np.log(2), 0, np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(grad, [[-0.5, 0.5, 0], [0, 0, 0], [-2 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert xent.cross_entropy(x[1:2] / 4, [1]) == largest / 2


def test_subnormal_logits(dtype, rng):
    smallest = np.finfo(dtype).smallest_subnormal
    for x in (smallest * np.array([[1, 0, -1]]), smallest * rng.integers(-1000, 1000, size=(3, 70))):
        assert broken_promises(x.astype(dtype), np.zeros(len(x), dtype=int)) == {}


@pytest.mark.parametrize("repeats", [1, 100])
def test_overflowing_gradient_is_infinite(dtype, repeats):
    x = np.tile(np.array([[1, 2]], dtype=dtype), repeats)
    for upstream in (inf, 1e300 if dtype == np.float32 else inf):
        grad = xent.cross_entropy_grad(x, [0], grad_output=upstream)
        assert grad[0, 0] == -inf
        assert np.all(grad[0, 1:] == inf)


def test_overflowing_loss_is_infinite_without_a_warning():
    x = np.array([[3e38, -3e38]], dtype=np.float32)
    assert xent.cross_entropy(x, [1]) == inf


@pytest.mark.parametrize("options", [{}, {"sample_weight": np.ones(4)}], ids=str)
def test_a_mean_is_finite_where_the_sum_is_not(options):
    x = np.tile([[1.5e308, 0.0]], (4, 1))
    labels = np.ones(4, int)
    assert xent.cross_entropy(x, labels, reduction="sum", **options) == inf
    assert xent.cross_entropy(x, labels, **options) == 1.5e308
    assert xent.cross_entropy(x, labels, denominator=5, **options) == 1.2e308
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, labels, denominator=5, **options), [[0.2, -0.2]] * 4)


@pytest.mark.parametrize("isolated", ["masked", "kept"])
def test_a_block_that_has_nothing_to_sum(dtype, isolated, rng):
    """The last block has masked classes only, or one that is kept apart: its unit is not the row's."""
    largest = -300 if dtype == np.float32 else -1700
    x = (largest - rng.random((3, 2 * BLOCK))).astype(dtype)
    x[:, BLOCK + (isolated == "kept") :] = -inf
    target, u = np.array([0, BLOCK - 1, BLOCK // 2]), rng.normal(size=x.shape).astype(dtype)
    masked = np.isneginf(x)
    for upstream in (1, 1e30):
        given = {"reduction": "sum", "grad_output": upstream}
        grad, hess = xent.cross_entropy_grad_hess(x, target, **given)
        results = [
            xent.cross_entropy_and_grad(x, target, **given)[1],
            xent.cross_entropy_grad(x, target, label_smoothing=0.1, **given),
            xent.cross_entropy_grad(x, np.full_like(x, 1 / 16) * ~masked, **given),
            xent.cross_entropy_hvp(x, target, u, **given),
            *(grad, hess, xent.softmax(x)),
        ]
        for result in results:
            assert np.all(np.isfinite(result))
            np.testing.assert_array_equal(result[masked], 0)
        np.testing.assert_allclose(results[3], xent.reference.cross_entropy_hvp(x, target, u, **given), rtol=1e-3)
    halves = [xent.partial_statistics(x[:, i : i + BLOCK], target, offset=i) for i in (0, BLOCK)]
    whole = xent.merge_statistics(halves)
    np.testing.assert_array_equal(whole.grad(x[:, BLOCK:], offset=BLOCK)[masked[:, BLOCK:]], 0)


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("offset", [0.0, 1.23456789e104])
def test_blocks_at_both_ends_of_the_numbers(scale, offset):
    x = np.full((1, 2 * BLOCK), -1e300)
    x[:, :BLOCK] = offset
    loss, grad = xent.cross_entropy_and_grad(x, [0], scale=scale)
    assert loss == pytest.approx(np.log(BLOCK), rel=1e-14)
    np.testing.assert_allclose(grad[0, 1:BLOCK], scale / BLOCK, rtol=1e-14)
    np.testing.assert_array_equal(grad[0, BLOCK:], 0)
    assert xent.evaluate(x, scale=scale).entropy == pytest.approx(np.log(BLOCK), rel=1e-14)


@pytest.mark.parametrize("classes", [2, 100, 200, BLOCK + 1])
def test_the_entropy_of_one_class_beside_the_smallest_numbers(dtype, classes):
    x = np.full((2, classes), np.finfo(dtype).min)
    x[:, 0] = 0
    np.testing.assert_array_equal(xent.evaluate(x).entropy, 0)
