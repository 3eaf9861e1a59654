"""Train classifiers of handwritten digits in NumPy, with xent's loss and gradient and with NumPy's own.

A softmax regression and a two-layer perceptron learn scikit-learn's digits, 1797 scans of 8 x 8 pixels. Both
trainings of a model see the same batches from the same start; the only line that differs is the loss function::

    pip install '.[examples]'
    python examples/digits.py --plot digits.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import xent

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
LossAndGrad = Callable[[Floats, Labels], tuple[Any, Floats]]
CLASSES = 10


def numpy_loss_and_grad(logits: Floats, labels: Labels) -> tuple[Any, Floats]:
    """Compute the mean cross-entropy and its gradient, as one writes it in NumPy."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    grad = np.exp(shifted)
    total = grad.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) - shifted[rows, labels])
    grad /= total
    grad[rows, labels] -= 1
    grad /= len(labels)
    return loss, grad


@dataclass
class Data:
    """The scans, pixels from 0 to 1, and their labels."""

    x: Floats
    y: Labels
    held_out_x: Floats
    held_out_y: Labels

    @classmethod
    def load(cls) -> Data:
        """Keep a quarter of each digit's scans for the test, the same for every seed."""
        pixels, labels = load_digits(return_X_y=True)
        x, held_out_x, y, held_out_y = train_test_split(
            (pixels / 16).astype(np.float32), labels, test_size=0.25, stratify=labels, random_state=0
        )
        return cls(x, y, held_out_x, held_out_y)


class Network:
    """Linear layers with ReLU between them: one layer is softmax regression."""

    def __init__(self, sizes: list[int], rng: np.random.Generator) -> None:
        self.parameters: list[Floats] = []
        for inputs, outputs in pairwise(sizes):
            weights = rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs))
            self.parameters += [weights.astype(np.float32), np.zeros(outputs, np.float32)]
        self.velocities = [np.zeros_like(p) for p in self.parameters]

    def forward(self, x: Floats) -> list[Floats]:
        """Return the input of every layer, and the logits."""
        layers = [x]
        for i in range(0, len(self.parameters), 2):
            inputs = layers[-1] if i == 0 else np.maximum(layers[-1], 0)
            layers.append(inputs @ self.parameters[i] + self.parameters[i + 1])
        return layers

    def backward(self, layers: list[Floats], grad: Floats) -> list[Floats]:
        """Return the gradient of every parameter, given that of the logits."""
        grads: list[Floats] = []
        for i in range(len(self.parameters) - 2, -1, -2):
            inputs = layers[i // 2]
            grads[:0] = [(np.maximum(inputs, 0) if i else inputs).T @ grad, grad.sum(axis=0)]
            grad = (grad @ self.parameters[i].T) * (inputs > 0)
        return grads

    def step(self, grads: list[Floats], rate: float) -> None:
        """Move the parameters by gradient descent with momentum."""
        for parameter, velocity, grad in zip(self.parameters, self.velocities, grads, strict=True):
            np.subtract(0.9 * velocity, rate * grad, out=velocity)
            np.add(parameter, velocity, out=parameter)


@dataclass
class Result:
    """What a training came to."""

    accuracy: float = 0.0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out_losses: list[float] = field(default_factory=list)


def train(data: Data, hidden: list[int], loss_and_grad: LossAndGrad, options: argparse.Namespace) -> Result:
    """Train a network with these hidden layers; only the training steps are timed."""
    rng = np.random.default_rng(options.seed)
    network = Network([data.x.shape[1], *hidden, CLASSES], rng)
    result = Result()
    for _ in range(options.epochs):
        order = rng.permutation(len(data.x))
        start = time.perf_counter()
        for begin in range(0, len(order), options.batch):
            batch = order[begin : begin + options.batch]
            layers = network.forward(data.x[batch])
            _, grad = loss_and_grad(layers[-1], data.y[batch])
            network.step(network.backward(layers, grad), rate=0.05)
        result.seconds += time.perf_counter() - start
        result.losses.append(float(xent.cross_entropy(network.forward(data.x)[-1], data.y)))
        held_out_logits = network.forward(data.held_out_x)[-1]
        result.held_out_losses.append(float(xent.cross_entropy(held_out_logits, data.held_out_y)))
    result.accuracy = float(np.mean(np.argmax(held_out_logits, axis=1) == data.held_out_y))
    return result


MODELS: dict[str, list[int]] = {"softmax regression": [], "two-layer perceptron": [128]}
LOSSES: dict[str, LossAndGrad] = {"xent": xent.cross_entropy_and_grad, "NumPy": numpy_loss_and_grad}


def plot(results: dict[tuple[str, str], Result], path: Path) -> None:
    """Draw the loss curves of the trainings with xent."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - needed for this option alone

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for color, name in zip(("tab:blue", "tab:orange"), MODELS, strict=True):
        result = results[name, "xent"]
        epochs = range(1, len(result.losses) + 1)
        axes.plot(epochs, result.losses, color=color, label=f"{name}, training")
        axes.plot(epochs, result.held_out_losses, color=color, linestyle="--", label=f"{name}, held out")
    axes.set(xlabel="epoch", ylabel="cross-entropy in nats", yscale="log", title="Handwritten digits")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=150)


def positive(text: str) -> int:
    """Parse a positive number."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def image_path(text: str) -> Path:
    """Parse the path of a plot that can be written."""
    path = Path(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} must end in .png or .svg")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder of {text} does not exist")
    return path


def main(argv: list[str] | None = None) -> int:
    """Train both models with both losses, and print how they compare."""
    parser = argparse.ArgumentParser(description="Train classifiers of digits with xent's loss and with NumPy's.")
    parser.add_argument("--epochs", type=positive, default=60)
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and of the batches")
    parser.add_argument("--plot", type=image_path, metavar="FILE.png|.svg", help="save the loss curves")
    options = parser.parse_args(argv)

    data = Data.load()
    results = {}
    print(f"{'model':<22}{'loss':<8}{'held-out accuracy':>18}{'training loss':>15}{'seconds':>9}")
    for model, hidden in MODELS.items():
        for name, loss_and_grad in LOSSES.items():
            result = results[model, name] = train(data, hidden, loss_and_grad, options)
            print(f"{model:<22}{name:<8}{result.accuracy:>18.4f}{result.losses[-1]:>15.6f}{result.seconds:>9.3f}")
    print("Seconds are of the training steps, of which the loss is a part.")
    if options.plot:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
