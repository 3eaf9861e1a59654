"""evaluate against the oracle; its bits; ties, rows without a result, errors."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from families import BLOCK
from problems import DTYPES, HALVES, LAYOUTS, laid_out

import xent
from xent import reference

inf, nan = np.inf, np.nan

# Of log-probabilities and entropies, relative to themselves: none is a difference.
TOLERANCE = {"float32": 4e-7, "float64": 1e-14}
TOLERANCE_OF_ENTROPY = {"float32": 1e-6, "float64": 1e-13}
SMALLEST = {"float32": 2.0**-126, "float64": 2.0**-1022}
CLASSES = [1, 2, 3, 15, 16, 17, 127, 128, 129, 192, 193, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 900]


def logits_of(rng, shape, kind):
    """Return rows of a kind, the classes last."""
    x = rng.normal(size=shape) * 4
    if kind == "ties":
        return np.round(x)
    if kind == "equal":
        return np.full(shape, 3.0)
    if kind == "ascending":
        return np.sort(x, axis=-1)
    if kind == "confident":
        np.put_along_axis(x, rng.integers(shape[-1], size=(*shape[:-1], 1)), x.max() + rng.choice([5, 20, 60]), -1)
    if kind == "large":
        return x + rng.choice([-3000, 500, 3000])
    if kind == "masked":
        x[rng.random(shape) < 0.7] = -inf
        x[..., rng.integers(shape[-1])] = 0.5
    if kind == "blocks":  # of different sizes
        x += np.repeat(rng.normal(size=-(-shape[-1] // 1000)) * 300, 1000)[: shape[-1]]
    if kind == "special":
        x[rng.random(shape) < rng.choice([1 / shape[-1], 1])] = rng.choice([nan, inf, -inf])
    return x


KINDS = ["plain", "ties", "equal", "ascending", "confident", "large", "masked", "blocks", "special"]


@st.composite
def calls(draw, dtype):
    """Return logits and the other arguments of evaluate."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (*draw(st.sampled_from([(), (1,), (3,), (2, 3)])), draw(st.sampled_from(CLASSES)))
    axis = draw(st.sampled_from(range(-len(shape), len(shape))))
    layouts = [layout for layout in LAYOUTS if layout != "repeated" or len(shape) > 1]
    x = np.moveaxis(logits_of(rng, shape, draw(st.sampled_from(KINDS))).astype(dtype), -1, axis)
    given = {"axis": axis, "top_k": draw(st.sampled_from([0, 1, 2, 5, 40]))}
    if draw(st.booleans()):
        given["target"] = rng.integers(shape[-1], size=shape[:-1]).astype(draw(st.sampled_from([np.int64, np.uint16])))
    if draw(st.booleans()):
        mask = rng.random(shape[-1]) < 0.5
        given["class_mask"] = mask if draw(st.booleans()) else np.moveaxis(np.broadcast_to(mask, shape), -1, axis)
    if draw(st.booleans()):
        given["scale"] = draw(st.sampled_from([0.5, 0.1, 14.3]))
    if draw(st.booleans()):
        given["softcap"] = draw(st.sampled_from([1.0, 30.0]))
    return laid_out(x, draw(st.sampled_from(layouts))), given


