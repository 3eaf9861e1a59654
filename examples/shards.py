"""Train on a vocabulary that is split over processes: no process ever has the logits of all classes.

Each process has the output weights of some of the classes, as in tensor parallelism (Shoeybi et al. 2019,
"Megatron-LM"). The logits' statistics are all that they exchange for the loss; the gradient of a process's weights
needs nothing else::

    python examples/shards.py
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

import xent

PROCESSES, CLASSES, FEATURES, TOKENS, STEPS = 3, 10_000, 32, 256, 5
SHARD = 4096  # whole blocks of 4096: the loss then has the bits of a single process's
RATE = 20.0

Floats = NDArray[np.float32]


def data() -> tuple[Floats, NDArray[np.int64], Floats]:
    """Return features and labels of tokens, and the weights of all classes before the training."""
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(TOKENS, FEATURES)), rng.normal(size=(FEATURES, CLASSES)) / FEATURES
    return features.astype(np.float32), rng.integers(CLASSES, size=TOKENS), weights.astype(np.float32)


def train_shard(rank: int, link: Connection) -> None:
    """Train the weights of some of the classes, and send each step's loss."""
    features, labels, weights = data()
    offset = rank * SHARD
    weights = weights[:, offset : offset + SHARD]
    for _ in range(STEPS):
        logits = features @ weights
        link.send(xent.partial_statistics(logits, labels, offset=offset, classes=CLASSES))
        whole = link.recv()
        link.send(whole.finish())
        weights = weights - RATE * features.T @ whole.grad(logits, offset=offset, grad_out=logits)


def train_alone() -> list[np.float32]:
    """Train the weights of all classes in this process, and return each step's loss."""
    features, labels, weights = data()
    losses = []
    for _ in range(STEPS):
        logits = [features @ weights[:, i : i + SHARD] for i in range(0, CLASSES, SHARD)]
        loss, grad = xent.cross_entropy_and_grad(np.concatenate(logits, axis=1), labels)
        losses.append(loss)
        weights = weights - RATE * features.T @ grad
    return losses


def main() -> int:
    """Let the processes train, pass their statistics on, and compare their losses."""
    context = multiprocessing.get_context("spawn")
    links = []
    for rank in range(PROCESSES):
        link, far_end = context.Pipe()
        context.Process(target=train_shard, args=(rank, far_end), daemon=True).start()
        links.append(link)
    print("step   alone      in shards")
    for step, alone in enumerate(train_alone(), 1):
        whole = xent.merge_statistics(link.recv() for link in links)
        for link in links:
            link.send(whole)
        losses = {link.recv() for link in links}
        print(f"{step:4}   {alone:.6f}   {' '.join(f'{loss:.6f}' for loss in losses)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
