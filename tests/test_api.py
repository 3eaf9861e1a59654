"""Shapes, axes, reductions, labels, outputs: what the functions promise besides numbers."""

from __future__ import annotations

import doctest
import inspect
import itertools
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import xent
from xent import _api, _arrays, _config, _core, _shards, reference

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("module", [_api, _config, _shards])
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


GENERAL_WAY = {"axis": np.int64(-1)}  # what is not a plain int is left to it


def plain_options(dtype, rng, rows):
    """Return combinations of options, each of which takes the short way, for 10 classes."""
    weight, sample_weight = rng.uniform(size=10).astype(dtype), rng.integers(3, size=rows).astype(np.float64)
    return [
        {},
        {"ignore_index": 3, "label_smoothing": 0.1},
        {"weight": weight, "sample_weight": sample_weight},
        {"z_loss": 1e-2, "scale": 0.7, "softcap": 3.0, "weight": weight, "ignore_index": -100},
    ]


@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_the_common_call_is_the_general_one(dtype, rng, rows, reduction, kind):
    """Contiguous rows, numbers and arrays of floats take a shorter way to the C core."""
    x, target = rng.normal(size=(rows, 10)).astype(dtype), rng.integers(10, size=rows)
    lse = np.zeros(rows, dtype) + 3
    if kind == "probabilities":
        target = rng.dirichlet(np.ones(10), size=rows).astype(np.float32)
    for options in plain_options(dtype, rng, rows):
        if kind == "probabilities":
            options.pop("ignore_index", None)
        given = {"reduction": reduction, **options}
        loss = xent.cross_entropy(x, target, **given, **GENERAL_WAY)
        short = xent.cross_entropy(x, target, **given)
        assert (type(short), short.dtype) == (type(loss), loss.dtype)
        np.testing.assert_array_equal(short, loss)
        np.testing.assert_array_equal(xent.cross_entropy(x, target, n_threads=2, **given), loss)
        given["grad_output"] = 2.0
        grad = xent.cross_entropy_grad(x, target, **given, **GENERAL_WAY)
        np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, **given), grad)
        for grad_out in (None, np.empty_like(x), x.copy()):
            logits = x if grad_out is None else grad_out
            logits[...] = x
            both = xent.cross_entropy_and_grad(logits, target, grad_out=grad_out, **given)
            assert type(both[0]) is type(loss)
            np.testing.assert_array_equal(both[0], loss)
            np.testing.assert_array_equal(both[1], grad)
            assert grad_out is None or both[1] is grad_out
        given["lse"] = lse
        grad = xent.cross_entropy_grad(x, target, **given, **GENERAL_WAY)
        np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, **given), grad)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(64, 10), (3, 20, 10), (2, 3, 4, 200), (5, 1), (1, 7)])
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_common_calls_of_any_shape_and_order(name, shape, order, rng):
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    x = np.asarray(rng.normal(size=shape), order=order).astype(dtype)
    target = np.asarray(rng.integers(shape[-1], size=shape[:-1]), order=order)
    probabilities = np.asarray(rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]), order=order)
    of_rows = {
        "sample_weight": np.asarray(rng.uniform(size=shape[:-1]), order=order),
        "lse": np.asarray(rng.normal(size=shape[:-1]), order=order),
    }
    xent.softmax(x[:1])  # bfloat16 has no number of its own: the first of a process goes the general way
    for reduction, labels in itertools.product(("sum", "none"), (target, probabilities)):
        expected = xent.cross_entropy_and_grad(x, labels, reduction=reduction, **GENERAL_WAY)
        over = x.copy(order="K")
        outs = [(x, None), (x, np.empty_like(x, order="C")), (x, np.empty_like(x, order="F")), (over, over)]
        for logits, grad_out in outs:
            loss, grad = xent.cross_entropy_and_grad(logits, labels, reduction=reduction, grad_out=grad_out)
            assert (type(loss), loss.dtype, loss.shape) == (type(expected[0]), expected[0].dtype, expected[0].shape)
            assert (grad.dtype, grad.flags.c_contiguous) == (dtype, expected[1].flags.c_contiguous) or grad is grad_out
            np.testing.assert_array_equal(loss, expected[0])
            np.testing.assert_array_equal(grad, expected[1])
        grad = xent.cross_entropy_grad(x, labels, **of_rows, **GENERAL_WAY)
        np.testing.assert_array_equal(xent.cross_entropy_grad(x, labels, axis=x.ndim - 1, **of_rows), grad)
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        expected, actual = function(x, **GENERAL_WAY), function(x)
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert actual.flags.c_contiguous == expected.flags.c_contiguous
        np.testing.assert_array_equal(actual, expected)
    for wrong in (np.ones(x.size // shape[-1] + 1), np.ones((*shape[:-1], 1)), np.ones(shape)):
        with pytest.raises(ValueError, match="sample_weight has shape"):
            xent.cross_entropy(x, target, sample_weight=wrong)


def test_a_gradient_in_the_other_order_at_the_place_of_its_logits(rng):
    x = rng.normal(size=(300, 300)).astype(np.float32)
    target = rng.integers(300, size=300)
    expected = xent.cross_entropy_grad(x.copy(), target)
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, target, grad_out=x.T), expected)


