"""What a run could have taken: captured gaps drawn anew, and the interval that predictions then lie in.

The same place in every rank's program (the n-th kernel or host call of one name, its n-th gap) was captured once
a rank. Those durations are the place's distribution: each seed gives every rank one of them, by an integer draw by
index. Nothing is fitted to a named distribution: captures hold few values a place, and their tails are not of one
family. What a collective's library does is not drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..schemas import UsageError
from .fabric import Fabric
from .generate.draws import Purpose, below, words
from .program import Ints, Mode, Op, Program
from .run import run
from .waiting import IDEAL, WaitPolicy

LEAST = 3
"""Ranks that a place must have been captured on; with fewer its gaps stay as they are."""


@dataclass(frozen=True)
class Spread:
    """What a program took over seeds.

    `makespan_ps` (S,); `own_ps` (S, C): each collective, last start to latest end. `drawn` of `gaps` were drawn.
    """

    makespan_ps: Ints
    own_ps: Ints
    drawn: int
    gaps: int

    def interval(self, percent: float = 90) -> tuple[Ints, Ints]:
        """Return low and high of the makespan and of every collective (1 + C,), in picoseconds."""
        tails = [(100 - percent) / 2, (100 + percent) / 2]
        both = np.column_stack([self.makespan_ps, self.own_ps])
        low, high = np.percentile(both, tails, axis=0, method="nearest")
        return low.astype(np.int64), high.astype(np.int64)


def spread(
    program: Program,
    fabric: Fabric,
    seeds: int = 20,
    *,
    wait: WaitPolicy = IDEAL,
    first_seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Spread:
    """Run `program` once a seed, with its captured gaps drawn anew; tell `progress` the seeds done and all of them.

    Raises UsageError for fewer than 2 seeds.
    """
    if seeds < 2:
        raise UsageError(f"--seeds {seeds}: an interval needs at least 2; 20 give 5 and 95 % a place")
    places = _places(program)
    makespans, owns = [], []
    for seed in range(first_seed, first_seed + seeds):
        made = drawn(program, seed, places)
        outcome = run(made, fabric, wait=wait, record="none")
        makespans.append(outcome.makespan_ps)
        owns.append(own_times(made, *outcome.activity_times))
        if progress:
            progress(len(makespans), seeds)
    gaps = sum(len(calls) for calls, _ in places)
    return Spread(np.array(makespans), np.array(owns), gaps, int((program.ops["kind"] == Op.COMPUTE).sum()))


def own_times(program: Program, start_ps: Ints, end_ps: Ints) -> Ints:
    """Return each collective's own time (C,): from the last rank's start to the latest end."""
    of = program.activities["collective"]
    last = np.zeros(len(program.collectives), np.int64)
    end = np.zeros(len(program.collectives), np.int64)
    np.maximum.at(last, of[of >= 0], start_ps[of >= 0])
    np.maximum.at(end, of[of >= 0], end_ps[of >= 0])
    return end - last


Place = tuple[Ints, Ints]
"""Calls of one place in rank order, and in which operation of their blocks each one's gap is."""


def drawn(program: Program, seed: int, places: Sequence[Place] | None = None) -> Program:
    """Return the program with every gap that was captured on LEAST ranks or more drawn among its place's."""
    places = _places(program) if places is None else places
    block, first = program.calls["block"], program.block_first
    changed: dict[int, dict[int, int]] = {}
    for number, (calls, within) in enumerate(places):
        durations = program.ops["duration_ps"][first[block[calls]] + within]
        chosen = below(words(len(calls), seed, Purpose.GAP, 0, number), len(calls))
        for call, op, duration in zip(
            calls.tolist(), within.tolist(), durations[chosen].tolist(), strict=True
        ):
            changed.setdefault(call, {})[op] = duration
    return _with(program, changed)


def _places(program: Program) -> list[Place]:
    """Return the places that enough ranks share."""
    calls, activities = program.calls, program.activities
    endpoint = program.agent_endpoint[activities["agent"]]
    ordinal = _ordinals(endpoint, activities["name"])
    found: dict[tuple[int, int, int], list[tuple[int, int, int]]] = {}
    of = calls["activity"]
    fit = np.flatnonzero((of >= 0) & (calls["repeat"] == 1))
    fit = fit[activities["collective"][of[fit]] < 0]
    seen: dict[int, int] = {}
    for call in fit.tolist():
        activity, block = int(of[call]), int(calls["block"][call])
        for at in range(int(program.block_first[block]), int(program.block_first[block + 1])):
            if program.ops["kind"][at] != Op.COMPUTE or program.ops["mode"][at] != Mode.FOR:
                continue
            nth = seen[activity] = seen.get(activity, -1) + 1
            key = int(activities["name"][activity]), int(ordinal[activity]), nth
            found.setdefault(key, []).append(
                (int(endpoint[activity]), call, at - int(program.block_first[block]))
            )
    places = []
    for key in sorted(found):
        rows = sorted(found[key])
        if len({rank for rank, _, _ in rows}) >= LEAST:
            places.append((np.array([r[1] for r in rows]), np.array([r[2] for r in rows])))
    return places


def _ordinals(endpoint: Ints, name: Ints) -> Ints:
    """Return of each activity how many of its name came before it on its endpoint."""
    count: dict[tuple[int, int], int] = {}
    found = []
    for key in zip(endpoint.tolist(), name.tolist(), strict=True):
        found.append(count.get(key, 0))
        count[key] = found[-1] + 1
    return np.array(found, np.int64)


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
