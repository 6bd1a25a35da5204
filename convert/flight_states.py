"""What the ranks' calls of collectives say together: who waits in which, who never came, who called another.

Only the group's numbers are compared, never times: clocks of hosts differ, and ends were noticed late.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .parts import Group

SHOWN = 8
"""Lines a group; what a rank enqueued behind the operation that it hangs in says nothing new."""
_SAME_SIZE = ("all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter")


@dataclass(frozen=True)
class Call:
    """One rank's call of one operation; times are None where nobody noticed, `state` what was noticed last."""

    rank: int
    name: str
    operation: str
    group: Group
    sequence: int | None
    p2p: bool
    peer: int | None
    dtype: str | None
    size_bytes: int | None
    created_ns: int
    started_ns: int | None
    completed_ns: int | None
    duration_ns: int | None
    state: str

    def window(self, horizon_ns: int) -> tuple[int, int]:
        """Return when it ran as far as is known; what has not ended lasts to `horizon_ns`."""
        if self.completed_ns is None:
            begun = self.started_ns or self.created_ns
            return begun, begun if self.state == "completed" else max(begun, horizon_ns)
        begun = self.started_ns or self.created_ns
        if self.duration_ns is not None:
            begun = max(self.created_ns, self.completed_ns - self.duration_ns)
        return min(begun, self.completed_ns), self.completed_ns

    def text(self) -> str:
        """Return the operation with its number and group."""
        label = self.group.description or self.group.name
        number = "" if self.sequence is None else f" {self.sequence}"
        shown = self.operation if self.operation != "unknown" else self.name
        return f"{shown}{number} of group {self.group.name} ({label})"


Operations = dict[tuple[str | None, int], dict[int, list[Call]]]


def _operations(calls: Sequence[Call]) -> Operations:
    """Return collectives by group and number, each with its ranks' calls."""
    found: Operations = defaultdict(lambda: defaultdict(list))
    for call in calls:
        if not call.p2p and call.sequence is not None:
            found[call.group.name, call.sequence][call.rank].append(call)
    return dict(sorted(found.items(), key=lambda item: (str(item[0][0]), item[0][1])))


def mismatched(calls: Sequence[Call]) -> list[tuple[tuple[str | None, int] | None, str]]:
    """Return a line on what ranks called differently under one number, with group and number.

    Those are None where only sizes differ, so that it still is one operation.
    """
    lines: list[tuple[tuple[str | None, int] | None, str]] = []
    for key, by_rank in _operations(calls).items():
        single = {rank: own[0] for rank, own in by_rank.items() if len(own) == 1}
        kinds: dict[str, list[int]] = defaultdict(list)
        sizes: dict[str, list[int]] = defaultdict(list)
        for rank, call in sorted(single.items()):
            if call.operation != "unknown":
                kinds[call.operation].append(rank)
            if call.operation in _SAME_SIZE and call.size_bytes is not None:
                sizes[f"{call.size_bytes} bytes"].append(rank)
        if len(kinds) > 1:
            lines.append((key, f"mismatch: number {key[1]} of group {key[0]} is {_ranks(kinds)}"))
        elif len(sizes) > 1:
            lines.append((None, f"mismatch: number {key[1]} of group {key[0]} has {_ranks(sizes)}"))
    return lines


def stuck(calls: Sequence[Call], dumped: set[int]) -> list[str]:
    """Return lines on every collective that some rank called and not all have ended, and where each rank is."""
    shown: dict[str | None, int] = defaultdict(int)
    lines = list(_pending(_operations(calls), dumped, shown))
    lines += [
        f"group {name}: {count - SHOWN} later collectives are not completed either"
        for name, count in sorted(shown.items(), key=str)
        if count > SHOWN
    ]
    waiting = [call for call in calls if call.state != "completed"]
    return lines + ([*_where(calls, dumped)] if waiting else ["every operation in the dumps has ended"])


def _pending(operations: Operations, dumped: set[int], shown: dict[str | None, int]) -> Iterator[str]:
    last: dict[tuple[str | None, int], int] = {}
    for (name, sequence), by_rank in operations.items():
        last |= {(name, rank): max(sequence, last.get((name, rank), 0)) for rank in by_rank}
    for (name, sequence), by_rank in operations.items():
        every = [call for own in by_rank.values() for call in own]
        if all(call.state == "completed" for call in every):
            continue
        shown[name] += 1
        if shown[name] > SHOWN:
            continue
        states: dict[str, list[int]] = defaultdict(list)
        for state in ("started", "scheduled", "completed"):
            if ranks := sorted({call.rank for call in every if call.state == state}):
                states[state] = ranks
        members = set(every[0].group.ranks or ()) or {rank for group, rank in last if group == name}
        if late := sorted(r for r in members & dumped - set(by_rank) if last.get((name, r), -1) < sequence):
            states["not called"] = late
        if unseen := sorted(members - dumped):
            states["no dump"] = unseen
        yield f"not completed: {every[0].text()}: {_ranks(states)}"


def _where(calls: Sequence[Call], dumped: set[int]) -> Iterator[str]:
    """Yield what each rank is in: its oldest operation that has not ended, or its last where all have."""
    for rank in sorted(dumped):
        own = sorted((call for call in calls if call.rank == rank), key=lambda call: call.created_ns)
        waiting = next((call for call in own if call.state != "completed"), None)
        if waiting:
            yield f"rank {rank} is in {waiting.text()}, {waiting.state}"
        elif own:
            yield f"rank {rank} is in no collective; its last was {own[-1].text()}"
        else:
            yield f"rank {rank} called no collective"


def _ranks(told: dict[str, list[int]]) -> str:
    return ", ".join(f"{what} on ranks {_short(ranks)}" for what, ranks in told.items())


def _short(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:16]))
    return f"[{shown}]" if len(ranks) <= 16 else f"[{shown}, ... {len(ranks)} in all]"