def size_and_error_of_z(x, given, dtype):
    """Return how large z is in each row, and what rounding it adds to the error of a difference of two."""
    unit = 2.0**-53 if dtype == np.float64 else 2.0**-24
    rows = reference._rows(x.astype(np.float64), given["axis"])
    z = given.get("scale", 1.0) * np.where(np.isfinite(rows), rows, 0)
    size = np.abs(z).max(axis=1, keepdims=True)
    if "softcap" not in given:
        return size, 2 * unit * size * ("scale" in given)
    return np.minimum(size, given["softcap"]), 8 * unit * (given["softcap"] + np.minimum(size, 400))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_oracle(dtype):
    of_sums = np.dtype(np.float32 if dtype in HALVES else dtype)

    @hypothesis.settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @hypothesis.given(call=calls(dtype))
    def all_good(call):
        x, given = call
        found = xent.evaluate(x, **given)
        expected = reference.evaluate(x.astype(np.float64), **given)
        dtypes = reference.evaluate(x, **given)
        z_size, z_error = size_and_error_of_z(x, given, dtype)
        for name in found._fields:
            actual, exact = getattr(found, name), getattr(expected, name)
            if exact is None:
                assert actual is None
                continue
            of_oracle = getattr(dtypes, name)
            assert type(actual) is type(of_oracle)
            assert (actual.dtype, actual.shape) == (of_oracle.dtype, of_oracle.shape)
            if actual.dtype.kind == "i":
                np.testing.assert_array_equal(actual, exact, err_msg=name)
                continue
            if name.startswith("top_k"):
                actual, exact = (np.moveaxis(part, given["axis"], -1) for part in (actual, exact))
            actual, exact = (np.asarray(part).reshape(len(z_size), -1) for part in (actual, exact))
            relative = (TOLERANCE_OF_ENTROPY if name == "entropy" else TOLERANCE)[of_sums.name]
            with np.errstate(all="ignore"):
                rounded = exact.astype(of_sums).astype(np.float64)
                size = np.abs(exact) + (z_size if name == "lse" else 0)
                # q changes by a factor, and each ln q by what z does
                bound = relative * size + z_error * (size if name == "entropy" else 1) * 2 + SMALLEST[of_sums.name]
                if name == "entropy":
                    bound += z_error * exact * np.abs(np.log(np.maximum(exact, 1e-300)))
                wide = actual.astype(np.float64)
                good = (np.abs(wide - exact) <= bound) | (wide == rounded) | (np.isnan(wide) & np.isnan(exact))
            assert good.all(), (name, wide[~good], exact[~good])

    all_good()


@pytest.mark.parametrize("margin", [1, 20, 60, 300])
@pytest.mark.parametrize("classes", [2, 100, 10_000])
def test_entropy_of_confident_rows(rng, dtype, classes, margin):
    """It is a sum of positive terms, however small."""
    x = rng.normal(size=(20, classes))
    x[np.arange(20), rng.integers(classes, size=20)] = x.max() + margin
    x = x.astype(dtype)
    exact = reference.evaluate(x.astype(np.float64)).entropy
    expressible = exact > SMALLEST[np.dtype(dtype).name]
    actual = xent.evaluate(x).entropy
    tolerance = TOLERANCE_OF_ENTROPY[np.dtype(dtype).name]
    np.testing.assert_allclose(actual[expressible], exact[expressible], rtol=tolerance)
    np.testing.assert_allclose(actual[~expressible], exact[~expressible], atol=SMALLEST[np.dtype(dtype).name])


def test_log_prob_is_that_of_the_loss(rng, dtype):
    x, labels = (rng.normal(size=(50, 3000)) * 10).astype(dtype), rng.integers(3000, size=50)
    found = xent.evaluate(x, labels, top_k=3)
    tolerance = {"rtol": 2 * np.finfo(dtype).eps}
    np.testing.assert_allclose(-found.log_prob, xent.cross_entropy(x, labels, reduction="none"), **tolerance)
    np.testing.assert_allclose(found.lse, xent.logsumexp(x), **tolerance)
    np.testing.assert_array_equal(found.top_k_indices[:, 0], found.argmax)
    again = xent.evaluate(x, found.top_k_indices[:, 2], top_k=3)
    np.testing.assert_array_equal(again.rank, 2)
    np.testing.assert_array_equal(again.log_prob, found.top_k_log_probs[:, 2])


