"""What a program says of its messages and waits before it runs, a row each, by compiled loops.

`Program.message_rows` and `Program.wait_rows` define the same columns in NumPy, for a look at a few of them; a
test holds both together.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..program import Op, Program
from ..routing import STATIC
from . import layout
from .jit import entry
from .layout import Ints
from .posting import target

_WRITE = int(Op.WRITE)


@entry
def _places(code, first, kind, at, low, high, calls, ops, turns):
    """Fill call, operation and iteration of rows `low` to `high`, of which the first is in call `at`."""
    row = first[at]
    while row < high:
        call = code.calls[at]
        each = (first[at + 1] - row) // max(call.repeat, 1)
        turn = max(low - row, 0) // each if each else call.repeat
        row += turn * each
        while turn < call.repeat and row < high:
            for op in range(code.block_first[call.block], code.block_first[call.block + 1]):
                if code.ops[op].kind == kind:
                    if low <= row < high:
                        calls[row - low] = at
                        ops[row - low] = op
                        turns[row - low] = turn
                    row += 1
            turn += 1
        at += 1


@entry
def _messages(code, calls, ops, turns, agent, activity, source, destination, size_bytes, flag):
    for row in range(len(calls)):
        call, op, turn = code.calls[calls[row]], code.ops[ops[row]], turns[row]
        agent[row] = call.agent
        activity[row] = call.activity
        source[row] = code.agent_endpoint[call.agent]
        destination[row] = target(code, call, op, turn)
        size_bytes[row] = op.size_bytes
        flag[row] = op.flag + call.flag_offset + turn * op.flag_step if op.flag >= 0 else -1


@entry
def _waits(code, calls, ops, turns, agent, activity, endpoint, flag, mode, expected):
    for row in range(len(calls)):
        call, op, turn = code.calls[calls[row]], code.ops[ops[row]], turns[row]
        agent[row] = call.agent
        activity[row] = call.activity
        endpoint[row] = code.agent_endpoint[call.agent]
        flag[row] = op.flag + call.flag_offset + turn * op.flag_step
        mode[row] = op.mode
        expected[row] = op.expected + turn * op.expected_step


@entry
def _traffic(code, sent, received, writes):
    for call in code.calls:
        source = code.agent_endpoint[call.agent]
        for index in range(code.block_first[call.block], code.block_first[call.block + 1]):
            op = code.ops[index]
            if op.kind != _WRITE:
                continue
            each = 1 if op.peer_step else call.repeat  # writes to one peer
            for turn in range(0, call.repeat, max(each, 1)):
                destination = target(code, call, op, turn)
                if destination != source:
                    sent[source] += each * op.size_bytes
                    received[destination] += each * op.size_bytes
                    writes[source] += each


@dataclass(frozen=True)
class Columns:
    """The columns of a program's messages and waits, any rows of them."""

    program: Program

    @cached_property
    def _code(self) -> layout.Code:
        return layout.code(self.program, STATIC)

    def messages(self, low: int, high: int) -> dict[str, Ints]:
        """Return agent, activity, source, destination, size_bytes and flag (slot; -1: none), each (high - low,)."""
        place = self._rows(Op.WRITE, low, high)
        wide, narrow = "agent activity size_bytes", "source destination flag"
        out: dict[str, Ints] = {name: np.empty(high - low, np.int64) for name in wide.split()}
        out |= {name: np.empty(high - low, np.int32) for name in narrow.split()}
        _messages(self._code, *place, out["agent"], out["activity"], out["source"], out["destination"],
                  out["size_bytes"], out["flag"])  # fmt: skip
        return out

    def waits(self, low: int, high: int) -> dict[str, Ints]:
        """Return agent, activity, endpoint, flag (slot), mode and expected, each (high - low,)."""
        place = self._rows(Op.WAIT, low, high)
        out: dict[str, Ints] = {
            name: np.empty(high - low, np.int64) for name in ("agent", "activity", "expected")
        }
        out |= {name: np.empty(high - low, np.int32) for name in ("endpoint", "flag", "mode")}
        _waits(self._code, *place, out["agent"], out["activity"], out["endpoint"], out["flag"], out["mode"],
               out["expected"])  # fmt: skip
        return out

    def traffic(self) -> tuple[Ints, Ints, Ints]:
        """Return (E,) bytes sent, bytes received and writes of each endpoint, to and from others."""
        sent, received, writes = np.zeros((3, self.program.endpoints), np.int64)
        _traffic(self._code, sent, received, writes)
        return sent, received, writes

    def _rows(self, kind: Op, low: int, high: int) -> tuple[Ints, Ints, Ints]:
        """Return call, operation and iteration of rows `low` to `high`."""
        first = self.program.message_first if kind is Op.WRITE else self.program.wait_first
        calls, ops, turns = np.empty((3, high - low), np.int64)
        at = int(np.searchsorted(first, low, side="right")) - 1
        if high > low:
            _places(self._code, first, int(kind), at, low, high, calls, ops, turns)
        return calls, ops, turns
