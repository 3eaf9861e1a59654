"""What bench/ concludes from its measurements, and that a comparison runs from end to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from build_core import ROOT

import instructions
import xent
from cases import BY_NAME, CASES, Case, Logits, Truth, first_row
from results import Bandwidth, Measurement, Result
from targets import TARGETS, thread_comparisons, verdicts
from xent._bench import Timing

LONG = Logits((1_024, 32_768))
FUSED = Case(LONG, "fused", "given")


def measurement(case, peer, milliseconds, threads=2):
    seconds = milliseconds / 1e3
    return Measurement(case, peer, threads, Timing(seconds, seconds, seconds * 0.99, seconds * 1.01, 5, 1))


def result(*measurements, bandwidth=50e9):
    cases = {m.case for m in measurements}
    bandwidths = [Bandwidth(case, case.bandwidth, 2, bandwidth, bandwidth, bandwidth) for case in cases]
    machine = {"cpu": "a", "caches": {"L1": "32K"}, "compiler": "cc", "python": "3"}
    return Result("command", machine, {"xent": "1"}, {}, {}, list(measurements), bandwidths)


def test_every_target_is_measured():
    assert {target.case for target in TARGETS} <= set(CASES)
    assert all(BY_NAME[str(case)] == case for case in CASES)


def test_fresh_gradients_of_others_count_against_a_given_one():
    fresh = Case(LONG, "fused", "fresh")
    found = result(measurement(FUSED, "xent", 6), measurement(fresh, "jax", 30), measurement(fresh, "torch", 90))
    (verdict,) = verdicts(found)
    assert (verdict.best_peer, verdict.peers.value) == ("jax", pytest.approx(5))
    assert not verdict.met  # 10 times is asked for


def test_given_gradients_of_others_do_not_count_against_a_fresh_one():
    fresh = Case(LONG, "fused", "fresh")
    found = result(measurement(fresh, "xent", 6), measurement(FUSED, "sklearn", 1), measurement(fresh, "jax", 30))
    (verdict,) = verdicts(found)
    assert (verdict.best_peer, verdict.met) == ("jax", True)


@pytest.mark.parametrize(("milliseconds", "met"), [(5.9, True), (6.1, False)])
def test_share_of_the_memory(milliseconds, met):
    found = result(measurement(FUSED, "xent", milliseconds), measurement(FUSED, "numpy careful", 100))
    (verdict,) = verdicts(found)
    assert verdict.memory.value == pytest.approx(8 * LONG.size / (milliseconds / 1e3) / 50e9)
    assert (verdict.peers.met, verdict.memory.met, verdict.met) == (True, met, met)


@pytest.mark.parametrize(("microseconds", "met"), [(2.4, True), (2.6, False)])
def test_longest_call(microseconds, met):
    call = Case(Logits((64, 10)), "forward")
    found = result(measurement(call, "xent", microseconds / 1e3), measurement(call, "numba", 100))
    (verdict,) = verdicts(found)
    assert (verdict.peers.met, verdict.microseconds.met, verdict.met) == (True, met, met)


def test_without_a_peer_a_target_is_not_met():
    (verdict,) = verdicts(result(measurement(FUSED, "xent", 1)))
    assert not verdict.met


@pytest.mark.parametrize(("one", "two", "met"), [(20, 10, True), (20, 11, False), (6, 5.99, True), (0.1, 0.11, False)])
def test_threads(one, two, met):
    found = result(measurement(FUSED, "xent", one, threads=1), measurement(FUSED, "xent", two))
    (comparison,) = thread_comparisons(found)
    assert comparison.figure.met == met


def test_result_survives_json(tmp_path):
    found = result(measurement(FUSED, "xent", 5), measurement(Case(LONG, "forward"), "torch", 3, threads=1))
    found.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == found


def test_truth_notices_another_function():
    logits, target = Logits((32, 21, 256, 256)).generate(0)
    logits, target = logits[:2, :, :5, :5], target[:2, :5, :5]
    loss, grad = xent.cross_entropy_and_grad(logits, target, axis=1)
    truth = Truth.of(logits, target)
    assert truth.agrees(float(loss), first_row(grad))
    assert not truth.agrees(float(loss) * 1.001, first_row(grad))
    assert not truth.agrees(float(loss), first_row(grad * np.float32(target.size)))


def test_grown_instructions():
    committed = {"avx2": {"a": 10.0, "b": 10.0}}
    assert instructions.grown({"avx2": {"a": 10.2, "b": 9.0}}, committed) == []
    assert instructions.grown({"avx2": {"a": 10.3, "b": 9.0, "c": 1.0}}, committed) == ["avx2, a", "avx2, c"]


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs cc -fopenmp")
def test_comparison(tmp_path):
    what = ["--peer", "xent", "--peer", "numpy", "--case", "64x10*forward", "--threads", "1"]
    how = ["--rounds", "1", "--seconds", "0.01", "--check", "--json", tmp_path / "result.json"]
    command = [sys.executable, ROOT / "bench" / "compare.py", *what, *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # whether it is fast enough is not tested here
    assert "64x10 f32 forward" in done.stdout
    content = json.loads((tmp_path / "result.json").read_text())
    assert [m["peer"] for m in content["measurements"]] == ["xent", "numpy"]
    assert all(m["seconds"]["median"] > 0 for m in content["measurements"])
    assert content["absent"] == content["failed"] == {}
