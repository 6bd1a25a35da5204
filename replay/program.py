"""The program: what both engines run.

A program has agents. An agent lives on an endpoint and calls blocks, one after another, each `repeat` times.
A block is a run of operations, and there are three:

    compute  let a duration pass, or idle until an absolute time
    write    post size_bytes to a peer; on arrival add one to a flag there
    wait     go on when a flag of the own endpoint has reached a count

All is columnar (NumPy). Peers may be relative to the caller's position in a group, and peer, flag and expected
count may grow by a step an iteration, so that agents share blocks and a ring of 16,384 GPUs stays small.
Flags are 64-bit counts, addressed as (endpoint, slot). Times are integer picoseconds from the run's start.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer[Any]]


class Op(IntEnum):
    """What an operation does."""

    COMPUTE = 0
    WRITE = 1
    WAIT = 2


class Mode(IntEnum):
    """Variants of the operations; each belongs to one of them."""

    FOR = 0  # compute: for duration_ps
    UNTIL = 1  # compute: idle until the absolute time duration_ps; no time passes if that is over
    ABSOLUTE = 2  # write: peer is an endpoint
    RELATIVE = 3  # write: peer is added to the caller's position in its group, modulo the group's size
    EVENT = 4  # wait: served by hardware or a runtime; wakes on arrival, reads no memory
    POLL = 5  # wait: served by the run's wait policy
    OBSERVE = 6  # wait: never blocks; duration_ps is the captured end that an arrival must not exceed


ACTIVITY_KINDS = ("kernel", "copy", "host_call", "phase", "collective", "other")

OP_COLUMNS: dict[str, type] = {
    "kind": np.uint8,
    "mode": np.uint8,
    "duration_ps": np.int64,
    "size_bytes": np.int64,
    "peer": np.int32,
    "peer_step": np.int32,
    "flag": np.int32,  # write: slot at the destination, -1 none; wait: slot of the own endpoint
    "flag_step": np.int32,
    "ack": np.int32,  # write: slot at the source, added to one return-path latency after delivery; -1 none
    "flow": np.int32,  # write: label of the flow, among those of its agent to that peer
    "ordered": np.uint8,  # write: its flag shows only when all earlier writes of the flow have landed
    "expected": np.int64,
    "expected_step": np.int64,
}
CALL_COLUMNS: dict[str, type] = {
    "agent": np.int32,
    "block": np.int32,
    "repeat": np.int64,
    "group": np.int32,  # -1: none
    "position": np.int32,  # the caller's position in the group
    "flag_offset": np.int32,  # added to every flag slot of the block
    "activity": np.int32,  # -1: none
}
ACTIVITY_COLUMNS: dict[str, type] = {
    "agent": np.int32,
    "kind": np.uint8,  # index into ACTIVITY_KINDS
    "name": np.int32,  # index into Program.names
    "source": np.int64,  # span that it was lowered from; -1 none
    "captured_start_ns": np.int64,  # -1: not captured
    "captured_end_ns": np.int64,
    "collective": np.int32,  # index into Program.collectives; -1 none
}


@dataclass(frozen=True)
class Collective:
    """One operation of a group, as it was lowered."""

    operation: str
    communicator: str
    sequence: int
    size_bytes: int
    algorithm: str


@dataclass(frozen=True)
class FlagName:
    """A name for `count` slots from `first` of one endpoint (-1: of every endpoint)."""

    endpoint: int
    first: int
    count: int
    name: str


@dataclass(frozen=True)
class Program:
    """Agents, calls, blocks and operations. Built by `Builder` (builder.py); immutable.

    `agent_endpoint` (A,) int32; `calls` are sorted by agent, in order; block b is operations
    `block_first[b]` to `block_first[b + 1]`; group g is `members[group_first[g]:group_first[g + 1]]`;
    `flags` (E,) int32 is the number of slots an endpoint.
    """

    endpoints: int
    agent_endpoint: Ints
    agent_name: Ints
    calls: dict[str, Ints]
    block_first: Ints
    ops: dict[str, Ints]
    group_first: Ints
    members: Ints
    flags: Ints
    activities: dict[str, Ints]
    names: tuple[str, ...]
    collectives: tuple[Collective, ...] = ()
    flag_names: tuple[FlagName, ...] = ()
    epoch_ns: int = 0  # captured time of the run's time 0
    switches: int = 0  # endpoints behind the GPUs

    @property
    def gpus(self) -> int:
        """Number of GPUs: endpoints 0 to `gpus` - 1."""
        return self.endpoints - self.switches

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.agent_endpoint)

    @cached_property
    def call_first(self) -> Ints:
        """(A + 1,) first call of each agent."""
        return np.searchsorted(self.calls["agent"], np.arange(self.agents + 1)).astype(np.int64)

    @cached_property
    def flag_first(self) -> Ints:
        """(E + 1,) first flag of each endpoint in one array of all flags."""
        return np.concatenate(([0], np.cumsum(self.flags))).astype(np.int64)

    def _count(self, kind: Op) -> tuple[Ints, Ints]:
        """Return operations of `kind`, and (B + 1,) how many stand before each block."""
        found = np.flatnonzero(self.ops["kind"] == kind)
        return found, np.searchsorted(found, self.block_first).astype(np.int64)

    def _first_of_call(self, kind: Op) -> Ints:
        """Return (C + 1,) rows (messages or waits) before each call."""
        _, before = self._count(kind)
        block = self.calls["block"]
        each = (before[block + 1] - before[block]) * self.calls["repeat"]
        return np.concatenate(([0], np.cumsum(each))).astype(np.int64)

    @cached_property
    def message_first(self) -> Ints:
        """(C + 1,) first message of each call: message ids are given by agent and program order."""
        return self._first_of_call(Op.WRITE)

    @cached_property
    def wait_first(self) -> Ints:
        """(C + 1,) first wait of each call."""
        return self._first_of_call(Op.WAIT)

    @property
    def messages(self) -> int:
        """Number of messages that a complete run posts."""
        return int(self.message_first[-1])

    @property
    def waits(self) -> int:
        """Number of waits that a complete run executes."""
        return int(self.wait_first[-1])

    def _rows(self, kind: Op, start: int, end: int | None) -> tuple[Ints, Ints, Ints]:
        """Return call, operation and iteration of messages or waits `start` to `end`, in canonical order."""
        first = self.message_first if kind is Op.WRITE else self.wait_first
        found, before = self._count(kind)
        index = np.arange(start, first[-1] if end is None else min(end, first[-1]))
        call = np.searchsorted(first, index, side="right") - 1
        within = index - first[call]
        block = self.calls["block"][call]
        each = before[block + 1] - before[block]
        return call, found[before[block] + within % each], within // each

    def message_rows(self, start: int = 0, end: int | None = None) -> dict[str, Ints]:
        """Return what is known of messages `start` to `end` (default: all) before the run, in canonical order.

        One array a column: call, agent, activity, source, destination (endpoints), size_bytes, flag (slot; -1
        none), op, turn (iteration of the call).
        """
        call, op, turn = self._rows(Op.WRITE, start, end)
        peer = self.ops["peer"][op] + turn * self.ops["peer_step"][op]
        relative = self.ops["mode"][op] == Mode.RELATIVE
        group = np.where(relative, self.calls["group"][call], 0)
        first = self.group_first[group]
        size = np.maximum(self.group_first[group + 1] - first, 1) if len(self.members) else np.ones_like(call)
        index = first + (self.calls["position"][call] + peer) % size
        member = self.members[np.where(relative, index, 0)] if len(self.members) else peer
        flag = self.ops["flag"][op]
        shift = self.calls["flag_offset"][call] + turn * self.ops["flag_step"][op]
        return {
            "call": call,
            "agent": self.calls["agent"][call],
            "activity": self.calls["activity"][call],
            "source": self.agent_endpoint[self.calls["agent"][call]],
            "destination": np.where(relative, member, peer),
            "size_bytes": self.ops["size_bytes"][op],
            "flag": np.where(flag < 0, -1, flag + shift),
            "op": op,
            "turn": turn,
        }

    def wait_rows(self, start: int = 0, end: int | None = None) -> dict[str, Ints]:
        """Return what is known of waits `start` to `end` (default: all) before the run, in canonical order.

        One array a column: call, agent, activity, endpoint, flag, expected, mode, deadline_ps (the captured end
        of an OBSERVE wait, otherwise 0), op, turn (iteration of the call).
        """
        call, op, turn = self._rows(Op.WAIT, start, end)
        agent = self.calls["agent"][call]
        flag = self.ops["flag"][op] + self.calls["flag_offset"][call] + turn * self.ops["flag_step"][op]
        return {
            "call": call,
            "agent": agent,
            "activity": self.calls["activity"][call],
            "endpoint": self.agent_endpoint[agent],
            "flag": flag,
            "expected": self.ops["expected"][op] + turn * self.ops["expected_step"][op],
            "mode": self.ops["mode"][op],
            "deadline_ps": self.ops["duration_ps"][op],
            "op": op,
            "turn": turn,
        }

    @cached_property
    def flag_labels(self) -> tuple[list[str], Ints]:
        """Names of flags, and (flags,) the index of each flag's name among them; -1 where it has none."""
        names: dict[str, int] = {}
        labels = np.full(self.flag_first[-1], -1, np.int32)
        for entry in self.flag_names:
            first = self.flag_first[:-1] if entry.endpoint < 0 else self.flag_first[[entry.endpoint]]
            for slot in range(entry.count):
                name = entry.name if entry.count == 1 else f"{entry.name}[{slot}]"
                labels[first + entry.first + slot] = names.setdefault(name, len(names))
        return list(names), labels

    def flag_name(self, endpoint: int, slot: int) -> str:
        """Return the name of a flag, or `flag N` where it has none."""
        names, labels = self.flag_labels
        label = int(labels[self.flag_first[endpoint] + slot])
        return names[label] if label >= 0 else f"flag {slot}"


