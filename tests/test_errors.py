"""Bad input: a clear error that names what is wrong and where, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

import xent

X = np.zeros((4, 3), dtype=np.float32)
T = np.array([0, 1, 2, 0])


def read_only(array):
    array.flags.writeable = False
    return array


BAD_LOGITS = {
    "None": (TypeError, "must be an array of floats, not None", None),
    "bool": (TypeError, "must be float32 or float64, not bool", X > 0),
    "complex": (TypeError, "must be float32 or float64, not complex64", X + 0j),
    "object": (TypeError, "must be float32 or float64, not object", X.astype(object)),
    "text": (TypeError, "must be float32 or float64, not <U1", [["a", "b"]]),
    "half": (TypeError, "must be float32 or float64, not float16", X.astype(np.float16)),
    "masked": (TypeError, "not a masked array", np.ma.masked_array(X, X > 0)),
    "ragged": (ValueError, "is not an array of floats", [[1.0, 2.0], [1.0]]),
    "scalar": (ValueError, "must have at least one axis", 1.0),
    "no classes": (ValueError, r"of shape \(4, 0\) has no classes on axis -1", np.zeros((4, 0))),
}

BAD_TARGETS = {
    "too large": (IndexError, r"^target\[2\] = 3 is out of range for 3 classes$", [0, 1, 3, 0]),
    "negative": (IndexError, r"^target\[3\] = -1 is out of range for 3 classes$", [0, 1, 2, -1]),
    "narrow": (IndexError, r"^target\[0\] = -128 is out of range for 3 classes$", np.array([-128, 0, 0, 0], np.int8)),
    "huge": (IndexError, r"target\[1\] = 18446744073709551615 is", np.array([0, 2**64 - 1, 0, 0], np.uint64)),
    "floats": (TypeError, "must be integers, the index of each row's class, not float64", [0.0, 1.0, 2.0, 0.0]),
    "bool": (TypeError, "must be integers, .* not bool", [True, False, True, False]),
    "None": (TypeError, "must be an array of integers, not None", None),
    "masked": (TypeError, "not a masked array", np.ma.masked_array(T)),
    "short": (ValueError, r"has shape \(3,\), but logits of shape \(4, 3\) need \(4,\)", [0, 1, 2]),
    "column": (ValueError, r"has shape \(4, 1\), but logits of shape \(4, 3\) need \(4,\)", T[:, None]),
}

BAD_OPTIONS = {
    "axis": (ValueError, r"axis 2 is out of range for logits of shape \(4, 3\)", {"axis": 2}),
    "negative axis": (ValueError, r"axis -3 is out of range", {"axis": -3}),
    "float axis": (TypeError, "axis must be an integer, not 1.0", {"axis": 1.0}),
    "reduction": (ValueError, "reduction must be one of 'mean', 'sum', 'none', not 'avg'", {"reduction": "avg"}),
    "no threads": (ValueError, "n_threads must be at least 1, not 0", {"n_threads": 0}),
    "negative threads": (ValueError, "n_threads must be at least 1, not -2", {"n_threads": -2}),
    "float threads": (TypeError, "n_threads must be an integer, not 1.5", {"n_threads": 1.5}),
}

BAD_GRAD_OPTIONS = {
    "list": (TypeError, "grad_out must be a NumPy array, not list", {"grad_out": [[0.0] * 3] * 4}),
    "shape": (ValueError, r"grad_out has shape \(3, 4\), but the result has \(4, 3\)", {"grad_out": X.T.copy()}),
    "dtype": (TypeError, "grad_out has dtype float64, but the result is float32", {"grad_out": np.zeros((4, 3))}),
    "read-only": (ValueError, "grad_out is read-only", {"grad_out": read_only(X.copy())}),
    "masked": (TypeError, "grad_out must be a NumPy array, not MaskedArray", {"grad_out": np.ma.masked_array(X)}),
    "overlapping itself": (
        ValueError,
        "grad_out has elements that share memory",
        {"grad_out": np.lib.stride_tricks.as_strided(np.zeros(3, np.float32), (4, 3), (0, 4))},
    ),
    "grad_output shape": (ValueError, r"grad_output has shape \(4,\), but .* \(\)", {"grad_output": np.ones(4)}),
    "grad_output shape, rows": (
        ValueError,
        r"grad_output has shape \(3,\), but the rows have shape \(4,\)",
        {"grad_output": np.ones(3), "reduction": "none"},
    ),
    "grad_output dtype": (TypeError, "grad_output must be real numbers, not complex128", {"grad_output": 1j}),
    "grad_output None": (TypeError, "grad_output must be real numbers, not None", {"grad_output": None}),
}


def cases(table):
    return pytest.mark.parametrize(("error", "message", "bad"), table.values(), ids=table.keys())


@cases(BAD_LOGITS)
def test_logits(error, message, bad):
    for function in (xent.cross_entropy, xent.cross_entropy_and_grad, xent.cross_entropy_grad):
        with pytest.raises(error, match=f"^logits.*{message}"):
            function(bad, T)
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        with pytest.raises(error, match=f"^x .*{message}"):
            function(bad)


@cases(BAD_TARGETS)
def test_targets(error, message, bad):
    grad, loss = np.full_like(X, 7), np.full((), 7, np.float32)
    with pytest.raises(error, match=message):
        xent.cross_entropy(X, bad, out=loss)
    with pytest.raises(error, match=message):
        xent.cross_entropy_and_grad(X, bad, loss_out=loss, grad_out=grad)
    with pytest.raises(error, match=message):
        xent.cross_entropy_grad(X, bad, grad_out=grad)
    np.testing.assert_array_equal(grad, 7)
    np.testing.assert_array_equal(loss, 7)


def test_a_bad_target_among_many_rows_is_found_before_anything_is_written():
    x, target = np.zeros((100_000, 8), np.float32), np.zeros(100_000, int)
    target[-1] = 8
    grad = np.full_like(x, 7)
    with pytest.raises(IndexError, match=r"^target\[99999\] = 8 is out of range for 8 classes$"):
        xent.cross_entropy_and_grad(x, target, grad_out=grad)
    np.testing.assert_array_equal(grad, 7)


def test_bad_targets_are_named_by_all_their_indices():
    target = np.zeros((2, 4), int)
    target[1, 2] = 3
    with pytest.raises(IndexError, match=r"^target\[1, 2\] = 3 is out of range for 3 classes$"):
        xent.cross_entropy(np.zeros((2, 3, 4)), target, axis=1)
    with pytest.raises(IndexError, match=r"^target = 5 is out of range for 3 classes$"):
        xent.cross_entropy(np.zeros(3), 5)


@cases(BAD_OPTIONS)
def test_options(error, message, bad):
    grad = np.full_like(X, 7)
    with pytest.raises(error, match=message):
        xent.cross_entropy(X, T, **bad)
    with pytest.raises(error, match=message):
        xent.cross_entropy_and_grad(X, T, grad_out=grad, **bad)
    with pytest.raises(error, match=message):
        xent.cross_entropy_grad(X, T, grad_out=grad, **bad)
    np.testing.assert_array_equal(grad, 7)


@cases(BAD_GRAD_OPTIONS)
def test_gradient_options(error, message, bad):
    loss = np.full((), 7, np.float32)
    with pytest.raises(error, match=message):
        xent.cross_entropy_grad(X, T, **bad)
    with pytest.raises(error, match=message):
        xent.cross_entropy_and_grad(X, T, **bad)
    assert loss == 7


def test_loss_outputs():
    with pytest.raises(ValueError, match=r"out has shape \(4,\), but the result has \(\)"):
        xent.cross_entropy(X, T, out=np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"loss_out has shape \(\), but the result has \(4,\)"):
        xent.cross_entropy_and_grad(X, T, reduction="none", loss_out=np.zeros((), np.float32))
    with pytest.raises(TypeError, match="out has dtype float64, but the result is float32"):
        xent.cross_entropy(X, T, out=np.zeros(()))
    with pytest.raises(ValueError, match="out is read-only"):
        xent.logsumexp(X, out=read_only(np.zeros(4, np.float32)))
    memory = np.zeros(12, np.float32)
    with pytest.raises(ValueError, match="loss_out and grad_out share memory"):
        xent.cross_entropy_and_grad(X, T, reduction="none", loss_out=memory[:4], grad_out=memory.reshape(4, 3))


def test_softmax_outputs():
    for function in (xent.softmax, xent.log_softmax):
        with pytest.raises(TypeError, match="out has dtype float64"):
            function(X, out=np.zeros((4, 3)))
        with pytest.raises(ValueError, match=r"axis 7 is out of range for x of shape \(4, 3\)"):
            function(X, axis=7)


def test_lse():
    with pytest.raises(ValueError, match=r"lse has shape \(3,\), but the rows have shape \(4,\)"):
        xent.cross_entropy_grad(X, T, lse=np.zeros(3))
    with pytest.raises(TypeError, match="lse must be real numbers, not complex128"):
        xent.cross_entropy_grad(X, T, lse=np.zeros(4, complex))


@pytest.mark.parametrize("bad", [0, -1, 1.5, None, "2"])
def test_set_num_threads(bad):
    before = xent.get_num_threads()
    with pytest.raises((TypeError, ValueError), match="n must be"):
        xent.set_num_threads(bad)
    assert xent.get_num_threads() == before