def test_the_common_call_sees_shared_memory(rng):
    memory = rng.normal(size=50).astype(np.float32)
    x = memory[:40].reshape(10, 4)
    target = rng.integers(4, size=10)
    expected = xent.cross_entropy_grad(x.copy(), target)
    _, grad = xent.cross_entropy_and_grad(x, target, grad_out=memory[4:44].reshape(10, 4))
    np.testing.assert_array_equal(grad, expected)
    x = rng.normal(size=(200, 4))  # more rows than are read before the first is written
    inputs = {
        "target": rng.integers(4, size=200),
        "weight": rng.uniform(size=4),
        "sample_weight": rng.uniform(size=200),
        "lse": rng.normal(size=200),
    }
    for probabilities in (False, True):
        if probabilities:
            inputs["target"] = rng.dirichlet(np.ones(4), size=200)
        expected = xent.cross_entropy_grad(x, **inputs)
        for name, array in inputs.items():
            grad = np.zeros_like(x)
            shared = grad.reshape(-1)[: array.size].view(array.dtype).reshape(array.shape)
            shared[...] = array
            actual = xent.cross_entropy_grad(x, **{**inputs, name: shared}, grad_out=grad)
            np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_common_maps_are_the_general_ones(dtype, rng, rows, scale):
    x = rng.normal(size=(rows, 10)).astype(dtype)
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        expected = function(x, scale=scale, **GENERAL_WAY)
        actual = function(x, scale=scale)
        assert (type(actual), actual.dtype, actual.shape) == (type(expected), expected.dtype, expected.shape)
        np.testing.assert_array_equal(actual, expected)
        for out in (np.empty_like(expected), x.copy()[: len(expected)]):
            if function is not xent.logsumexp:
                out[...] = x
                assert function(out, scale=scale, out=out) is out
                np.testing.assert_array_equal(out, expected)
                assert function(x, scale=scale, out=out) is out
                np.testing.assert_array_equal(out, expected)
    memory = np.concatenate([np.zeros(4, dtype), x.ravel()])
    out = memory[:-4].reshape(x.shape)
    np.testing.assert_array_equal(xent.softmax(memory[4:].reshape(x.shape), out=out), xent.softmax(x))


def test_one_class_of_any_stride():
    x = np.arange(5.0)[None].T
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, np.zeros(5, int), weight=np.ones(1)), np.zeros((5, 1)))
    for function in (xent.softmax, xent.logsumexp):
        np.testing.assert_array_equal(function(x), function(x.copy(), **GENERAL_WAY))