@pytest.mark.parametrize("classes", [2, 10, 128, 129, 192, 193])
def test_more_first_classes_than_are_left(dtype, classes):
    """What is masked is found again and again, and stays as it is."""
    x = np.full((20, classes), -inf, dtype)
    x[:, 0] = np.arange(20)
    x[10:, 1] = 5
    found = xent.evaluate(x, np.zeros(20, int), top_k=classes)
    np.testing.assert_array_equal(found.lse[:10], np.arange(10))
    np.testing.assert_array_equal(found.log_prob[:10], 0)
    np.testing.assert_array_equal(found.top_k_indices[:10, 0], 0)
    np.testing.assert_array_equal(found.top_k_indices[:10, 1:], -1)
    np.testing.assert_array_equal(found.top_k_indices[10:, :2], np.repeat([[0, 1]], 10, axis=0))
    np.testing.assert_allclose(found.lse, reference.logsumexp(x.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize("classes", [5, BLOCK, BLOCK + 1, 14_000])
def test_of_equal_classes_the_first_is_first(dtype, classes):
    x = np.zeros((1, classes), dtype)
    x[0, [1, classes - 1]] = 2
    for label, rank in ((1, 0), (classes - 1, 1), (0, 2), (2, 3), (classes - 2, classes - 1)):
        assert xent.evaluate(x, [label]).rank == rank
    found = xent.evaluate(x, top_k=4)
    assert found.argmax == 1
    np.testing.assert_array_equal(found.top_k_indices, [[1, classes - 1, 0, 2]])


@pytest.mark.parametrize("classes", [2, 100, 300])
def test_lse_near_zero_with_a_softcap(rng, dtype, classes):
    """It has few digits of its own; what a float does not hold of the tanh has to be among them."""
    x = rng.normal(-np.log(classes), 0.1, size=(1000, classes)).astype(dtype)
    exact = reference.evaluate(x.astype(float), softcap=30.0).lse
    assert np.abs(exact).max() < 0.5
    actual = xent.evaluate(x, softcap=30.0, outputs=["lse"]).lse
    np.testing.assert_allclose(actual, exact, rtol=1e-7 if dtype == np.float32 else 1e-12, atol=1e-14)


def test_a_softcap_does_not_make_ties(dtype):
    x = np.zeros((1, 3000), dtype)
    x[0, [7, 2900]] = 300, 301
    found = xent.evaluate(x, [7], softcap=1.0, top_k=2)
    assert found.argmax == 2900
    assert found.rank == 1
    np.testing.assert_array_equal(found.top_k_indices, [[2900, 7]])


@pytest.mark.parametrize("row", [[nan, 0, 1], [0, inf, 1], [-inf, -inf, -inf]])
@pytest.mark.parametrize("classes", [3, 10_000])
def test_rows_without_a_result(dtype, row, classes):
    x = np.zeros((3, classes), dtype)
    x[1] = -inf
    x[1, -3:] = row
    found = xent.evaluate(x, [0, 1, 2], top_k=2)
    for numbers in (found.log_prob, found.lse, found.entropy, *found.top_k_log_probs.T):
        np.testing.assert_array_equal(np.isnan(numbers), [False, True, False])
    for integers in (found.argmax, found.rank, *found.top_k_indices.T):
        np.testing.assert_array_equal(integers == -1, [False, True, False])


def test_too_few_classes_to_list():
    found = xent.evaluate(np.array([[1.0, -inf, 3.0, 0.0]]), class_mask=[True, True, True, False], top_k=6)
    np.testing.assert_array_equal(found.top_k_indices, [[2, 0, -1, -1, -1, -1]])
    np.testing.assert_array_equal(np.isneginf(found.top_k_log_probs), [[False, False, True, True, True, True]])


def test_a_masked_label():
    found = xent.evaluate(np.array([[1.0, 5.0, 3.0]]), [1], class_mask=[True, False, True])
    assert found.rank == 2
    assert found.log_prob == -inf


OF_ROWS = ("log_prob", "lse", "argmax", "rank", "entropy")


@pytest.mark.parametrize("shape", [(50, 7), (9, 3 * BLOCK)])
@pytest.mark.parametrize("outputs", [(), *([name] for name in OF_ROWS), ("rank", "rank", "argmax")], ids=str)
@pytest.mark.parametrize("top_k", [0, 3])
def test_only_some_outputs(rng, dtype, shape, outputs, top_k):
    """Each is the same, to the last bit, whether others are computed or not."""
    x, labels = (rng.normal(size=shape) * 4).astype(dtype), rng.integers(shape[1], size=shape[0])
    everything = xent.evaluate(x, labels, top_k=top_k)
    some, of_oracle = (of(x, labels, top_k=top_k, outputs=iter(outputs)) for of in (xent.evaluate, reference.evaluate))
    for name in some._fields:
        if name in OF_ROWS and name not in outputs:
            assert getattr(some, name) is None
            assert getattr(of_oracle, name) is None
        else:
            assert getattr(some, name).tobytes() == getattr(everything, name).tobytes()
            assert getattr(of_oracle, name) is not None


def test_no_rows_and_no_label(dtype):
    found = xent.evaluate(np.zeros((0, 4), dtype), top_k=2)
    assert found.log_prob is None
    assert found.rank is None
    assert found.lse.shape == found.argmax.shape == (0,)
    assert found.top_k_indices.shape == (0, 2)


# ---- Bits ----------------------------------------------------------------------------------------------------------


def same_bits(a, b):
    return all(part.tobytes() == other.tobytes() for part, other in zip(a, b, strict=True))


@pytest.mark.parametrize("shape", [(2000, 30), (100, 3000), (3, 50_000), (1, 300_000)])
@pytest.mark.parametrize("options", [{}, {"scale": 0.7, "softcap": 20.0}])
def test_threads_change_nothing(rng, dtype, shape, options):
    x, labels = (rng.normal(size=shape) * 4).astype(dtype), rng.integers(shape[1], size=shape[0])
    one, *more = (xent.evaluate(x, labels, top_k=7, n_threads=n, **options) for n in (1, 2, 5))
    for several in more:
        assert same_bits(one, several)


@pytest.mark.parametrize("classes", [3, 128, BLOCK + 1, 18_000])
def test_a_row_depends_on_itself_alone(rng, dtype, classes):
    x, labels = (rng.normal(size=(70, classes)) * 4).astype(dtype), rng.integers(classes, size=70)
    found = xent.evaluate(x, labels, top_k=3)
    x[1::2] = nan
    x[3::4] = 1000  # the others' neighbours
    for rows in (slice(0, 1), slice(4, None, 2), slice(0, None, 2)):
        assert same_bits(xent.evaluate(x[rows], labels[rows], top_k=3), [part[rows] for part in found])
        strided = laid_out(x[rows], "strided")
        assert same_bits(xent.evaluate(strided, labels[rows], top_k=3), [part[rows] for part in found])


# ---- Errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"top_k": -1}, ValueError, "top_k must be at least 0, not -1"),
        ({"top_k": 1.5}, TypeError, "top_k must be an integer, not 1.5"),
        ({"target": [0, 3]}, IndexError, r"target\[1\] = 3 is out of range for 3 classes"),
        ({"target": [0, -1]}, IndexError, r"target\[1\] = -1 is out of range for 3 classes"),
        ({"target": [0]}, ValueError, r"target has shape \(1,\), but logits of shape \(2, 3\) need \(2,\)"),
        ({"target": np.ones((2, 3))}, TypeError, "target must be integers"),
        ({"target": [0.0, 1.0]}, TypeError, "target must be integers"),
        ({"logits": np.zeros((2, 3), complex)}, TypeError, "logits must be"),
        ({"logits": 1.0}, ValueError, "logits must have at least one axis"),
        ({"logits": np.zeros((2, 0))}, ValueError, "has no classes"),
        ({"axis": 2}, ValueError, "axis 2 is out of range"),
        ({"scale": 0.0}, ValueError, r"scale must be between 1e-30 and 1e\+30"),
        ({"scale": "1"}, TypeError, "scale must be a real number"),
        ({"softcap": -1.0}, ValueError, r"softcap must be between 1e-30 and 1e\+30"),
        ({"class_mask": [1, 1, 1]}, TypeError, "class_mask must be booleans"),
        ({"class_mask": [True, False]}, ValueError, r"class_mask has shape \(2,\)"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ({"outputs": ["lse", "top_k"]}, ValueError, r"outputs\[1\] must be one of 'log_prob', .*, not 'top_k'"),
        ({"outputs": ["rank"], "target": None}, ValueError, "^outputs has 'rank', which needs a target$"),
        ({"top_k": 10**30}, ValueError, r"^top_k = 1(0){30} classes of each row are more than any array has$"),
        ({"outputs": [1]}, TypeError, r"outputs\[0\] must be one of"),
        ({"outputs": "lse"}, TypeError, "outputs must be an iterable of strings, not 'lse'"),
        ({"outputs": 1}, TypeError, "outputs must be an iterable of strings, not 1"),
    ],
)
def test_errors(change, error, message):
    given = {"logits": np.zeros((2, 3)), "target": [0, 2], **change}
    with pytest.raises(error, match=message):
        xent.evaluate(**given)
