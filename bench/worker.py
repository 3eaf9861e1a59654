"""One peer in a process of its own: prepares and times what compare.py asks for, in JSON lines on its pipes.

python bench/worker.py PEER THREADS
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from timeit import Timer
from typing import Any, TextIO

import numpy as np

from cases import BY_NAME, Case, Logits, first_row
from peer import Peer, UnableError
from peers import PEERS

MIN_SAMPLE_SECONDS = 2e-4

Reply = dict[str, Any]


class Worker:
    """Holds the logits of the last case, and the call that is timed."""

    def __init__(self, peer: type[Peer], threads: int) -> None:
        self.peer_class = peer
        self.threads = threads
        self.held: tuple[Logits, int] | None = None
        self.peer: Peer | None = None
        self.call: Callable[[], Any]
        self.calls = 1

    def release(self) -> Reply:
        """Give the memory back."""
        self.held = self.peer = None
        self.call = lambda: None
        return {}

    def prepare(self, name: str, seed: int) -> Reply:
        """Make what the case needs, call it twice, and return what it computes."""
        case = BY_NAME[name]
        try:
            result = self.hold(case, seed).loss_and_grad(self.call())
        except UnableError as error:
            return {"unable": str(error)}
        loss, grad = result
        reply = {"loss": loss, "grad": None if grad is None else first_row(grad)}  # before another call overwrites it
        self.calls = max(1, math.ceil(MIN_SAMPLE_SECONDS / self.seconds_of_warm_call()))
        return {**reply, "calls": self.calls}

    def hold(self, case: Case, seed: int) -> Peer:
        """Return the peer with the case's logits, made anew if an earlier case has overwritten them."""
        if self.held != (case.logits, seed) or self.peer is None:
            self.release()
            self.peer = self.peer_class.of(*case.logits.generate(seed), self.threads)
            self.held = (case.logits, seed)
        if case.results == "in place":
            self.held = None
        self.call = self.peer.call(case.method)
        return self.peer

    def seconds_of_warm_call(self) -> float:
        """Return how long a call takes once everything it needs is there."""
        timer = Timer(self.call)
        timer.timeit(1)
        return timer.timeit(1)

    def sample(self, seconds: float) -> Reply:
        """Time the call until the seconds are over: each sample is the mean of so many calls."""
        timer = Timer(self.call)
        warm_up = timer.timeit(1)  # other peers have used the caches since
        samples = [timer.timeit(self.calls) / self.calls]
        spent = warm_up + samples[0] * self.calls
        while spent < seconds:
            samples.append(timer.timeit(self.calls) / self.calls)
            spent += samples[-1] * self.calls
        return {"samples": samples}


def requests() -> Iterator[dict[str, Any]]:
    """Read what is asked for until the pipe is closed."""
    for line in sys.stdin:
        yield json.loads(line)


def own_stdout() -> TextIO:
    """Return the pipe to the driver, and turn what libraries print to stderr."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def main(peer: str, threads: str) -> None:
    """Answer requests: {"do": method of Worker, and its arguments}."""
    answers = own_stdout()
    worker = Worker(PEERS[peer], int(threads))
    with np.errstate(all="ignore"):
        for request in requests():
            method = getattr(worker, request.pop("do"))
            print(json.dumps(method(**request)), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
