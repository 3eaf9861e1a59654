"""Bad input: a clear error that names what is wrong and where, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

import xent

X = np.zeros((4, 3), dtype=np.float32)
T = np.array([0, 1, 2, 0])
SHARES = np.full((4, 2), 0.5)
LISTED = np.zeros((4, 2), int)
ONE_PLACE = np.array([[0, 0], [0, 0], [0, 1], [0, 0]])


def read_only(array):
    array.flags.writeable = False
    return array


BAD_LOGITS = {
    "None": (TypeError, "must be an array of floats, not None", None),
    "bool": (TypeError, "must be float16, bfloat16, float32 or float64, not bool", X > 0),
    "complex": (TypeError, "must be float16, bfloat16, float32 or float64, not complex64", X + 0j),
    "object": (TypeError, "must be float16, bfloat16, float32 or float64, not object", X.astype(object)),
    "text": (TypeError, "must be float16, bfloat16, float32 or float64, not <U1", [["a", "b"]]),
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
    "floats": (
        TypeError,
        "must be integers, the index of each row's class, not float64; "
        r"probabilities are floats of the shape of the logits, \(4, 3\)",
        [0.0, 1.0, 2.0, 0.0],
    ),
    "complex": (TypeError, "must be integers, .* not complex128", X + 0j + X.astype(complex)),
    "integer probabilities": (
        ValueError,
        r"^target has shape \(4, 3\), but logits of shape \(4, 3\) need \(4,\): .*; probabilities are floats",
        X.astype(int),
    ),
    "probabilities of other classes": (
        ValueError,
        r"^target has shape \(4, 2\), but probabilities need the shape of the logits, \(4, 3\)$",
        X[:, :2],
    ),
    "sparse, floats": (TypeError, "^target indices must be integers, not float32; a tuple of two arrays is", (X, X)),
    "sparse, integers": (
        TypeError,
        r"^target probabilities must be float16, bfloat16, float32 or float64, not int64; .* np.asarray\(target\)$",
        (LISTED, LISTED),
    ),
    "sparse, None": (TypeError, "^target probabilities must be an array of floats, not None", (LISTED, None)),
    "sparse, unlike": (
        ValueError,
        r"^target probabilities have shape \(4, 1\), but target indices \(4, 2\)$",
        (LISTED, SHARES[:, :1]),
    ),
    "sparse, short": (
        ValueError,
        r"^target indices have shape \(3, 2\), but logits of shape \(4, 3\) need \(4, k\): k classes",
        (LISTED[:3], SHARES[:3]),
    ),
    "sparse, flat": (
        ValueError,
        r"indices have shape \(4,\), but logits .* need \(4, k\)",
        (LISTED[:, 0], SHARES[:, 0]),
    ),
    "sparse, empty": (ValueError, r"^target indices of shape \(4, 0\) has no classes", (LISTED[:, :0], SHARES[:, :0])),
    "sparse, too large": (
        IndexError,
        r"target\[2\]: number 1 is 3, which is out of range for 3 c",
        (LISTED + 3 * ONE_PLACE, SHARES),
    ),
    "sparse, negative": (
        IndexError,
        r"target\[2\]: number 1 is -1, which is out of range for",
        (LISTED - ONE_PLACE, SHARES),
    ),
    "bool": (TypeError, "must be integers, .* not bool", [True, False, True, False]),
    "None": (TypeError, "must be an array of integers, not None", None),
    "masked": (TypeError, "not a masked array: class_mask and sample_weight say what counts", np.ma.masked_array(T)),
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

BAD_LOSS_OPTIONS = {
    "weight shape": (ValueError, r"^weight has shape \(2,\), but the classes have shape \(3,\)$", {"weight": [1, 2]}),
    "weight for each logit": (ValueError, r"^weight has shape \(4, 3\), but the classes", {"weight": X}),
    "weight dtype": (TypeError, "^weight must be real numbers, not bool$", {"weight": [True] * 3}),
    "weight masked": (TypeError, "^weight .* not a masked array", {"weight": np.ma.masked_array(np.ones(3))}),
    "weight negative": (ValueError, r"^weight\[1\] = -1.0 is negative$", {"weight": [1, -1, -2]}),
    "weight NaN": (ValueError, r"^weight\[2\] = nan is not finite$", {"weight": [1, 0, np.nan]}),
    "weight infinite": (ValueError, r"^weight\[0\] = inf is not finite$", {"weight": [np.inf, 0, 1]}),
    "weight minus infinity": (ValueError, r"^weight\[0\] = -inf is negative$", {"weight": [-np.inf, 0, 1]}),
    "sample_weight shape": (
        ValueError,
        r"^sample_weight has shape \(3,\), but the rows have shape \(4,\)$",
        {"sample_weight": np.ones(3)},
    ),
    "sample_weight scalar": (ValueError, r"^sample_weight has shape \(\), but", {"sample_weight": 1.0}),
    "sample_weight dtype": (
        TypeError,
        "^sample_weight must be real numbers, not <U1$",
        {"sample_weight": list("abcd")},
    ),
    "sample_weight negative": (
        ValueError,
        r"^sample_weight\[3\] = -0.5 is negative$",
        {"sample_weight": [0, 1, 1, -0.5]},
    ),
    "sample_weight NaN": (
        ValueError,
        r"^sample_weight\[1\] = nan is not finite$",
        {"sample_weight": [0, np.nan, 1, 1]},
    ),
    "ignore_index float": (TypeError, "^ignore_index must be an integer, not -100.0$", {"ignore_index": -100.0}),
    "ignore_index text": (TypeError, "^ignore_index must be an integer, not '0'$", {"ignore_index": "0"}),
    "mask dtype": (
        TypeError,
        "^class_mask must be booleans, True where a class takes part, not int64$",
        {"class_mask": [1, 0, 1]},
    ),
    "mask of classes": (
        ValueError,
        r"^class_mask has shape \(4,\), but logits of shape \(4, 3\) need \(3,\), or a shape that broadcasts",
        {"class_mask": [True] * 4},
    ),
    "mask of logits": (ValueError, r"^class_mask has shape \(3, 4\), but", {"class_mask": np.ones((3, 4), bool)}),
    "mask of more": (ValueError, r"^class_mask has shape \(1, 4, 3\), but", {"class_mask": np.ones((1, 4, 3), bool)}),
    "smoothing negative": (
        ValueError,
        "^label_smoothing must be between 0 and 1, not -0.1$",
        {"label_smoothing": -0.1},
    ),
    "smoothing": (ValueError, "^label_smoothing must be between 0 and 1, not 2.0$", {"label_smoothing": 2}),
    "smoothing NaN": (ValueError, "^label_smoothing must be finite, not nan$", {"label_smoothing": np.nan}),
    "z_loss negative": (ValueError, "^z_loss must be at least 0, not -1.0$", {"z_loss": -1.0}),
    "z_loss infinite": (ValueError, "^z_loss must be finite, not inf$", {"z_loss": np.inf}),
    "scale zero": (ValueError, r"^scale must be between 1e-30 and 1e\+30, not 0.0$", {"scale": 0.0}),
    "scale negative": (ValueError, r"^scale must be between 1e-30 and 1e\+30, not -1.0$", {"scale": -1}),
    "scale tiny": (ValueError, r"^scale must be between 1e-30 and 1e\+30, not 1e-38$", {"scale": 1e-38}),
    "scale huge": (ValueError, r"^scale must be between 1e-30 and 1e\+30, not 1e\+38$", {"scale": 1e38}),
    "scale infinite": (ValueError, "^scale must be finite, not inf$", {"scale": np.float32(np.inf)}),
    "softcap zero": (ValueError, r"^softcap must be between 1e-30 and 1e\+30, not 0.0$", {"softcap": 0}),
    "softcap NaN": (ValueError, "^softcap must be finite, not nan$", {"softcap": np.float16(np.nan)}),
    "tail of labels": (ValueError, r"^tail is for a target of \(indices, probabilities\)$", {"tail": "zero"}),
    "tail": (ValueError, "^tail must be one of 'zero', 'uniform', not 'fat'$", {"tail": "fat"}),
    "tail type": (TypeError, "^tail must be one of 'zero', 'uniform', not 0.5$", {"tail": 0.5}),
    "reduction type": (TypeError, "^reduction must be one of .*, not None$", {"reduction": None}),
    "denominator of a sum": (
        ValueError,
        "^denominator is for the reduction 'mean', not for 'sum'$",
        {"denominator": 3, "reduction": "sum"},
    ),
    "denominator of rows": (ValueError, "^denominator is for .* 'none'$", {"denominator": 3, "reduction": "none"}),
    "denominator zero": (ValueError, "^denominator must be greater than 0, not 0.0$", {"denominator": 0}),
    "denominator huge": (ValueError, "^denominator must be finite, and is beyond the la", {"denominator": 2**1024}),
    "denominator infinite": (ValueError, "^denominator must be finite, not inf$", {"denominator": np.inf}),
    "validate": (TypeError, "^validate must be True or False, not 'yes'$", {"validate": "yes"}),
}


def test_an_integer_of_any_size_is_a_number():
    assert xent.cross_entropy(X, T, denominator=2**70) > 0


def test_a_listed_class_is_found_wherever_the_class_axis_is():
    indices = (LISTED + 3 * ONE_PLACE).T
    with pytest.raises(IndexError, match=r"^the indices of target\[2\]: number 1 is 3, which is out of range for 3 c"):
        xent.cross_entropy(X.T, (indices, SHARES.T), axis=0)


NUMBERS = ("label_smoothing", "z_loss", "scale", "softcap", "denominator")
BAD_NUMBERS = ("0.5", True, np.True_, 0.5j, [0.5, 0.5], np.array([0.5]), {}, len)

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
    "grad_output shape": (
        ValueError,
        r"^grad_output has shape \(4,\), but losses reduced by 'mean' have shape \(\)$",
        {"grad_output": np.ones(4)},
    ),
    "grad_output shape, rows": (
        ValueError,
        r"grad_output has shape \(3,\), but the losses have shape \(4,\)",
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


def assert_nothing_is_written(error, message, target, **options):
    """Check that the three functions raise the error, and that what they were to write to is as it was."""
    grad, loss = np.full_like(X, 7), np.full((4,) if options.get("reduction") == "none" else (), 7, np.float32)
    with pytest.raises(error, match=message):
        xent.cross_entropy(X, target, **options)
    with pytest.raises(error, match=message):
        xent.cross_entropy(X, target, out=loss, **options)
    with pytest.raises(error, match=message):
        xent.cross_entropy_and_grad(X, target, loss_out=loss, grad_out=grad, **options)
    with pytest.raises(error, match=message):
        xent.cross_entropy_grad(X, target, grad_out=grad, **options)
    np.testing.assert_array_equal(grad, 7)
    np.testing.assert_array_equal(loss, 7)


@cases(BAD_TARGETS)
def test_targets(error, message, bad):
    assert_nothing_is_written(error, message, bad)


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


@cases(BAD_LOSS_OPTIONS)
def test_loss_options(error, message, bad):
    assert_nothing_is_written(error, message, T, **bad)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
def test_numbers(name, bad):
    assert_nothing_is_written(TypeError, f"^{name} must be a real number, not ", T, **{name: bad})


@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "scale"])
def test_numbers_that_have_a_default_are_not_none(name):
    assert_nothing_is_written(TypeError, f"^{name} must be a real number, not None$", T, **{name: None})


@pytest.mark.parametrize("target", [np.full((4, 3), 1 / 3), (LISTED, SHARES)], ids=["probabilities", "sparse"])
def test_options_of_labels(target):
    assert_nothing_is_written(ValueError, "^ignore_index is for a target of labels$", target, ignore_index=-100)
    assert_nothing_is_written(TypeError, "^ignore_index must be an integer, not 1.5$", target, ignore_index=1.5)


def test_options_of_sparse_targets():
    probabilities = np.full((4, 3), 1 / 3)
    assert_nothing_is_written(ValueError, "^tail is for a target of", probabilities, tail="uniform")


def test_an_ignored_label_may_be_out_of_range_but_no_other():
    target = [-100, 1, 2, 3]
    assert_nothing_is_written(IndexError, r"^target\[0\] = -100 is out of range for 3 classes$", target)
    assert_nothing_is_written(IndexError, r"^target\[3\] = 3 is out of range for 3 cla", target, ignore_index=-100)
    assert np.isfinite(xent.cross_entropy(X, [-100, 1, 2, 0], ignore_index=-100))


INVALID = {
    "too much": (r"^the probabilities of target\[2\] sum to 1.5, not to 1$", 2, [0.5, 0.5, 0.5]),
    "too little": (r"^the probabilities of target\[1\] sum to 0.99998, not to 1$", 1, [0.99998, 0, 0]),
    "nothing": (r"^the probabilities of target\[0\] sum to 0, not to 1$", 0, [0, 0, 0]),
    "negative": (r"^the probabilities of target\[3\]: number 1 is -0.5, which is negative$", 3, [1, -0.5, 0.5]),
    "NaN": (r"^the probabilities of target\[3\]: number 2 is not a number$", 3, [0.5, 0.5, np.nan]),
    "infinite": (r"^the probabilities of target\[3\] sum to inf, not to 1$", 3, [np.inf, 0, 0]),
    "both infinities": (r"^the probabilities of target\[3\]: number 1 is -inf", 3, [np.inf, -np.inf, 0]),
}


@pytest.mark.parametrize(("message", "row", "bad"), INVALID.values(), ids=INVALID.keys())
def test_validate(message, row, bad):
    target = np.full((4, 3), 1 / 3)
    target[row] = bad
    assert_nothing_is_written(ValueError, message, target, validate=True)
    indices = np.broadcast_to(np.arange(3), (4, 3))
    for tail in (None, "zero"):
        assert_nothing_is_written(ValueError, message, (indices, target), validate=True, tail=tail)
    weight = np.ones(4)
    weight[row] = 0
    xent.cross_entropy(X, target, sample_weight=weight, validate=True)
    with np.errstate(all="ignore"):
        xent.cross_entropy(X, target)


def test_validate_leaves_room_for_a_tail():
    target = (LISTED, np.array([[0.5, 0.25], [1, 0], [0.9, 0.3], [0, 0]]))
    message = r"^the probabilities of target\[2\] sum to 1.2, which is more than 1$"
    assert_nothing_is_written(ValueError, message, target, validate=True, tail="uniform")
    target[1][2] = 0.5
    xent.cross_entropy(X, target, validate=True, tail="uniform")
    message = r"^the probabilities of target\[0\] sum to 0.75, not to 1$"
    assert_nothing_is_written(ValueError, message, target, validate=True)


@pytest.mark.parametrize(("dtype", "off"), [(np.float16, 1e-3), (np.float32, 1e-5), (np.float64, 1e-5)])
def test_validate_allows_what_rounding_does(dtype, off):
    for sign in (-1, 1):
        target = np.array([[0.5, 0.5 + 0.9 * sign * off, 0.0]]).astype(dtype)
        xent.cross_entropy(X[:1], target, validate=True)
        target = np.array([[0.5, 0.5 + 2 * sign * off, 0.0]]).astype(dtype)
        with pytest.raises(ValueError, match=r"^the probabilities of target\[0\] sum to"):
            xent.cross_entropy(X[:1], target, validate=True)


def test_validate_finds_the_row_in_any_layout():
    target = np.full((40, 3, 50, 30), 1 / 3)
    target[31, :, 42, 17] = 0.25
    message = r"^the probabilities of target\[31, 42, 17\] sum to 0.75, not to 1$"
    with pytest.raises(ValueError, match=message):
        xent.cross_entropy(np.zeros(target.shape, np.float32), target, axis=1, validate=True)
    with pytest.raises(ValueError, match=r"^the probabilities of target sum to 2, not to 1$"):
        xent.cross_entropy(np.zeros(3), [1.0, 0.5, 0.5], validate=True)
    one = np.zeros((2, 100_000), np.float32)
    one[:, 7] = 1
    xent.cross_entropy(one, one, validate=True)


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
    for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
        with pytest.raises(ValueError, match=r"^scale must be between 1e-30 and 1e\+30, not 0.0$"):
            function(X, scale=0.0)
        with pytest.raises(TypeError, match=r"^scale must be a real number, not None$"):
            function(X, scale=None)


def test_outputs_for_half_precision():
    half = X.astype(np.float16)
    message = "grad_out has dtype float64, but the result is float16 or float32$"
    with pytest.raises(TypeError, match=message):
        xent.cross_entropy_grad(half, T, grad_out=np.zeros((4, 3)))
    for dtype in (np.float16, np.float64):
        with pytest.raises(TypeError, match=f"out has dtype {np.dtype(dtype)}, but the result is float32$"):
            xent.cross_entropy(half, T, out=np.zeros((), dtype))
        with pytest.raises(TypeError, match=f"out has dtype {np.dtype(dtype)}, but the result is float32$"):
            xent.logsumexp(half, out=np.zeros(4, dtype))


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


def test_results_without_elements_have_any_strides():
    x = np.empty((0, 5), np.float32)
    out = np.empty_like(x)
    assert xent.softmax(x, out=out) is out
    assert xent.cross_entropy_grad(x, np.empty(0, int), reduction="sum", grad_out=out) is out
