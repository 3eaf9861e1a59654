"""Softmax cross-entropy and its gradient on NumPy arrays, on the CPU."""

from importlib.metadata import version

from xent import reference
from xent._api import (
    Evaluation,
    cross_entropy,
    cross_entropy_and_grad,
    cross_entropy_grad,
    cross_entropy_grad_hess,
    cross_entropy_hessian,
    cross_entropy_hvp,
    evaluate,
    log_softmax,
    logsumexp,
    softmax,
)
from xent._config import get_num_threads, set_num_threads, show_config
from xent._shards import PartialStatistics, merge_statistics, partial_statistics

__version__ = version("xent")

__all__ = [
    "Evaluation",
    "PartialStatistics",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_hessian",
    "cross_entropy_hvp",
    "evaluate",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "merge_statistics",
    "partial_statistics",
    "reference",
    "set_num_threads",
    "show_config",
    "softmax",
]
