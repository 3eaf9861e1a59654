"""``xent eval``: the figures of files beside the oracle's, and that a refused or interrupted run leaves nothing."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numpy.lib import format as npy

import xent
from xent import _eval, _npy, cli

SHAPES = [(57, 9), (5, 23, 9), (23, 5, 9)]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", ">f2", ">f4", ">f8", "i2", "u1")]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, in windows of a few stretches."""
    monkeypatch.setattr(_eval, "BLOCK_BYTES", 9 * 8 * 7)
    monkeypatch.setattr(_npy, "STRETCHES", 4)


def make(shape, dtype=np.float32, seed=0):
    """Return logits whose prediction is often right, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(shape[-1], size=shape[:-1])
    logits = rng.normal(size=shape, scale=3)
    logits[rng.random(shape) < 0.1] = 1  # ties
    chosen = np.take_along_axis(logits, labels[..., np.newaxis], axis=-1)
    np.put_along_axis(logits, labels[..., np.newaxis], chosen + 3, axis=-1)
    return (np.abs(logits) if dtype == np.uint8 else logits).astype(dtype), labels


def save(logits, labels):
    np.save("logits.npy", logits)
    np.save("labels.npy", labels)


def run(capsys, *options):
    """Run the evaluation of the two files, and return its JSON."""
    assert cli.main(["eval", "logits.npy", "labels.npy", "--json", "-", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def expected(logits, labels, *, ignore=None, smoothing=0.0, scale=1.0, softcap=None, bins=15, top_k=(5,)):
    """Return the results as one writes them with all rows at once."""
    rows = logits.reshape(-1, logits.shape[-1])
    labels = labels.reshape(-1)
    if ignore is not None:
        rows, labels = rows[labels != ignore], labels[labels != ignore]
    options = {"scale": scale, "softcap": softcap}
    found = xent.reference.evaluate(rows, labels, top_k=1, **options)
    loss = xent.reference.cross_entropy(rows, labels, label_smoothing=smoothing, reduction="none", **options)
    confidence = np.exp(found.top_k_log_probs[:, 0].astype(np.float64))
    calibration = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (confidence > low) & (confidence <= high)
        calibration += abs(np.sum((found.rank == 0)[inside]) - np.sum(confidence[inside])) / len(rows)
    return {
        "rows": len(rows),
        "ignored_rows": logits[..., 0].size - len(rows),
        "nan_rows": 0,
        "infinite_losses": 0,
        "loss": np.mean(loss, dtype=np.float64),
        "perplexity": np.exp(-np.mean(found.log_prob, dtype=np.float64)),
        "accuracy": np.mean(found.rank == 0),
        "top_k_accuracy": {str(k): np.mean(found.rank < k) for k in top_k},
        "entropy": np.mean(found.entropy, dtype=np.float64),
        "confidence": np.mean(confidence),
        "expected_calibration_error": calibration,
    }


def assert_results(results, logits, labels, **options):
    wanted = expected(logits, labels, **options)
    assert results.keys() == wanted.keys()
    assert results.pop("top_k_accuracy") == pytest.approx(wanted.pop("top_k_accuracy"))
    assert results == pytest.approx(wanted, rel=1e-6)


# ---- Values --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_and_gradient(dtype, shape, orders, capsys):
    logits, labels = make(shape, dtype)
    save(np.asarray(logits, order=orders[0]), np.asarray(labels, np.int16, order=orders[1]))
    assert_results(run(capsys, "--grad", "grad.npy", "--per-row", "rows.npy")["results"], logits, labels)

    grad, rows = np.load("grad.npy"), np.load("rows.npy")
    native = logits.dtype.newbyteorder("=") if logits.dtype.kind == "f" else np.dtype(np.float64)
    wanted = np.empty(logits.shape, np.promote_types(native, np.float32))
    xent.cross_entropy_grad(logits, labels, grad_out=wanted)
    assert grad.dtype == wanted.dtype
    np.testing.assert_allclose(grad, wanted, rtol=1e-6)
    found = xent.reference.evaluate(logits, labels)
    assert rows.shape == labels.shape
    for name, values in {"label": labels, "prediction": found.argmax, "rank": found.rank}.items():
        np.testing.assert_array_equal(rows[name], values)
    for name in ("log_prob", "entropy"):
        np.testing.assert_allclose(rows[name], getattr(found, name), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows["confidence"], xent.softmax(logits.astype("f8")).max(axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(rows["loss"], -rows["log_prob"])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bits", [False, True], ids=["V2", "uint16"])
@pytest.mark.parametrize("order", "CF")
def test_bfloat16(order, bits, capsys):
    logits, labels = make((57, 9), BFLOAT16)
    save(np.asarray(logits.view(np.uint16) if bits else logits, order=order), labels)
    content = run(capsys, "--dtype", "bfloat16", "--grad", "grad.npy", "--per-row", "rows.npy")
    assert_results(content["results"], logits, labels)
    assert content["logits"] == {"shape": [57, 9], "dtype": "bfloat16"}
    grad = np.load("grad.npy")
    assert grad.dtype == np.float32
    wanted = np.empty(logits.shape, np.float32)
    xent.cross_entropy_grad(logits, labels, grad_out=wanted)
    np.testing.assert_allclose(grad, wanted, rtol=1e-6)
    assert np.load("rows.npy")["loss"].dtype == np.float32


OPTIONS = {
    "smoothing": (["--label-smoothing", "0.1"], {"smoothing": 0.1}),
    "scale": (["--scale", "0.5"], {"scale": 0.5}),
    "softcap": (["--softcap", "2.5"], {"softcap": 2.5}),
    "bins": (["--bins", "4"], {"bins": 4}),
    "top-k": (["--top-k", "2", "--top-k", "4", "--top-k", "2"], {"top_k": (2, 4)}),
    "threads": (["--threads", "1"], {}),
}
ALL_OPTIONS = [word for words, _ in OPTIONS.values() for word in words]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", [*OPTIONS, "all"])
def test_options(name, capsys):
    logits, labels = make((57, 9))
    save(logits, labels)
    words, options = (
        OPTIONS[name]
        if name in OPTIONS
        else (ALL_OPTIONS, {key: value for _, option in OPTIONS.values() for key, value in option.items()})
    )
    content = run(capsys, *words, "--grad", "grad.npy")
    assert_results(content["results"], logits, labels, **options)
    of_loss = {"scale": options.get("scale", 1.0), "softcap": options.get("softcap")}
    of_loss["label_smoothing"] = options.get("smoothing", 0.0)
    np.testing.assert_allclose(
        np.load("grad.npy"), xent.cross_entropy_grad(logits, labels, **of_loss), rtol=1e-6, atol=1e-12
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("ignore", [-100, 3, 300])
@pytest.mark.parametrize(("smoothing", "content"), [(0.0, np.nan), (0.1, np.nan), (0.0, 2.5)])
def test_ignored_rows_are_not_looked_at(ignore, smoothing, content, capsys):
    logits, labels = make((5, 23, 9))
    labels[labels == 4] = ignore
    logits[labels == ignore] = content
    save(logits, labels)
    options = ["--ignore-index", str(ignore), "--label-smoothing", str(smoothing)]
    results = run(capsys, *options, "--per-row", "rows.npy", "--grad", "grad.npy")["results"]
    assert_results(results, logits, labels, ignore=ignore, smoothing=smoothing)
    rows = np.load("rows.npy")
    ignored = labels == ignore
    np.testing.assert_array_equal(rows["loss"][ignored], 0)
    np.testing.assert_array_equal(rows["prediction"][ignored], -1)
    np.testing.assert_array_equal(rows["rank"][ignored], -1)
    assert all(np.isnan(rows[name][ignored]).all() for name in ("log_prob", "confidence", "entropy"))
    wanted = xent.cross_entropy_grad(logits, labels, ignore_index=ignore, label_smoothing=smoothing)
    np.testing.assert_allclose(np.load("grad.npy"), wanted, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 3])
def test_no_row_counts(rows, capsys):
    save(np.zeros((rows, 4)), np.full(rows, -1))
    options = ["--grad", "grad.npy", "--per-row", "rows.csv", "--plot", "plot.png"]
    results = run(capsys, "--ignore-index", "-1", *options)["results"]
    assert (results["rows"], results["ignored_rows"]) == (0, rows)
    assert results["loss"] is results["accuracy"] is results["expected_calibration_error"] is None
    np.testing.assert_array_equal(np.load("grad.npy"), np.zeros((rows, 4)))


def test_rows_that_are_not_a_number_and_infinite_losses_are_told(capsys):
    logits, labels = make((57, 9))
    labels[:3] = 0
    logits[0, 5] = np.nan
    logits[1:3, 0] = -np.inf
    save(logits, labels)
    results = run(capsys, "--plot", "plot.png")["results"]
    assert (results["nan_rows"], results["infinite_losses"]) == (1, 2)
    assert results["loss"] is results["perplexity"] is results["expected_calibration_error"] is None
    found = xent.reference.evaluate(logits, labels)
    assert results["accuracy"] == np.mean(found.rank == 0)
    assert cli.main(["eval", "logits.npy", "labels.npy"]) == 0
    out = capsys.readouterr().out
    assert "rows that are NaN" in out
    assert "rows of infinite loss" in out


def test_sums_do_not_depend_on_the_blocks():
    rng = np.random.default_rng(1)
    values = rng.lognormal(sigma=12, size=10_000)
    sums = []
    for length in (1, 7, 10_000):
        total = _eval.Sum()
        for start in range(0, len(values), length):
            total.add(values[start : start + length])
        sums.append(total.mean(1))
    exact = _eval.math.fsum(values)
    np.testing.assert_allclose(sums, exact, rtol=3e-16)


def test_sums_that_cancel():
    total = _eval.Sum()
    total.add(np.array([1.0, 1e16, 3.0, -1e16, 1e16, 0.5, -1e16]))
    assert total.mean(2) == 2.25


def test_bins_have_their_upper_edges():
    calibration = _eval.Calibration(4)
    calibration.add(np.array([0.0, 0.25, 0.26, 0.5, 1.0]), np.array([True, False, True, True, True]))
    np.testing.assert_array_equal(calibration.rows, [2, 2, 0, 1])
    np.testing.assert_array_equal(calibration.right, [1, 2, 0, 1])
    np.testing.assert_array_equal(calibration.confidence, [0.25, 0.76, 0, 1])
    assert calibration.error(5) == pytest.approx((0.75 + 1.24) / 5)


@pytest.mark.parametrize(
    ("values", "mean"), [([np.inf, 1], np.inf), ([1, np.nan], np.nan), ([np.inf, -np.inf], np.nan), ([], 0)]
)
def test_sums_of_special_values(values, mean):
    total = _eval.Sum()
    with np.errstate(invalid="ignore"):
        for value in values:
            total.add(np.array([2.0, value]))
    np.testing.assert_equal(total.mean(1), mean)


def test_histogram_does_not_depend_on_the_blocks():
    values = np.random.default_rng(2).lognormal(sigma=3, size=999)
    whole = _eval.Histogram()
    whole.add(values)
    parts = _eval.Histogram()
    for value in np.concatenate((values, [np.inf, np.nan])):
        parts.add(np.array([value]))
    assert parts.width == whole.width
    np.testing.assert_array_equal(parts.counts, whole.counts)
    edges = np.arange(_eval.HISTOGRAM_BINS + 1) * whole.width
    np.testing.assert_array_equal(whole.counts, np.histogram(values, edges)[0])
    assert np.max(np.nonzero(whole.counts)) >= _eval.HISTOGRAM_BINS // 2


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_places_are_a_partition(shape, order):
    save(np.zeros(shape, order=order), 0)
    array = _npy.open_npy(_npy.Path("logits.npy"))
    with array.file:
        for most in (1, 3, 23, 40, 1000):
            seen = np.zeros(shape[:-1], int)
            for place in array.places(most, len(shape) - 1):
                assert 1 <= seen[place].size <= most
                seen[place] += 1
            assert (seen == 1).all()


@pytest.mark.parametrize(
    ("place", "stretches"),
    [((4, 3, 9), (1, 1)), ((4, 3, 2), (12, 1)), ((2, 3, 9), (1, 27)), ((2, 1, 9), (2, 9)), ((4, 1, 9), (4, 9))],
)
def test_stretches_of_a_part(place, stretches):
    for order, count in zip("CF", stretches, strict=True):
        save(np.zeros((4, 3, 9), order=order), 0)
        array = _npy.open_npy(_npy.Path("logits.npy"))
        with array.file:
            assert array._stretches(tuple(slice(0, n) for n in place)) == count


# ---- What is shown and written -------------------------------------------------------------------------------------


def test_table(capsys):
    logits, labels = make((57, 9))
    save(logits, labels)
    assert cli.main(["eval", "logits.npy", "labels.npy"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    shown = dict(line.strip().rsplit(maxsplit=1) for line in captured.out.splitlines() if len(line.split()) > 1)
    wanted = expected(logits, labels)
    assert shown["rows"] == "57"
    assert float(shown["loss"]) == pytest.approx(wanted["loss"], rel=1e-5)
    assert float(shown["perplexity"]) == pytest.approx(wanted["perplexity"], rel=1e-5)
    assert shown["accuracy"] == f"{wanted['accuracy']:.2%}"
    assert shown["top-5 accuracy"] == f"{wanted['top_k_accuracy']['5']:.2%}"
    assert shown["expected calibration error"] == f"{wanted['expected_calibration_error']:.2%}"


def test_json_file(capsys):
    logits, labels = make((57, 9))
    save(logits, labels)
    assert cli.main(["eval", "logits.npy", "labels.npy", "--json", "out.json", "--bins", "6"]) == 0
    assert "perplexity" in capsys.readouterr().out
    content = json.loads(Path("out.json").read_text())
    words = content["command"].split()
    assert words[:4] == ["xent", "eval", "logits.npy", "labels.npy"]
    assert content["settings"]["bins"] == len(content["reliability"]) == 6
    assert content["config"].items() >= xent.show_config(mode="dicts").items()
    again = run(capsys, *words[4:])
    assert again == content
    dashed = {name: Path(f"-{name}") for name in ("logits.npy", "labels.npy")}
    for name, other in dashed.items():
        Path(name).rename(other)
    assert cli.main(["eval", "--json", "out.json", "--", *map(str, dashed.values())]) == 0
    command = json.loads(Path("out.json").read_text())["command"]
    assert cli.main(command.split()[1:]) == 0
    gaps = [b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in content["reliability"] if b["rows"]]
    assert sum(gaps) / 57 == pytest.approx(content["results"]["expected_calibration_error"])
    assert sum(b["rows"] for b in content["reliability"]) == sum(content["losses"]["rows"]) == 57


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(57, 9), (5, 23, 9)], ids=str)
def test_per_row_csv(shape, dtype, capsys):
    logits, labels = make(shape, dtype)
    save(np.asfortranarray(logits), labels)
    run(capsys, "--per-row", "rows.npy")
    run(capsys, "--per-row", "rows.csv")
    records = np.load("rows.npy")
    with open("rows.csv", encoding="utf-8", newline="") as file:  # noqa: PTH123
        lines = list(csv.DictReader(file))
    assert len(lines) == labels.size
    axes = ["row"] if labels.ndim == 1 else ["row_0", "row_1"]
    assert list(lines[0]) == [*axes, *records.dtype.names]
    seen = set()
    for line in lines:
        index = tuple(int(line[name]) for name in axes)
        seen.add(index)
        for name in records.dtype.names:
            assert records[name].dtype.type(line[name]) == records[index][name]
    assert len(seen) == labels.size


def test_plot(tmp_path):
    save(*make((57, 9)))
    assert cli.main(["eval", "logits.npy", "labels.npy", "--plot", "plot.png"]) == 0
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")


def test_outputs_replace_what_links_lead_to_and_have_the_usual_mode(tmp_path, capsys):
    save(*make((57, 9)))
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    old_mask = os.umask(0o027)
    try:
        assert cli.main(["eval", "logits.npy", "labels.npy", "--json", "link.json"]) == 0
    finally:
        os.umask(old_mask)
    capsys.readouterr()
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["results"]["rows"] == 57
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o640


def test_progress_bar():
    save(*make((57, 9)))
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    command = [sys.executable, "-c", "import sys; from xent.cli import main; sys.exit(main())"]
    result = subprocess.run(
        [*command, "eval", "logits.npy", "labels.npy"], env=environment, capture_output=True, text=True, check=True
    )
    assert "evaluating" in result.stderr
    assert "100%" in result.stderr


# ---- Errors --------------------------------------------------------------------------------------------------------


def damaged(name, content):
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(content)


def cut(name, length):
    with open(name, "r+b") as file:  # noqa: PTH123
        file.truncate(length)


def header(shape, descr="<f4"):
    with open("logits.npy", "wb") as file:  # noqa: PTH123
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def saved(name, array):
    return lambda: np.save(name, array, allow_pickle=True)


RIGHT = ["--grad", "grad.npy", "--per-row", "rows.csv", "--plot", "plot.png", "--json", "out.json"]
BAD = {
    "no logits": (lambda: os.remove("logits.npy"), [], "logits.npy cannot be read: No such file or directory"),  # noqa: PTH107
    "no labels": (lambda: os.remove("labels.npy"), [], "labels.npy cannot be read: No such file or directory"),  # noqa: PTH107
    "directory": (lambda: (os.remove("labels.npy"), os.mkdir("labels.npy")), [], "is not a regular file"),  # noqa: PTH102, PTH107
    "empty file": (lambda: damaged("logits.npy", b""), [], "logits.npy is not a .npy file"),
    "text": (lambda: damaged("logits.npy", b"1 2 3\n" * 99), [], "logits.npy is not a .npy file"),
    "cut header": (lambda: cut("logits.npy", 50), [], "logits.npy is not a .npy file, or its header is damaged"),
    "cut logits": (lambda: cut("logits.npy", 1000), [], "logits.npy is truncated: its header says 2180 bytes, and it"),
    "cut labels": (lambda: cut("labels.npy", 583), [], "labels.npy is truncated: its header says 584 bytes, and it"),
    "no data": (lambda: header((57, 9)), [], "logits.npy is truncated"),
    "huge shape": (lambda: header((10**30, 9)), [], "logits.npy is truncated"),
    "negative shape": (lambda: header((-1, 9)), [], "logits.npy has a header that"),
    "archive": (lambda: (np.savez("x.npz", 1), os.replace("x.npz", "logits.npy")), [], "is not a .npy file"),  # noqa: PTH105
    "objects": (saved("logits.npy", np.array([None] * 57)), [], "logits.npy holds Python objects"),
    "complex": (saved("logits.npy", np.zeros((57, 9), complex)), [], "logits.npy holds complex128, but logits are"),
    "longdouble": (saved("logits.npy", np.zeros((57, 9), np.longdouble)), [], "but logits are float16"),
    "booleans": (saved("logits.npy", np.zeros((57, 9), bool)), [], "logits.npy holds bool, but"),
    "strings": (saved("logits.npy", np.full((57, 9), "one")), [], "logits.npy holds <U3, but"),
    "times": (saved("logits.npy", np.zeros((57, 9), "m8[s]")), [], "logits.npy holds timedelta64[s], but"),
    "records": (saved("logits.npy", np.zeros((57, 9), "f4,f4")), [], "but logits are"),
    "bfloat16": (saved("logits.npy", np.zeros((57, 9), BFLOAT16)), [], "if they are bfloat16, add --dtype bfloat16"),
    "not bfloat16": (None, ["--dtype", "bfloat16"], "logits.npy holds float32, not bfloat16"),
    "unknown dtype": (None, ["--dtype", "float8"], "--dtype: invalid choice: 'float8'"),
    "1-D": (saved("logits.npy", np.zeros(57, "f4")), [], "logits.npy has shape (57,), but logits have 2 or 3 axes"),
    "4-D": (saved("logits.npy", np.zeros((57, 1, 1, 9), "f4")), [], "but logits have 2 or 3 axes, the classes last"),
    "no classes": (saved("logits.npy", np.zeros((57, 0), "f4")), [], "logits.npy of shape (57, 0) has no classes"),
    "other rows": (
        saved("labels.npy", np.zeros(56, int)),
        [],
        "labels.npy has shape (56,), but logits.npy of shape (57, 9) needs (57,)",
    ),
    "2-D labels": (saved("labels.npy", np.zeros((57, 9), int)), [], "labels.npy has shape (57, 9), but logits.npy"),
    "float labels": (saved("labels.npy", np.zeros(57)), [], "labels.npy holds float64, but labels are integers"),
    "large label": (
        saved("labels.npy", np.repeat([0, 9], [40, 17])),
        [],
        "labels.npy[40] = 9 is out of range for 9 classes; --ignore-index 9 leaves such rows out",
    ),
    "negative label": (
        saved("labels.npy", np.repeat([0, -100, -1], [40, 16, 1]).astype(np.int8)),
        ["--ignore-index", "-100"],
        "labels.npy[56] = -1 is out of range for 9 classes\n",
    ),
    "unsigned label": (
        saved("labels.npy", np.full(57, 2**64 - 1, "u8")),
        [],
        "labels.npy[0] = 18446744073709551615",
    ),
    "smoothing": (None, ["--label-smoothing", "1.5"], "--label-smoothing: '1.5' is not a number between 0 and 1"),
    "scale": (None, ["--scale", "0"], "--scale: '0' is not a number from 1e-30 to 1e+30"),
    "huge scale": (None, ["--scale", "1e40"], "--scale: '1e40' is not a number from 1e-30 to 1e+30"),
    "softcap": (None, ["--softcap", "inf"], "--softcap: 'inf' is not a number from 1e-30 to 1e+30"),
    "top-k": (None, ["--top-k", "0"], "--top-k: '0' is not an integer of at least 1"),
    "bins": (None, ["--bins", "some"], "--bins: 'some' is not an integer of at least 1"),
    "ignored": (None, ["--ignore-index", "1.5"], "--ignore-index: '1.5' is not an integer"),
    "grad into a pipe": (lambda: os.mkfifo("a.npy"), ["--grad", "a.npy"], "--grad: 'a.npy' is not a regular file"),
    "grad suffix": (None, ["--grad", "grad.csv"], "--grad: 'grad.csv' must end in .npy"),
    "rows suffix": (None, ["--per-row", "rows.json"], "--per-row: 'rows.json' must end in .npy or .csv"),
    "grad nowhere": (None, ["--grad", "nowhere/grad.npy"], "'nowhere/grad.npy' cannot be written: No such file"),
    "grad over the logits": (None, ["--grad", "logits.npy"], "--grad and LOGITS.npy are the same file"),
    "twice the same": (None, ["--grad", "a.npy", "--per-row", "./a.npy"], "--per-row and --grad are the same file"),
}


@pytest.mark.parametrize(("prepare", "options", "message"), BAD.values(), ids=BAD.keys())
def test_errors_are_one_line_and_leave_nothing(prepare, options, message, tmp_path, capsys):
    save(*make((57, 9)))
    (tmp_path / "out.json").write_text("old")
    if prepare:
        prepare()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(["eval", "logits.npy", "labels.npy", *RIGHT, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("xent: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("small_blocks")
def test_index_of_a_bad_label_in_any_order(capsys):
    logits, labels = make((5, 23, 9))
    labels[3, 17] = 99
    for order in "CF":
        save(logits, np.asarray(labels, order=order))
        assert cli.main(["eval", "logits.npy", "labels.npy"]) == 2
        assert "labels.npy[3, 17] = 99 is out of range" in capsys.readouterr().err


def test_existing_output_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    save(*make((57, 9)))
    path = tmp_path / "grad.npy"
    path.write_text("precious")
    path.chmod(0o444)
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: real(p, mode) and str(p) != "grad.npy")  # root may write it
    assert cli.main(["eval", "logits.npy", "labels.npy", "--grad", "grad.npy"]) == 2
    assert capsys.readouterr().err == "xent: argument --grad: 'grad.npy' cannot be written: Permission denied\n"
    assert path.read_text() == "precious"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)])
@pytest.mark.parametrize("where", ["block", "plot", "replace"])
def test_interrupted_run_leaves_nothing(error, code, where, tmp_path, monkeypatch, capsys):
    save(*make((57, 9)))
    (tmp_path / "grad.npy").write_text("old")
    before = sorted(tmp_path.iterdir())
    calls = itertools.count()
    real = xent.evaluate

    def fail(*args, **kwargs):
        if where != "block" or next(calls) == 3:
            assert len(list(tmp_path.iterdir())) > len(before)
            raise error
        return real(*args, **kwargs)

    target = {"block": "xent.evaluate", "plot": "xent._command.drawn", "replace": "pathlib.Path.replace"}[where]
    monkeypatch.setattr(target, fail)
    assert cli.main(["eval", "logits.npy", "labels.npy", *RIGHT]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("" if code == 130 else "xent: [Errno 28] No space left on device\n")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "grad.npy").read_text() == "old"


PAUSED = """
import signal, sys, time
import xent
from xent.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what it runs in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup does this one
def evaluate(*args, **kwargs):
    print("paused", flush=True)
    time.sleep(60)