def test_an_axis_is_what_is_an_index(rng):
    class First:
        def __index__(self):
            return 0

    x, target = rng.normal(size=(5, 3)), rng.integers(5, size=3)
    assert xent.cross_entropy(x, target, axis=First()) == xent.cross_entropy(x, target, axis=0)
    np.testing.assert_array_equal(
        xent.evaluate(x, target, axis=First(), top_k=2).top_k_indices,
        xent.evaluate(x, target, axis=0, top_k=2).top_k_indices,
    )


def test_losses_beyond_float32_are_infinite_either_way():
    x = np.array([[0, 3e38], [0, 3e38]], np.float32)
    for way in ({}, GENERAL_WAY):
        np.testing.assert_array_equal(xent.logsumexp(x, scale=2.0, **way), np.full(2, np.inf, np.float32))
        loss = xent.cross_entropy(x, np.array([0, 1]), scale=2.0, reduction="none", **way)
        np.testing.assert_array_equal(loss, np.array([np.inf, 0], np.float32))


@pytest.mark.parametrize("way", [{}, GENERAL_WAY], ids=["short", "general"])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_losses_below_float32_are_zero_either_way(reduction, way):
    x, target, grad = np.array([[110, 0]], np.float32), np.array([0]), np.full((1, 2), 7, np.float32)
    with np.errstate(all="raise"):
        loss, _ = xent.cross_entropy_and_grad(x, target, reduction=reduction, grad_out=grad, **way)
    assert np.all(loss == 0)


