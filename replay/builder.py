"""How programs are made: agents, blocks, groups and flags by number, then `build`."""

from array import array
from dataclasses import dataclass, field, replace

import numpy as np

from .program import (
    ACTIVITY_COLUMNS,
    ACTIVITY_KINDS,
    CALL_COLUMNS,
    OP_COLUMNS,
    Collective,
    FlagName,
    Ints,
    Program,
)

_OP_DEFAULTS = tuple(-1 if name in ("flag", "ack") else 0 for name in OP_COLUMNS)


@dataclass
class Builder:
    """Build a Program; agents, blocks, groups and flags are referred to by the integers that these methods return.

    Calls may be added in any order over agents; within an agent their order is the program's.
    """

    endpoints: int
    epoch_ns: int = 0
    _agents: list[tuple[int, int]] = field(default_factory=list)
    _calls: list[tuple[int, ...]] = field(default_factory=list)
    _blocks: dict[bytes, int] = field(default_factory=dict)  # operations, a 64-bit integer a column
    _shared: dict[tuple[int, str], int] = field(default_factory=dict)
    _groups: dict[tuple[int, ...], int] = field(default_factory=dict)
    _activities: list[tuple[int, ...]] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _collectives: list[Collective] = field(default_factory=list)
    _flag_names: list[FlagName] = field(default_factory=list)
    _switches: int = 0

    def __post_init__(self) -> None:
        self._slots = np.zeros(self.endpoints, np.int32)

    def reach(self, endpoints: int) -> None:
        """Make room for agents on endpoints up to `endpoints`: behind the GPUs come switches that compute."""
        more = max(0, endpoints - self.endpoints)
        if more:
            everywhere = [named for named in self._flag_names if named.endpoint < 0]
            self._flag_names = [named for named in self._flag_names if named.endpoint >= 0]
            for named in everywhere:
                self._flag_names += [replace(named, endpoint=e) for e in range(self.endpoints)]
        self._slots = np.concatenate((self._slots, np.zeros(more, np.int32)))
        self.endpoints += more
        self._switches += more

    def name(self, text: str) -> int:
        """Return the index of `text` among the program's names."""
        return self._names.setdefault(text, len(self._names))

    def agent(self, endpoint: int, name: str) -> int:
        """Add an agent on `endpoint`."""
        self._agents.append((endpoint, self.name(name)))
        return len(self._agents) - 1

    def shared_agent(self, endpoint: int, name: str) -> int:
        """Return the agent on `endpoint` that was asked for by this name before, or add it."""
        if (endpoint, name) not in self._shared:
            self._shared[endpoint, name] = self.agent(endpoint, name)
        return self._shared[endpoint, name]

    def group(self, members: list[int]) -> int:
        """Return the group with these endpoints, in this order."""
        return self._groups.setdefault(tuple(members), len(self._groups))

    def flags(self, members: list[int] | Ints, count: int = 1, name: str = "") -> int:
        """Reserve `count` slots with the same numbers on all `members`; return the first."""
        index = np.asarray(members)
        first = int(self._slots[index].max())
        self._slots[index] = first + count
        if name:
            named = [-1] if len(index) == self.endpoints else index.tolist()
            self._flag_names += [FlagName(m, first, count, name) for m in named]
        return first

    def block(self, ops: list[dict[str, int]]) -> int:
        """Return the block of operations made by `compute`, `until`, `write`, `wait`; equal ones share it."""
        rows = array("q")
        for op in ops:
            rows.extend(map(op.get, OP_COLUMNS, _OP_DEFAULTS))
        return self._blocks.setdefault(rows.tobytes(), len(self._blocks))

    def rows(self, ops: Ints) -> int:
        """Return the block of operations given as rows, (n, columns) int64."""
        return self._blocks.setdefault(ops.tobytes(), len(self._blocks))

    def collective(self, collective: Collective) -> int:
        """Add an operation of a group; return its index."""
        self._collectives.append(collective)
        return len(self._collectives) - 1

    def activity(
        self,
        agent: int,
        kind: str,
        name: str,
        *,
        source: int = -1,
        captured_start_ns: int = -1,
        captured_end_ns: int = -1,
        collective: int = -1,
    ) -> int:
        """Add a named stretch of `agent`, whose times the results will hold; return its index."""
        row = (agent, ACTIVITY_KINDS.index(kind), self.name(name), source, captured_start_ns, captured_end_ns,
               collective)  # fmt: skip
        self._activities.append(row)
        return len(self._activities) - 1

    def call(
        self,
        agent: int,
        block: int,
        repeat: int = 1,
        *,
        group: int = -1,
        position: int = 0,
        flag_offset: int = 0,
        activity: int = -1,
    ) -> None:
        """Append a call of `block` to `agent`."""
        self._calls.append((agent, block, repeat, group, position, flag_offset, activity))

    def build(self) -> Program:
        """Return the finished program."""
        calls = _columns(self._calls, CALL_COLUMNS)
        order = np.argsort(calls["agent"], kind="stable")
        agents = np.array(self._agents, np.int32).reshape(-1, 2)
        sizes = [len(members) for members in self._groups]
        ops = np.frombuffer(b"".join(self._blocks), np.int64).reshape(-1, len(OP_COLUMNS))
        lengths = np.array([len(block) for block in self._blocks], np.int64) // (8 * len(OP_COLUMNS))
        return Program(
            endpoints=self.endpoints,
            agent_endpoint=agents[:, 0].copy(),
            agent_name=agents[:, 1].copy(),
            calls={c: v[order] for c, v in calls.items()},
            block_first=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            ops=_typed(ops, OP_COLUMNS),
            group_first=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            members=np.array([m for members in self._groups for m in members], np.int32),
            flags=self._slots.copy(),
            activities=_columns(self._activities, ACTIVITY_COLUMNS),
            names=tuple(self._names),
            collectives=tuple(self._collectives),
            flag_names=tuple(self._flag_names),
            epoch_ns=self.epoch_ns,
            switches=self._switches,
        )


def row(op: dict[str, int]) -> Ints:
    """Return an operation as a row, (columns,) int64."""
    return np.array(
        [op.get(name, default) for name, default in zip(OP_COLUMNS, _OP_DEFAULTS, strict=True)], np.int64
    )


def rows_of(ops: list[dict[str, int]]) -> Ints:
    """Return operations as rows, (n, columns) int64."""
    return np.array([row(op) for op in ops], np.int64).reshape(-1, len(OP_COLUMNS))


def blank(count: int) -> Ints:
    """Return room for `count` operations."""
    return np.empty((count, len(OP_COLUMNS)), np.int64)


def _columns(rows: list[tuple[int, ...]], types: dict[str, type]) -> dict[str, Ints]:
    return _typed(np.array(rows, np.int64).reshape(-1, len(types)), types)


def _typed(table: Ints, types: dict[str, type]) -> dict[str, Ints]:
    return {name: table[:, i].astype(kind) for i, (name, kind) in enumerate(types.items())}
