"""What the commands of ``xent`` share: errors for the user, the console, whole files, the machine's name."""

from __future__ import annotations

import contextlib
import importlib
import io
import platform
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from shutil import get_terminal_size
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

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
        raise UsageError(f"{package} is missing; install it with: pip install {package}") from None


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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the operating system say of which file it is: those of open files do not know."""
    try:
        yield
    except OSError as error:
        error.filename = str(path) if error.filename is None else error.filename
        raise


class Outputs:
    """Files that are written beside their targets, and take their places together, or vanish."""

    def __init__(self) -> None:
        self._parts: list[tuple[Path, Path]] = []
        self._files: list[tuple[BinaryIO, Path]] = []

    def open(self, path: Path) -> BinaryIO:
        """Return a new file that is to become the one of that path."""
        target = path.resolve()  # what a symbolic link leads to is replaced, not the link
        part = target.with_name(f".xent-{secrets.token_hex(8)}.part")
        self._parts.append((part, target))  # first: an interrupt may come at any time
        file = part.open("x+b")
        self._files.append((file, path))
        return file

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that has this content."""
        with naming(path):
            self.open(path).write(content)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            with contextlib.ExitStack() as closing:  # all, even if what is left cannot be written to one
                for file, path in self._files:
                    closing.enter_context(naming(path))
                    closing.enter_context(file)
            if kind is None:
                for part, target in self._parts:
                    part.replace(target)
        finally:
            for part, _target in self._parts:
                part.unlink(missing_ok=True)


def drawn(figure: Figure, path: Path) -> bytes:
    """Return a figure in the format of the path's suffix."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    return content.getvalue()
