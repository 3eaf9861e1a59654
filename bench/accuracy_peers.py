"""The same functions by NumPy, SciPy, PyTorch, JAX and scikit-learn, as their users call them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from contract import Results, split
from numpy.typing import NDArray

Compute = Callable[[NDArray[Any], NDArray[np.int64]], Results]


def _of_rows(loss: Any, grad: Any, c: NDArray[np.int64]) -> Results:
    at_target, elsewhere = split(np.asarray(grad), c)
    return {"loss": np.asarray(loss), "gradient at the target": at_target, "gradient elsewhere": elsewhere}


def with_numpy(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with the stable formula that is mostly written: the largest logit subtracted first."""
    rows = np.arange(len(x))
    shifted = x - x.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    total = exp.sum(axis=1, keepdims=True)
    log_softmax = shifted - np.log(total)
    loss = -log_softmax[rows, c]
    softmax = exp / total
    grad = softmax.copy()
    grad[rows, c] -= 1
    return {
        **_of_rows(loss, grad, c),
        "mean of losses": loss.mean(keepdims=True),
        "softmax": softmax,
        "log_softmax": log_softmax,
        "logsumexp": np.log(total[:, 0]) + x.max(axis=1),
    }


def with_scipy(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with scipy.special."""
    special = importlib.import_module("scipy.special")
    log_softmax = special.log_softmax(x, axis=1)
    loss = -log_softmax[np.arange(len(x)), c]
    return {
        "loss": loss,
        "mean of losses": loss.mean(keepdims=True),
        "softmax": special.softmax(x, axis=1),
        "log_softmax": log_softmax,
        "logsumexp": special.logsumexp(x, axis=1),
    }


def with_torch(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with torch.nn.functional and autograd."""
    torch: Any = importlib.import_module("torch")
    functional = torch.nn.functional
    logits, target = torch.tensor(x, requires_grad=True), torch.tensor(c)
    loss = functional.cross_entropy(logits, target, reduction="none")
    loss.sum().backward()
    with torch.no_grad():
        return {
            **_of_rows(loss, logits.grad, c),
            "mean of losses": functional.cross_entropy(logits, target).numpy()[np.newaxis],
            "softmax": functional.softmax(logits, dim=1).numpy(),
            "log_softmax": functional.log_softmax(logits, dim=1).numpy(),
            "logsumexp": torch.logsumexp(logits, dim=1).numpy(),
        }


def with_jax(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with jax.nn and jax.grad."""
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    rows = np.arange(len(x))

    def losses(logits: Any) -> Any:
        return -jax.nn.log_softmax(logits)[rows, c]

    def everything(logits: Any) -> tuple[Any, ...]:
        grad = jax.grad(lambda logits: losses(logits).sum())(logits)
        loss = losses(logits)
        others = jax.nn.softmax(logits), jax.nn.log_softmax(logits), jax.nn.logsumexp(logits, axis=1)
        return loss, grad, loss.mean(keepdims=True), *others

    loss, grad, *others = (np.asarray(result) for result in jax.jit(everything)(x))
    names = ("mean of losses", "softmax", "log_softmax", "logsumexp")
    return {**_of_rows(loss, grad, c), **dict(zip(names, others, strict=True))}


def with_sklearn(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with the loss that scikit-learn's classifiers minimise."""
    module = importlib.import_module("sklearn._loss")
    loss_function = module.HalfMultinomialLoss(n_classes=x.shape[1])
    loss, grad = loss_function.loss_gradient(y_true=c.astype(x.dtype), raw_prediction=x)
    return {
        **_of_rows(loss, grad, c),
        "mean of losses": np.array([loss.mean()]),
        "softmax": loss_function.predict_proba(x),
    }


PEERS: dict[str, tuple[str, str, Compute]] = {
    "NumPy": ("numpy", "the stable formula", with_numpy),
    "SciPy": ("scipy", "scipy.special", with_scipy),
    "PyTorch": ("torch", "nn.functional and autograd", with_torch),
    "JAX": ("jax", "jax.nn and jax.grad", with_jax),
    "scikit-learn": ("scikit-learn", "HalfMultinomialLoss", with_sklearn),
}


def installed() -> dict[str, str]:
    """Return the versions of the peers that are there, by name."""
    versions = {}
    for name, (package, _, _) in PEERS.items():
        try:
            versions[name] = version(package)
        except PackageNotFoundError:
            continue
    return versions
