"""What all that compute the cross-entropy have in common.

A peer can do what it has a method for: ``forward``, ``fused_given`` (the gradient goes into an array that is
there already), ``fused_fresh``, ``fused_in_place`` (over the logits), ``backward_given`` (the gradient from a
saved logsumexp). All return the mean loss, or it and the gradient, or the gradient. What can be made before
the call is made in the constructor: the results' arrays, the labels' type, compiled functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cases import DTYPES, Dtype


class UnableError(Exception):
    """Something that a peer does not do, and why."""


class Peer:
    """What is common to all: the logits, the targets, and an array for the gradient when it is needed."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    dtypes: ClassVar[tuple[Dtype, ...]] = ("f32", "f64")  # of the logits

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        self.logits = logits
        self.target = target
        self.threads = threads

    @classmethod
    def missing(cls) -> str | None:
        """Return why the peer cannot run here, or nothing."""
        missing = [package for package in cls.packages if find_spec(package) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the versions of the packages it is made of, whatever distributions bring them."""
        distributions = packages_distributions()
        return {package: version(distributions[package][0]) for package in cls.packages}

    @classmethod
    def of(cls, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> Peer:
        """Return one that holds the logits, if it takes their dtype."""
        if logits.dtype not in [DTYPES[dtype] for dtype in cls.dtypes]:
            raise UnableError(f"{cls.name} does not take {logits.dtype}")
        return cls(logits, target, threads)

    def call(self, method: str) -> Callable[[], Any]:
        """Return what is to be timed."""
        if not hasattr(self, method):
            raise UnableError(f"{self.name} has no such call")
        function: Callable[[], Any] = getattr(self, method)
        return function

    def loss_and_grad(self, result: Any) -> tuple[float | None, NDArray[Any] | None]:
        """Return the result of a call as NumPy has it."""
        loss, grad = result if isinstance(result, tuple) else (result, None)
        if np.ndim(loss):  # a gradient alone
            loss, grad = None, loss
        return None if loss is None else float(loss), None if grad is None else np.asarray(grad)

    @cached_property
    def out(self) -> NDArray[Any]:
        """An array for the gradient, its pages touched."""
        return np.zeros_like(self.logits) + 1
