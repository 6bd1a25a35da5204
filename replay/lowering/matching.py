"""Collectives of different ranks as one operation: by communicator and sequence, at any GPU count."""

from collections import Counter
from dataclasses import dataclass, field

from .groups import Group
from .items import Part, RankWork
from .plan import Plan

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

    @property
    def name(self) -> str:
        """Name of the communicator that these GPUs share."""
        return copy_name(self.communicator, self.copy)


def copy_name(communicator: str, copy: int) -> str:
    """Return the name of a copy of a communicator; copy 0 is the captured one."""
    return communicator if copy == 0 else f"{communicator} copy {copy}"


@dataclass
class Matcher:
    """Finds the operation that a GPU's part belongs to; counts, by reason, the parts that belong to none."""

    plan: Plan
    unmatched: Counter[str] = field(default_factory=Counter)
    _parts: dict[tuple[str, int], dict[int, Part]] = field(default_factory=dict)
    _pairs: dict[tuple[str, int, int, int, str], Part] = field(default_factory=dict)
    _found: dict[tuple[object, ...], Instance | str] = field(default_factory=dict)
    _inside: dict[tuple[object, ...], frozenset[int]] = field(default_factory=dict)
    _members: dict[str, dict[int, list[int]]] = field(default_factory=dict)

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
        """Return what tells copies of an operation apart: that of its group; where two ranks talk, of the job."""
        layout = self.plan.layout
        return layout.block[gpu] if part.operation in _PAIR else layout.copy(part.communicator, gpu)

    def _group_of(self, gpu: int, part: Part) -> Instance | str:
        """Return the operation of a whole group, or why there is none."""
        name = part.communicator
        group = self.plan.groups.get(name)
        if part.operation == "unknown":
            return f"{name}: the operation is not known"
        if group is None:
            return f"{name}: the trace does not say who its members are"
        block = self._block(gpu, part)
        members = self.members(group, block)
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

    def members(self, group: Group, copy: int) -> list[int] | None:
        """Return the GPUs of a copy of a group in its order, or None where not all its members are known."""
        if group.name not in self._members:
            self._members[group.name] = self._copies(group)
        return self._members[group.name].get(copy)

    def _copies(self, group: Group) -> dict[int, list[int]]:
        """Return the GPUs of each copy of a group: by captured position, block after block, or by number."""
        plan, ranks = self.plan, len(self.plan.job)
        position = {member: place for place, member in group.members.items()}
        if group.size == ranks:
            if any(place not in position and plan.own(place) for place in range(ranks)):
                return {}
            position = {place: position.get(place, place) for place in range(ranks)}
        elif not group.complete:
            return {}
        layout, order = plan.layout, sorted(position, key=lambda place: (position[place], place))
        rising = order == sorted(order)
        copies: dict[int, list[tuple[int, int, int]]] = {}
        for gpu, place in enumerate(layout.place):
            if place in position:
                key = (0, gpu, gpu) if rising else (layout.block[gpu], position[place], gpu)
                copies.setdefault(layout.copies[group.name][gpu], []).append(key)
        return {copy: [gpu for *_, gpu in sorted(keys)] for copy, keys in copies.items()}

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
        layout = self.plan.layout
        places = [(layout.block[gpu], group.members[end]) for end in pair]
        if any(place not in layout.gpu_at for place in places):
            return f"{name}: the other side of a {part.operation} is none of the GPUs"
        members = tuple(layout.gpu_at[place] for place in places)
        copy = layout.copies[name][gpu]
        return Instance("send", name, part.sequence, members, (sent, received), 2, copy)
