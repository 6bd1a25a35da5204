"""Ring files of the capture stage's NCCL profiler plugin, read into tables.

A file holds the newest records of one process. Three tables come out of it, with host times in Unix nanoseconds:

    operations  collectives and point-to-point: what, how much, by which algorithm; enqueued, not executed
    transfers   what the proxy thread sent or received over the network, a step (or, before NCCL 2.27, a proxy
                operation) a row, with peer and bytes
    channels    when each channel of an operation's kernel ran, by the GPU's timer

Transfers inside a node go from kernel to kernel: NCCL reports their channels, never their bytes a peer.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .nccl_ring import NcclCommunicator, Ring, read_ring

_NO_COMMUNICATOR = 0xFFFF
_START, _STOP, _CHANGE = 1, 2, 3

# Bits of event types and numbers of states: nccl_profiler.h, as in capture/nccl/layout.h.
_COLL, _P2P, _PROXY_OP, _PROXY_STEP, _KERNEL_CHANNEL, _CE_COLL = 1, 2, 3, 4, 6, 12
_SEND_WAIT, _CHANNEL_STOP = 9, 22
_LAST_OPERATION_STATE = 7

_DTYPES_BY_BYTES = {
    1: ("ncclInt8", "ncclUint8", "ncclFloat8e4m3", "ncclFloat8e5m2"),
    2: ("ncclFloat16", "ncclBfloat16"),
    4: ("ncclInt32", "ncclUint32", "ncclFloat32"),
    8: ("ncclInt64", "ncclUint64", "ncclFloat64"),
}
"""From ncclTypeSize, NCCL's src/include/collectives.h. A type that NCCL calls `Unknown` has no size here."""
_ELEMENT_BYTES: dict[str | None, int] = {
    dtype: size for size, dtypes in _DTYPES_BY_BYTES.items() for dtype in dtypes
}


@dataclass(frozen=True)
class NcclDump:
    """What one process's file holds.

    `rank`, `world` and `restart` are what torchrun said (None: not started by it); `interface` the version of
    NCCL's profiler interface; `records` the raw records, oldest first, and `lost` how many are not there:
    overwritten by newer ones, or never completed. `names_lost` counts uses of names that found no place. `library`
    is the NCCL or RCCL that called, or what contains it, and `timer_hz` the rate of its GPU timer: 10^9 on NVIDIA,
    None for an RCCL without a rate. `unix_offset_ns` turns the records' clock into Unix time, and was the same at
    all of the communicators' beginnings and ends within `unix_spread_ns`.
    """

    path: Path
    process: int
    rank: int | None
    world: int | None
    restart: int | None
    interface: int
    communicators: tuple[NcclCommunicator, ...]
    communicators_lost: int
    records: npt.NDArray[Any]
    lost: int
    names: tuple[str | None, ...]
    names_lost: int
    library: str
    timer_hz: int | None
    unix_offset_ns: int
    unix_spread_ns: int
    operations: pa.Table
    transfers: pa.Table
    channels: pa.Table


def read_dump(path: str | Path) -> NcclDump:
    """Return what the ring file `path` holds; the process may still run, or have been killed.

    Raises InputError where it is no such file, is cut short, or comes from a newer version.
    """
    path = Path(path)
    ring = read_ring(path)
    process = int(ring.header["process"])
    columns = _Columns(ring, process)
    return NcclDump(
        path,
        process,
        ring.said("rank"),
        ring.said("world"),
        ring.said("restart"),
        int(ring.header["interface"]),
        ring.communicators,
        int(ring.header["communicators"]) - len(ring.communicators),
        ring.records,
        ring.lost,
        ring.names,
        int(ring.header["names_lost"]),
        ring.library,
        ring.timer_hz,
        ring.unix_offset_ns,
        ring.unix_spread_ns,
        columns.operations(),
        columns.transfers(),
        columns.channels(),
    )


