"""The tables of bench/accuracy.py, for the terminal and for docs/accuracy.md, from the same cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from contract import FUNCTIONS, PROMISED
from families import LONG, QUICK
from rich import box
from rich.table import Table as RichTable

FAMILIES = {family.__name__: family.__doc__ or "" for family in (*QUICK, *LONG)}
DIGITS = {"float32": 24, "float64": 53}

# figures[subject][dtype][function][family] = {"worst": ulp, "mean": ulp}
Figures = dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]]


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text; the first column is of words, the others of figures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """Return the table for a page."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = [f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.rows)]
        return "\n".join([f"{self.title}:", "", *lines, ""])

    def rich(self) -> RichTable:
        """Return the table for a terminal."""
        table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(self.header):
            table.add_column(column, justify="right" if i else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table


def ulp_text(ulp: float, dtype: str) -> str:
    """Return an error to read: of a result that has no digit right, its size in ulp says nothing."""
    if math.isinf(ulp):
        return "not finite"
    if ulp >= 2.0 ** (DIGITS[dtype] - 2):  # a quarter of the result, or more
        return "no digit"
    return f"{ulp:.2f}" if ulp < 100 else f"{ulp:.1e}".replace("e+0", "e").replace("e+", "e")


def _cell(figure: dict[str, float] | None, dtype: str) -> str:
    if figure is None:
        return ""
    worst, mean = (ulp_text(figure[which], dtype) for which in ("worst", "mean"))
    return worst if worst == mean else f"{worst} ({mean})"


def over_families(figures: dict[str, dict[str, float]]) -> dict[str, float] | None:
    """Return the worst of all families, and the mean of their means: each family counts the same."""
    if not figures:
        return None
    means = [figure["mean"] for figure in figures.values()]
    return {"worst": max(figure["worst"] for figure in figures.values()), "mean": sum(means) / len(means)}


def own_table(figures: Figures, isas: list[str], dtype: str) -> Table:
    """Return what is promised and what was measured with each instruction set, over all families."""
    rows = []
    for function in FUNCTIONS:
        cells = (_cell(over_families(figures[isa][dtype].get(function, {})), dtype) for isa in isas)
        rows.append((function, str(PROMISED[dtype][function]), *cells))
    title = f"{dtype}, worst (and mean) error in ulp over all rows, for each instruction set"
    return Table(title, ("", "promised", *isas), rows)


def family_table(figures: Figures, subjects: dict[str, str], dtype: str, function: str) -> Table:
    """Return one function's errors, family by family, beside those of others; `subjects` are columns by figure."""
    rows = []
    for family in FAMILIES:
        cells = tuple(_cell(figures[s][dtype].get(function, {}).get(family), dtype) for s in subjects)
        if any(cells):
            rows.append((family.replace("_", " "), *cells))
    title = f"{function[0].upper()}{function[1:]} of {dtype} logits, worst (and mean) error in ulp"
    return Table(title, ("rows", *subjects.values()), rows)


def function_table(figures: Figures, subjects: dict[str, str], dtype: str, family: str) -> Table:
    """Return all functions' errors on the rows of one family, beside those of others."""
    rows = []
    for function in FUNCTIONS:
        cells = tuple(_cell(figures[s][dtype].get(function, {}).get(family), dtype) for s in subjects)
        if any(cells):
            rows.append((function, *cells))
    title = f"Every function on {family.replace('_', ' ')} rows of {dtype}, worst (and mean) error in ulp"
    return Table(title, ("", *subjects.values()), rows)


def all_tables(result: dict[str, Any]) -> list[Table]:
    """Return the tables of a result."""
    figures, isas = result["figures"], result["isas"]
    subjects = {isas[-1]: "xent", **{name: name for name in result["peers"]}}
    tables = [own_table(figures, isas, dtype) for dtype in PROMISED]
    for dtype in PROMISED:
        tables += [family_table(figures, subjects, dtype, name) for name in ("loss", "gradient at the target")]
        tables.append(function_table(figures, subjects, dtype, "ordinary"))
    return tables


def families_text() -> str:
    """Return what the families are, as a list."""
    return "\n".join(f"- **{name.replace('_', ' ')}**: {text}" for name, text in FAMILIES.items()) + "\n"
