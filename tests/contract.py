"""What docs/accuracy.md promises, function by function, and results in the form in which they are compared with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from exact import Real, Rows, mean
from numpy.typing import NDArray
from ulp import distances, is_subnormal

import xent

# In ulp. Subnormal results, of whichever function, are counted apart, and in subnormal steps. Those of softmax and
# of the gradient but at the target are the product of a rounded exponential and a factor. Just below the smallest
# normal number a step is 2^-23 of them, of float: the exponential has lost up to 0.53 of it and the sum in the factor
# 0.22; the product, before it becomes subnormal, up to 0.25; and the last rounding takes 0.5. That is 1.50, of double
# 1.48; 1.25 is the worst that was met.
PROMISED = {
    "float32": {
        "loss": 1,
        "mean of losses": 1,
        "gradient at the target": 2,
        "gradient elsewhere": 2,
        "softmax": 2,
        "log_softmax": 2,
        "logsumexp": 1,
        "subnormal results": 1,
        "subnormal softmax": 1.5,
    },
    "float64": {
        "loss": 4,
        "mean of losses": 4,
        "gradient at the target": 4,
        "gradient elsewhere": 4,
        "softmax": 4,
        "log_softmax": 4,
        "logsumexp": 4,
        "subnormal results": 1,
        "subnormal softmax": 1.5,
    },
}
FUNCTIONS = tuple(PROMISED["float32"])
PRODUCTS = ("gradient elsewhere", "softmax")

Results = dict[str, NDArray[Any]]


def split(grad: Any, c: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return a gradient's components at the targets, shape (N,), and the others, shape (N, K - 1)."""
    is_target = np.arange(grad.shape[1]) == c[:, np.newaxis]
    return grad[is_target], grad[~is_target].reshape(len(c), -1)


def xent_results(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute everything with xent."""
    loss, grad = xent.cross_entropy_and_grad(x, c, reduction="none")
    at_target, elsewhere = split(grad, c)
    return {
        "loss": loss,
        "mean of losses": np.array([xent.cross_entropy(x, c)]),
        "gradient at the target": at_target,
        "gradient elsewhere": elsewhere,
        "softmax": xent.softmax(x),
        "log_softmax": xent.log_softmax(x),
        "logsumexp": xent.logsumexp(x),
    }


def xent_mean(x: NDArray[Any], c: NDArray[np.int64]) -> Results:
    """Compute with xent the mean of the losses of 100 000 000 rows, which are these again and again."""
    repeats = 100_000_000 // len(x)
    many_x, many_c = np.broadcast_to(x, (repeats, *x.shape)), np.broadcast_to(c, (repeats, *c.shape))
    return {"mean of losses": np.array([xent.cross_entropy(many_x, many_c)])}


def exact_results(x: NDArray[Any], c: NDArray[np.int64]) -> dict[str, Real]:
    """Compute everything exactly."""
    rows = Rows(x)
    grad, loss = rows.gradient(c), rows.loss(c)
    is_target = np.arange(x.shape[1]) == c[:, np.newaxis]
    return {
        "loss": loss,
        "mean of losses": mean(loss)[np.newaxis],
        "gradient at the target": grad[is_target],
        "gradient elsewhere": grad[~is_target].reshape(len(x), -1),
        "softmax": rows.softmax(),
        "log_softmax": rows.log_softmax(),
        "logsumexp": rows.logsumexp(),
    }


def errors(actual: Results, exact: dict[str, Real]) -> dict[str, NDArray[np.float64]]:
    """Return each function's distances in ulp, shape (N, n); those of subnormal results are apart, NaN in place."""
    result = {}
    subnormal: dict[str, list[NDArray[np.float64]]] = {"subnormal results": [], "subnormal softmax": []}
    for name in (name for name in FUNCTIONS if name in exact and name in actual):
        distance = distances(actual[name], exact[name])
        apart = is_subnormal(exact[name], actual[name].dtype)
        subnormal["subnormal softmax" if name in PRODUCTS else "subnormal results"].append(distance[apart])
        result[name] = np.where(apart, np.nan, distance).reshape(len(distance), -1)
    result.update({name: np.concatenate(parts)[np.newaxis] for name, parts in subnormal.items() if parts})
    return result


def worst_of_rows(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest distance of each row, 0 where none counts."""
    result: NDArray[np.float64] = np.max(distance, axis=1, where=~np.isnan(distance), initial=0)
    return result


def broken_promises(x: NDArray[Any], c: NDArray[np.int64], exact: dict[str, Real] | None = None) -> dict[str, str]:
    """Return each function that errs beyond its promise, by how much, and the row on which it does."""
    found = {}
    exact = exact_results(x, c) if exact is None else exact
    for name, distance in errors(xent_results(x, c), exact).items():
        worst = worst_of_rows(distance)
        if np.max(worst) > PROMISED[x.dtype.name][name]:
            found[name] = f"{np.max(worst):.3g} ulp"
            if len(worst) == len(x):
                row = int(np.argmax(worst))
                found[name] += f": target {c[row]} of {[float(v).hex() for v in x[row, :200]]}"
    return found
