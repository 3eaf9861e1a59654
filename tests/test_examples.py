"""The examples: on real scans both losses train alike, and a vocabulary in shards trains like a whole one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def digits():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "digits", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def rows_of(printed):
    """Return {(model, loss): (accuracy, training loss)} of the printed table."""
    rows = {}
    for line in printed.splitlines()[1:5]:
        *name, accuracy, loss, _ = line.rsplit(maxsplit=3)
        model, used = name[0].rsplit(maxsplit=1)
        rows[model.strip(), used] = float(accuracy), float(loss)
    return rows


def test_digits(digits, tmp_path, capsys):
    assert digits.main(["--plot", str(tmp_path / "curves.png")]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["softmax regression", "xent"][0] > 0.95
    assert rows["two-layer perceptron", "xent"][0] > 0.97
    for model in digits.MODELS:
        assert rows[model, "xent"][1] == pytest.approx(rows[model, "NumPy"][1], rel=0.05)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_shards():
    printed = subprocess.run(
        [sys.executable, EXAMPLES / "shards.py"], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    steps = [line.split() for line in printed.splitlines()[1:]]
    assert [step for step, *_ in steps] == ["1", "2", "3", "4", "5"]
    for _, alone, *in_shards in steps:
        assert len(in_shards) == 1  # all processes have the same loss
        assert float(in_shards[0]) == pytest.approx(float(alone), rel=1e-4)  # but for the rounding of their products


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "invalid positive value: '0'"),
        (["--plot", "curves.txt"], "curves.txt must end in .png or .svg"),
        (["--plot", "nowhere/curves.png"], "the folder of nowhere/curves.png does not exist"),
    ],
)
def test_bad_options(digits, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        digits.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
