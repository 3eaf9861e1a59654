"""Who computes the cross-entropy: xent, and everything else that does it on a CPU, each as its users write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import xent
from cases import CLASS_AXIS
from frameworks import Jax, OnnxRuntime, TensorFlow, Torch, TorchCompile
from peer import Peer, UnableError
from xent._bench import NumpyCrossEntropy


class Xent(Peer):
    """The package itself."""

    name = "xent"
    packages = ("xent",)
    dtypes = ("bf16", "f32", "f64")

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        self.arguments: dict[str, Any] = {"axis": CLASS_AXIS, "n_threads": threads}

    def forward(self) -> Any:
        return xent.cross_entropy(self.logits, self.target, **self.arguments)

    def fused_given(self) -> Any:
        return xent.cross_entropy_and_grad(self.logits, self.target, grad_out=self.out, **self.arguments)

    def fused_fresh(self) -> Any:
        return xent.cross_entropy_and_grad(self.logits, self.target, **self.arguments)

    def fused_in_place(self) -> Any:
        return xent.cross_entropy_and_grad(self.logits, self.target, grad_out=self.logits, **self.arguments)

    @cached_property
    def lse(self) -> NDArray[np.float64]:
        """The saved logsumexp."""
        return np.asarray(xent.logsumexp(self.logits, axis=CLASS_AXIS), dtype=np.float64)

    def backward_given(self) -> Any:
        return xent.cross_entropy_grad(self.logits, self.target, lse=self.lse, grad_out=self.out, **self.arguments)


class XentAvx2(Xent):
    """The package held to AVX2, on machines that have more."""

    name = "xent avx2"

    @classmethod
    def missing(cls) -> str | None:
        """Return why it would be no other than xent."""
        isas = xent.show_config(mode="dicts")["supported_isas"]
        return None if "avx512" in isas else "AVX2 is the widest this machine has, or it has none"

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        os.environ["XENT_ISA"] = "avx2"  # read at the first call
        super().__init__(logits, target, threads)


class Numpy(Peer):
    """NumPy as it is mostly written: a fresh array for every step."""

    name = "numpy"
    packages = ("numpy",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        row_indices = np.indices(target.shape, sparse=True)
        self.at_target = (*row_indices[:CLASS_AXIS], target, *row_indices[CLASS_AXIS:])

    def log_softmax(self) -> NDArray[Any]:
        shifted = self.logits - self.logits.max(axis=CLASS_AXIS, keepdims=True)
        log_softmax: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=CLASS_AXIS, keepdims=True))
        return log_softmax

    def forward(self) -> Any:
        return -self.log_softmax()[self.at_target].mean()

    def fused_fresh(self) -> Any:
        log_softmax = self.log_softmax()
        grad = np.exp(log_softmax)
        grad[self.at_target] -= 1
        grad /= self.target.size
        return -log_softmax[self.at_target].mean(), grad


class CarefulNumpy(Peer):
    """NumPy with care: one exp a logit, every large array made beforehand."""

    name = "numpy careful"
    packages = ("numpy",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        self.apart = NumpyCrossEntropy(logits, target, self.out, CLASS_AXIS)
        self.in_place = NumpyCrossEntropy(logits, target, logits, CLASS_AXIS)

    def forward(self) -> Any:
        return self.apart.loss()

    def fused_given(self) -> Any:
        return self.apart.loss_and_grad()

    def fused_in_place(self) -> Any:
        return self.in_place.loss_and_grad()

    @cached_property
    def lse(self) -> NDArray[Any]:
        """The saved logsumexp, which broadcasts against the logits."""
        largest = self.logits.max(axis=CLASS_AXIS, keepdims=True)
        return np.asarray(largest + np.log(np.exp(self.logits - largest).sum(axis=CLASS_AXIS, keepdims=True)))

    def backward_given(self) -> Any:
        np.subtract(self.logits, self.lse, out=self.out)
        np.exp(self.out, out=self.out)
        self.out[self.apart.at_target] -= 1
        self.out /= self.target.size
        return self.out


class Scipy(Numpy):
    """SciPy's log_softmax in the place of NumPy's arithmetic."""

    name = "scipy"
    packages = ("scipy",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        self.function = import_module("scipy.special").log_softmax

    def log_softmax(self) -> NDArray[Any]:
        log_softmax: NDArray[Any] = self.function(self.logits, axis=CLASS_AXIS)
        return log_softmax


class Sklearn(Peer):
    """scikit-learn's loss of multinomial models, in Cython and OpenMP."""

    name = "sklearn"
    packages = ("sklearn",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        if logits.ndim > 2:
            raise UnableError("rows of classes only")
        loss = import_module("sklearn._loss").HalfMultinomialLoss(n_classes=logits.shape[CLASS_AXIS])
        rows = len(target)
        arguments = {
            "y_true": target.astype(logits.dtype),  # it has no integer labels
            "raw_prediction": logits,
            "sample_weight": np.full(rows, 1 / rows, dtype=logits.dtype),  # the mean, without another pass
            "n_threads": threads,
        }
        loss_out = np.empty(rows, dtype=logits.dtype)
        self.loss = partial(loss.loss, loss_out=loss_out, **arguments)
        self.loss_gradient = partial(loss.loss_gradient, loss_out=loss_out, **arguments)

    def forward(self) -> Any:
        return self.loss().sum()

    def fused_given(self) -> Any:
        loss, grad = self.loss_gradient(gradient_out=self.out)
        return loss.sum(), grad

    def fused_fresh(self) -> Any:
        loss, grad = self.loss_gradient()
        return loss.sum(), grad


@cache
def numba_kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the forward and the fused kernel, which compile themselves once for each type of logits."""
    numba = import_module("numba")
    numba_range = numba.prange

    def loss(x: Any, labels: Any, losses: Any) -> Any:
        for i in numba_range(x.shape[0]):
            largest = x[i, 0]
            for j in range(x.shape[1]):
                largest = max(largest, x[i, j])
            total = x.dtype.type(0)
            for j in range(x.shape[1]):
                total += np.exp(x[i, j] - largest)
            losses[i] = np.log(total) + largest - x[i, labels[i]]
        return losses.mean()

    def loss_and_grad(x: Any, labels: Any, losses: Any, grad: Any) -> Any:
        rows = x.shape[0]
        for i in numba_range(rows):
            largest = x[i, 0]
            for j in range(x.shape[1]):
                largest = max(largest, x[i, j])
            target_logit = x[i, labels[i]]
            total = x.dtype.type(0)
            for j in range(x.shape[1]):
                grad[i, j] = np.exp(x[i, j] - largest)
                total += grad[i, j]
            losses[i] = np.log(total) + largest - target_logit
            factor = x.dtype.type(1 / rows) / total
            for j in range(x.shape[1]):
                grad[i, j] *= factor
            grad[i, labels[i]] -= x.dtype.type(1 / rows)
        return losses.mean()

    compiled = numba.njit(parallel=True, fastmath=True)
    return compiled(loss), compiled(loss_and_grad)


class Numba(Peer):
    """Plain loops over a row, compiled by Numba with its fast mathematics, rows in parallel."""

    name = "numba"
    packages = ("numba",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        if logits.ndim > 2:
            raise UnableError("rows of classes only")
        import_module("numba").set_num_threads(threads)
        losses = np.empty(len(target), dtype=logits.dtype)
        self.loss, self.loss_to = (partial(kernel, logits, target, losses) for kernel in numba_kernels())

    def forward(self) -> Any:
        return self.loss()

    def fused_given(self) -> Any:
        return self.loss_to(self.out), self.out

    def fused_fresh(self) -> Any:
        grad = np.empty_like(self.logits)
        return self.loss_to(grad), grad

    def fused_in_place(self) -> Any:
        return self.loss_to(self.logits), self.logits


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Xent,
        XentAvx2,
        Numpy,
        CarefulNumpy,
        Scipy,
        Sklearn,
        Torch,
        TorchCompile,
        Jax,
        TensorFlow,
        OnnxRuntime,
        Numba,
    )
}
OURS = (Xent.name, XentAvx2.name)
