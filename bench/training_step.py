"""Measure a training step on NumPy beside the sum of its parts: whether xent's threads leave the BLAS's alone.

python bench/training_step.py [--rows N] [--features N] [--classes N] [--threads N] [--seconds S]

A step of softmax regression is ``logits = X @ W``, xent, ``G = X.T @ grad``. A library whose threads spin after
their work steals the processors from the next one's; a step then takes longer than its parts, each measured
alone. They take turns with the whole step, a stretch of time each, for what spins does so between its own calls too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from timeit import Timer

LIMIT = 1.1  # times the sum of the parts
STRETCH_SECONDS = 0.1


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--features", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--classes", type=int, default=1_000, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of both libraries (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="in all (%(default)s)")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 above {LIMIT} times the sum of the parts")
    return parser.parse_args()


def parts_of_step(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return the parts, in the order of a step."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when NumPy is imported
        os.environ[name] = str(args.threads)
    import numpy as np  # noqa: PLC0415

    import xent  # noqa: PLC0415

    rng = np.random.default_rng(0)
    features = rng.standard_normal((args.rows, args.features), dtype=np.float32)
    weights = rng.standard_normal((args.features, args.classes), dtype=np.float32) / args.features**0.5
    target = rng.integers(args.classes, size=args.rows)
    logits = features @ weights
    grad = np.empty_like(logits)
    weights_grad = np.empty_like(weights)
    return {
        "logits = X @ W": lambda: np.matmul(features, weights, out=logits),
        "xent": lambda: xent.cross_entropy_and_grad(logits, target, grad_out=grad, n_threads=args.threads),
        "G = X.T @ grad": lambda: np.matmul(features.T, grad, out=weights_grad),
    }


def median(samples: list[float]) -> float:
    """Return the median."""
    return sorted(samples)[len(samples) // 2]


def time_in_turn(functions: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return the median seconds of a call of each function, measured in alternating stretches."""
    timers = {name: Timer(function) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(max(3, round(seconds / STRETCH_SECONDS / len(functions)))):
        for name, timer in timers.items():
            timer.timeit(1)
            spent = 0.0
            while spent < STRETCH_SECONDS:
                samples[name].append(timer.timeit(1))
                spent += samples[name][-1]
    return {name: median(values) for name, values in samples.items()}


def main() -> int:
    """Measure and print."""
    args = parse()
    parts = parts_of_step(args)

    def step() -> None:
        for part in parts.values():
            part()

    times = time_in_turn({**parts, "step": step}, args.seconds)
    whole, sum_of_parts = times["step"], sum(times[name] for name in parts)
    for name, seconds in {**times, "sum of the parts": sum_of_parts}.items():
        print(f"{name:>16}: {seconds * 1e6:9.1f} us")
    ratio = whole / sum_of_parts
    print(f"The step takes {ratio:.2f} times the sum of its parts; at most {LIMIT} is asked for.")
    return 1 if args.check and ratio > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
