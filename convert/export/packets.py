"""A Perfetto trace file, written packet by packet: tracks, slices, instants and counters.

Fields and numbers are those of Perfetto's protos/perfetto/trace/trace_packet.proto (commit 02603952) and
protos/perfetto/trace/track_event/*.proto (commit 005055c9). A trace is a sequence of length-delimited packets in
field 1 of `Trace`, so that a file is written, and read, a packet at a time. Times are nanoseconds.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ..messages import message_classes

MESSAGES = message_classes(
    "eidola.perfetto",
    "proto2",
    {
        "Trace": ("1 packet *TracePacket",),
        "TracePacket": (
            "8 timestamp uint64",
            "10 trusted_packet_sequence_id uint32",
            "11 track_event TrackEvent",
            "12 interned_data InternedData",
            "13 sequence_flags uint32",
            "60 track_descriptor TrackDescriptor",
        ),
        "InternedData": ("2 event_names *EventName",),
        "EventName": ("1 iid uint64", "2 name string"),
        "TrackDescriptor": (
            "1 uuid uint64",
            "2 name string",
            "3 process ProcessDescriptor",
            "5 parent_uuid uint64",
            "8 counter CounterDescriptor",
        ),
        "ProcessDescriptor": ("1 pid int32", "6 process_name string"),
        "CounterDescriptor": ("3 unit int32",),
        "TrackEvent": (
            "4 debug_annotations *DebugAnnotation",
            "9 type int32",
            "10 name_iid uint64",
            "11 track_uuid uint64",
            "22 categories *string",
            "44 double_counter_value double",
            "47 flow_ids *fixed64",
            "48 terminating_flow_ids *fixed64",
        ),
        "DebugAnnotation": ("4 int_value int64", "6 string_value string", "10 name string"),
    },
)
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4  # TrackEvent.Type
_CLEARED, _NEEDED = 1, 2  # TracePacket.SequenceFlags: incremental state cleared, incremental state needed
_SEQUENCE = 1
_PACKET_TAG = b"\x0a"  # field 1, length-delimited
_NAME_BYTES = 4096


class PacketWriter:
    """Write a Perfetto trace to a file; a context manager. Names are written once and referred to."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._names: dict[str, int] = {}
        self._uuid = 0
        self._cleared = False
        self.packets = 0

    def process(self, number: int, name: str) -> int:
        """Add a process `number` (from 0) and return its track."""
        packet, track = self._track()
        track.process.pid = number + 1  # 0 is the idle process of an operating system
        track.process.process_name = name
        self._put(packet)
        return self._uuid

    def track(self, parent: int, name: str, *, counter: bool = False) -> int:
        """Add a track below `parent` and return it."""
        packet, track = self._track()
        track.parent_uuid, track.name = parent, name
        if counter:
            track.counter.SetInParent()
        self._put(packet)
        return self._uuid

    def event(
        self,
        track: int,
        time_ns: int,
        kind: int,
        name: str | None = None,
        *,
        category: str | None = None,
        flows: Iterable[int] = (),
        ends: Iterable[int] = (),
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an event: BEGIN, END or INSTANT. `flows` leave it, `ends` arrive; `notes` without None are shown."""
        packet = MESSAGES["TracePacket"](timestamp=time_ns)
        event = packet.track_event
        event.type, event.track_uuid = kind, track
        if name is not None:
            event.name_iid = self._interned(name, packet)
        if category is not None:
            event.categories.append(category)
        event.flow_ids.extend(flows)
        event.terminating_flow_ids.extend(ends)
        for key, value in (notes or {}).items():
            if value is not None:
                note = event.debug_annotations.add(name=key)
                if isinstance(value, int):
                    note.int_value = value
                else:
                    note.string_value = str(value)
        self._put(packet)

    def count(self, track: int, time_ns: int, value: float) -> None:
        """Add a sample to a counter's track."""
        packet = MESSAGES["TracePacket"](timestamp=time_ns)
        event = packet.track_event
        event.type, event.track_uuid, event.double_counter_value = COUNTER, track, value
        self._put(packet)

    def _track(self) -> tuple[Any, Any]:
        self._uuid += 1
        packet = MESSAGES["TracePacket"]()
        packet.track_descriptor.uuid = self._uuid
        return packet, packet.track_descriptor

    def _interned(self, name: str, packet: Any) -> int:
        if (iid := self._names.get(name)) is None:
            iid = self._names[name] = len(self._names) + 1
            text = name.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore")
            packet.interned_data.event_names.add(iid=iid, name=text)
        return iid

    def _put(self, packet: Any) -> None:
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = _NEEDED if self._cleared else _CLEARED
        self._cleared = True
        data = packet.SerializeToString()
        self._file.write(_PACKET_TAG + varint(len(data)) + data)
        self.packets += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def varint(number: int) -> bytes:
    """Return a non-negative integer as Protocol Buffers write it: seven bits a byte, lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
