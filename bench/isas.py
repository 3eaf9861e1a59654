"""xent under each instruction set of this machine: XENT_ISA is read once, so that each has a process of its own."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import xent


def _use(isa: str) -> None:
    os.environ["XENT_ISA"] = isa
    used = xent.show_config(mode="dicts")["isa"]
    if used != isa:
        raise RuntimeError(f"the kernels of {used} are in use already, not those of {isa}")


@cache
def isa_executor(isa: str) -> ProcessPoolExecutor:
    """Return a process in which xent uses the instruction set."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_use, initargs=(isa,))


def supported_isas() -> list[str]:
    """Return the instruction sets of this machine, from the narrowest on."""
    isas: list[str] = xent.show_config(mode="dicts")["supported_isas"]
    return isas