def test_a_dtype_of_the_new_style_is_no_bfloat16():
    """All of these have one number; in a process that has not seen bfloat16."""
    code = """
import numpy as np, xent
from numpy._core._multiarray_umath import _get_sfloat_dtype
scaled = np.arange(6.0).reshape(2, 3).view(_get_sfloat_dtype()(1.0))
for function in (xent.softmax, xent.logsumexp, lambda x: xent.cross_entropy(x, np.array([0, 1]))):
    try:
        function(scaled)
    except TypeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("must be float16, bfloat16, float32 or float64") == 3


LOSSES = (xent.cross_entropy, xent.cross_entropy_and_grad, xent.cross_entropy_grad)


@pytest.fixture
def options(rng):
    """Return every option that an array of labels, shape (2, 3, 4), and logits of 5 classes can have."""
    return {
        "weight": rng.uniform(size=10)[::2],
        "sample_weight": rng.uniform(size=(2, 3, 4)),
        "ignore_index": 3,
        "class_mask": rng.uniform(size=(2, 3, 4, 5)) < 0.9,
        "label_smoothing": 0.1,
        "z_loss": 1e-2,
        "scale": 0.7,
        "softcap": 3.0,
    }


def sparse_target(rng, shape, k=3):
    indices = rng.integers(5, size=(*shape, k))
    return indices, rng.dirichlet(np.ones(k), size=shape)


def dense(target):
    result = np.zeros((*target[0].shape[:-1], 5))
    for j in range(target[0].shape[-1]):  # repeated indices add up
        index = target[0][..., j : j + 1]
        np.put_along_axis(result, index, np.take_along_axis(result, index, -1) + target[1][..., j : j + 1], -1)
    return result


def test_the_functions_have_the_same_options():
    own = {"out", "lse", "grad_output", "loss_out", "grad_out"}
    first, *others = ([p for p in inspect.signature(f).parameters.values() if p.name not in own] for f in LOSSES)
    assert len(first) == 16
    for other in others:
        assert other == first


def test_the_common_call_is_short(dtype, rng, monkeypatch):
    x, target = rng.normal(size=(4, 10)).astype(dtype), rng.integers(10, size=4)
    monkeypatch.setattr(_core, "run", None)
    for options in plain_options(dtype, rng, 4):
        for function in LOSSES:
            assert function(x, target, **options) is not None
        assert xent.cross_entropy_grad(x, target, lse=np.ones(4, dtype), **options).dtype == dtype
    assert xent.cross_entropy(x, np.ones((4, 10))) > 0
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        assert function(x, scale=0.7).dtype == dtype
    for options in ({"softcap": 30}, {"scale": 2, "z_loss": 0}, {"label_smoothing": np.float64(0.1)}):
        assert xent.cross_entropy(x, target, **options) > 0
    assert xent.cross_entropy_grad(x, target, grad_output=1).dtype == dtype
    for name, value in [
        ("label_smoothing", True),
        ("z_loss", -1.0),
        ("scale", 1e31),
        ("softcap", np.nan),
        ("weight", [1.0] * 10),
        ("weight", np.full(10, np.inf, dtype)),
        ("weight", np.full(10, np.nan, dtype)),
        ("sample_weight", np.full(4, -1.0)),
        ("sample_weight", np.full(4, np.nan)),
        ("ignore_index", 2**63),
        ("tail", "zero"),
        ("class_mask", np.ones(10, bool)),
        *GENERAL_WAY.items(),
    ]:
        for function in LOSSES:
            with pytest.raises((TypeError, ValueError)):
                function(x, target, **{name: value})
    with pytest.raises(TypeError):
        xent.cross_entropy_grad(x, target, grad_output=2**63)
    with pytest.raises(TypeError):
        xent.cross_entropy(x, target, reduction=np.array(["mean", "sum"]))
    with pytest.raises(TypeError):
        xent.logsumexp(x, **GENERAL_WAY)


def test_half_precision(half, rng):
    x, target = rng.normal(size=(6, 5)).astype(half), rng.integers(5, size=6)
    single = x.astype(np.float32)
    for reduction, shape in (("mean", ()), ("sum", ()), ("none", (6,))):
        loss, grad = xent.cross_entropy_and_grad(x, target, reduction=reduction)
        assert (loss.dtype, loss.shape) == (np.float32, shape)
        assert (grad.dtype, grad.shape) == (half, x.shape)
        assert xent.cross_entropy(x, target, reduction=reduction).dtype == np.float32
        assert xent.cross_entropy_grad(x, target, reduction=reduction).dtype == half
        np.testing.assert_allclose(loss, xent.cross_entropy(single, target, reduction=reduction), rtol=1e-6)
        wider = np.empty(x.shape, np.float32)
        assert xent.cross_entropy_grad(x, target, reduction=reduction, grad_out=wider) is wider
        np.testing.assert_allclose(wider, xent.cross_entropy_grad(single, target, reduction=reduction), rtol=1e-5)
        np.testing.assert_array_equal(grad, wider.astype(half))
    assert xent.logsumexp(x).dtype == np.float32
    np.testing.assert_allclose(xent.logsumexp(x), xent.logsumexp(single), rtol=1e-6)
    for function in (xent.softmax, xent.log_softmax):
        wider = np.empty(x.shape, np.float32)
        assert function(x, out=wider) is wider
        np.testing.assert_allclose(wider, function(single), rtol=1e-5)
        result = function(x)
        assert result.dtype == half
        np.testing.assert_array_equal(result, wider.astype(half))
        in_place = x.copy()
        assert function(in_place, out=in_place) is in_place
        np.testing.assert_array_equal(in_place, result)


def test_a_wider_gradient_over_the_logits(half, rng):
    """In the very place of its logit, and yet not in place: it has twice the bytes."""
    wider = np.zeros((6, 5), np.float32)
    x = wider.view(half)[:, ::2]
    x[...] = rng.normal(size=x.shape).astype(half)
    expected = xent.cross_entropy_grad(x.copy(), np.zeros(6, int), grad_out=np.empty((6, 5), np.float32))
    xent.cross_entropy_grad(x, np.zeros(6, int), grad_out=wider)
    np.testing.assert_array_equal(wider, expected)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_swapped_bytes(rng, name):
    x, target = rng.normal(size=(6, 5)).astype(name), rng.dirichlet(np.ones(5), size=6).astype(name)
    swapped = x.astype(x.dtype.newbyteorder())
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    for t in (target, target.astype(x.dtype.newbyteorder())):
        result = xent.cross_entropy_and_grad(swapped, t, reduction="none")
        assert [a.dtype for a in result] == [loss.dtype, grad.dtype]
        np.testing.assert_array_equal(result[0], loss)
        np.testing.assert_array_equal(result[1], grad)
    over = swapped.view(name)
    np.testing.assert_array_equal(xent.cross_entropy_grad(swapped, target, reduction="none", grad_out=over), grad)


@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_axes_of_options(dtype, rng, options, kind, reduction):
    x = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    target = rng.integers(5, size=(2, 3, 4))
    if kind != "labels":
        target = sparse_target(rng, (2, 3, 4))
        del options["ignore_index"]
    if kind == "probabilities":
        target = dense(target)
    if kind == "sparse":
        options["tail"] = "uniform"
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction=reduction, **options)
    for axis in range(-4, 4):
        moved = dict(options, class_mask=np.moveaxis(options["class_mask"], -1, axis))
        t = target
        if kind == "probabilities":
            t = np.moveaxis(t, -1, axis)
        elif kind == "sparse":
            t = tuple(np.moveaxis(part, -1, axis) for part in t)
        a, b = xent.cross_entropy_and_grad(np.moveaxis(x, -1, axis), t, axis=axis, reduction=reduction, **moved)
        assert (a.dtype, b.dtype) == (dtype, dtype)
        np.testing.assert_allclose(a, loss, rtol=1e-6)
        np.testing.assert_allclose(np.moveaxis(b, axis, -1), grad, rtol=1e-5, atol=1e-7)


def test_shapes_of_class_masks(rng):
    x, target = rng.normal(size=(3, 4, 5)), rng.integers(4, size=(3, 5))
    classes = np.array([True, True, False, True])
    rows = rng.uniform(size=(3, 1, 5)) < 0.5
    target[target == 2] = 0
    for mask, same in (
        (classes, classes[:, None]),
        (classes[:, None] & rows, np.ascontiguousarray(classes[:, None] & rows)),
        (True, np.ones_like(x, bool)),
        ([True], np.ones_like(x, bool)),
        (rows, np.broadcast_to(rows, x.shape).copy()),
    ):
        actual, expected = (
            xent.cross_entropy_and_grad(x, target, axis=1, reduction="none", class_mask=m) for m in (mask, same)
        )
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(actual[1], expected[1])
    square = rng.normal(size=(4, 4))
    grad = xent.cross_entropy_grad(square, [0, 1, 3, 0], axis=0, class_mask=classes)
    np.testing.assert_array_equal((grad != 0).all(axis=1), classes)


@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
def test_inputs_that_share_memory_with_the_gradient(rng, options, kind):
    x = rng.normal(size=(2, 3, 4, 5))
    inputs = {"target": rng.integers(5, size=(2, 3, 4))}
    if kind != "labels":
        del options["ignore_index"]
        inputs = dict(zip(("indices", "probabilities"), sparse_target(rng, (2, 3, 4)), strict=True))
    if kind == "probabilities":
        inputs = {"target": dense(tuple(inputs.values()))}
    arrays = {name: value for name, value in options.items() if isinstance(value, np.ndarray)}
    inputs |= {**arrays, "lse": rng.normal(size=(2, 3, 4)), "grad_output": rng.normal(size=(2, 3, 4))}
    numbers = {name: value for name, value in options.items() if name not in inputs}

    def grad(given, out=None):
        given = dict(given)
        target = given.pop("target", None)
        if target is None:
            target = given.pop("indices"), given.pop("probabilities")
        return xent.cross_entropy_grad(x, target, reduction="none", grad_out=out, **given, **numbers)

    expected = grad(inputs)
    for name, array in inputs.items():
        memory = np.zeros(x.nbytes + 8, np.uint8)
        shared = memory[8 : 8 + array.nbytes].view(array.dtype).reshape(array.shape)
        shared[...] = array
        out = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
        np.testing.assert_array_equal(grad({**inputs, name: shared}, out), expected, err_msg=name)


def test_a_broadcast_mask_that_shares_memory_is_copied_small(rng):
    x = rng.normal(size=(50, 5))
    out = np.zeros_like(x)
    mask = out.reshape(-1).view(bool)[3:8]
    mask[...] = [True, True, False, True, True]
    assert _arrays.apart_from(out, np.broadcast_to(mask, x.shape)).strides == (0, 1)
    expected = xent.cross_entropy_grad(x, np.zeros(50, int), class_mask=mask.copy())
    np.testing.assert_array_equal(
        xent.cross_entropy_grad(x, np.zeros(50, int), class_mask=mask, grad_out=out), expected
    )


@pytest.mark.parametrize("integer", INTEGERS)
def test_sparse_targets_of_every_dtype(half, rng, integer):
    x = rng.normal(size=(6, 5))
    indices, probabilities = sparse_target(rng, (6,))
    for dtype in (half, np.float32, np.float64):
        rounded = probabilities.astype(dtype)
        expected = xent.cross_entropy(x, (indices, rounded.astype(np.float64)), reduction="none")
        for i in (indices.astype(integer), indices.astype(np.dtype(integer).newbyteorder())):
            np.testing.assert_array_equal(xent.cross_entropy(x, (i, rounded), reduction="none"), expected)


def test_forms_of_targets(rng):
    x = rng.normal(size=(6, 5))
    labels = rng.integers(5, size=6)
    expected = xent.cross_entropy_grad(x, labels)
    one_hot = np.eye(5)[labels]
    for target in (
        one_hot,
        one_hot.tolist(),
        (labels[:, None], np.ones((6, 1))),
        (labels[:, None].tolist(), [[1.0]] * 6),
    ):
        np.testing.assert_allclose(xent.cross_entropy_grad(x, target), expected, rtol=1e-14)
    target = sparse_target(rng, (6,))
    np.testing.assert_allclose(xent.cross_entropy(x, target), xent.cross_entropy(x, dense(target)), rtol=1e-14)
    np.testing.assert_array_equal(xent.cross_entropy(x[0], ([1, 2], [0.5, 0.5])).shape, ())
    # a tuple of two numbers is the labels of two rows
    assert xent.cross_entropy(x[:2], (3, 1)) == xent.cross_entropy(x[:2], [3, 1])


def test_an_ignored_label_that_no_label_can_be(rng):
    x, target = rng.normal(size=(6, 5)), np.array([0, 1, 2, 3, 4, 0], np.uint8)
    for ignored in (-100, 256, 2**64, np.int64(-256)):
        loss, grad = xent.cross_entropy_and_grad(x, target, ignore_index=ignored)
        assert loss == xent.cross_entropy(x, target)
        np.testing.assert_array_equal(grad, xent.cross_entropy_grad(x, target))
    loss = xent.cross_entropy(x, target, ignore_index=0, reduction="none")
    np.testing.assert_array_equal(loss == 0, target == 0)
    target[target == 0] = 255
    np.testing.assert_array_equal(xent.cross_entropy(x, target, ignore_index=255, reduction="none"), loss)
    with pytest.raises(IndexError, match="= 255 is out of range"):
        xent.cross_entropy(x, target, ignore_index=-1)
    with pytest.raises(IndexError, match=f"= {2**64 - 1} is out of range"):
        xent.cross_entropy(x, np.full(6, 2**64 - 1, np.uint64), ignore_index=-1)


@pytest.mark.parametrize("integer", INTEGERS)
def test_ignored_labels_at_the_ends_of_a_dtype(rng, integer):
    x, ends = rng.normal(size=(65, 5)), np.iinfo(integer)
    for ignored in (ends.min - 1, ends.min, ends.max, ends.max + 1):
        target = rng.integers(5, size=65).astype(integer)
        target[::7] = ignored if ends.min <= ignored <= ends.max else 0
        short, general = (xent.cross_entropy_grad(x, target, ignore_index=ignored, **way) for way in ({}, GENERAL_WAY))
        np.testing.assert_array_equal(short, general)
        assert (short[0] == 0).all() == (target[0] == ignored)


def test_what_mean_divides_by(rng):
    x, target = rng.normal(size=(6, 5)), np.array([0, 1, 2, 3, 4, 0])
    weight, sample_weight = rng.uniform(size=5), rng.uniform(size=6)
    options = {"weight": weight, "sample_weight": sample_weight}
    labels = {**options, "ignore_index": 1}
    rows = xent.cross_entropy(x, target, reduction="none", **labels)
    total = xent.cross_entropy(x, target, reduction="sum", **labels)
    assert total == pytest.approx(rows.sum(), rel=1e-14)
    counted = (sample_weight * weight[target])[target != 1].sum()
    assert xent.cross_entropy(x, target, **labels) == pytest.approx(total / counted, rel=1e-14)
    soft = np.eye(5)[target]
    total = xent.cross_entropy(x, soft, reduction="sum", **options)
    assert xent.cross_entropy(x, soft, **options) == pytest.approx(total / sample_weight.sum(), rel=1e-14)
    for t in (target, soft):
        loss, grad = xent.cross_entropy_and_grad(x, t, reduction="sum", **options)
        mean, mean_grad = xent.cross_entropy_and_grad(x, t, denominator=7, **options)
        assert mean == pytest.approx(loss / 7, rel=1e-14)
        np.testing.assert_allclose(mean_grad, grad / 7, rtol=1e-14)


def test_no_row_counts(rng):
    x, target = np.full((6, 5), np.nan), rng.integers(5, size=6)
    for options in ({"sample_weight": np.zeros(6)}, {"ignore_index": -1}):
        labels = np.full(6, -1) if "ignore_index" in options else target
        loss, grad = xent.cross_entropy_and_grad(x, labels, **options)
        assert np.isnan(loss)
        np.testing.assert_array_equal(grad, 0)
        assert xent.cross_entropy(x, labels, reduction="sum", **options) == 0
        np.testing.assert_array_equal(xent.cross_entropy(x, labels, reduction="none", **options), 0)


def test_numbers_of_any_real_type(half, rng):
    x, target = rng.normal(size=(6, 5)), rng.integers(5, size=6)
    expected = xent.cross_entropy(x, target, scale=2.0, z_loss=1.0, softcap=4.0, label_smoothing=1.0, denominator=2.0)
    for number in (int, np.float32, np.uint8, np.array, half.type):
        options = {"scale": number(2), "z_loss": number(1), "softcap": number(4), "label_smoothing": number(1)}
        assert xent.cross_entropy(x, target, denominator=number(2), **options) == expected
    weights = rng.integers(1, 4, size=6)
    expected = xent.cross_entropy(x, target, sample_weight=weights)
    for dtype in (half, np.float32, ">f8", "u1"):
        assert xent.cross_entropy(x, target, sample_weight=weights.astype(dtype)) == expected


def test_scale(dtype, rng):
    x, target = rng.normal(size=(6, 5)).astype(dtype), rng.integers(5, size=6)
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        np.testing.assert_allclose(function(x, scale=0.5), function(x / 2), rtol=1e-6)
    assert xent.cross_entropy(x, target, scale=0.5) == pytest.approx(xent.cross_entropy(x / 2, target), rel=1e-6)
    grad = xent.cross_entropy_grad(x, target, scale=0.5)
    np.testing.assert_allclose(grad, xent.cross_entropy_grad(x / 2, target) / 2, rtol=1e-5, atol=1e-8)
