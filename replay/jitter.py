"""What a run could have taken: captured gaps drawn anew, and the interval that predictions then lie in.

A recording is one rank's step. The same place in every recording (the n-th kernel or host call of one name, its
n-th gap, or the n-th before it) was captured once in each, and those durations are the place's distribution:
nothing is fitted to a named one, since captures hold few values a place, and their tails are not of one family.
Gaps of a recording are not independent, as a slow host thread is slow all through it; so whole recordings are
drawn, as a block bootstrap does (Kuensch, "The Jackknife and the Bootstrap for General Stationary Observations",
Annals of Statistics 17, 1989). Each seed gives every step of a rank one of the rank's steps, or, where there is
one step, a rank's, by integer draws by index: who is slow stays slow. What a collective's library does is not
drawn.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ..schemas import Trace, UsageError
from .fabric import Fabric
from .generate.draws import Purpose, below, words
from .lowering.items import STEP
from .program import Ints, Mode, Op, Program
from .run import run
from .waiting import IDEAL, WaitPolicy

LEAST = 3
"""Recordings that a place must have been captured in; with fewer its gaps stay as they are."""

Steps = Mapping[int, Sequence[int]]
"""When each rank's steps began, in captured ns."""
Recording = tuple[int, int]
"""Step and rank."""


@dataclass(frozen=True)
class Spread:
    """What a program took over seeds.

    `makespan_ps` (S,); `own_ps` (S, C): each collective, last start to latest end; `end_ps` (S, C): that end;
    `step_ps` (S, K): each step, from the latest end in the ones before to its own. `drawn` of `gaps` were drawn.
    """

    makespan_ps: Ints
    own_ps: Ints
    end_ps: Ints
    step_ps: Ints
    drawn: int
    gaps: int

    def interval(self, percent: float = 90) -> tuple[Ints, Ints]:
        """Return low and high of the makespan and of every collective (1 + C,), in picoseconds."""
        return between(np.column_stack([self.makespan_ps, self.own_ps]), percent)


def between(found: Ints, percent: float = 90) -> tuple[Ints, Ints]:
    """Return low and high of each column of (S, columns) draws: values that were drawn, none between them."""
    tails = [(100 - percent) / 2, (100 + percent) / 2]
    low, high = np.percentile(found, tails, axis=0, method="nearest")
    return low.astype(np.int64), high.astype(np.int64)


@dataclass(frozen=True)
class Gaps:
    """The gaps of a program that can be drawn: `places`, each the call and operation of its recordings' gaps.

    `step` (activities,) is each one's step, counted from 0; before the first it is the first.
    """

    places: tuple[Mapping[Recording, tuple[int, int]], ...]
    step: Ints

    @property
    def count(self) -> int:
        """How many gaps there are."""
        return sum(map(len, self.places))

    def sources(self, seed: int, *, unseen: bool) -> dict[Recording, Recording]:
        """Return which recording each one repeats; with `unseen`, none of its own step."""
        known = sorted({recording for place in self.places for recording in place})
        several = len({step for step, _ in known}) > 1
        found: dict[Recording, Recording] = {}
        for step, rank in known:
            others = [(s, r) for s, r in known if (r == rank or not several) and (s != step or not unseen)]
            if others:
                found[step, rank] = others[_below(len(others), seed, Purpose.GAP, rank, step)]
        return found


