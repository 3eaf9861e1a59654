"""The scripts of bench/: which figures they name as grown or beyond the promise, how they write them; what compiles."""

from __future__ import annotations

import json
import math

import pytest
from build_core import build_core, isas_of
from cross import NATIVE, Core
from exp_exhaustive import compile_for

import accuracy
import cost_of_care
from accuracy_tables import Table, all_tables, over_families, ulp_text
from marks import replace_between_marks

FAMILY, FUNCTION = "ordinary", "loss"


def figures(worst, mean=0.25, isa="avx2", function=FUNCTION):
    return {isa: {"float32": {function: {FAMILY: {"worst": worst, "mean": mean}}}, "float64": {}}}


def test_a_figure_that_grew_is_named():
    before = figures(0.6)
    assert accuracy.grown(figures(0.6), before, ["avx2"]) == []
    assert accuracy.grown(figures(0.5, 0.2), before, ["avx2"]) == []
    (worst,) = accuracy.grown(figures(0.7), before, ["avx2"])
    assert worst == "avx2 float32 loss, ordinary rows, worst: 0.7 ulp, was 0.6"
    (mean,) = accuracy.grown(figures(0.6, 0.3), before, ["avx2"])
    assert mean.endswith("mean: 0.3 ulp, was 0.25")


def test_fused_instruction_sets_are_compared_with_each_other():
    before = figures(0.6) | figures(0.9, isa="scalar")
    assert accuracy.grown(figures(0.6, isa="neon"), before, ["neon"]) == []
    assert len(accuracy.grown(figures(0.7, isa="neon"), before, ["neon"])) == 1
    assert accuracy.grown(figures(0.7, isa="scalar"), before, ["scalar"]) == []


def test_a_figure_that_was_not_measured_before_is_named():
    found = accuracy.grown(figures(0.6, function="softmax"), figures(0.6), ["avx2"])
    assert len(found) == 2
    assert all(sentence.endswith("was not measured") for sentence in found)


def test_a_broken_promise_is_named():
    assert accuracy.too_large(figures(1.0), ["avx2"]) == []
    assert accuracy.too_large(figures(1.01), ["avx2"]) == ["avx2 float32 loss, ordinary rows: 1.01 ulp, promised 1"]


def test_errors_to_read():
    assert ulp_text(0.567, "float32") == "0.57"
    assert ulp_text(12345.0, "float32") == "1.2e4"
    assert ulp_text(2.0**23, "float32") == "no digit"
    assert ulp_text(2.0**23, "float64") == "8.4e6"
    assert ulp_text(2.0**50, "float64") == "1.1e15"
    assert ulp_text(math.inf, "float64") == "not finite"


def test_families_count_the_same():
    few = {"worst": 0.9, "mean": 0.5}
    assert over_families({"a": few, "b": {"worst": 0.5, "mean": 0.1}}) == {"worst": 0.9, "mean": 0.3}
    assert over_families({}) is None


def test_tables():
    result = {"figures": {**figures(0.6), **figures(math.inf, isa="NumPy")}, "isas": ["avx2"], "peers": {"NumPy": "2"}}
    own, *_ = tables = all_tables(result)
    assert ("loss", "1", "0.60 (0.25)") in own.rows
    (row,) = next(table.rows for table in tables if table.header[-1] == "NumPy" and table.rows)
    assert row == ("ordinary", "0.60 (0.25)", "not finite (0.25)")
    assert Table("T", ("", "a"), [("b", "1")]).markdown() == "T:\n\n|  | a |\n| --- | ---: |\n| b | 1 |\n"


def test_json(tmp_path):
    result = {"isas": ["avx2"], "figures": figures(0.6)}
    accuracy.write_json(tmp_path / "a.json", result)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == result
    assert '{"worst": 0.6, "mean": 0.25}' in text
    accuracy.write_json(tmp_path / "a.json", figures(math.inf))
    assert json.loads((tmp_path / "a.json").read_text()) == figures(None)


def test_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- it -->\nold\n<!-- end of it -->\nafter\n")
    replace_between_marks(page, "it", r"new \1")
    assert page.read_text() == "before\n<!-- it -->\n\nnew \\1\n<!-- end of it -->\nafter\n"
    with pytest.raises(ValueError, match="0 times, not once"):
        replace_between_marks(page, "other", "new")


def test_careless_kernels_compile(tmp_path):
    csrc = cost_of_care.copy_sources(tmp_path, "careless")
    build_core(tmp_path, extra_flags=["-fsyntax-only"], csrc=csrc)  # whole, that takes a minute


def test_the_exhaustive_test_of_exp_compiles(tmp_path):
    for isa in isas_of():
        compile_for(Core(isa, NATIVE), tmp_path)
