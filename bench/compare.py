"""Measure xent beside every other softmax cross-entropy that is installed, and the memory beside both.

python bench/compare.py --check --json bench/results/NAME.json --plot bench/results

Every peer runs in a process of its own, all of them on the same processors and with the same number of
threads. They take turns, case by case and round by round, so that whatever else the machine does hits all
alike; bandwidth.c takes its turn, too. What is compared are medians within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import machine
import report
from cases import BY_NAME, CASES, CLASSES_SWEEP, ROWS_SWEEP, Case, Logits, Truth
from peer import Peer
from peers import PEERS
from results import Bandwidth, Measurement, Result
from xent._bench import Timing

WORKER = Path(__file__).with_name("worker.py")
SEED = 0
SECONDS = 0.1
ROUNDS = 5
# Below this the logits stay in the caches, and the memory's bandwidth says nothing.
LEAST_BYTES_IN_MEMORY = 32 << 20


@dataclass(frozen=True)
class Settings:
    """What a run depends on beside the machine."""

    cases: tuple[Case, ...]
    swept: tuple[Case, ...]  # for the plots; with the largest number of threads only
    peers: tuple[str, ...]
    threads: tuple[int, ...]
    rounds: int
    seconds: float

    def jobs(self) -> list[tuple[Case, tuple[int, ...]]]:
        """Return every case and the numbers of threads it is measured with."""
        jobs = dict.fromkeys(self.swept, (max(self.threads),)) | dict.fromkeys(self.cases, self.threads)
        order = dict.fromkeys((*self.cases, *self.swept))
        return [(case, jobs[case]) for case in order]


class PeerFailedError(Exception):
    """The process of a peer ended, or computes something else."""


class Worker:
    """The driver's end of the pipes to a peer's process."""

    def __init__(self, peer: str, threads: int, log: Path) -> None:
        self.peer = peer
        self.threads = threads
        self.log = log
        self.calls = 1  # that make up a sample
        command = [sys.executable, str(WORKER), peer, str(threads)]
        with machine.pinned(threads), log.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the driver
                env=os.environ | thread_environment(threads),
            )

    def tell(self, do: str, **arguments: Any) -> None:
        """Ask for something, without waiting for it."""
        assert self.process.stdin  # noqa: S101 - for mypy
        try:
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise self.failure() from None

    def hear(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self.process.stdout  # noqa: S101 - for mypy
        line = self.process.stdout.readline()
        if not line:
            raise self.failure()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def failure(self) -> PeerFailedError:
        """Return what the process said last."""
        lines = self.log.read_text().strip().splitlines()
        return PeerFailedError(f"ended: {lines[-1] if lines else self.process.wait()}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin  # noqa: S101 - for mypy
        self.process.stdin.close()
        self.process.wait()


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables by which libraries are told how many threads to use."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    environment = {f"{name}_NUM_THREADS": str(threads) for name in names}
    environment |= {f"TF_NUM_{kind}_THREADS": str(threads) for kind in ("INTRAOP", "INTEROP")}
    eigen = "true" if threads > 1 else "false"
    xla = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    return environment | {"NPROC": str(threads), "XLA_FLAGS": xla, "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclass
class Session:
    """The processes of one run, and what has been measured so far."""

    settings: Settings
    bandwidth_program: Path
    workers: list[Worker]
    failed: dict[str, str] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    bandwidths: list[Bandwidth] = field(default_factory=list)

    def measure_all(self) -> None:
        """Measure every case, holding one array of logits at a time."""
        previous = None
        for case, threads in with_progress(self.settings.jobs()):
            if previous and case.logits != previous.logits:
                self.release()
            self.measure(case, threads)
            previous = case

    def measure(self, case: Case, threads: Sequence[int]) -> None:
        """Measure a case by every peer that can do it."""
        workers = self.prepare(case, [worker for worker in self.workers if worker.threads in threads])
        seconds: dict[Worker, list[float]] = {worker: [] for worker in workers}
        bytes_a_second: dict[tuple[int, str], list[float]] = defaultdict(list)
        for number in range(self.settings.rounds):
            for worker in rotated(workers, number):
                seconds[worker] += self.samples(worker)
            if case.logits.nbytes >= LEAST_BYTES_IN_MEMORY:
                for n in threads:
                    for kernel, values in machine.run_bandwidth(self.bandwidth_program, case.logits.nbytes, n).items():
                        bytes_a_second[n, kernel] += values
        for worker in workers:
            if worker in self.workers:
                timing = Timing.of(seconds[worker], worker.calls)
                self.measurements.append(Measurement(case, worker.peer, worker.threads, timing))
        for (n, kernel), values in bytes_a_second.items():
            self.bandwidths.append(Bandwidth.of(case, kernel, n, values))

    def samples(self, worker: Worker) -> list[float]:
        """Let a worker take its turn; return the seconds of its calls, none if it has failed."""
        if worker not in self.workers:
            return []
        try:
            worker.tell("sample", seconds=self.settings.seconds)
            samples: list[float] = worker.hear()["samples"]
        except PeerFailedError as error:
            self.drop(worker, str(error))
            return []
        return samples

    def prepare(self, case: Case, workers: Sequence[Worker]) -> list[Worker]:
        """Return the workers that are ready: they have the data, have warmed up, and compute what the oracle does."""
        for worker in workers:
            worker.tell("prepare", name=str(case), seed=SEED)
        expected = truth(case.logits)
        ready = []
        for worker in workers:
            try:
                answer = worker.hear()
                if "unable" in answer:
                    continue
                if not expected.agrees(answer["loss"], answer["grad"], case.logits.dtype):
                    raise PeerFailedError(f"computes something else in {case}: {answer}, expected {expected}")
            except PeerFailedError as error:
                self.drop(worker, str(error))
            else:
                worker.calls = answer["calls"]
                ready.append(worker)
        return ready

    def drop(self, worker: Worker, reason: str) -> None:
        """Go on without a worker."""
        self.failed[f"{worker.peer}, threads: {worker.threads}"] = reason
        self.workers.remove(worker)
        worker.close()

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.close()

    def release(self) -> None:
        """Let all workers give their memory back."""
        for worker in self.workers:
            worker.tell("release")
        for worker in self.workers:
            worker.hear()


def rotated(items: list[Worker], n: int) -> list[Worker]:
    """Return the items beginning with another one, so that nobody always follows the same one."""
    start = n % max(1, len(items))
    return items[start:] + items[:start]


@lru_cache(maxsize=1)
def truth(logits: Logits) -> Truth:
    """Return what the oracle says."""
    return Truth.of(*logits.generate(SEED))


def run(settings: Settings, command: str) -> Result:
    """Measure everything."""
    description = machine.description()
    absent = {name: reason for name in settings.peers if (reason := PEERS[name].missing())}
    present: dict[str, type[Peer]] = {name: PEERS[name] for name in settings.peers if name not in absent}
    versions = {name: version for peer in present.values() for name, version in peer.versions().items()}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        program = machine.build_bandwidth(folder)
        workers = [Worker(peer, n, folder / f"{peer} {n}.log") for n in settings.threads for peer in present]
        session = Session(settings, program, workers)
        stack.callback(session.close)
        with suppress(KeyboardInterrupt):  # what has been measured until then is shown
            session.measure_all()
    return Result(
        command,
        description,
        versions,
        absent,
        session.failed,
        session.measurements,
        session.bandwidths,
    )


def with_progress(jobs: Sequence[tuple[Case, tuple[int, ...]]]) -> Iterator[tuple[Case, tuple[int, ...]]]:
    """Yield every job, with a progress bar on stderr."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # A bar that refreshes itself has a thread, which would be measured, too.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=str(job[0]), refresh=True)
            yield job
            progress.update(task, advance=1)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", metavar="GLOB", help="only such cases; repeatable")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only these; repeatable")
    parser.add_argument("--threads", type=threads_list, default=(1, 2), metavar="N,N", help="(1,2)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns that everyone takes (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a turn (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="measure over classes and rows, too, and draw it")
    parser.add_argument(
        "--check", action="store_true", help="hold it against targets.py; exit with 1 if any falls short"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="show what --json wrote, measure nothing")
    return parser.parse_args(argv)


def threads_list(text: str) -> tuple[int, ...]:
    """Return the numbers of threads that were asked for."""
    numbers = tuple(sorted({int(word) for word in text.split(",")}))
    usable = len(machine.usable_cpus())
    if not 1 <= numbers[0] <= numbers[-1] <= usable:
        raise argparse.ArgumentTypeError(f"numbers of threads are 1 to {usable} here")
    return numbers


def matching(cases: Sequence[Case], globs: Sequence[str] | None) -> tuple[Case, ...]:
    """Return the cases whose names match one of the globs."""
    return tuple(case for case in cases if not globs or any(fnmatch(str(case), glob) for glob in globs))


def settings_of(args: argparse.Namespace) -> Settings:
    """Return what the arguments ask for."""
    swept = (*CLASSES_SWEEP, *ROWS_SWEEP) if args.plot else ()
    return Settings(
        matching(CASES, args.case),
        matching(swept, args.case),
        tuple(args.peer or PEERS),
        args.threads,
        args.rounds,
        args.seconds,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or read, show, write and check what is asked for."""
    args = parse(argv)
    if args.read:
        result = Result.read(args.read)
    else:
        settings = settings_of(args)
        if not settings.jobs():
            print(f"no such case; there are: {', '.join(BY_NAME)}", file=sys.stderr)
            return 2
        command = shlex.join(["python", "bench/compare.py", *(sys.argv[1:] if argv is None else argv)])
        result = run(settings, command)
    if args.json:
        result.write(args.json)
    console = report.make_console()
    report.show(console, result)
    if args.plot:
        from plots import draw  # noqa: PLC0415 - matplotlib is slow to import

        draw(result, args.plot)
    return 0 if not args.check or report.check(console, result) else 1


if __name__ == "__main__":
    sys.exit(main())
