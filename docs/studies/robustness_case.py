"""One mutation of a small file: converted as the command line does it, and how that ended."""

import gc
import hashlib
import json
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
from robustness_guard import Guard
from robustness_mutations import bomb
from robustness_same import UNCHANGED
from robustness_seeds import SEEDS

from eidola.convert import captured, convert, find_format
from eidola.schemas import EidolaError, Trace, check

SMALL = 0.9
"""The share of cases that convert the small job of a format that has one: a rank by itself, mostly."""
TOLD = (
    "dropped_events",
    "truncated_ranks",
    "missing_ranks",
    "unmatched",
    "truncated",
    "gaps",
    "notes",
    "phases_without_an_end",
)
MESSAGE_BYTES = 5000
LIMIT_BYTES = 2 << 30
"""Of address space, beyond what the process takes once the undamaged jobs are converted."""


@dataclass(frozen=True)
class Job:
    """An undamaged input: its files by name, and the trace that they make."""

    files: dict[str, bytes]
    trace: dict[str, str]
    """Digests of the trace's files by their names."""
    rows: int
    told: dict[str, str]
    ranks: tuple[str, ...]
    """Digests of the names and kinds of each rank's spans."""


class Bench:
    """The jobs of one format in a folder of their own, and the conversion of what is made of them."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.seed, self.case = name, SEEDS[name], work / "case"
        self.guard = Guard(work)
        self.looked: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()
        makers = [self.seed.make, *([self.seed.small] if self.seed.small else [])]
        self.jobs = [self._job(make, work / f"clean{number}") for number, make in enumerate(makers)]
        self.guard.begin()

    def _job(self, make: Callable[[Path], None], folder: Path) -> Job:
        folder.mkdir()
        make(folder)
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
        found = self._convert(files)
        if found["end"] != "converted":
            raise SystemExit(f"the seed of {self.name} does not convert: {found}")
        shutil.rmtree(self.case)
        return Job(files, found["trace"], found["rows"], found["told"], found["ranks"])

    def run(self, case: int) -> dict[str, Any]:
        """Convert mutation `case`, or gzip bomb where it is negative; return how it ended."""
        rng = Random(f"{self.name} {case}")
        began = time.process_time()
        kind = rng.choice(list(self.seed.mutations)) if case >= 0 else "gzip bomb"
        mutate = self.seed.mutations[kind] if case >= 0 else bomb
        job = self.jobs[-1] if rng.random() < SMALL else self.jobs[0]
        victim = rng.choice(sorted(name for name in job.files if Path(name).match(self.seed.files)))
        damaged = mutate(job.files[victim], rng)
        digest = hashlib.blake2b(
            damaged, digest_size=8, key=f"{len(job.files)} {victim}".encode()
        ).hexdigest()
        told = {"case": case, "mutation": kind, "digest": digest}
        if digest in self.seen or damaged == job.files[victim]:
            return {**told, "end": "again"}
        self.seen.add(digest)
        with self.guard:
            found = self._convert({**job.files, victim: damaged})
        end, detail = self._judge(found, job, kind, victim, damaged)
        shutil.rmtree(self.case)
        few = {"fewer": job.rows - found["rows"]} if end == "other" and found["rows"] < job.rows else {}
        return {**told, "end": end, "s": round(time.process_time() - began, 4), **few, **detail}

    def _judge(
        self, found: dict[str, Any], job: Job, kind: str, victim: str, damaged: bytes
    ) -> tuple[str, dict[str, str]]:
        """Return how a case ended, and what to say of it where that is a failure."""
        end, detail = found["end"], found.get("detail", "")
        stray = [*self.guard.strays(), *({p.name for p in self.case.iterdir()} - {"in", "out"})]
        if {p.name for p in (self.case / "in").iterdir()} != set(job.files):
            stray.append("files beside the input")
        if end != "converted" and (self.case / "out").exists():
            stray.append("a trace after an error")
        if stray:
            return "left behind", {"detail": f"{stray[:5]}"}
        if end != "converted":
            end = "refused what means the same" if end == "refused" and kind in UNCHANGED else end
            return end, {} if end == "refused" else {"detail": detail}
        if found["trace"] == job.trace and found["told"] == job.told:
            return "equal", {}
        if kind in UNCHANGED:
            return "changed by what means the same", {"detail": _difference(found, job)}
        apart = len(job.ranks) > 1 and self.seed.small and not Path(victim).match(self.seed.shared)
        if apart and not {*job.ranks} & {*found["ranks"]}:
            return "another rank changed", {"detail": _difference(found, job)}
        if found["told"] != job.told:
            return "loss told", {}
        if "truncated" in kind and found["rows"] < job.rows and not self.seed.whole(damaged):
            return "loss not told", {"detail": f"{found['rows']} rows of {job.rows}"}
        return "other", {}

    def _convert(self, files: dict[str, bytes]) -> dict[str, Any]:
        source, out = self.case / "in", self.case / "out"
        source.mkdir(parents=True)
        for name, content in files.items():
            (source / name).write_bytes(content)
        try:
            self._call(source, out)
            return self._look(out)
        except EidolaError as error:
            bounded = 0 < len(str(error)) < MESSAGE_BYTES
            return {"end": "refused" if bounded else "error without bounds", "detail": str(error)[:300]}
        except BaseException:  # noqa: BLE001  whatever comes through is what this study looks for
            return {"end": "traceback", "detail": traceback.format_exc()[-1500:]}

    def _call(self, source: Path, out: Path) -> None:
        """Convert as `eidola convert` does."""
        if self.name.startswith("captured"):
            captured(source, out)
            return
        kind = find_format("kineto" if self.seed.companions else self.name.split(",")[0])
        companions = sorted(source.glob(self.seed.companions)) if self.seed.companions else []
        files = [p for p in sorted(source.iterdir()) if p not in companions]
        convert(kind, files if companions or self.seed.given else [source], out, companions=companions)

    def _look(self, out: Path) -> dict[str, Any]:
        """Return what the trace holds. One that is byte for byte as another was is not checked again."""
        digests = {
            str(p.relative_to(out)): hashlib.blake2b(p.read_bytes(), digest_size=8).hexdigest()
            for p in sorted(out.rglob("*.parquet"))
        }
        known = repr(digests)
        if known not in self.looked:
            self.looked[known] = _looked(out)
        found = self.looked[known]
        if found["end"] != "converted":
            return found
        notes = Trace(out).notes
        return {**found, "trace": digests, "told": {key: str(notes.get(key)) for key in TOLD}}


def _looked(out: Path) -> dict[str, Any]:
    """Check a trace; return how many rows and sizes it has, and what tells each rank's names and kinds."""
    broken = [problem for problem in check(out) if problem.severity == "error"]
    if broken:
        return {"end": "breaks the schema", "detail": str(broken[0])[:500]}
    trace = Trace(out)
    rows = sum(trace.read(name, ["rank"]).num_rows for name in ("spans", "writes", "waits", "collectives"))
    sizes = trace.read("collectives", ["size_bytes"])["size_bytes"]
    rows += len(sizes) - sizes.null_count
    return {"end": "converted", "rows": rows, "ranks": tuple(_names(trace, rank) for rank in trace.ranks())}