class _Columns:
    """The records as columns: starts, and what later records of an event add to them."""

    def __init__(self, ring: Ring, process: int) -> None:
        self.names, self.offset, self.process = np.array(ring.names, object), ring.unix_offset_ns, process
        self.timer_hz = ring.timer_hz
        records = ring.records
        self.starts = records[records["action"] == _START]
        stops = records[records["action"] == _STOP]
        self.stop_of = stops["event"], stops["time_ns"]
        self.changes = records[records["action"] == _CHANGE]

    def operations(self) -> pa.Table:
        """Return collectives and point-to-point operations, in the order of their enqueueing.

        `count` is NCCL's, one rank's part of an AllGather or ReduceScatter, and `size_bytes` follows it. `event`
        identifies the row in the file; `communicator` is its index among the communicators;
        `enqueued_ns` is when NCCL had handed the work to the GPU, null where that was not recorded.
        """
        s = self._of(_COLL, _P2P, _CE_COLL)
        p2p = s["type"] == _P2P
        dtypes = self._names(s["datatype"])
        sizes = [_ELEMENT_BYTES.get(d) for d in dtypes]
        size = [n * b if b else None for n, b in zip(s["b"].tolist(), sizes, strict=True)]
        channels = _masked(s["channels"], s["channels"] == 0, pa.int32())
        return pa.table(
            {
                "event": pa.array(s["event"], pa.int64()),
                "communicator": _masked(s["communicator"], s["communicator"] == _NO_COMMUNICATOR, pa.int32()),
                "sequence_number": _masked(s["a"], p2p, pa.int64()),
                "operation": pa.array(self._names(s["operation"]), pa.string()),
                "dtype": pa.array(dtypes, pa.string()),
                "count": pa.array(s["b"], pa.int64()),
                "size_bytes": pa.array(size, pa.int64()),
                "peer": _masked(s["peer"], s["peer"] < 0, pa.int32()),
                "algorithm": pa.array(self._names(s["algorithm"]), pa.string()),
                "protocol": pa.array(self._names(s["protocol"]), pa.string()),
                "channels": channels,
                "start_ns": self._time(s["time_ns"]),
                "enqueued_ns": self._stopped(s["event"]),
            }
        )

    def transfers(self) -> pa.Table:
        """Return network transfers: `operation` is the event of the operation, null for another process's (PXN).

        A step whose proxy operation was overwritten is left out. `issue_ns` is when a send was handed to the
        network; `size_bytes` what was moved, null where not said.
        """
        proxies = self._of(_PROXY_OP)
        steps = self._of(_PROXY_STEP)
        if len(steps):
            known, at = _find(proxies["event"], steps["parent"])
            rows, owners, size_states = steps[known], proxies[at[known]], self.changes
        else:
            rows = owners = proxies
            size_states = self.changes[self.changes["state"] <= _LAST_OPERATION_STATE]
        own = owners["a"] >> np.uint64(32) == self.process
        sent = self.changes[self.changes["state"] == _SEND_WAIT]
        return pa.table(
            {
                "event": pa.array(rows["event"], pa.int64()),
                "operation": _masked(owners["parent"], ~own | (owners["parent"] == 0), pa.int64()),
                "channel": pa.array(owners["channels"], pa.int32()),
                "peer": pa.array(owners["peer"], pa.int32()),
                "send": pa.array(owners["flags"] & 1 == 1, pa.bool_()),
                "step": pa.array(rows["a"] if len(steps) else [None] * len(rows), pa.int64()),
                "size_bytes": self._largest(rows["event"], size_states),
                "start_ns": self._time(rows["time_ns"]),
                "issue_ns": self._looked_up(rows["event"], sent["event"], sent["time_ns"], self.offset),
                "end_ns": self._stopped(rows["event"]),
            }
        )

    def channels(self) -> pa.Table:
        """Return the channels of operations' kernels: start and end by the GPU's timer, in ns of its own.

        They are null before NCCL 2.27, and where the timer's rate is not known. `seen_ns` is when the proxy
        thread noticed the start, not when it happened.
        """
        s = self._of(_KERNEL_CHANNEL)
        ends = self.changes[self.changes["state"] == _CHANNEL_STOP]
        started, ended = self._gpu_ns(s["b"]), self._gpu_ns(ends["b"])
        return pa.table(
            {
                "event": pa.array(s["event"], pa.int64()),
                "operation": _masked(s["parent"], s["parent"] == 0, pa.int64()),
                "channel": pa.array(s["channels"], pa.int32()),
                "gpu_start_ns": _masked(started, started == 0, pa.int64()),
                "gpu_end_ns": self._looked_up(s["event"], ends["event"][ended > 0], ended[ended > 0], 0),
                "seen_ns": self._time(s["time_ns"]),
            }
        )

    def _gpu_ns(self, ticks: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the GPU timer's ticks as ns, 0 where its rate is not known."""
        hz, second = np.uint64(self.timer_hz or 1), np.uint64(10**9 if self.timer_hz else 0)
        ns: npt.NDArray[np.int64] = (ticks // hz * second + ticks % hz * second // hz).astype(np.int64)
        return ns

    def _of(self, *types: int) -> npt.NDArray[Any]:
        of: npt.NDArray[Any] = self.starts[np.isin(self.starts["type"], types)]
        return of

    def _names(self, numbers: npt.NDArray[Any]) -> list[str | None]:
        names: list[str | None] = self.names[numbers].tolist()
        return names

    def _time(self, times: npt.NDArray[Any]) -> pa.Array:
        return pa.array(times.astype(np.int64) + self.offset, pa.int64())

    def _stopped(self, events: npt.NDArray[Any]) -> pa.Array:
        return self._looked_up(events, *self.stop_of, self.offset)

    def _looked_up(
        self, events: npt.NDArray[Any], keys: npt.NDArray[Any], values: npt.NDArray[Any], offset: int
    ) -> pa.Array:
        """Return for every event the value of the first record with it as key, plus `offset`; null: none."""
        known, at = _find(keys, events)
        found = np.zeros(len(events), np.int64)
        found[known] = values[at[known]].astype(np.int64) + offset
        return _masked(found, ~known, pa.int64())

    def _largest(self, events: npt.NDArray[Any], changes: npt.NDArray[Any]) -> pa.Array:
        """Return the most bytes that any change of each event gives; null where none does."""
        known, at = _find(events, changes["event"])
        most = np.zeros(len(events), np.uint64)
        np.maximum.at(most, at[known], changes["b"][known])
        return _masked(most, most == 0, pa.int64())


def _find(keys: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return for each of `wanted` whether it is among `keys`, and where first."""
    if not len(keys):
        return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return keys[at] == wanted, at


def _masked(values: npt.NDArray[Any], missing: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind, mask=missing)
