"""Shapes, axes, reductions, labels, outputs: what the functions promise besides numbers."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

import xent
from xent import _api, _config, reference

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("module", [_api, _config])
def test_docstring_examples(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_name_is_documented():
    for name in xent.__all__:
        assert getattr(xent, name).__doc__
    assert sorted(xent.__all__) == list(xent.__all__)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5), (2, 1, 3, 2, 5)])
def test_shapes_and_axes(dtype, rng, shape, reduction):
    for axis in range(-len(shape), len(shape)):
        x = np.moveaxis(rng.normal(size=shape), -1, axis).astype(dtype)
        target = rng.integers(5, size=shape[:-1])
        for name in ("cross_entropy", "cross_entropy_grad"):
            actual = getattr(xent, name)(x, target, axis=axis, reduction=reduction)
            expected = getattr(reference, name)(x, target, axis=axis, reduction=reduction)
            assert actual.dtype == dtype
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-6)
        for name in ("softmax", "log_softmax", "logsumexp"):
            actual, expected = getattr(xent, name)(x, axis=axis), getattr(reference, name)(x, axis=axis)
            assert actual.dtype == dtype
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_mean_and_sum_are_those_of_the_rows(dtype, rng):
    x, target = rng.normal(size=(1000, 7)).astype(dtype), rng.integers(7, size=1000)
    rows = xent.cross_entropy(x, target, reduction="none").astype(np.float64)
    assert xent.cross_entropy(x, target, reduction="sum") == pytest.approx(rows.sum(), rel=1e-6)
    assert xent.cross_entropy(x, target) == pytest.approx(rows.mean(), rel=1e-6)


@pytest.mark.parametrize("integer", INTEGERS)
def test_every_integer_width(rng, integer):
    x, target = rng.normal(size=(50, 100)), rng.integers(100, size=50)
    expected = xent.cross_entropy_grad(x, target)
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, target.astype(integer)), expected)
    swapped = target.astype(np.dtype(integer).newbyteorder())
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, swapped), expected)
    strided = np.repeat(target.astype(integer), 3)[::3]
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, strided), expected)


def test_array_likes(rng):
    assert xent.cross_entropy([[1.0, 2.0, 3.0]], [2]) == pytest.approx(0.40760596444438)
    assert xent.cross_entropy([[1, 2, 3]], [2]).dtype == np.float64
    assert xent.cross_entropy([1.0, 2.0, 3.0], 2) == pytest.approx(0.40760596444438)
    x = rng.normal(size=(4, 3))
    swapped = x.astype(x.dtype.newbyteorder())
    np.testing.assert_array_equal(xent.softmax(swapped), xent.softmax(x))
    read_only = x.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(xent.softmax(read_only), xent.softmax(x))


def test_memory_mapped_logits(tmp_path, rng):
    x, target = rng.normal(size=(40, 30)).astype(np.float32), rng.integers(30, size=40)
    np.save(tmp_path / "logits.npy", x)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    assert xent.cross_entropy(mapped, target) == xent.cross_entropy(x, target)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_empty_batch(dtype, shape):
    x, target = np.empty(shape, dtype), np.empty(shape[:-1], int)
    loss, grad = xent.cross_entropy_and_grad(x, target)
    assert np.isnan(loss)
    assert grad.shape == shape
    assert xent.cross_entropy(x, target, reduction="sum") == 0
    assert xent.cross_entropy(x, target, reduction="none").shape == shape[:-1]
    assert xent.softmax(x).shape == shape
    assert xent.logsumexp(x).shape == shape[:-1]


def test_grad_output(rng):
    x, target = rng.normal(size=(4, 6)), np.array([5, 0, 1, 2])
    one = xent.cross_entropy_grad(x, target, reduction="none")
    upstream = np.array([1.0, 0.0, -2.0, 1e-3])
    for given in (upstream, upstream.astype(np.float32).astype(np.float64), list(upstream), upstream[::-1][::-1]):
        _, grad = xent.cross_entropy_and_grad(x, target, reduction="none", grad_output=given)
        np.testing.assert_allclose(grad, one * np.asarray(given)[:, None], rtol=1e-15)
    for scalar in (3, 3.0, np.float32(3), np.array(3)):
        grad = xent.cross_entropy_grad(x, target, reduction="none", grad_output=scalar)
        np.testing.assert_allclose(grad, 3 * one, rtol=1e-15)
        grad = xent.cross_entropy_grad(x, target, reduction="mean", grad_output=scalar)
        np.testing.assert_allclose(grad, 0.75 * one, rtol=1e-15)


def test_outputs_are_filled_and_returned(dtype, rng):
    x, target = rng.normal(size=(4, 6)).astype(dtype), np.array([5, 0, 1, 2])
    for reduction, shape in (("mean", ()), ("sum", ()), ("none", (4,))):
        loss, grad = xent.cross_entropy_and_grad(x, target, reduction=reduction)
        loss_out, grad_out = np.empty(shape, dtype), np.empty_like(x)
        result = xent.cross_entropy_and_grad(x, target, reduction=reduction, loss_out=loss_out, grad_out=grad_out)
        assert result[0] is loss_out
        assert result[1] is grad_out
        np.testing.assert_array_equal(loss_out, loss)
        np.testing.assert_array_equal(grad_out, grad)
        assert xent.cross_entropy(x, target, reduction=reduction, out=loss_out) is loss_out
    for name, shape in (("softmax", (4, 6)), ("log_softmax", (4, 6)), ("logsumexp", (4,))):
        out = np.empty(shape, dtype)
        assert getattr(xent, name)(x, out=out) is out
        np.testing.assert_array_equal(out, getattr(xent, name)(x))


def test_a_gradient_keeps_the_layout_of_the_logits(rng):
    x = np.asfortranarray(rng.normal(size=(8, 6)))
    assert xent.cross_entropy_grad(x, np.zeros(8, int)).flags.f_contiguous


def test_show_config(capsys):
    config = xent.show_config(mode="dicts")
    assert config["isa"] in config["supported_isas"]
    assert config["threads"] == xent.get_num_threads()
    assert xent.show_config() is None
    printed = capsys.readouterr().out
    assert config["isa"] in printed
    assert config["xent"] == xent.__version__
    with pytest.raises(ValueError, match="mode must be one of 'stdout', 'dicts', not 'json'"):
        xent.show_config(mode="json")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_the_common_call_is_the_general_one(dtype, rng, rows, reduction):
    """Contiguous rows and defaults take a shorter way to the C core: with `out` they do not."""
    x, target = rng.normal(size=(rows, 10)).astype(dtype), rng.integers(10, size=rows)
    loss = xent.cross_entropy(x, target, reduction=reduction, out=np.empty((), dtype))[()]
    grad = xent.cross_entropy_grad(x, target, reduction=reduction)
    short = xent.cross_entropy(x, target, reduction=reduction)
    assert xent.cross_entropy(x, target, reduction=reduction, n_threads=2) == loss
    assert (type(short), short) == (type(loss), loss)
    for grad_out in (None, np.empty_like(x), x.copy()):
        logits = x if grad_out is None else grad_out
        logits[...] = x
        both = xent.cross_entropy_and_grad(logits, target, reduction=reduction, grad_out=grad_out)
        assert (type(both[0]), both[0]) == (type(loss), loss)
        np.testing.assert_array_equal(both[1], grad)
        assert grad_out is None or both[1] is grad_out
    _, doubled = xent.cross_entropy_and_grad(x, target, reduction=reduction, grad_output=2.0)
    np.testing.assert_array_equal(doubled, 2 * grad)


def test_the_common_call_sees_shared_memory(rng):
    memory = rng.normal(size=50).astype(np.float32)
    x = memory[:40].reshape(10, 4)
    target = rng.integers(4, size=10)
    expected = xent.cross_entropy_grad(x.copy(), target)
    _, grad = xent.cross_entropy_and_grad(x, target, grad_out=memory[4:44].reshape(10, 4))
    np.testing.assert_array_equal(grad, expected)
    grad = np.zeros((10, 4), np.float32)
    labels = grad.reshape(-1).view(np.int32)[5:15]
    labels[:] = target
    x = rng.normal(size=(10, 4)).astype(np.float32)
    expected = xent.cross_entropy_grad(x, target)
    xent.cross_entropy_and_grad(x, labels, grad_out=grad)
    np.testing.assert_array_equal(grad, expected)
