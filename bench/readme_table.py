"""Write the table of the README from what ``xent bench --json FILE`` measured.

xent bench --json bench/result.json && python bench/readme_table.py bench/result.json README.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from marks import replace_between_marks


def duration(seconds: float) -> str:
    """Return microseconds or milliseconds, to three digits."""
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def table(result: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table, every one of them."""
    lines = [
        "| rows x classes | operation | NumPy | xent | speed-up | error of xent | of NumPy |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for m in result["measurements"]:
        ours, theirs = m["xent"], m["numpy"]
        error, their_error = (max(e for e in side["max_error"].values() if e is not None) for side in (ours, theirs))
        lines.append(
            f"| {m['rows']} x {m['classes']} | {m['operation']} "
            f"| {duration(theirs['seconds']['median'])} | {duration(ours['seconds']['median'])} "
            f"| {m['speedup']:.1f} | {error:.1e} | {their_error:.1e} |"
        )
    return "\n".join([*lines, "", f"`{result['command']}`", ""])


def main(result_path: str, readme_path: str) -> None:
    """Replace what is between the marks in the README."""
    replace_between_marks(Path(readme_path), "xent bench", table(json.loads(Path(result_path).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
