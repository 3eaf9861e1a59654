"""What the commands of ``xent`` share: errors for the user, the console, whole files, the machine's name."""

from __future__ import annotations

import contextlib
import importlib
import io
import platform
import re
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import xent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

with contextlib.suppress(ModuleNotFoundError):  # `require` says how to install it
    from rich.console import Console

TABLE_WIDTH = 112


class UsageError(Exception):
    """A request that cannot be met, in one line for the user."""


def require(package: str) -> None:
    """Raise `UsageError` if an optional package is missing."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        raise UsageError(f"{package} is missing; install it with: pip install 'xent[cli]'") from None


def console() -> Console:
    """Return a console for tables: in a pipe, and in a narrow terminal, they are better wide than cut."""
    return Console(width=max(get_terminal_size().columns, TABLE_WIDTH), highlight=False)


def cpu_model() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        name = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if name:
            return name[1]
    return platform.processor() or platform.machine()


def configuration() -> dict[str, Any]:
    """Return what results depend on beside the settings."""
    try:
        return {"cpu": cpu_model(), **xent.show_config(mode="dicts")}
    except (RuntimeError, ValueError) as error:  # XENT_ISA
        raise UsageError(str(error)) from None


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    partial_file = path.with_name(f".{path.name}.part")
    try:
        partial_file.write_bytes(content)
        partial_file.replace(path)
    finally:
        partial_file.unlink(missing_ok=True)


def drawn(figure: Figure, path: Path) -> bytes:
    """Return a figure in the format of the path's suffix."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    return content.getvalue()