def spread(
    program: Program,
    fabric: Fabric,
    seeds: int = 20,
    *,
    wait: WaitPolicy = IDEAL,
    first_seed: int = 1,
    steps: Steps | None = None,
    skip: int = 0,
    unseen: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Spread:
    """Run `program` once a seed, with its captured gaps drawn anew; tell `progress` the seeds done and all of them.

    Without `steps` all that a rank recorded is one step. The first `skip` steps, which warm up, stay as they are,
    and no other is drawn from them. With `unseen`, no step is drawn from its own recordings, so that what was
    captured of it is a test of the others. Raises UsageError for fewer than 2 seeds.
    """
    if seeds < 2:
        raise UsageError(f"--seeds {seeds}: an interval needs at least 2; 20 give 5 and 95 % a place")
    gaps = find_gaps(program, steps, skip)
    makespans, owns, ends, steps_ps = [], [], [], []
    for seed in range(first_seed, first_seed + seeds):
        made = drawn(program, seed, gaps, unseen=unseen)
        outcome = run(made, fabric, wait=wait, record="none")
        makespans.append(outcome.makespan_ps)
        own, end = own_times(made, *outcome.activity_times)
        owns.append(own)
        ends.append(end)
        steps_ps.append(step_times(gaps.step, outcome.activity_times[1]))
        if progress:
            progress(len(makespans), seeds)
    every = int(_fits(program)[1].sum())
    drawings = np.array(makespans), np.array(owns), np.array(ends), np.array(steps_ps)
    return Spread(*drawings, gaps.count, every)


def own_times(program: Program, start_ps: Ints, end_ps: Ints) -> tuple[Ints, Ints]:
    """Return each collective's own time (C,), from the last rank's start to the latest end, and that end (C,)."""
    of = program.activities["collective"]
    last = np.zeros(len(program.collectives), np.int64)
    end = np.zeros(len(program.collectives), np.int64)
    np.maximum.at(last, of[of >= 0], start_ps[of >= 0])
    np.maximum.at(end, of[of >= 0], end_ps[of >= 0])
    return end - last, end


def step_times(step: Ints, end_ps: Ints) -> Ints:
    """Return each step's time (K,): from the latest end in the ones before it to the latest in it."""
    latest = np.zeros(int(step.max(initial=-1)) + 1, np.int64)
    np.maximum.at(latest, step, end_ps)
    return np.diff(np.maximum.accumulate(latest), prepend=0)


def drawn(program: Program, seed: int, gaps: Gaps | None = None, *, unseen: bool = False) -> Program:
    """Return the program with every gap that was captured in LEAST recordings or more drawn; see `spread`."""
    gaps = find_gaps(program) if gaps is None else gaps
    block, duration = program.block_first[program.calls["block"]], program.ops["duration_ps"]
    source = gaps.sources(seed, unseen=unseen)
    changed: dict[int, dict[int, int]] = {}
    for number, place in enumerate(gaps.places):
        for recording, (call, op) in place.items():
            like = source.get(recording)
            if like is None or like not in place:  # its recording lacks the place: any other of the place
                others = [r for r in place if r[0] != recording[0] or not unseen] or [recording]
                like = others[
                    _below(len(others), seed, Purpose.ORDER, recording[1], recording[0] << 32 | number)
                ]
            there, within = place[like]
            changed.setdefault(call, {})[op] = int(duration[block[there] + within])
    return _with(program, changed)


def _below(limit: int, seed: int, purpose: Purpose, rank: int, stream: int) -> int:
    return int(below(words(1, seed, purpose, rank, stream), limit)[0])


def captured_steps(trace: Trace) -> Steps:
    """Return when each rank's annotated steps began."""
    spans = trace.read("spans", ["rank", "name", "start_ns"], filters=pc.field("kind") == "annotation")
    found: dict[int, list[int]] = defaultdict(list)
    for rank, name, start_ns in zip(*(spans[c].to_pylist() for c in spans.column_names), strict=True):
        if STEP.fullmatch(name or ""):
            found[rank].append(start_ns)
    return found


def find_gaps(program: Program, steps: Steps | None = None, skip: int = 0) -> Gaps:
    """Return the gaps of all places that enough recordings share; none of the first `skip` steps."""
    activities = program.activities
    endpoint = program.agent_endpoint[activities["agent"]]
    step = _steps(endpoint, activities["captured_start_ns"], steps or {})
    ordinal = _ordinals(endpoint, step, activities["name"])
    found: dict[tuple[int, int, int], dict[Recording, tuple[int, int]]] = defaultdict(dict)
    for activity, nth, call, op in _computes(program):
        if step[activity] < skip:
            continue
        key = int(activities["name"][activity]), ordinal[activity], nth
        found[key][int(step[activity]), int(endpoint[activity])] = call, op
    places = [dict(sorted(found[key].items())) for key in sorted(found)]
    return Gaps(tuple(place for place in places if len(place) >= LEAST), step)


def _computes(program: Program) -> Iterator[tuple[int, int, int, int]]:
    """Yield each gap: the activity that it is in or before, its number there, call, operation in the call's block.

    Numbers below 0 are of gaps before the activity: calls of its agent that belong to none. What a collective is
    expanded to is left out.
    """
    calls, (fits, _) = program.calls, _fits(program)
    inside: dict[int, int] = defaultdict(int)
    before: list[tuple[int, int]] = []
    rows = zip(*(calls[name].tolist() for name in ("agent", "activity", "block", "repeat")), strict=True)
    last = -1
    for call, (agent, activity, block, repeat) in enumerate(rows):
        first, end = program.block_first[block : block + 2].tolist()
        gaps = [(call, at - first) for at in range(first, end) if repeat == 1 and fits[at]]
        if agent != last:
            before, last = [], agent
        if activity < 0:
            before += gaps
            continue
        yield from ((activity, -1 - number, *gap) for number, gap in enumerate(before))
        before = []
        if program.activities["collective"][activity] < 0:
            yield from ((activity, inside[activity] + number, *gap) for number, gap in enumerate(gaps))
            inside[activity] += len(gaps)


def _fits(program: Program) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Return which operations let a duration pass (operations,), and how many of each call's do (calls,)."""
    fits = (program.ops["kind"] == Op.COMPUTE) & (program.ops["mode"] == Mode.FOR)
    before = np.concatenate(([0], np.cumsum(fits)))
    first, block = program.block_first, program.calls["block"]
    return fits, before[first[block + 1]] - before[first[block]]


def _steps(endpoint: Ints, start_ns: Ints, steps: Steps) -> Ints:
    """Return the step in which each activity began."""
    starts = {rank: sorted(begins) for rank, begins in steps.items()}
    pairs = zip(endpoint.tolist(), start_ns.tolist(), strict=True)
    return np.array([max(0, bisect_right(starts.get(rank, ()), ns) - 1) for rank, ns in pairs], np.int64)


def _ordinals(endpoint: Ints, step: Ints, name: Ints) -> list[int]:
    """Return of each activity how many of its name came before it on its endpoint in its step."""
    count: dict[tuple[int, int, int], int] = defaultdict(int)
    found = []
    for key in zip(endpoint.tolist(), step.tolist(), name.tolist(), strict=True):
        found.append(count[key])
        count[key] += 1
    return found


def _with(program: Program, changed: dict[int, dict[int, int]]) -> Program:
    """Return the program with other durations in some calls, each of which has a block of its own then."""
    first, block = program.block_first, program.calls["block"].copy()
    taken = np.array(sorted(changed), np.int64)
    lengths = first[block[taken] + 1] - first[block[taken]]
    begins = len(program.ops["kind"]) + np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    index = np.concatenate(
        [np.arange(first[b], first[b + 1]) for b in block[taken]] or [np.empty(0, np.int64)]
    )
    ops = {key: np.concatenate([column, column[index]]) for key, column in program.ops.items()}
    for begin, call in zip(begins.tolist(), taken.tolist(), strict=False):
        for op, duration in changed[call].items():
            ops["duration_ps"][begin + op] = duration
    block[taken] = np.arange(len(first) - 1, len(first) - 1 + len(taken))
    return replace(
        program,
        ops=ops,
        block_first=np.concatenate([first, begins[1:]]),
        calls={**program.calls, "block": block},
    )
