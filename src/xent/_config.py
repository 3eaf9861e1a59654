"""What the user may set for the whole process, and what the build is."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any, Literal, overload

import numpy as np

from xent import _arrays, _core


def set_num_threads(n: int) -> None:
    """Set how many threads each later call uses at most, unless it says ``n_threads``.

    It takes the place of ``OMP_NUM_THREADS``. Small problems use fewer threads than they may, and no call
    that leaves the choice to xent uses more than `get_num_threads` finds worth using.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError
        If `n` is less than 1.
    TypeError
        If `n` is not an integer.

    Examples
    --------
    >>> import xent
    >>> before = xent.get_num_threads()
    >>> xent.set_num_threads(1)
    >>> xent.get_num_threads()
    1
    >>> xent.set_num_threads(before)
    """
    _core.set_num_threads(_arrays.threads("n", n))


def get_num_threads() -> int:
    """Return how many threads a call uses at most, unless it says ``n_threads``.

    It is the smallest of: what `set_num_threads` was given, or else ``OMP_NUM_THREADS``; the processors that
    this thread may run on at this moment; the processors' worth of time that the control groups of a
    container allow, rounded up; ``OMP_THREAD_LIMIT``, which limits ``n_threads``, too. The environment and
    the control groups are read once, when xent is imported.

    Returns
    -------
    int

    Examples
    --------
    >>> import xent
    >>> xent.get_num_threads() >= 1
    True
    """
    return _core.available_threads()


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Show the version, the instruction set in use, the threads and what they are made with.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Whether to print the configuration or to return it.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        If `mode` is neither of the two, or if ``XENT_ISA`` names no instruction set.
    RuntimeError
        If ``XENT_ISA`` names an instruction set that this machine cannot run.

    Examples
    --------
    >>> import xent
    >>> sorted(xent.show_config(mode="dicts"))
    ['isa', 'numpy', 'python', 'supported_isas', 'threading', 'threads', 'xent']
    """
    _arrays.choice("mode", mode, ("stdout", "dicts"))
    config = {
        "xent": version("xent"),
        "isa": _core.isa(),
        "supported_isas": _core.supported_isas(),
        "threading": _core.threading(),
        "threads": get_num_threads(),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }
    if mode == "dicts":
        return config
    for name, value in config.items():
        print(f"{name:>14}: {', '.join(value) if isinstance(value, list) else value}")
    return None