_COMPUTE, _WRITE, _WAIT = int(Op.COMPUTE), int(Op.WRITE), int(Op.WAIT)
_FOR, _UNTIL, _ABSOLUTE, _RELATIVE = int(Mode.FOR), int(Mode.UNTIL), int(Mode.ABSOLUTE), int(Mode.RELATIVE)


def compute(duration_ps: int, size_bytes: int = 0) -> dict[str, int]:
    """Let `duration_ps` pass; `size_bytes` of local memory are read and written meanwhile (`Device`)."""
    return {"kind": _COMPUTE, "mode": _FOR, "duration_ps": duration_ps, "size_bytes": size_bytes}


def until(time_ps: int) -> dict[str, int]:
    """Idle until the absolute time `time_ps`; no time passes if that is over."""
    return {"kind": _COMPUTE, "mode": _UNTIL, "duration_ps": time_ps}


def write(
    peer: int,
    size_bytes: int,
    flag: int = -1,
    *,
    relative: bool = False,
    peer_step: int = 0,
    flag_step: int = 0,
    ack: int = -1,
    flow: int = 0,
    ordered: bool = False,
) -> dict[str, int]:
    """Post `size_bytes` to `peer`: an endpoint, or with `relative` an offset from the caller's group position.

    On arrival one is added to slot `flag` there; one return-path latency later to slot `ack` of the writer.
    Writes of one agent to one peer under one `flow` label are a flow: ECMP hashes it, and the flag of an `ordered`
    write shows only when all earlier writes of the flow have landed (of itself true on a single path).
    """
    mode = _RELATIVE if relative else _ABSOLUTE
    return {"kind": _WRITE, "mode": mode, "peer": peer, "size_bytes": size_bytes, "flag": flag,
            "peer_step": peer_step, "flag_step": flag_step, "ack": ack, "flow": flow,
            "ordered": ordered}  # fmt: skip


def wait(
    flag: int,
    expected: int,
    *,
    expected_step: int = 0,
    flag_step: int = 0,
    mode: Mode = Mode.EVENT,
    deadline_ps: int = 0,
) -> dict[str, int]:
    """Go on when the own slot `flag` has reached `expected`."""
    return {"kind": _WAIT, "mode": mode, "flag": flag, "expected": expected, "duration_ps": deadline_ps,
            "expected_step": expected_step, "flag_step": flag_step}  # fmt: skip
