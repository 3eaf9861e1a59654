"""The command line: what it prints and writes, and that it refuses bad input before it measures anything."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET  # reads only what the test has written
from importlib.metadata import entry_points

import numpy as np
import pytest

import xent
from xent import _bench, cli

QUICK = ["bench", "--seconds", "0.005"]
SMALL = [*QUICK, "--shape", "3x7", "--shape", "64x10"]


@pytest.fixture
def no_measurement(monkeypatch):
    def measure(_settings):
        pytest.fail("the benchmark was started")

    monkeypatch.setattr(_bench, "measure", measure)


@pytest.fixture
def no_space():
    """Let files be no longer than a few bytes, which fails as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bench(tmp_path, *options):
    """Run the benchmark and return its JSON."""
    path = tmp_path / "bench.json"
    assert cli.main([*QUICK, "--json", str(path), *options]) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def test_installed_command_is_main():
    (command,) = entry_points(group="console_scripts", name="xent")
    assert command.load() is cli.main


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"xent {xent.__version__}\n"


def test_no_command_prints_help(capsys):
    assert cli.main([]) == 2
    out = capsys.readouterr().out
    assert "info" in out
    assert "bench" in out


def test_info(capsys):
    assert cli.main(["info"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = {name: value.strip() for name, value in lines}
    config = xent.show_config(mode="dicts")
    assert shown["xent"] == xent.__version__
    assert shown["isa"] == config["isa"]
    assert shown["supported"].removeprefix("isas").strip() == ", ".join(config["supported_isas"])
    assert shown["threading"] == config["threading"]
    assert shown["threads"] == str(config["threads"])
    assert shown["numpy"] == np.__version__


def test_info_refuses_an_unusable_isa(capsys, monkeypatch):
    def show_config(mode):
        raise RuntimeError(f"this machine cannot run it ({mode})")

    monkeypatch.setattr(xent, "show_config", show_config)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "xent: this machine cannot run it (dicts)\n"


def test_bench_prints_a_line_for_each_shape_and_operation(capsys):
    assert cli.main([*SMALL, "--threads", "1"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    cells = [line.split() for line in lines]
    for rows, classes in (("3", "7"), ("64", "10")):
        assert [line[2:3] for line in cells if line[:2] == [rows, classes]] == [["forward"], ["loss"]]
    assert "…" not in captured.out
    assert captured.err == ""
    assert "1 thread" in lines[-1]
    assert lines[-1].endswith(
        "xent bench --dtype float32 --threads 1 --seed 0 --seconds 0.005 --shape 3x7 --shape 64x10"
    )


def test_json(tmp_path):
    content = bench(tmp_path, "--shape", "3x7", "--shape", "64x10", "--threads", "1", "--seed", "5")
    assert content["config"].items() >= xent.show_config(mode="dicts").items()
    assert content["config"]["cpu"]
    assert content["settings"]["shapes"] == [{"rows": 3, "classes": 7}, {"rows": 64, "classes": 10}]
    assert (content["settings"]["threads"], content["settings"]["seed"]) == (1, 5)
    assert content["command"].startswith("xent bench --dtype float32 --threads 1 --seed 5")
    measurements = content["measurements"]
    assert [(m["rows"], m["classes"], m["operation"]) for m in measurements] == [
        (3, 7, "forward"),
        (3, 7, "loss + grad"),
        (64, 10, "forward"),
        (64, 10, "loss + grad"),
    ]
    for m in measurements:
        for side in (m["numpy"], m["xent"]):
            t = side["seconds"]
            assert 0 < t["minimum"] <= t["lower_quartile"] <= t["median"] <= t["upper_quartile"]
            assert t["repetitions"] >= 5
            assert side["gelem_per_s"] == pytest.approx(m["rows"] * m["classes"] / t["median"] / 1e9)
        assert m["speedup"] == pytest.approx(m["numpy"]["seconds"]["median"] / m["xent"]["seconds"]["median"])


@pytest.mark.parametrize(("option", "dtype"), [("f32", "float32"), ("f64", "float64"), ("float64", "float64")])
def test_errors_are_those_of_the_dtype(tmp_path, option, dtype):
    content = bench(tmp_path, "--shape", "64x100", "--dtype", option)
    assert content["settings"]["dtype"] == dtype
    eps = np.finfo(dtype).eps
    for m in content["measurements"]:
        errors = m["xent"]["max_error"]
        assert 0 <= errors["loss"] < 4 * eps  # the oracle may have the same bits
        assert (errors["grad"] is None) == (m["operation"] == "forward")
        if errors["grad"] is not None:
            assert eps / 100 < errors["grad"] < 4 * eps
            assert m["numpy"]["max_error"]["grad"] < 1000 * eps


def test_wrong_results_show(tmp_path, monkeypatch):
    right = xent.cross_entropy_and_grad

    def wrong(*args, **kwargs):
        loss, grad = right(*args, **kwargs)
        grad[-1, -1] *= 1.5
        return loss * 1.25, grad

    monkeypatch.setattr(xent, "cross_entropy_and_grad", wrong)
    forward, fused = (m["xent"]["max_error"] for m in bench(tmp_path, "--shape", "100x10")["measurements"])
    assert forward["loss"] < 1e-6
    assert fused["loss"] == pytest.approx(0.25)
    assert fused["grad"] == pytest.approx(0.5)


def test_one_class(tmp_path):
    for m in bench(tmp_path, "--shape", "2x1")["measurements"]:
        assert m["xent"]["max_error"]["loss"] == 0


@pytest.mark.parametrize(
    ("value", "truth", "error"), [(0.0, 0.0, 0), (2.0, 1.0, 1), (0.0, -4.0, 1), (np.nan, 1.0, np.nan)]
)
def test_max_relative_error(value, truth, error):
    found = _bench.max_relative_error(np.array([1.0, value]), np.array([1.0, truth]))
    np.testing.assert_equal(found, error)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_baseline_is_right(dtype):
    settings = _bench.Settings((), dtype, threads=1, seed=3, seconds=1)
    problem = _bench.Problem(_bench.Shape(40, 30), settings)
    logits, target = problem.logits.astype(np.float64), problem.target
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    baseline = _bench.NumpyCrossEntropy(problem.logits, target, np.empty_like(problem.logits))
    for reduction in ("mean", "none"):
        true_loss, true_grad = xent.reference.cross_entropy_and_grad(logits, target, reduction=reduction)
        np.testing.assert_allclose(baseline.loss(reduction), true_loss, rtol=tolerance)
        loss, grad = baseline.loss_and_grad(reduction)
        np.testing.assert_allclose(loss, true_loss, rtol=tolerance)
        np.testing.assert_allclose(grad, true_grad, rtol=tolerance)
        assert grad.dtype == dtype


def test_timing_alternates():
    calls = []

    def slow(name):
        calls.append(name)
        end = _bench.time.perf_counter() + 2 * _bench.MIN_SAMPLE_SECONDS
        while _bench.time.perf_counter() < end:
            pass

    timings = _bench.time_alternately([lambda: slow("a"), lambda: slow("b")], 1e-9)
    assert "".join(calls) == "ab" * (1 + _bench.MIN_REPETITIONS)  # the first time, to see how long a call takes
    for timing in timings:
        assert timing.repetitions == _bench.MIN_REPETITIONS
        assert timing.minimum >= 2 * _bench.MIN_SAMPLE_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234e-6, "1.23 us"), (999.99e-6, "999.99 us"), (999.999e-6, "1.00 ms"), (0.25, "250.00 ms"), (12.0, "12.00 s")],
)
def test_duration(seconds, text):
    assert _bench._duration(seconds) == text


def test_plot_png(tmp_path):
    path = tmp_path / "plot.png"
    assert cli.main([*SMALL, "--plot", str(path)]) == 0
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")
    assert list(tmp_path.iterdir()) == [path]


def test_plot_svg(tmp_path):
    path = tmp_path / "plot.svg"
    path.write_text("an older plot")
    assert cli.main([*SMALL, "--plot", str(path)]) == 0
    root = ET.parse(path).getroot()  # noqa: S314
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 10
    assert list(tmp_path.iterdir()) == [path]


BAD_OPTIONS = {
    "no rows": (["--shape", "0x10"], "--shape: '0x10' is not ROWSxCLASSES"),
    "half a shape": (["--shape", "10x"], "--shape: '10x' is not ROWSxCLASSES"),
    "negative shape": (["--shape=-3x7"], "--shape: '-3x7' is not ROWSxCLASSES"),
    "three numbers": (["--shape", "1x2x3"], "--shape: '1x2x3' is not ROWSxCLASSES"),
    "huge shape": (["--shape", "9999999999x9999999999"], "is larger than any array"),
    "negative threads": (["--threads", "-1"], "--threads: '-1' is not an integer of at least 1"),
    "no threads": (["--threads", "0"], "--threads: '0' is not an integer of at least 1"),
    "half a thread": (["--threads", "1.5"], "--threads: '1.5' is not an integer of at least 1"),
    "negative seed": (["--seed", "-1"], "--seed: '-1' is not an integer of at least 0"),
    "half precision": (["--dtype", "float16"], "--dtype: 'float16' is not one of float32"),
    "no time": (["--seconds", "0"], "--seconds: '0' is not a positive number"),
    "no number": (["--seconds", "soon"], "--seconds: 'soon' is not a positive number"),
    "plot suffix": (["--plot", "plot.jpg"], "--plot: 'plot.jpg' must end in .png or .svg"),
    "json suffix": (["--json", "bench.txt"], "--json: 'bench.txt' must end in .json"),
    "plot nowhere": (["--plot", "nowhere/plot.png"], "cannot be written: No such file or directory"),
    "json nowhere": (["--json", "nowhere/bench.json"], "cannot be written: No such file or directory"),
    "in a file": (["--json", "file/bench.json"], "cannot be written: Not a directory"),
    "directory": (["--json", "directory.json"], "'directory.json' is a directory"),
    "unknown option": (["--fast"], "unrecognized arguments: --fast"),
    "one bad of two": (["--json", "bench.json", "--plot", "plot.gif"], "'plot.gif' must end in"),
}


@pytest.mark.usefixtures("no_measurement")
@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "file").touch()
    assert cli.main([*SMALL, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("xent: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory.json", "file"]


@pytest.mark.usefixtures("no_space")
def test_full_disk_leaves_the_old_file_and_prints_the_table(tmp_path, capsys):
    path = tmp_path / "bench.json"
    path.write_text("{}")
    assert cli.main([*SMALL, "--json", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"xent: [Errno 27] File too large: '{path}'\n"
    assert "loss + grad" in captured.out
    assert path.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [path]


def test_no_memory(monkeypatch, capsys):
    def problem(_shape, _settings):
        raise MemoryError

    monkeypatch.setattr(_bench, "Problem", problem)
    assert cli.main(SMALL) == 1
    assert capsys.readouterr().err == "xent: there is not enough memory\n"


def test_interrupt_is_quiet(tmp_path, monkeypatch, capsys):
    def interrupted(_functions, _seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(_bench, "time_alternately", interrupted)
    assert cli.main([*SMALL, "--json", str(tmp_path / "bench.json")]) == 130
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_measurement")
@pytest.mark.parametrize(("package", "argv"), [("rich", ["info"]), ("rich", SMALL), ("matplotlib", SMALL)])
def test_missing_package(package, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    plot = ["--plot", str(tmp_path / "plot.png")] if package == "matplotlib" else []
    assert cli.main([*argv, *plot]) == 2
    assert capsys.readouterr() == ("", f"xent: {package} is missing; install it with: pip install {package}\n")
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_needed_for_plots_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(SMALL) == 0


def test_import_without_rich():
    program = "import sys; sys.modules['rich'] = None; from xent import cli; sys.exit(cli.main(['info']))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "xent: rich is missing; install it with: pip install rich\n"
