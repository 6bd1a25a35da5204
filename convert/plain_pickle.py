"""Pickles of plain values only: dicts, lists, tuples, strings, bytes, numbers, None; nothing of them is executed.

Opcodes are taken one by one from `pickletools`, and those that could import, call or build anything are refused
by name. Memory stays in proportion to the file, which pickle's own machine does not promise: there a memo index
of 2^32 or a claimed bytearray of 2^40 bytes is allocated before it is doubted.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError

_MARK = object()
_LONGEST_INTEGER_BYTES = 16
_KEYS = (str, bytes, int, float, type(None))

_NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_TEXTS = (
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
)
_VALUES = frozenset((*_NUMBERS, *_TEXTS))
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_SMALL_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load(path: Path, content: bytes) -> Any:
    """Return the value pickled in `content`, which was read from `path`.

    Parts may be shared between places of the value, as they were in what was pickled. Raises InputError where
    the pickle is cut, broken, or holds anything but plain values.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.run(opcode.name, argument)
    except _RefusedError as refused:
        raise InputError(
            f"{path} holds more than plain values (pickle opcode {refused}), and is not read any further; a dump "
            "of PyTorch's flight recorder has none of that: dump it again, and trust no pickle of unknown origin"
        ) from refused
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} is no whole pickle ({error}); copy or dump it again") from error
    if not machine.done:
        raise InputError(f"{path} ends before its pickle does; copy or dump it again")
    return machine.done[0]


class _RefusedError(Exception):
    """An opcode that plain values do not need."""


class _Machine:
    """The part of pickle's stack machine that plain values need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.done: list[Any] = []

    def run(self, name: str, argument: Any) -> None:
        """Do one opcode; raises what lists and dicts raise where the stack does not hold what it needs."""
        if name in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > 8 * _LONGEST_INTEGER_BYTES:
                raise ValueError(f"an integer of {argument.bit_length()} bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _SMALL_TUPLES:
            self._tuple(self._take(_SMALL_TUPLES[name]))
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = self._top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "STOP":
            self.done.append(self._plain(self.stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        if name == "TUPLE":
            self._tuple(self._marked())
        elif name == "LIST":
            self.stack.append(self._marked())
        elif name in ("APPEND", "APPENDS"):
            items = self._take(1) if name == "APPEND" else self._marked()
            self._target(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._take(2) if name == "SETITEM" else self._marked()
            keys, values = items[::2], items[1::2]
            if len(keys) != len(values) or not all(isinstance(key, _KEYS) for key in keys):
                raise ValueError("a dict with keys that are no plain values")
            self._target(dict).update(zip(keys, values, strict=True))
        else:
            raise _RefusedError(name)

    def _tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def _target(self, kind: type) -> Any:
        if not isinstance(self._top(), kind):
            raise ValueError(f"items for what is no {kind.__name__}")
        return self.stack[-1]

    def _top(self) -> Any:
        return self._plain(self.stack[-1])

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("a stack that is too short")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return [self._plain(value) for value in taken]

    def _marked(self) -> list[Any]:
        """Take all values behind the last mark."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                taken = self.stack[at + 1 :]
                del self.stack[at:]
                return taken
        raise ValueError("no mark to collect from")

    @staticmethod
    def _plain(value: Any) -> Any:
        if value is _MARK:
            raise ValueError("a mark in place of a value")
        return value
