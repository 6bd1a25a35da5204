"""What an algorithm is given, and what it gives back.

An algorithm is a function from Work to tracks. A track is one sequence of calls a member, run by one agent; tracks
of one operation run side by side (channels, directions of a tree). Blocks use flag slots from 0 and are shared by
all members; where an operation's own slots lie is in its calls' `flag_offset`.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...schemas import UsageError
from ..builder import Builder
from ..fabric import Fabric
from ..program import Mode, compute, wait, write
from .operation import WIRE_BYTES, Call, Operation, Ring, Tuning
from .orders import ring_order, ring_speeds

Stretch = tuple[int, int, int]
"""Equal chunks of a pipeline: number of the first, how many, bytes of each."""


@dataclass
class Work:
    """One operation to expand, and what algorithms build it from.

    `blocks` is theirs, to find a block again that members share.
    """

    builder: Builder
    fabric: Fabric
    members: list[int]
    operation: Operation
    tuning: Tuning
    communicator: str = ""

    def __post_init__(self) -> None:
        self.agents: list[int] = []
        self.blocks: dict[Hashable, int] = {}
        self._group = self.builder.group(self.members)
        self._alone = len(set(self.fabric.box[self.members])) == self.size
        self._box = [0] * self.size if self._alone else self.fabric.box[self.members].tolist()

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)

    def rings(self) -> list[Ring]:
        """Return the rings that share the buffer, by the rates of their slowest links; one without data goes."""
        orders = ring_order(self.fabric, self.members)[: self.tuning.channels or None]
        speeds = ring_speeds(self.fabric, orders)
        rank = {member: i for i, member in enumerate(self.members)}
        shares = self.split(self.operation.size_bytes, speeds)
        inside = ring_speeds(self.fabric, [self._first_box(order) for order in orders])
        how, total = self.tuning, sum(speeds)
        rings = [
            Ring([rank[m] for m in order], share, speed, near, max(1, how.lanes * speed // total),
                 how.lane_mb_per_s * max(total, how.lanes * speed) // total,
                 how.network_lane_mb_per_s * how.lanes * speed // total)
            for order, share, speed, near in zip(orders, shares, speeds, inside, strict=True)
        ]  # fmt: skip
        return [ring for ring in rings if ring.size_bytes] or rings[:1]

    def _first_box(self, order: list[int]) -> list[int]:
        """Return the members of a ring that stand in its first one's box; all where that one stands alone."""
        near = [m for m in order if self.fabric.box[m] == self.fabric.box[order[0]]]
        return near if len(near) > 1 else order

    def split(self, size_bytes: int, weights: Sequence[int]) -> list[int]:
        """Split bytes in whole elements by weight; parts of equal weight differ by at most one element."""
        unit = self.unit(size_bytes)
        total, count, done, parts = sum(weights), size_bytes // unit, 0, []
        for i in range(len(weights)):
            upto = -(-count * sum(weights[: i + 1]) // total)
            parts.append((upto - done) * unit)
            done = upto
        return parts

    def unit(self, size_bytes: int) -> int:
        """Return the element size, or 1 where it does not divide the buffer."""
        return self.operation.element_bytes if size_bytes % self.operation.element_bytes == 0 else 1

    def slices(self, size_bytes: int, count: int) -> tuple[int, int, int]:
        """Return (bytes of a large slice, of a small one, number of large ones, which come first)."""
        unit = self.unit(size_bytes)
        each, large = divmod(size_bytes // unit, count)
        return (each + 1) * unit, each * unit, large

    def splits(self) -> list[list[int]]:
        """Return the bytes from each member to each."""
        split = self.operation.split_bytes
        return [] if split is None else split.tolist()

    def chunks(self, size_bytes: int) -> int:
        """Return into how many pieces a pipelined buffer is cut."""
        chunk = self.tuning.chunk_bytes
        return max(1, -(-size_bytes // chunk)) if chunk else 1

    def flags(self, count: int, what: str, ranks: Sequence[int] | None = None) -> int:
        """Reserve fresh slots on the members (or on those group ranks)."""
        members = self.members if ranks is None else [self.members[r] for r in ranks]
        return self.builder.flags(members, count, f"{self.operation.name or self.operation.operation} {what}")

    def flags_on(self, endpoints: Sequence[int], count: int, what: str) -> int:
        """Reserve fresh slots with the same numbers on these endpoints, switches included."""
        self.builder.reach(max(endpoints) + 1)
        return self.builder.flags(
            list(endpoints), count, f"{self.operation.name or self.operation.operation} {what}"
        )

    def beside(self, endpoint: int, role: str, calls: Sequence[Call]) -> None:
        """Let an agent of its own make these calls on an endpoint: a switch, or a member's memory.

        It has one agent a communicator and role, which takes the operations in their order.
        """
        agent = self.builder.shared_agent(endpoint, f"{self.communicator} {role}".strip())
        activity = self.builder.activity(
            agent, "other", f"{self.operation.name or self.operation.operation} {role}"
        )
        for call in calls:
            self.builder.call(agent, activity=activity, **call)
        self.agents.append(agent)

    def among(self, ranks: Sequence[int], operation: Operation) -> "Work":
        """Return an operation among some of the group ranks, in this order, for a phase of this one."""
        members = [self.members[r] for r in ranks]
        return Work(self.builder, self.fabric, members, operation, self.tuning, self.communicator)

    def requests(self, source: int, destination: int, size_bytes: int) -> int:
        """Return the bytes of a message whose headers and payload are one header a packet of `size_bytes`."""
        if self.fabric.ideal:
            return 0
        link = self.fabric.route(source, destination)[0]
        header, payload = (int(x[link]) for x in (self.fabric.header_bytes, self.fabric.payload_bytes))
        return -(-size_bytes * header // (header + payload)) if payload else 0

    def boxes(self) -> list[list[int]]:
        """Return the group ranks of each box, in their order; boxes of unequal size are refused.

        Raises UsageError.
        """
        found = self.ranks_by_box()
        sizes = sorted({len(ranks) for ranks in found})
        if len(sizes) > 1:
            raise UsageError(
                f"{self.operation.operation}, algorithm {self.tuning.algorithm}: boxes hold {sizes[0]} to "
                f"{sizes[-1]} of the {self.size} ranks; it needs as many in each: take ring"
            )
        return found

    def ranks_by_box(self) -> list[list[int]]:
        """Return the group ranks of each box, in their order."""
        found: dict[int, list[int]] = {}
        for rank, member in enumerate(self.members):
            found.setdefault(int(self.fabric.box[member]), []).append(rank)
        return list(found.values())

    def group(self, order: Sequence[int] | None = None) -> int:
        """Return the group of the members, in their own or another order of group ranks."""
        if order is None:
            return self._group
        return self.builder.group([self.members[r] for r in order])

    def wire(self, size_bytes: int) -> int:
        """Return the bytes that a message of data takes under the protocol."""
        times, per = WIRE_BYTES[self.tuning.protocol]
        return -(-size_bytes * times // per)

    def write(
        self, peer: int, size_bytes: int, slot: int = 0, *, peer_step: int = 0, flag_step: int = 0
    ) -> dict[str, int]:
        """Write data to the member `peer` places on."""
        wire = self.wire(size_bytes)
        return write(peer, wire, slot, relative=True, peer_step=peer_step, flag_step=flag_step)

    def wait(
        self, slot: int = 0, expected: int = 1, *, expected_step: int = 0, flag_step: int = 0
    ) -> dict[str, int]:
        """Wait for a count."""
        mode = Mode.POLL if self.tuning.poll else Mode.EVENT
        return wait(slot, expected, expected_step=expected_step, flag_step=flag_step, mode=mode)

    def step(
        self,
        size_bytes: int,
        ring: Ring | None = None,
        *,
        network: bool = False,
        first: bool = True,
        again: bool = False,
    ) -> list[dict[str, int]]:
        """Return what the kernel does before it forwards: nothing, or a compute.

        Channels move bytes while the link does: of the slower one's time only what exceeds the link's is left. Of
        chunks in a pipeline only the `first` pays a step's latency; the others follow at the pace of the channels,
        or of the links where those are slower. What goes `again` over a network hop that is under way costs a step
        in the box.
        """
        how = self.tuning
        cost = (how.network_step_ps if network and not again else how.step_ps) if first else 0
        if ring and ring.lanes_mb_per_s:
            beyond = max(0, size_bytes - how.pass_bytes * ring.lanes)
            rate = ring.network_mb_per_s if network and ring.network_mb_per_s else ring.lanes_mb_per_s
            busy = -(-beyond * 10**6 // rate)
            link_mb_per_s = ring.mb_per_s if network else ring.inside_mb_per_s
            cost += max(0, busy - (self.wire(size_bytes) * 10**6 // link_mb_per_s if first else 0))
        return [compute(cost)] if cost else []

    def last(self, size_bytes: int, ring: Ring) -> list[dict[str, int]]:
        """Return what a kernel does with the slice that came last: it copies it, and sends nothing meanwhile."""
        rate = self.tuning.copy_lane_mb_per_s * ring.lanes
        return [compute(-(-size_bytes * 10**6 // rate))] if rate and size_bytes else []

    def call(
        self,
        ops: list[dict[str, int]],
        repeat: int = 1,
        *,
        group: int = -1,
        position: int = 0,
        flags: int = 0,
    ) -> Call:
        """Return a call of the block of these operations."""
        block = self.builder.block(ops)
        return {"block": block, "repeat": repeat, "group": group, "position": position, "flag_offset": flags}

    def by_box(self, order: list[int]) -> list[list[int]]:
        """Cut a ring into its boxes, each from the place where its ring enters the first one."""
        if not self.spans_boxes:
            return [[p] for p in order] if self._alone else [order]
        boxes: dict[int, list[int]] = {}
        for p in order:
            boxes.setdefault(self._box[p], []).append(p)
        return [box[::-1] if turn % 2 else box for turn, box in enumerate(boxes.values())]

    @property
    def spans_boxes(self) -> bool:
        """Return whether the members stand in several boxes."""
        return len(set(self._box)) > 1

    def leaves_box(self, a: int, b: int) -> bool:
        """Return whether group ranks `a` and `b` stand in different boxes; not where every member stands alone."""
        return self._box[a] != self._box[b]


def first_alone(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Return stretches that are not empty, with chunk 0 by itself."""
    found: list[Stretch] = []
    for first, count, size in stretches:
        if count > 1 and first == 0:
            found += [(0, 1, size), (1, count - 1, size)]
        elif count:
            found.append((first, count, size))
    return found


def runs(first: int, count: int, size: int, large: int, step: int) -> Iterator[tuple[int, int, bool]]:
    """Walk `count` of `size` slices around from `first`; yield (turn, length, large) of equal stretches.

    Slices 0 to `large` - 1 are the large ones.
    """
    if large == 0:
        yield 0, count, False
        return
    turn, at = 0, first % size
    while turn < count:
        big = at < large
        if step < 0:
            length = at + 1 if big else at - large + 1
        else:
            length = large - at if big else size - at
        length = min(length, count - turn)
        yield turn, length, big
        turn += length
        at = (at + step * length) % size
