"""What a run of compare.py found, as it is kept in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cases import BY_NAME, Case
from peers import OURS, Xent
from xent._bench import Timing

ALLOWED_RESULTS = {
    "": ("",),
    "fresh": ("fresh",),
    "given": ("given", "fresh"),
    "in place": ("in place", "given", "fresh"),
}


@dataclass(frozen=True)
class Measurement:
    """The seconds of one call of a case, by one peer with so many threads."""

    case: Case
    peer: str
    threads: int
    seconds: Timing

    @property
    def gelem_per_s(self) -> float:
        """1e9 logits a second, by the median."""
        return self.case.logits.size / self.seconds.median / 1e9

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a part of the median."""
        return (self.seconds.upper_quartile - self.seconds.lower_quartile) / (2 * self.seconds.median)


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second that a kernel of bandwidth.c moved in the rounds of a case, on arrays of the logits' size."""

    case: Case
    kernel: str
    threads: int
    median: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, case: Case, kernel: str, threads: int, samples: Sequence[float]) -> Bandwidth:
        """Summarise the repetitions."""
        lower, median, upper = (float(q) for q in np.percentile(samples, [25, 50, 75]))
        return cls(case, kernel, threads, median, lower, upper)


@dataclass(frozen=True)
class Result:
    """Everything that was measured in one run, and what is needed to measure it again."""

    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    absent: dict[str, str]  # peers that are not installed, and what is missing
    failed: dict[str, str]  # peers that ended, or computed something else
    measurements: list[Measurement]
    bandwidths: list[Bandwidth]

    @property
    def threads(self) -> list[int]:
        """The numbers of threads, in rising order."""
        return sorted({m.threads for m in self.measurements})

    def cases(self) -> list[Case]:
        """Return the cases, in the order in which they were measured."""
        return list(dict.fromkeys(m.case for m in self.measurements))

    def peers(self) -> list[str]:
        """Return the names of those that were measured."""
        return list(dict.fromkeys(m.peer for m in self.measurements))

    def find(self, case: Case, peer: str, threads: int) -> Measurement | None:
        """Return what was measured of a peer."""
        wanted = (case, peer, threads)
        return next((m for m in self.measurements if (m.case, m.peer, m.threads) == wanted), None)

    def ours(self, case: Case, threads: int) -> Measurement | None:
        """Return what was measured of xent."""
        return self.find(case, Xent.name, threads)

    def rivals(self, case: Case, threads: int) -> Iterator[Measurement]:
        """Return what others do in the case's place: a peer may do it as fast as it can.

        Where the gradient goes into an array that is given, a peer's fresh one will do; where it goes over the
        logits, so will either; where a fresh one is asked for, nothing else will.
        """
        for m in self.measurements:
            same = (m.case.logits, m.case.operation, m.threads) == (case.logits, case.operation, threads)
            if same and m.peer not in OURS and m.case.results in ALLOWED_RESULTS[case.results]:
                yield m

    def best_rival(self, case: Case, threads: int) -> Measurement | None:
        """Return the fastest of the rivals."""
        return min(self.rivals(case, threads), key=lambda m: m.seconds.median, default=None)

    def share_of_bandwidth(self, case: Case, threads: int) -> float | None:
        """Return which part of the bandwidth, measured in the rounds of the case, xent used."""
        ours = self.ours(case, threads)
        wanted = (case, case.bandwidth, threads)
        bandwidth = next((b.median for b in self.bandwidths if (b.case, b.kernel, b.threads) == wanted), None)
        return case.bytes_moved / ours.seconds.median / bandwidth if ours and bandwidth else None

    def write(self, path: Path) -> None:
        """Write everything as JSON, with a case as its name."""
        content = {
            "command": self.command,
            "machine": self.machine,
            "versions": self.versions,
            "absent": self.absent,
            "failed": self.failed,
            "measurements": [{**asdict(m), "case": str(m.case)} for m in self.measurements],
            "bandwidths": [{**asdict(b), "case": str(b.case)} for b in self.bandwidths],
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote."""
        content = json.loads(path.read_text())
        measurements = [
            Measurement(BY_NAME[m["case"]], m["peer"], m["threads"], Timing(**m["seconds"]))
            for m in content.pop("measurements")
        ]
        bandwidths = [Bandwidth(BY_NAME[b.pop("case")], **b) for b in content.pop("bandwidths")]
        return cls(measurements=measurements, bandwidths=bandwidths, **content)
