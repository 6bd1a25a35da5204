"""Samples of the capture stage's telemetry thread -> rows of `counters` and `links`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError

FORMAT = 1


@dataclass(frozen=True)
class Telemetry:
    """One machine's samples: `source` (nvml, amdsmi, none), its GPUs and links as captured, the samples.

    `missing` says why there is no GPU. Times are Unix nanoseconds.
    """

    path: Path
    source: str
    missing: str | None
    gpus: tuple[Mapping[str, Any], ...]
    links: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]

    def counters(self, gpu: int) -> dict[str, list[Any]]:
        """Return columns of `counters` for the rank that used `gpu` (its index), without `rank`."""
        rows = [
            (self.source, name, sample["time_ns"], value)
            for sample in self.samples
            for of, name, value in sample["readings"]
            if of == gpu
        ]
        return _columns(("source", "name", "time_ns", "value"), rows)

    def cost(self) -> dict[str, list[Any]]:
        """Return columns of `counters` for what sampling cost: processor time so far, length of a sample."""
        rows = [
            ("telemetry", name, sample["time_ns"], float(sample[column]))
            for sample in self.samples
            for name, column in (("thread_cpu_ns", "cpu_ns"), ("sample_ns", "took_ns"))
        ]
        return _columns(("source", "name", "time_ns", "value"), rows)

    def links_of(self, gpu: int, rank_of: Mapping[int, int]) -> dict[str, list[Any]]:
        """Return columns of `links` from `gpu` to the GPUs that `rank_of` gives a rank; switches have none."""
        rows = [
            (rank_of[at["peer"]], at["kind"], at["count"], at["rate_bytes_per_s"])
            for at in self.links
            if at["gpu"] == gpu and at["peer"] in rank_of
        ]
        return _columns(("peer", "kind", "count", "rate_bytes_per_s"), rows)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def read_telemetry(path: str | Path) -> Telemetry:
    """Return the samples at `path`; a last line that a killed job left unfinished is dropped.

    Raises InputError where it is no such file, or of a newer version.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        content = [json.loads(line) for line in lines[:-1]]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as telemetry ({error})") from error
    if not content or not isinstance(content[0], dict) or "source" not in content[0]:
        raise InputError(f"{path} is no telemetry of `eidola capture`: its first line has no source")
    head, samples = content[0], content[1:]
    if head["format"] > FORMAT:
        raise InputError(f"{path} has format {head['format']}; this eidola reads up to {FORMAT}: upgrade it")
    return Telemetry(
        path,
        head["source"],
        head["missing"],
        tuple(head["gpus"]),
        tuple(head["links"]),
        tuple(samples),
    )
