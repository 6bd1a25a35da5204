"""Collectives of different ranks as one operation: by communicator and sequence, at any GPU count."""

from collections import Counter
from dataclasses import dataclass, field

from .items import Part, RankWork
from .plan import Group, Plan

_PAIR = ("send", "recv")
_SPLIT = ("all_to_all", "all_to_allv")


@dataclass(frozen=True)
class Instance:
    """One operation to expand: the GPUs in group order, and each one's part as captured; `copy` of the job."""

    operation: str
    communicator: str
    sequence: int
    members: tuple[int, ...]
    parts: tuple[Part, ...]
    captured_size: int
    copy: int


@dataclass
class Matcher:
    """Finds the operation that a GPU's part belongs to; counts, by reason, the parts that belong to none."""

    plan: Plan
    unmatched: Counter[str] = field(default_factory=Counter)
    _parts: dict[tuple[str, int], dict[int, Part]] = field(default_factory=dict)
    _pairs: dict[tuple[str, int, int, int, str], Part] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Instance | str] = field(default_factory=dict)
    _inside: dict[tuple[object, ...], frozenset[int]] = field(default_factory=dict)
    _members: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def add(self, work: RankWork) -> None:
        """Take in one captured rank's parts."""
        for part in (p for item in work.items() for p in item.parts):
            if part.operation in _PAIR:
                if (pair := self._pair(part)) is not None:
                    self._pairs[part.communicator, part.sequence, *pair, part.operation] = part
            else:
                self._parts.setdefault((part.communicator, part.sequence), {})[part.rank] = part

    def find(self, gpu: int, part: Part) -> Instance | None:
        """Return the operation that `part` of `gpu` belongs to; None, and the reason counted, without one."""
        key: tuple[object, ...] = (part.communicator, part.sequence, self._block(gpu, part))
        if part.operation in _PAIR:
            key += (self._pair(part),)
        if key not in self._found:
            found = self._pair_of(gpu, part) if part.operation in _PAIR else self._group_of(gpu, part)
            self._found[key] = found
            self._inside[key] = frozenset() if isinstance(found, str) else frozenset(found.members)
        instance = self._found[key]
        if isinstance(instance, str):
            self.unmatched[instance] += 1
            return None
        if gpu not in instance.members:
            self.unmatched[
                f"{part.communicator}: the GPU is no member in place of the rank that it repeats"
            ] += 1
            return None
        return instance

    def _block(self, gpu: int, part: Part) -> int:
        group = self.plan.groups.get(part.communicator)
        grown = group is not None and self.plan.grows(group) and part.operation not in _PAIR
        return 0 if grown else gpu // len(self.plan.job)

    def _group_of(self, gpu: int, part: Part) -> Instance | str:
        """Return the operation of a whole group, or why there is none."""
        name = part.communicator
        group = self.plan.groups.get(name)
        if part.operation == "unknown":
            return f"{name}: the operation is not known"
        if group is None:
            return f"{name}: the trace does not say who its members are"
        block = self._block(gpu, part)
        members = self._gpus(group, block)
        if members is None:
            return f"{name}: not all of its {group.size} members were captured"
        held = self._parts[name, part.sequence]
        parts = [held.get(self.plan.source(member)) for member in members]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts):
            return f"{name}: a captured member took no part"
        operations = {"all_to_allv" if p.operation in _SPLIT else p.operation for p in known}
        if len(operations) > 1:
            return f"{name}: its members disagree on the operation ({', '.join(sorted(operations))})"
        if any(p.size_bytes < 0 and p.operation != "barrier" for p in known):
            return f"{name}: the trace does not say how many bytes {part.operation} moved"
        operation = "all_to_allv" if any(p.operation == "all_to_allv" for p in known) else part.operation
        return Instance(operation, name, part.sequence, tuple(members), tuple(known), group.size, block)

    def _gpus(self, group: Group, block: int) -> list[int] | None:
        """Return the group's GPUs in its order: of all blocks of the job where it grows, else of one."""
        key = (group.name, block)
        if key not in self._members:
            plan, ranks = self.plan, len(self.plan.job)
            if plan.grows(group):
                place = {member: position for position, member in group.members.items()}
                missing = [i for i in range(ranks) if i not in place and plan.captured(i)]
                if missing:
                    return None
                order = sorted(range(ranks), key=lambda i: (place.get(i, i), i))
                every = [first + i for first in range(0, plan.gpus, ranks) for i in order]
                self._members[key] = [gpu for gpu in every if gpu < plan.gpus]
            elif group.complete:
                self._members[key] = [block * ranks + group.members[i] for i in range(group.size)]
            else:
                return None
        return self._members[key]

    def _pair(self, part: Part) -> tuple[int, int] | None:
        """Return (sender, receiver) as positions in the group, or None where the trace does not say."""
        group = self.plan.groups.get(part.communicator)
        own = self.plan.index[part.rank]
        place = [position for position, member in group.members.items() if member == own] if group else []
        if part.peer is None or not place:
            return None
        return (place[0], part.peer) if part.operation == "send" else (part.peer, place[0])

    def _pair_of(self, gpu: int, part: Part) -> Instance | str:
        """Return the send and receive that belong together, or why there are none."""
        pair, name = self._pair(part), part.communicator
        if pair is None:
            return f"{name}: a {part.operation} does not say its peer"
        group = self.plan.groups[name]
        both = [self._pairs.get((name, part.sequence, *pair, operation)) for operation in _PAIR]
        sent, received = both
        if sent is None or received is None or any(end not in group.members for end in pair):
            return f"{name}: the other side of a {part.operation} was not captured"
        if max(sent.size_bytes, received.size_bytes) < 0:
            return f"{name}: the trace does not say how many bytes {part.operation} moved"
        block = self._block(gpu, part)
        members = tuple(block * len(self.plan.job) + group.members[end] for end in pair)
        return Instance("send", name, part.sequence, members, (sent, received), 2, block)
