"""What xent must reach, and whether a run of compare.py shows that it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cases import LONG, Case, Logits, Operation, Results
from peers import XentAvx2
from results import Result


@dataclass(frozen=True)
class Target:
    """The figures a case must reach."""

    case: Case
    peers: float | None = None  # so many times as fast as the best peer
    memory: float | None = None  # so much of the bandwidth
    microseconds: float | None = None  # a call at most


def _target(
    logits: Logits,
    operation: Operation,
    results: Results = "",
    *,
    peers: float | None = None,
    memory: float | None = None,
    microseconds: float | None = None,
) -> Target:
    return Target(Case(logits, operation, results), peers, memory, microseconds)


def _both(logits: Logits, *, forward: float, fused: float, memory: float | None = None) -> tuple[Target, Target]:
    return (
        _target(logits, "forward", peers=forward, memory=memory),
        _target(logits, "fused", "given", peers=fused, memory=memory),
    )


TARGETS = (
    _target(LONG, "forward", peers=2.8, memory=0.95),
    _target(LONG, "fused", "given", peers=10, memory=0.9),
    _target(LONG, "fused", "fresh", peers=4),
    _target(LONG, "fused", "in place", peers=10, memory=0.9),
    *_both(Logits((8_192, 1_000)), forward=2.5, fused=4),
    *_both(Logits((4_096, 128)), forward=2.5, fused=3),
    *(target for classes in (10, 2, 3, 17, 64) for target in _both(Logits((65_536, classes)), forward=5, fused=5)),
    *_both(Logits((1, 128_256)), forward=2.5, fused=4),
    _target(Logits((64, 10)), "forward", peers=4, microseconds=2.5),
    _target(Logits((64, 10)), "fused", "given", peers=4, microseconds=2.5),
    *_both(Logits((1_024, 32_768), "bf16"), forward=2, fused=10),
    _target(Logits((1_024, 32_768), "f64"), "fused", "given", peers=8, memory=0.85),
    *_both(Logits((32, 21, 256, 256)), forward=4, fused=4, memory=0.8),
    *_both(Logits((65_536, 10), order="F"), forward=4, fused=4),
    *_both(Logits((65_536, 100), order="F"), forward=4, fused=4),
    _target(LONG, "backward", "given", memory=0.9),
)

THREADS_SPEEDUP = 1.85  # of two threads
AVX2_SHARE = 0.75  # of the speed with AVX-512
MEMORY_BOUND_SHARE = 0.8  # of the bandwidth: from there on the memory is what limits
# To wake a thread and wait for it takes 5 us: below this, two threads cannot be 1.85 times as fast.
SHORT_CALL_SECONDS = 125e-6


@dataclass(frozen=True)
class Figure:
    """A measured figure beside what it must reach."""

    value: float | None
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached; what was not measured is not."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True)
class Verdict:
    """One target's figures in one run, with so many threads."""

    target: Target
    threads: int
    best_peer: str | None
    peers: Figure | None
    memory: Figure | None
    microseconds: Figure | None

    @property
    def met(self) -> bool:
        """Whether all are reached."""
        return all(figure.met for figure in (self.peers, self.memory, self.microseconds) if figure)


def verdicts(result: Result) -> Iterator[Verdict]:
    """Hold the measured cases against the table."""
    for target in TARGETS:
        for threads in result.threads:
            if result.ours(target.case, threads):
                yield _verdict(result, target, threads)


def _verdict(result: Result, target: Target, threads: int) -> Verdict:
    ours, best = result.ours(target.case, threads), result.best_rival(target.case, threads)
    ratio = best.seconds.median / ours.seconds.median if ours and best else None
    share = result.share_of_bandwidth(target.case, threads)
    microseconds = ours.seconds.median * 1e6 if ours else None
    return Verdict(
        target,
        threads,
        best.peer if best else None,
        Figure(ratio, target.peers) if target.peers else None,
        Figure(share, target.memory) if target.memory else None,
        Figure(microseconds, target.microseconds, at_most=True) if target.microseconds else None,
    )


@dataclass(frozen=True)
class Comparison:
    """xent beside itself: with more threads, or with another instruction set."""

    case: Case
    what: str
    figure: Figure


def thread_comparisons(result: Result) -> Iterator[Comparison]:
    """Compare two threads with one: no slower anywhere, as far as the spread of the samples lets one tell."""
    for case in result.cases():
        one, two = result.ours(case, 1), result.ours(case, 2)
        if not one or not two:
            continue
        share = result.share_of_bandwidth(case, 2)
        limited = (share or 0) >= MEMORY_BOUND_SHARE or one.seconds.median < SHORT_CALL_SECONDS
        bound = 1 - one.spread - two.spread if limited else THREADS_SPEEDUP
        yield Comparison(case, "2 threads / 1 thread", Figure(one.seconds.median / two.seconds.median, bound))


def isa_comparisons(result: Result) -> Iterator[Comparison]:
    """Compare AVX2 with AVX-512, where there is the latter."""
    for case in result.cases():
        for threads in result.threads:
            ours, avx2 = result.ours(case, threads), result.find(case, XentAvx2.name, threads)
            if ours and avx2:
                value = ours.seconds.median / avx2.seconds.median
                yield Comparison(case, f"AVX2 / AVX-512, threads: {threads}", Figure(value, AVX2_SHARE))