def _names(trace: Trace, rank: int) -> str:
    rows = trace.read("spans", ["kind", "name"], [rank])
    return hashlib.blake2b(repr(rows.to_pydict()).encode(), digest_size=8).hexdigest()


def _difference(found: dict[str, Any], job: Job) -> str:
    files = sorted(name for name, _ in {*found["trace"].items()} ^ {*job.trace.items()})
    notes = [value for key, value in found["told"].items() if value != job.told[key]]
    return f"{sorted({*files})[:6]} differ; {found['rows']} rows of {job.rows}; {notes}"[:600]


def main(name: str, work: Path, results: Path, cases: Iterable[int], wanted: int) -> None:
    """Convert mutations by their number until `wanted` that no line of `results` has are converted.

    A line of JSON is printed before and after each.
    """
    sys.dont_write_bytecode = True
    pa.set_cpu_count(1)
    warnings.simplefilter("error", RuntimeWarning)  # numbers that NumPy casts to nonsense
    for folder in ("cwd", "tmp"):
        (work / folder).mkdir()
    os.chdir(work / "cwd")
    bench = Bench(name, work)
    bench.seen = {line["digest"] for line in read_lines(results) if line["end"] != "again"}
    gc.freeze()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES,) * 2)
    for case in cases:
        print(json.dumps({"case": case}), flush=True)
        told = bench.run(case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({**told, "mib": peak}), flush=True)
        wanted -= told["end"] != "again"
        if not wanted:
            return


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results, but for one that was being written when its writer was killed."""
    whole = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in whole]


if __name__ == "__main__":
    first, step, most, *single = map(int, sys.argv[4:])
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), single or count(first, step), most)
