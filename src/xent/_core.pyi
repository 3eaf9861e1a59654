"""Types of the compiled binding."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_VALUES: int
GRADIENT: int
SOFTMAX: int
LOG_SOFTMAX: int
PRODUCT: int
CURVATURES: dict[str, int]
BLOCK_OF_CLASSES: int
BLOCK: np.dtype[np.void]
LISTED_CLASS: np.dtype[np.void]
ISAS: tuple[str, ...]

def run(
    logits: NDArray[Any],
    *,
    output: int = ...,
    values: NDArray[Any] | None = None,
    curvature: NDArray[Any] | None = None,
    curvature_kind: int = ...,
    vector: NDArray[Any] | None = None,
    target: NDArray[Any] | None = None,
    probabilities: NDArray[Any] | None = None,
    indices: NDArray[Any] | None = None,
    tail: bool = False,
    mask: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
    sample_weight: NDArray[Any] | None = None,
    ignore: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    scale: float = 1.0,
    softcap: float = 0.0,
    mean: bool = False,
    denominator: float = 0.0,
    upstream_scalar: float = 1.0,
    upstream: NDArray[Any] | None = None,
    lse_in: NDArray[Any] | None = None,
    loss: NDArray[Any] | None = None,
    lse: NDArray[Any] | None = None,
    noted: NDArray[Any] | None = None,
    noted_listed: NDArray[Any] | None = None,
    whole: NDArray[Any] | None = None,
    whole_listed: NDArray[Any] | None = None,
    offset: int = 0,
    classes: int = 0,
    plain: bool = True,
    threads: int = 0,
) -> float: ...
def run_evaluation(
    logits: NDArray[Any],
    *,
    lse: NDArray[Any] | None = None,
    argmax: NDArray[Any] | None = None,
    entropy: NDArray[Any] | None = None,
    target: NDArray[Any] | None = None,
    log_prob: NDArray[Any] | None = None,
    rank: NDArray[Any] | None = None,
    top_log_probs: NDArray[Any] | None = None,
    top_classes: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    scale: float = 1.0,
    softcap: float = 0.0,
    threads: int = 0,
) -> None: ...
def run_directly(
    logits: object,
    target: object,
    weight: object,
    sample_weight: object,
    ignore: object,
    label_smoothing: object,
    z_loss: object,
    scale: object,
    softcap: object,
    lse: object,
    axis: object,
    reduction: object,
    grad_output: object,
    grad_out: object,
    wants_loss: bool,
    wants_gradient: bool,
    n_threads: object,
) -> Any: ...
def map_directly(logits: object, axis: object, scale: object, out: object, output: int, n_threads: object) -> Any: ...
def isa() -> str: ...
def supported_isas() -> list[str]: ...
def available_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def threading() -> str: ...
