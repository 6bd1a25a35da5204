"""Why a run took as long as it did: its critical path, summed by cause."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..schemas import Results, html
from .critical_path import Segment, Wait, critical_path

_Key = TypeVar("_Key", str, tuple[str, str, str])
_ON_LINKS = ("queueing", "serialisation", "latency")
_AT_WAITS = ("polling", "wake latency")
_LONG = 60  # kernels' names reach thousands of characters
_WORK = {"kernel": "kernel", "copy": "copy", "host_call": "host call", "phase": "phase", "gap": "time",
         "collective": "work in", "other": "work in"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause, and how much of the makespan it takes.

    `what` as in Segment; `name` is the kernel, call or operation; `where` the GPU, link or flag. `segments` is how
    many stretches of the path it sums.
    """

    what: str
    name: str
    where: str
    duration_ps: int
    share: float
    segments: int

    @property
    def title(self) -> str:
        """What it is, wherever it acts: `kernel gemm`, `polling of reduce`."""
        return f"{_WORK.get(self.what, f'{self.what} of')} {self.name}"

    def __str__(self) -> str:
        """Say it in a line."""
        name = self.name if len(self.name) <= _LONG else f"{self.name[: _LONG - 3]}..."
        return f"{_WORK.get(self.what, f'{self.what} of')} {name} on {self.where}"


@dataclass(frozen=True)
class Explanation:
    """What a run's length is made of; every sum over `causes`, `grouped` or `totals_ps` is the makespan, exactly.

    `causes` are ranked by time, `grouped` sums them over GPUs, links and flags, `totals_ps` is by Cause.what,
    `path` runs from 0 to the makespan, `waits` are those on it. `limiting_link` takes the most of the path,
    `limiting_flag` was waited for the longest there; "" where no link or flag is on the path.
    """

    makespan_ps: int
    causes: tuple[Cause, ...]
    grouped: tuple[Cause, ...]
    totals_ps: dict[str, int]
    links_ps: dict[str, int]
    flags_ps: dict[str, int]
    path: tuple[Segment, ...]
    waits: tuple[Wait, ...]
    top: int = 10

    @property
    def limiting_link(self) -> str:
        """The link that takes the most of the path."""
        return next(iter(self.links_ps), "")

    @property
    def limiting_flag(self) -> str:
        """The flag for which agents on the path waited the longest."""
        return next(iter(self.flags_ps), "")

    @property
    def sentence(self) -> str:
        """The limiting cause, link and flag in one sentence."""
        if not self.causes:
            return "Nothing takes time in this run."
        most = self.grouped[0]
        text = f"Of {_us(self.makespan_ps)} us the largest share, {most.share:.1%}, is {most}"
        if self.limiting_link:
            link, time = next(iter(self.links_ps.items()))
            text += f"; the limiting link is {link} ({_us(time)} us, {time / self.makespan_ps:.1%})"
        if self.limiting_flag:
            flag, time = next(iter(self.flags_ps.items()))
            text += f"; the limiting flag is {flag} (waited for {_us(time)} us)"
        return text + "."

    def _repr_html_(self) -> str:
        """Show the sentence and the first causes in a notebook."""
        rows = [[str(c), _us(c.duration_ps), f"{c.share:.1%}"] for c in self.grouped[: self.top]]
        return html.paragraphs([self.sentence]) + html.table(["cause", "us", "share"], rows)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON takes: the `top` causes, links and flags, all totals, and the path."""
        return {
            "makespan_ps": self.makespan_ps,
            "sentence": self.sentence,
            "totals_ps": self.totals_ps,
            "grouped": [asdict(cause) for cause in self.grouped[: self.top]],
            "causes": [asdict(cause) for cause in self.causes[: self.top]],
            "links_ps": dict(list(self.links_ps.items())[: self.top]),
            "flags_ps": dict(list(self.flags_ps.items())[: self.top]),
            "path": [asdict(segment) for segment in self.path],
        }


def explain(results: Results | str | Path, top: int = 10) -> Explanation:
    """Attribute every picosecond of a run's makespan to one cause, along its critical path.

    `top` limits what `as_dict` lists. Raises InputError where `results` is no run, UsageError where it recorded
    no messages.
    """
    results = results if isinstance(results, Results) else Results(results)
    path, waits = critical_path(results)
    makespan = path[-1].end_ps if path else 0
    time: Counter[tuple[str, str, str]] = Counter()
    count: Counter[tuple[str, str, str]] = Counter()
    totals: Counter[str] = Counter()
    links: Counter[str] = Counter()
    for segment in path:
        length, cause = segment.end_ps - segment.start_ps, (segment.what, segment.name, _where(segment))
        time[cause] += length
        count[cause] += 1
        totals[segment.what] += length
        if segment.link:
            links[segment.link] += length
    flags: Counter[str] = Counter()
    for wait in waits:
        flags[wait.flag] += wait.end_ps - wait.start_ps
    causes = tuple(Cause(*cause, spent, spent / makespan, count[cause]) for cause, spent in _ranked(time))
    grouped = _grouped(causes, makespan)
    sums = (dict(_ranked(totals)), dict(_ranked(links)), dict(_ranked(flags)))
    return Explanation(makespan, causes, grouped, *sums, path=tuple(path), waits=tuple(waits), top=top)


def _grouped(causes: tuple[Cause, ...], makespan_ps: int) -> tuple[Cause, ...]:
    """Sum causes over the places where they act: a symmetric job has thousands of small equal ones."""
    places: dict[tuple[str, str], list[Cause]] = {}
    for cause in causes:
        places.setdefault((cause.what, cause.name), []).append(cause)
    groups = []
    for (what, name), members in places.items():
        time = sum(cause.duration_ps for cause in members)
        kind, _, first = members[0].where.partition(" ")
        where = members[0].where if len(members) == 1 else f"{len(members):,} {kind}s, most on {first}"
        groups.append(Cause(what, name, where, time, time / makespan_ps, sum(c.segments for c in members)))
    return tuple(sorted(groups, key=lambda cause: (-cause.duration_ps, cause.what, cause.name)))


def _where(segment: Segment) -> str:
    if segment.what in _ON_LINKS:
        return f"link {segment.link}"
    if segment.what in _AT_WAITS:
        return f"flag {segment.flag}"
    return f"GPU {segment.rank}"


def _ranked(counter: Counter[_Key]) -> list[tuple[_Key, int]]:
    """Return the items, the largest first, ties by name: the same on every run."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _us(duration_ps: int) -> str:
    return f"{duration_ps / 1e6:,.3f}"
