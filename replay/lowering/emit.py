"""From scripts to a program: an agent a lane and GPU, calls of shared blocks, an activity an item."""

from dataclasses import dataclass, field

from ..builder import Builder
from ..fabric import Fabric
from .acts import Grower
from .edges import number_pairs
from .expanding import Expanded, Expander
from .items import Item, Part, RankWork
from .matching import Instance, Matcher
from .plan import Plan
from .scripts import NO_BLOCK, AgentScript, Entry, Observers, Scripter
from .works import Works

Mode = str
MODES = ("dependent", "timed", "target")
_KINDS = {"kernel": "kernel", "copy": "copy", "host_call": "host_call", "phase": "phase"}


@dataclass
class Emitter:
    """Writes every GPU's agents into `builder`."""

    builder: Builder
    fabric: Fabric
    plan: Plan
    works: Works
    grower: Grower
    matcher: Matcher
    expander: Expander
    targets: frozenset[int] = frozenset()
    _scripts: dict[tuple[str, int, frozenset[int]], list[AgentScript]] = field(default_factory=dict)
    _parts_of: dict[int, list[Part]] = field(default_factory=dict)

    def emit(self, mode: Mode) -> None:
        """Write all agents of `mode`."""
        every = list(range(self.plan.gpus))
        names, pairs = number_pairs(self.works.base.values())
        if mode == "timed":  # nothing waits; ends of collectives are observed
            observed = max(len(Observers(work).slots) for work in self.works.all())
            names = ["end of a collective"] * observed
        event_first = self._reserve(every, 1, names)
        detailed = sorted(self.targets) if mode == "target" else every
        flag_first = self._reserve(detailed, self.grower.gpus, self.grower.flags.names)
        eidolons = sorted(set(every) - set(detailed))
        if eidolons:
            self._reserve(eidolons, 1, self.grower.flags.names)
        self._scripter = Scripter(self.builder, self.plan, self.grower, event_first, flag_first, pairs)
        size = self.grower.gpus
        blocks = [range(first, first + size) for first in range(0, self.plan.gpus, size)]
        groups = [self.builder.group(list(block)) for block in blocks]
        self._expand_in_order()
        for gpu in every:
            self._emit_gpu(gpu, self._role(mode, gpu), groups[gpu // size])

    def _expand_in_order(self) -> None:
        """Expand the operations of each communicator in its own order, which its channels then keep."""
        instances: dict[int, Instance] = {}
        for gpu in range(self.plan.gpus):
            for part in self._parts(gpu):
                if found := self.matcher.find(gpu, part):
                    instances[id(found)] = found
        self.matcher.unmatched.clear()  # each part is looked up once more, when its agent is written
        for instance in sorted(instances.values(), key=lambda i: (i.name, i.sequence, i.members)):
            if not self.targets or self.targets & set(instance.members):
                self.expander.expand(instance)

    def _parts(self, gpu: int) -> list[Part]:
        rank = self.plan.source(gpu)
        if rank not in self._parts_of:
            self._parts_of[rank] = [part for item in self.works.base[rank].items() for part in item.parts]
        return self._parts_of[rank]

    def _reserve(self, every: list[int], count: int, names: list[str]) -> int:
        """Reserve `count` slots a name, one after another, on all GPUs; return the first."""
        return min((self.builder.flags(every, count, name) for name in names), default=0)

    def _role(self, mode: Mode, gpu: int) -> str:
        if mode != "target":
            return mode
        return "dependent" if gpu in self.targets else "eidolon"

    def _script(self, role: str, gpu: int) -> list[AgentScript]:
        work, scripter, size = self.works.of(gpu), self._scripter, self.grower.gpus
        if role == "eidolon":
            block = gpu // size
            seen = {(target - gpu) % size: target for target in self.targets if target // size == block}
            return scripter.eidolon(work, seen) + self._joining(work)
        distances = frozenset(
            (target - gpu) % size for target in self.targets if target // size == gpu // size
        )
        key = (role, id(work), distances)
        if key not in self._scripts:
            self._scripts[key] = (
                scripter.timed(work) if role == "timed" else scripter.closed(work, distances or None)
            )
        return self._scripts[key]

    def _joining(self, work: RankWork) -> list[AgentScript]:
        """Write the collectives that an eidolon joins at their captured start."""
        return [
            AgentScript(f"{lane.name}: {item.parts[0].operation}", [self._scripter.joined(item)])
            for lane in work.lanes
            for item in lane.items
            if item.parts
        ]

    def _emit_gpu(self, gpu: int, role: str, group: int) -> None:
        for script in self._script(role, gpu):
            expanded = [
                self._expanded(gpu, entry.item) if entry.item.parts else [] for entry in script.entries
            ]
            joins = any(entry.item.parts for entry in script.entries)
            if role == "eidolon" and joins and not any(found for each in expanded for found in each):
                continue  # no target takes part
            agent = self.builder.agent(gpu, script.name)
            for entry, found in zip(script.entries, expanded, strict=True):
                self._emit_entry(gpu, agent, entry, found, role, group)

    def _expanded(self, gpu: int, item: Item) -> list[Expanded | None]:
        """Return the expansion of each of an item's parts, sends first; None for what cannot be expanded."""
        parts = sorted(item.parts, key=lambda part: part.operation == "recv")
        instances = [self.matcher.find(gpu, part) for part in parts]
        return [self.expander.expanded(instance) if instance else None for instance in instances]

    def _emit_entry(
        self, gpu: int, agent: int, entry: Entry, expanded: list[Expanded | None], role: str, group: int
    ) -> None:
        builder, position = self.builder, gpu % self.grower.gpus

        def call(block: int, activity: int) -> None:
            if block != NO_BLOCK:
                builder.call(agent, block, group=group, position=position, activity=activity)

        item = entry.item
        call(entry.before, -1)
        first = expanded[0].collective if expanded and expanded[0] else -1
        activity = self._activity(gpu, agent, item, role, first)
        call(entry.body, activity)
        for found in expanded:
            if found:
                found.call(builder, agent, gpu, activity)
        if item.parts and not all(expanded):
            call(entry.alone, activity)
        call(entry.after, activity)

    def _activity(self, gpu: int, agent: int, item: Item, role: str, collective: int) -> int:
        kind = "collective" if collective >= 0 else _KINDS.get(item.kind, "other")
        if role == "eidolon" and collective < 0:
            kind = "other"
        captured = self.plan.captured(gpu)
        return self.builder.activity(
            agent,
            kind,
            item.name,
            source=item.span,
            captured_start_ns=item.start_ns if captured else -1,
            captured_end_ns=item.end_ns if captured else -1,
            collective=collective,
        )
