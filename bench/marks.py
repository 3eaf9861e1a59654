"""Generated parts of hand-written pages: the text between two marks."""

from __future__ import annotations

import re
from pathlib import Path


def replace_between_marks(page: Path, name: str, text: str) -> None:
    """Replace what is between ``<!-- name -->`` and ``<!-- end of name -->`` in a page.

    Raises
    ------
    ValueError
        If the page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    replaced, count = re.subn(
        f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page.read_text(), flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{page} has the marks {begin.strip()} {end.strip()} {count} times, not once")
    page.write_text(replaced)
