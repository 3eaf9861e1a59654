"""Classes in shards: the bits of whole rows where cuts are between blocks, the oracle's bounds where they are not."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from families import BLOCK
from problems import DTYPES, Case, cases, float64_case
from test_options import TOLERANCE, Bounds, check_grad, check_loss, examples, problem_of, same_bits, unit

import xent
from xent import reference

inf, nan = np.inf, np.nan

OF_CLASSES = ("weight", "class_mask")
OF_RESULTS = ("reduction", "denominator")
RNG = np.random.default_rng(5)


# ---- Shards of a case ----------------------------------------------------------------------------------------------


def is_probabilities(target):
    return not isinstance(target, tuple) and np.asarray(target).dtype.kind not in "iu"


def classes_of(array, axis, first, stop):
    array = np.asarray(array)
    index = [slice(None)] * array.ndim
    index[0 if array.ndim == 1 else axis] = slice(first, stop)
    return array[tuple(index)]


class Shards:
    """The shards of a case between cuts."""

    def __init__(self, case: Case, cuts: list[int]) -> None:
        self.case = case
        stops = [*cuts, case.logits.shape[case.axis]]
        self.ranges = list(zip([0, *cuts], stops, strict=True))
        self.results = {k: v for k, v in case.options.items() if k in OF_RESULTS}

    def logits(self, first, stop):
        return classes_of(self.case.logits, self.case.axis, first, stop)

    def target(self, first, stop):
        case = self.case
        return classes_of(case.target, case.axis, first, stop) if is_probabilities(case.target) else case.target

    def of_classes(self, first, stop):
        given = {k: v for k, v in self.case.options.items() if k in OF_CLASSES}
        return {k: classes_of(v, self.case.axis, first, stop) for k, v in given.items()}

    def statistics(self, module: Any = xent, **more: Any) -> list[Any]:
        given = {k: v for k, v in self.case.options.items() if k not in (*OF_CLASSES, *OF_RESULTS)}
        return [
            module.partial_statistics(
                self.logits(*r), self.target(*r), offset=r[0], **self.of_classes(*r), **given, **more
            )
            for r in self.ranges
        ]

    def grads(self, whole: Any, **more: Any) -> list[Any]:
        return [
            whole.grad(
                self.logits(*r),
                self.target(*r) if is_probabilities(self.case.target) else None,
                offset=r[0],
                grad_output=self.case.grad_output,
                **self.of_classes(*r),
                **self.results,
                **more,
            )
            for r in self.ranges
        ]

    def grad(self, whole: Any, **more: Any) -> Any:
        return np.concatenate(self.grads(whole, **more), axis=self.case.axis)


def sent(statistics):
    """Return what another process gets."""
    return [pickle.loads(pickle.dumps(part)) for part in statistics]  # noqa: S301


def merged(draw, statistics):
    """Merge in any order, some of them before the others."""
    statistics = draw(st.permutations(statistics))
    some = draw(st.integers(0, len(statistics)))
    if some:
        statistics = [xent.merge_statistics(statistics[:some]), *statistics[some:]]
    return xent.merge_statistics(part for part in statistics)


def expected(case):
    return xent.cross_entropy_and_grad(case.logits, case.target, grad_output=case.grad_output, **case.options)


def check_lse(case, whole):
    exact_case = float64_case(case)
    with np.errstate(all="ignore"):
        problem = problem_of(exact_case)
        rows, bounds = problem.rows, Bounds.of(exact_case)
        size = np.maximum(0.5, np.abs(rows.z_m) + rows.log_sum)
        lse = np.where(problem.counts, rows.lse[:, 0], 0).reshape(case.rows)
        actual = np.asarray(whole.logsumexp())
        bound = (TOLERANCE[actual.dtype.name] + 2 * unit(case.logits.dtype) * bounds.z_error[:, :1]) * size
        good = np.abs(actual - lse) <= bound[:, 0].reshape(case.rows)
    assert np.all(good | (np.isnan(lse) & np.isnan(actual)))


MANY = {
    "rows": [(), (1,), (3,), (2, 2)],
    "classes": [193, 1000, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3, 3 * BLOCK + 700],
}
FEW = {"rows": [(), (3,), (2, 3)], "classes": [2, 3, 5, 17, 100, 128, 192]}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
class TestAgainstWholeRows:
    """Any combination of options, any cuts."""

    def test_bits_where_cuts_are_between_blocks(self, dtype):
        @examples(60)
        @hypothesis.given(case=cases(dtypes=[dtype], **MANY), data=st.data())
        def all_good(case, data):
            between = range(BLOCK, case.logits.shape[case.axis], BLOCK)
            cuts = [cut for cut in between if data.draw(st.booleans())]
            shards = Shards(case, cuts)
            whole = merged(data.draw, sent(shards.statistics()))
            loss, grad = expected(case)
            assert same_bits(whole.finish(**shards.results), loss)
            assert same_bits(shards.grad(whole), grad)
            check_lse(case, whole)

        all_good()

    @pytest.mark.parametrize(("sizes", "many"), [(FEW, 60), (MANY, 40)], ids=["few classes", "many classes"])
    def test_bounds_anywhere(self, dtype, sizes, many):
        @examples(many)
        @hypothesis.given(case=cases(dtypes=[dtype], **sizes), data=st.data())
        def all_good(case, data):
            classes = case.logits.shape[case.axis]

            def drawn():
                return Shards(case, sorted(data.draw(st.sets(st.integers(1, classes - 1), max_size=4))))

            shards, others = drawn(), drawn()  # the gradient's need not be those of the statistics
            whole = merged(data.draw, shards.statistics())
            exact_case = float64_case(case)
            bounds = Bounds.of(exact_case)
            check_loss(case, exact_case, bounds, whole.finish(**shards.results))
            check_grad(case, exact_case, bounds, others.grad(whole))
            check_lse(case, whole)

        all_good()


def test_the_oracle_joins_shards():
    @examples(60)
    @hypothesis.given(case=cases(dtypes=[np.float64], **FEW), data=st.data())
    def all_good(case, data):
        cuts = sorted(data.draw(st.sets(st.integers(1, case.logits.shape[case.axis] - 1), max_size=4)))
        shards = Shards(case, cuts)
        whole = reference.merge_statistics(shards.statistics(reference)[::-1])
        loss, grad = reference.cross_entropy_and_grad(
            case.logits, case.target, grad_output=case.grad_output, **case.options
        )
        np.testing.assert_allclose(whole.finish(**shards.results), loss, rtol=1e-12)
        np.testing.assert_allclose(shards.grad(whole), grad, rtol=1e-12, atol=1e-300)
        with np.errstate(all="ignore"):
            problem = problem_of(case)
            lse = np.where(problem.counts, problem.rows.lse[:, 0], 0).reshape(case.rows)
        np.testing.assert_allclose(whole.logsumexp(), lse, rtol=1e-12)

    all_good()


# ---- Merging -------------------------------------------------------------------------------------------------------


TARGETS = {
    "labels": lambda rows, classes: RNG.integers(classes, size=rows),
    "probabilities": lambda rows, classes: RNG.random((rows, classes)),
    "sparse": lambda rows, classes: (RNG.integers(classes, size=(rows, 4)), RNG.random((rows, 4))),
}


def shards_of(x, target, cuts, **options):
    return Shards(Case(x, target, {"axis": -1, "reduction": "none", **options}, 1.0), cuts)


def whole_of(x, target, cuts, **options):
    return xent.merge_statistics(shards_of(x, target, cuts, **options).statistics())


def test_the_order_of_merging_changes_nothing():
    x = RNG.normal(size=(3, 18_000)).astype(np.float32)
    target = RNG.integers(18_000, size=(3, 4)), RNG.random((3, 4))
    a, b, c = shards_of(x, target, [BLOCK, 10_000], tail="uniform").statistics()
    merge = xent.merge_statistics
    wholes = [merge([a, b, c]), merge([c, a, b]), merge([merge([c, b]), a]), merge([b, merge([a, c])])]
    for whole in wholes[1:]:
        assert same_bits(whole.blocks, wholes[0].blocks)
        assert same_bits(whole.listed, wholes[0].listed)
        assert same_bits(whole.ranges, wholes[0].ranges)
        assert same_bits(whole.finish(), wholes[0].finish())


def test_statistics_are_plain_arrays(tmp_path):
    x = RNG.normal(size=(2, 3, 10_000))
    part = xent.partial_statistics(x, np.zeros((2, 3), int), offset=100)
    assert part.blocks.shape == (2, 3, 3)
    assert part.blocks.dtype.itemsize == 128
    assert part.ranges.tolist() == [[100, 4196], [4196, 8292], [8292, 10_100]]
    assert part.n_classes == 10_100
    assert repr(part) == "<PartialStatistics of the classes 100:10100, rows of shape (2, 3)>"
    np.save(tmp_path / "blocks.npy", part.blocks)
    assert same_bits(np.load(tmp_path / "blocks.npy"), part.blocks)


def test_fields():
    x = np.array([[1.0, 3.0, 2.0, 0.5]])
    (block,) = xent.partial_statistics(x, [12], offset=10).blocks[0]
    assert block["kept"] == 12
    assert block["logit"] == 2
    assert block["slope"] == block["label"] == block["weight"] == 1
    assert block["top"] == 3
    total = (block["sum"] + block["low"]) * 2 ** block["exponent"] * np.exp(block["shift"])
    assert total == pytest.approx(np.exp([1, 3, 0.5]).sum(), rel=1e-15)
    (block,) = xent.partial_statistics(x, [3], offset=10, weight=[1, 2, 3, 4], label_smoothing=0.1).blocks[0]
    assert block["kept"] == -1
    assert (block["weight_mass"], block["unmasked"]) == (10, 4)
    assert block["weight_spread"] == pytest.approx(1 * 2 + 2 * 0 + 3 * 1 + 4 * 2.5, rel=1e-15)
    t = [[0.1, 0.2, 0.3, 0.4]]
    (block,) = xent.partial_statistics(x, t, offset=10, weight=[1, 2, 3, 4]).blocks[0]
    assert (block["kept"], block["logit"], block["label"], block["top"]) == (11, 3, 0.4, 2)
    assert block["label_mass"] == pytest.approx(0.1 + 0.9 + 1.6, rel=1e-15)
    assert block["label_spread"] == pytest.approx(0.1 * 1 + 0.9 * 0 + 1.6 * 1.5, rel=1e-15)


def test_labels_are_those_of_the_call():
    x, target = RNG.normal(size=(3, 300)), np.array([5, 299, 0])
    part = xent.partial_statistics(x, target)
    loss = part.finish()
    target[:] = 7
    assert part.finish() == loss


# ---- Rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values(dtype):
    x = RNG.normal(size=(9, 10_000)).astype(dtype)
    target = np.full(9, 9500)
    x[0, :BLOCK] = -inf  # a shard of nothing
    x[1, BLOCK:] = -inf  # and the label's own
    x[2] = -inf
    x[3, 17] = nan
    x[4, 9500] = nan
    x[5, 100] = inf
    x[6, 9500] = inf
    x[7, 9500] = -inf
    shards = shards_of(x, target, [BLOCK])
    whole = xent.merge_statistics(shards.statistics())
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none")
    assert same_bits(whole.finish(reduction="none"), loss)
    assert np.isinf(loss[1])
    assert same_bits(shards.grad(whole), grad)
    assert same_bits(whole.logsumexp(), xent.logsumexp(x))


def test_rows_that_do_not_count_are_not_read():
    x = RNG.normal(size=(4, 10_000))
    x[1] = x[3] = nan
    given = {"ignore_index": -1, "sample_weight": np.array([1, 1, 2, 0])}
    shards = shards_of(x, np.array([8000, -1, 3, 2]), [BLOCK], reduction="mean", **given)
    whole = xent.merge_statistics(shards.statistics())
    assert np.all(whole.blocks[[1, 3]]["kept"] == -1)
    assert np.all(whole.blocks[[1, 3]]["sum"] == 0)
    assert whole.logsumexp()[[1, 3]].tolist() == [0, 0]
    loss, grad = xent.cross_entropy_and_grad(x, [8000, -1, 3, 2], **given)
    assert same_bits(whole.finish(), loss)
    assert same_bits(shards.grad(whole), grad)


@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
def test_bits_do_not_depend_on_threads(kind):
    x = RNG.normal(size=(3, 90_000)).astype(np.float32)  # few rows: threads share their blocks
    target = TARGETS[kind](3, 90_000)
    options = {"weight": RNG.random(90_000), "label_smoothing": 0.1, "softcap": 20.0}
    shards = shards_of(x, target, [20 * BLOCK], **options)
    loss, grad = xent.cross_entropy_and_grad(x, target, reduction="none", n_threads=1, **options)
    for threads in (1, 2, 5):
        whole = xent.merge_statistics(shards.statistics(n_threads=threads))
        assert same_bits(whole.finish(reduction="none", n_threads=threads), loss)
        assert same_bits(shards.grad(whole, n_threads=threads), grad)


EACH_OPTION = {
    "none": {},
    "weight": {"weight": RNG.random(10_000)},
    "sample_weight": {"sample_weight": np.array([1.0, 0.5, 2])},
    "class_mask": {"class_mask": RNG.random(10_000) < 0.7},
    "label_smoothing": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 0.1},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 3.0},
    "ignore_index": {"ignore_index": 7},
    "tail": {"tail": "uniform"},
    "denominator": {"denominator": 7.0},
}


@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
@pytest.mark.parametrize("options", EACH_OPTION.values(), ids=EACH_OPTION.keys())
def test_each_option_alone(kind, options):
    of_kind = {"ignore_index": "labels", "tail": "sparse"}
    if of_kind.get(next(iter(options), ""), kind) != kind:
        pytest.skip("of another kind of target")
    x, target = RNG.normal(size=(3, 10_000)).astype(np.float32), TARGETS[kind](3, 10_000)
    if kind == "labels":
        target[0] = 7
    for reduction in ["mean"] if "denominator" in options else ["mean", "sum", "none"]:
        loss, grad = xent.cross_entropy_and_grad(x, target, reduction=reduction, **options)
        shards = shards_of(x, target, [BLOCK, 2 * BLOCK], **{**options, "reduction": reduction})
        whole = xent.merge_statistics(shards.statistics())
        assert same_bits(whole.finish(**shards.results), loss)
        assert same_bits(shards.grad(whole), grad)


@pytest.mark.parametrize("kind", ["labels", "probabilities", "sparse"])
@pytest.mark.parametrize("rest", [{}, {"sample_weight": np.array([1.0, 0.5, 2])}], ids=["", "sample_weight"])
def test_weights_of_other_shards_are_in_the_mean(kind, rest):
    x, target = RNG.normal(size=(3, 10_000)), TARGETS[kind](3, 10_000)
    weight = RNG.random(10_000)
    loss, grad = xent.cross_entropy_and_grad(x, target, weight=weight, **rest)
    shards = shards_of(x, target, [BLOCK], reduction="mean", weight=weight, **rest)
    whole = xent.merge_statistics(shards.statistics())
    assert same_bits(whole.finish(), loss)
    assert same_bits(shards.grad(whole), grad)
    of_last = xent.merge_statistics(  # one shard has weights, and the others have none
        [
            xent.partial_statistics(x[:, :BLOCK], shards.target(0, BLOCK), **rest),
            xent.partial_statistics(
                x[:, BLOCK:], shards.target(BLOCK, 10_000), offset=BLOCK, weight=weight[BLOCK:], **rest
            ),
        ]
    )
    weight[:BLOCK] = 1
    loss, grad = xent.cross_entropy_and_grad(x, target, weight=weight, **rest)
    assert same_bits(of_last.finish(), loss)
    shards = shards_of(x, target, [BLOCK], reduction="mean", weight=weight, **rest)
    assert same_bits(shards.grad(of_last), grad)
    first = shards.target(0, BLOCK) if kind == "probabilities" else None
    assert same_bits(of_last.grad(x[:, :BLOCK], first), grad[:, :BLOCK])


@pytest.mark.parametrize("threads", [1, 3])
def test_many_rows(threads):
    x, target = RNG.normal(size=(300, BLOCK + 252)), RNG.integers(BLOCK + 252, size=300)
    sample_weight = RNG.choice([0, 1, 2], size=300)
    shards = shards_of(x, target, [BLOCK], reduction="mean", sample_weight=sample_weight)
    whole = xent.merge_statistics(shards.statistics(n_threads=threads))
    loss, grad = xent.cross_entropy_and_grad(x, target, sample_weight=sample_weight)
    assert same_bits(whole.finish(n_threads=threads), loss)
    assert same_bits(shards.grad(whole, n_threads=threads), grad)


def test_no_rows():
    x = np.zeros((0, 300), np.float32)
    whole = whole_of(x, np.zeros(0, int), [100])
    assert np.isnan(whole.finish())
    assert whole.finish(reduction="sum") == 0
    assert whole.finish(reduction="none").shape == whole.logsumexp().shape == (0,)
    assert whole.grad(x).shape == x.shape


def test_logsumexp_without_a_target():
    x = RNG.normal(size=(3, 10_000)).astype(np.float32)
    parts = [xent.partial_statistics(x[:, i : i + BLOCK], offset=i, scale=0.3) for i in range(0, 10_000, BLOCK)]
    whole = xent.merge_statistics(parts)
    assert same_bits(whole.logsumexp(), xent.logsumexp(x, scale=0.3))
    oracle = reference.merge_statistics([reference.partial_statistics(x, scale=0.3)])
    np.testing.assert_allclose(whole.logsumexp(), oracle.logsumexp(), rtol=1e-6)
    for call in (whole.finish, lambda: whole.grad(x)):
        with pytest.raises(ValueError, match=r"^the statistics are without a target, and of such there is no loss$"):
            call()
    for option in (
        {"weight": np.ones(10_000)},
        {"sample_weight": np.ones(3)},
        {"label_smoothing": 0.1},
        {"z_loss": 1.0},
    ):
        with pytest.raises(ValueError, match="for a target"):
            xent.partial_statistics(x, **option)


def test_outputs():
    x, target = RNG.normal(size=(3, 300)).astype(np.float16), [0, 100, 299]
    part = xent.partial_statistics(x, target)
    out, losses, lse = np.empty((), np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
    assert part.finish(out=out) is out
    assert out == xent.cross_entropy(x, target)
    assert part.finish(reduction="none", out=losses) is losses
    assert part.logsumexp(out=lse) is lse
    assert same_bits(lse, xent.logsumexp(x))
    wide = np.empty(x.shape, np.float32)
    assert part.grad(x, grad_out=wide) is wide
    assert same_bits(wide, xent.cross_entropy_grad(x, target, grad_out=np.empty_like(wide)))
    exact = xent.cross_entropy_grad(x, target)
    assert part.grad(x, grad_out=x) is x
    assert same_bits(x, exact)


# ---- Errors --------------------------------------------------------------------------------------------------------

X = RNG.normal(size=(4, 10))
T = np.array([0, 5, 9, 3])
LEFT = xent.partial_statistics(X[:, :4], T)
RIGHT = xent.partial_statistics(X[:, 4:], T, offset=4)
WHOLE = xent.merge_statistics([LEFT, RIGHT])


def part_of(stop=4, offset=6, target=T, x=X, **options):
    return xent.partial_statistics(x[:, :stop], target, offset=offset, **options)


BAD_PARTS = {
    "none": (ValueError, "^there are no parts to merge$", []),
    "another type": (TypeError, r"^parts\[1\] must be PartialStatistics, not ndarray$", [LEFT, X]),
    "overlap": (ValueError, "^two of the parts have classes 4 to 5$", [RIGHT, part_of(2, 4), LEFT]),
    "overlap inside": (ValueError, "^two of the parts have classes 5 to 6$", [RIGHT, part_of(2, 5)]),
    "the same twice": (ValueError, "^two of the parts have classes 0 to 3$", [LEFT, LEFT]),
    "rows": (ValueError, r"their rows have the shapes \(4,\) and \(3,\)$", [LEFT, part_of(x=X[:3], target=T[:3])]),
    "dtype": (ValueError, "dtype is float64 and float32$", [LEFT, part_of(x=X.astype(np.float32))]),
    "axis": (ValueError, "axis is 1 and 0$", [LEFT, part_of(x=X[:, :4].T, axis=0)]),
    "labels": (
        ValueError,
        r"^parts\[0\] and parts\[1\] do not go together: target is not",
        [LEFT, part_of(target=T + 1)],
    ),
    "kind": (ValueError, "target_kind is labels and None$", [LEFT, part_of(target=None)]),
    "sample_weight": (ValueError, "sample_weight is not the same$", [LEFT, part_of(sample_weight=np.ones(4))]),
    "ignore_index": (ValueError, "ignore is None and 3$", [LEFT, part_of(ignore_index=3)]),
    "softcap": (ValueError, "softcap is None and 3.0$", [LEFT, part_of(softcap=3.0)]),
    "classes": (ValueError, "classes is None and 10$", [LEFT, part_of(classes=10)]),
    "scale": (ValueError, "scale is 1.0 and 2.0$", [LEFT, part_of(scale=2.0)]),
}


@pytest.mark.parametrize(("error", "message", "parts"), BAD_PARTS.values(), ids=BAD_PARTS.keys())
def test_bad_parts(error, message, parts):
    with pytest.raises(error, match=message):
        xent.merge_statistics(parts)


def results_of(whole):
    """Return all that can be asked of the statistics, and outputs that must stay as they are."""
    loss, lse, grad = np.full((), 7.0), np.full(4, 7.0), np.full((4, 4), 7.0)
    return [
        (lambda: whole.finish(out=loss), loss),
        (lambda: whole.logsumexp(out=lse), lse),
        (lambda: whole.grad(X[:, :4], grad_out=grad), grad),
    ]


BAD_WHOLES = {
    "no first classes": (ValueError, "^the statistics are not of whole rows, without classes 0 to 3$", RIGHT),
    "gaps": (
        ValueError,
        "rows, without classes 4 to 5, classes 7 to 8$",
        xent.merge_statistics([part_of(1, 9), LEFT, part_of(1, 6)]),
    ),
    "one between": (ValueError, "rows, without class 4$", xent.merge_statistics([LEFT, part_of(5, 5)])),
    "no last classes": (ValueError, "rows, without classes 4 to 9$", part_of(4, 0, classes=10)),
    "a label that no part has": (IndexError, r"^target\[1\] = 5 is out of range for 4 classes$", LEFT),
    "a negative label": (IndexError, r"^target\[2\] = -1 is out of range for 4 classes$", part_of(4, 0, [0, 0, -1, 0])),
    "a label just before": (
        IndexError,
        r"^target\[0\] = -1 is out of range for 8 classes$",
        xent.merge_statistics([part_of(4, 0, [-1] * 4), part_of(4, 4, [-1] * 4)]),
    ),
    "a listed class": (
        IndexError,
        r"^the indices of target\[0\]: number 1 is 4, which is out of range for 4 classes$",
        part_of(4, 0, ([[3, 4]] * 4, np.full((4, 2), 0.5))),
    ),
}


@pytest.mark.parametrize(("error", "message", "whole"), BAD_WHOLES.values(), ids=BAD_WHOLES.keys())
def test_bad_wholes(error, message, whole):
    for call, out in results_of(whole):
        with pytest.raises(error, match=message):
            call()
        assert np.all(out == 7)


BAD_SHARDS = {
    "dtype": (TypeError, "^logits are float32, but the statistics are of float64$", (X[:, :4].astype(np.float32),), {}),
    "rows": (ValueError, r"have rows of shape \(3,\), but the statistics are of \(4,\)$", (X[:3, :4],), {}),
    "beyond": (ValueError, "^offset 7 and 4 classes of logits are beyond 10 classes$", (X[:, :4],), {"offset": 7}),
    "negative": (ValueError, "^offset must be at least 0, not -1$", (X[:, :4],), {"offset": -1}),
    "float": (TypeError, "^offset must be an integer, not 1.0$", (X[:, :4],), {"offset": 1.0}),
    "huge": (ValueError, "^offset 9223372036854775807 is beyond", (X[:, :4],), {"offset": 2**63 - 1}),
    "no classes": (ValueError, "has no classes on axis 1$", (X[:, :0],), {}),
    "target": (ValueError, "^target is for probabilities: labels and sparse", (X[:, :4], T), {}),
    "weight": (
        ValueError,
        r"^weight has shape \(10,\), but the classes have shape \(4,\)$",
        (X[:, :4],),
        {"weight": T},
    ),
    "mask": (ValueError, r"^class_mask has shape \(10,\)", (X[:, :4],), {"class_mask": np.ones(10, bool)}),
    "reduction": (ValueError, "^reduction must be one of", (X[:, :4],), {"reduction": "avg"}),
    "grad_output": (ValueError, r"^grad_output has shape \(2,\)", (X[:, :4],), {"grad_output": [1.0, 2.0]}),
}
BAD_SHARDS["weight"][3]["weight"] = np.ones(10)


@pytest.mark.parametrize(("error", "message", "args", "options"), BAD_SHARDS.values(), ids=BAD_SHARDS.keys())
def test_bad_shards(error, message, args, options):
    out = np.full((4, 4), 7.0)
    with pytest.raises(error, match=message):
        WHOLE.grad(*args, grad_out=out, **options)
    assert np.all(out == 7)


def test_probabilities_are_needed_again():
    part = xent.partial_statistics(X, np.full(X.shape, 0.1))
    for wrong in (None, T, (T[:, None], np.ones((4, 1)))):
        with pytest.raises(ValueError, match=r"^target must be the probabilities of these classes"):
            part.grad(X, wrong)


@pytest.mark.parametrize("offset", [-1, 1.5, 2**63 - 5])
def test_bad_offsets(offset):
    with pytest.raises((ValueError, TypeError), match=r"^offset"):
        xent.partial_statistics(X, T, offset=offset)
    last = xent.partial_statistics(X, T, offset=2**63 - 11)
    assert last.n_classes == 2**63 - 1


def test_classes_in_all():
    parts = [part_of(4, 0, classes=10), xent.partial_statistics(X[:, 4:], T, offset=4, classes=np.int64(10))]
    assert xent.merge_statistics(parts).finish() == WHOLE.finish()
    assert parts[0].n_classes == 10
    with pytest.raises(ValueError, match=r"^offset 6 and 4 classes of logits are beyond 9 classes$"):
        part_of(classes=9)
    with pytest.raises(TypeError, match=r"^classes must be an integer, not 10.0$"):
        part_of(classes=10.0)


def test_arrays_that_do_not_go_together():
    for change in (
        {"ranges": WHOLE.ranges[:1]},
        {"target": T[:2]},
        {"listed": np.zeros((4, 1))},
        {"blocks": LEFT.blocks[:2]},
    ):
        with pytest.raises(ValueError, match="have shapes that do not go together"):
            dataclasses.replace(WHOLE, **change)


def test_a_logsumexp_beyond_the_largest_float(recwarn):
    statistics = xent.partial_statistics(np.array([[3e38, -3e38]], np.float32), scale=10.0)
    assert statistics.logsumexp() == np.inf
    assert not recwarn.list


def test_arrays_that_the_core_would_misread():
    weights = np.ones(WHOLE.target.shape)
    for change in (
        {"sample_weight": weights.astype(np.float32)},
        {"sample_weight": weights.astype(">f8")},
        {"target": WHOLE.target.astype(float)},
        {"target": WHOLE.target.astype(">i8")},
    ):
        with pytest.raises(TypeError, match=r"^(sample_weight|target) of these PartialStatistics must be"):
            dataclasses.replace(WHOLE, **change)
    with pytest.raises(ValueError, match=r"^sample_weight of these PartialStatistics has negative"):
        dataclasses.replace(WHOLE, sample_weight=-weights)


def test_probabilities_that_the_core_would_misread():
    part = xent.partial_statistics(X, (T[:, None], np.ones((4, 1))))
    with pytest.raises(TypeError, match=r"^probabilities of these PartialStatistics must be floats, not int8$"):
        dataclasses.replace(part, probabilities=np.ones((4, 1), np.int8))