xent.evaluate = evaluate
sys.exit(main(["eval", "logits.npy", "labels.npy", "--grad", "grad.npy", "--per-row", "rows.csv"]))
"""


LIMITED = """
import resource, sys
from xent.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # a longer file fails as one on a full disk does
sys.exit(main(["eval", "logits.npy", "labels.npy", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("output", [("--grad", "grad.npy"), ("--per-row", "rows.csv")])
def test_a_file_that_has_no_space_is_named(output, tmp_path):
    save(*make((57, 9)))
    before = sorted(tmp_path.iterdir())
    result = subprocess.run([sys.executable, "-c", LIMITED, *output], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"xent: [Errno 27] File too large: '{output[1]}'\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)],
)
def test_signals_leave_nothing(number, code, tmp_path):
    save(*make((57, 9)))
    with subprocess.Popen([sys.executable, "-c", PAUSED], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"paused\n"
        assert len(list(tmp_path.glob(".xent-*.part"))) == 2
        process.send_signal(number)
        assert process.communicate() == (b"", b"")
    assert process.returncode == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "logits.npy"]


@pytest.mark.parametrize("package", ["ml_dtypes", "matplotlib"])
def test_missing_package(package, monkeypatch, capsys):
    save(*make((57, 9), BFLOAT16))
    monkeypatch.setitem(sys.modules, package, None)
    options = ["--dtype", "bfloat16", *(["--plot", "plot.png"] if package == "matplotlib" else [])]
    assert cli.main(["eval", "logits.npy", "labels.npy", *options]) == 2
    assert capsys.readouterr() == ("", f"xent: {package} is missing; install it with: pip install {package}\n")


# ---- Memory --------------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from xent import _eval
from xent.cli import main
_eval.BLOCK_BYTES = 2**21
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
files = ["--grad", "grad.npy", "--per-row", "rows.npy", "--threads", "2"]
assert main(["eval", "small.npy", "small_labels.npy", *files]) == 0
before = peak()
assert main(["eval", "large.npy", "large_labels.npy", *files]) == 0
print("MiB", peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss counts kilobytes on Linux only")
@pytest.mark.parametrize("order", "CF")
def test_memory_does_not_grow_with_the_files(order):
    """The large files are 64 MiB and as much again of gradient; the small ones are two blocks."""
    classes = 2048
    for name, rows in (("small", 2**9), ("large", 2**13)):
        array = npy.open_memmap(f"{name}.npy", "w+", np.float32, (rows, classes), fortran_order=order == "F")
        array[:] = np.random.default_rng(0).normal(size=classes)
        del array
        np.save(f"{name}_labels.npy", np.arange(rows) % classes)
    result = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert float(result.stdout.split()[-1]) < 16
