"""The text of NCCL's example profiler plugin, line by line: operations, each with its channels and proxies.

One event of the trace-event format a line, nested by their order; older plugins' lines are not always JSON.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from .files import STRANGE_LINES, read_lines, whole
from .json_stream import decode_json
from .nccl_ranks import Place

_BARE = re.compile(r"(:\s*)(nccl\w+|0x[0-9a-fA-F]+|\(nil\)|-?nan|-?inf)(?=\s*[,}])")
_LIMIT_US = 2**63 // 1000


@dataclass
class Operation:
    """One operation: what the plugin says of it, when it was called, and when its channels and proxies ran."""

    place: Place
    args: dict[str, Any]
    name: str
    p2p: bool
    called_ns: int
    root: int | None = None
    end_ns: int | None = None
    channels: list["Channel"] = field(default_factory=list)
    proxies: list[int] = field(default_factory=list)
    transfer_bytes: int = 0


@dataclass
class Channel:
    """One channel of an operation, as the host noticed it and by the GPU's timer."""

    start_ns: int
    end_ns: int | None
    gpu: tuple[int, int] | None


@dataclass
class Dump:
    """What a file holds; `malformed`, `copies` and `steps` count what is not read; a cut file is not `whole`."""

    path: Path
    operations: list[Operation] = field(default_factory=list)
    malformed: int = 0
    copies: int = 0
    steps: int = 0
    whole: bool = False


def read_dump(path: Path) -> Dump:
    """Read a file, as far as it is the plugin's. Raises InputError where it cannot be opened."""
    file = Dump(path)
    host = path.name.rsplit("-", 1)[0]
    current: Operation | None = None
    channel: Channel | None = None
    root: int | None = None
    for line in read_lines(path):
        text = line.decode("utf-8", "replace").strip(" \t\r,")
        if text in ("", "[", "]", "{}]", "{}"):
            file.whole = file.whole or text.endswith("]")
            continue
        event = _event(text)
        ts = _nanoseconds(event.get("ts")) if event else None
        if event is None or ts is None:
            file.malformed += 1
            if file.malformed >= STRANGE_LINES and not file.operations:
                break
            continue
        category, begins = event.get("cat"), event.get("ph") == "b"
        if category == "COLL_API":
            root = _root(event.get("args")) if begins else None
        elif category in ("COLL", "P2P"):
            if begins:
                current, channel = _operation(event, ts, host, root), None
                file.malformed += current is None
                file.operations += [current] if current else []
            elif current:
                current.end_ns, current = ts, None
        elif category == "CE_COLL":
            file.copies += begins
        elif event.get("name") == "KernelStep":
            file.steps += begins
        elif current and category == "GPU":
            if begins:
                channel = Channel(ts, None, _gpu(event.get("args")))
                current.channels.append(channel)
            elif channel:
                channel.end_ns = ts
        elif current and category == "PROXY":
            current.proxies.append(ts)
            args = event.get("args")
            sent = begins and "Send" in str(event.get("name")) and isinstance(args, dict)
            current.transfer_bytes += (whole(args.get("transSize"), 0) or 0) if sent and args else 0
    return file


def _event(text: str) -> dict[str, Any] | None:
    """Return one line's event, its bare words quoted where the plugin forgot to."""
    for candidate in (text, _BARE.sub(r'\1"\2"', text)):
        try:
            event = decode_json(candidate)
        except (ValueError, RecursionError):
            continue
        return event if isinstance(event, dict) else None
    return None


def _nanoseconds(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not -_LIMIT_US < value < _LIMIT_US:
        return None
    return int(value * 1000)


def _root(args: Any) -> int | None:
    """Return the root of the call, which NCCL 2.28 and newer tell; it means nothing for some kinds."""
    return whole(args.get("root"), 0, 2**31 - 1) if isinstance(args, dict) else None


def _operation(event: dict[str, Any], ts: int, host: str, root: int | None) -> Operation | None:
    args = event.get("args")
    name = event.get("name")
    if not isinstance(args, dict) or not isinstance(name, str):
        return None
    rank, communicator = whole(args.get("Rank"), 0, 2**31 - 1), _hash(args.get("CommHash"))
    if rank is None or communicator is None:
        return None
    process = host, whole(event.get("pid"))
    place = Place(process, f"nccl {communicator:016x}", rank, None)
    return Operation(place, args, name[:256], event["cat"] == "P2P", ts, root)


def _hash(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{1,16}", value):
        return int(value, 16)
    return whole(value, 0, 2**64 - 1)


def _gpu(args: Any) -> tuple[int, int] | None:
    """Return start and end by the GPU's timer, where the plugin (NCCL 2.28 and newer) wrote both."""
    args = args if isinstance(args, dict) else {}
    start, end = whole(args.get("StartGpuClk"), 1), whole(args.get("StopGpuClk"), 1)
    return (start, end) if start and end and end >= start else None
