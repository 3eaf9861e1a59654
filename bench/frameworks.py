"""PyTorch, JAX, TensorFlow and ONNX Runtime: what computes on arrays of its own, each as its users write it."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import CLASS_AXIS
from peer import Peer, UnableError


class Torch(Peer):
    """PyTorch, eager: F.cross_entropy, and its backward pass to the logits' gradient."""

    name = "torch"
    packages = ("torch",)
    dtypes = ("bf16", "f32", "f64")

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        self.torch = import_module("torch")
        self.torch.set_num_threads(threads)
        if logits.dtype.itemsize == 2:  # NumPy's bfloat16 has no name there
            self.tensor = self.torch.from_numpy(logits.view(np.uint16)).view(self.torch.bfloat16).requires_grad_()
        else:
            self.tensor = self.torch.from_numpy(logits).requires_grad_()
        self.labels = self.torch.from_numpy(target)
        self.function = import_module("torch.nn.functional").cross_entropy

    def forward(self) -> Any:
        with self.torch.no_grad():
            return self.function(self.tensor, self.labels)

    def fused_fresh(self) -> Any:
        self.tensor.grad = None
        loss = self.function(self.tensor, self.labels)
        loss.backward()
        return loss.detach(), self.tensor.grad

    def loss_and_grad(self, result: Any) -> tuple[float | None, NDArray[Any] | None]:
        """Return the result as NumPy has it; bfloat16 as float32."""
        loss, grad = result if isinstance(result, tuple) else (result, None)
        wide = None if grad is None else grad.float() if grad.dtype == self.torch.bfloat16 else grad
        return super().loss_and_grad(loss if wide is None else (loss, wide))


class TorchCompile(Torch):
    """PyTorch's compiler on the same."""

    name = "torch.compile"

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        self.torch.compiler.reset()
        self.function = self.torch.compile(self.function, dynamic=False)


class Jax(Peer):
    """JAX and optax, jitted; the gradient from value_and_grad, in place by donating the logits."""

    name = "jax"
    packages = ("jax", "optax")
    dtypes = ("bf16", "f32", "f64")

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        jax = import_module("jax")
        jax.config.update("jax_enable_x64", logits.dtype == np.float64)
        # JAX's arrays have one memory order: for the other, the transposed problem is the same one.
        self.transposed = not logits.flags.c_contiguous
        axis = 0 if self.transposed else CLASS_AXIS
        loss_of_rows = import_module("optax").losses.softmax_cross_entropy_with_integer_labels

        def mean_loss(x: Any, labels: Any) -> Any:
            return loss_of_rows(x, labels, axis=axis).mean()

        self.array = jax.numpy.array(logits.T if self.transposed else logits)
        self.labels = jax.numpy.array(target)
        self.function = jax.jit(mean_loss)
        self.value_and_grad = jax.jit(jax.value_and_grad(mean_loss))
        self.donating = jax.jit(jax.value_and_grad(mean_loss), donate_argnums=0)
        self.wait = jax.block_until_ready

    def forward(self) -> Any:
        return self.wait(self.function(self.array, self.labels))

    def fused_fresh(self) -> Any:
        return self.wait(self.value_and_grad(self.array, self.labels))

    def fused_in_place(self) -> Any:
        loss, self.array = self.wait(self.donating(self.array, self.labels))
        return loss, self.array

    def loss_and_grad(self, result: Any) -> tuple[float | None, NDArray[Any] | None]:
        """Return the result as NumPy has it, and in the order it was given."""
        loss, grad = super().loss_and_grad(result)
        return loss, grad.T if grad is not None and self.transposed else grad


class TensorFlow(Peer):
    """TensorFlow, in a graph compiled by XLA."""

    name = "tensorflow"
    packages = ("tensorflow",)

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        tf = import_module("tensorflow")
        if logits.ndim > 2 or not logits.flags.c_contiguous:
            raise UnableError("the classes come last")
        tensor, labels = tf.constant(logits), tf.constant(target)

        def loss(x: Any) -> Any:
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x))

        def loss_and_grad(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(x)
            return value, tape.gradient(value, x)

        self.function = partial(tf.function(loss, jit_compile=True), tensor)
        self.value_and_grad = partial(tf.function(loss_and_grad, jit_compile=True), tensor)

    def forward(self) -> Any:
        return self.function().numpy()

    def fused_fresh(self) -> Any:
        loss, grad = self.value_and_grad()
        return loss.numpy(), grad


class OnnxRuntime(Peer):
    """ONNX Runtime's SoftmaxCrossEntropyLoss: it infers, and has no gradient."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx")

    def __init__(self, logits: NDArray[Any], target: NDArray[np.int64], threads: int) -> None:
        super().__init__(logits, target, threads)
        runtime, onnx = import_module("onnxruntime"), import_module("onnx")
        if not logits.flags.c_contiguous:
            raise UnableError("C order only")
        types = onnx.TensorProto
        dtype = types.FLOAT if logits.dtype == np.float32 else types.DOUBLE
        make = onnx.helper
        graph = make.make_graph(
            [make.make_node("SoftmaxCrossEntropyLoss", ["logits", "target"], ["loss"], reduction="mean")],
            "loss",
            [
                make.make_tensor_value_info("logits", dtype, logits.shape),
                make.make_tensor_value_info("target", types.INT64, target.shape),
            ],
            [make.make_tensor_value_info("loss", dtype, [])],
        )
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.run = partial(session.run, ["loss"], {"logits": logits, "target": target})

    def forward(self) -> Any:
        return self.run()[0]
