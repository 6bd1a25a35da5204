"""What the rows of a trace say of each other: references, cycles, and operations that lack a member."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .cycles import edge_back, find_cycle
from .problem import Findings, Kind
from .tables import TRACE_TABLES

_SPANS = "write the spans that it names, or leave it null where it may be"
_ALL = "convert the missing ranks' sources too"

NO_SPAN = Kind("refers to a span that the rank does not have", _SPANS)
NO_RANK = Kind("not a rank of the trace", "add it to `ranks`, or correct the number")
NOT_LISTED = Kind("the rank has files and no row in `ranks`", "add it to `ranks`")
NO_GROUP = Kind("the rank is in no communicator of this name", "add it to `communicators`", "warning")
NO_MEMBER = Kind("not a group rank of the communicator", "give the index in the group, not the rank")
GROUP_RANK = Kind("not below group_size", "number the group's ranks from 0")
PARTIAL = Kind("has fewer ranks in the trace than in the group", _ALL, "warning")
CYCLE = Kind("the dependencies go in a circle", "remove this edge, which goes back in time, or correct it")
UNMATCHED = Kind("some ranks of the trace took no part", "look for it in their sources", "warning")
UNPAIRED = Kind("sends and receives of one sequence differ in number", "look for the other side", "warning")
EARLY = Kind(
    "starts before the call that launched it", "its clock or correlation is wrong; take no launch latency from it",
    "warning",
)  # fmt: skip
OVERLAP = Kind(
    "overlaps another collective on its stream", "a stream runs one at a time: look for doubled rows",
    "warning",
)  # fmt: skip
NEVER = Kind(
    "waits for a flag that no write of the trace raises",
    "look for the writes in the peers' sources",
    "warning",
)
ABSENT = Kind("a lower rank than the highest is not in the trace", _ALL, "warning")

_REFERENCES = (
    ("dependencies", "before"),
    ("dependencies", "after"),
    ("writes", "span"),
    ("waits", "span"),
    ("collectives", "span"),
)
_PAIRED = pa.array(["send", "recv"])
_OPERATION = ["rank", "communicator", "sequence", "operation", "peer"]


class Relations:
    """Checks between the tables: the members first, then rank by rank, then operations across ranks.

    Each takes the columns that passed their own check; what lacks a column is left out.
    """

    def __init__(self, findings: Findings, path: Path) -> None:
        self._findings, self._path = findings, path
        self._ranks = pa.array([], pa.int32())
        self._complete = False
        self._members = _empty("communicators", ["rank", "communicator", "group_rank", "group_size"])
        self._operations = _empty("collectives", _OPERATION)
        self._raised: set[tuple[int, int]] = set()
        self._awaited: dict[tuple[int, int], tuple[Path, int]] = {}

    def add_member(self, name: str, data: pa.Table) -> None:
        """Take one file of `ranks` or of `communicators`."""
        if name == "ranks" and "rank" in data.column_names:
            self._ranks = pa.concat_arrays([self._ranks, data["rank"].combine_chunks().drop_null()])
        elif name == "communicators" and set(self._members.column_names) <= set(data.column_names):
            self._members = pa.concat_tables([self._members, data.select(self._members.column_names)])

    def check_members(self) -> None:
        """Find group ranks out of range and groups that the trace does not hold in full."""
        members = self._members
        file = self._path / "communicators"
        there = set(self._ranks.to_pylist())
        for rank in sorted({*range(max(there, default=0))} - there) if len(there) < 1 << 20 else ():
            self._findings.one(ABSENT, "ranks", self._path / "ranks", "rank", str(rank))
        bad = pc.greater_equal(members["group_rank"], members["group_size"])
        for row in members.filter(bad.fill_null(False)).to_pylist():
            self._findings.one(GROUP_RANK, "communicators", file, "group_rank", str(row))
        groups = members.group_by("communicator").aggregate(
            [("rank", "count_distinct"), ("group_size", "max")]
        )
        short = groups.filter(pc.field("rank_count_distinct") < pc.field("group_size_max"))
        for row in short.to_pylist():
            detail = f"{row['communicator']!r} has {row['rank_count_distinct']} of {row['group_size_max']}"
            self._findings.one(PARTIAL, "communicators", file, "", detail)
        whole = np.arange(len(self._ranks))
        self._complete = not short.num_rows and np.array_equal(np.sort(self._ranks.to_numpy()), whole)

    def check_rank(self, rank: int, held: Mapping[str, pa.Table], files: Mapping[str, Path]) -> None:
        """Check one rank's tables against each other and against the members."""
        if not pc.is_in(pa.scalar(rank, pa.int32()), value_set=self._ranks).as_py():
            self._findings.one(NOT_LISTED, "ranks", self._path / "ranks", "rank", str(rank))
        spans = _column(held, "spans", "span")
        known = "spans" not in held or "span" in held["spans"].column_names
        for name, column in _REFERENCES if known else ():
            values = _column(held, name, column)
            if len(values):
                bad = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, value_set=spans)))
                self._findings.rows(NO_SPAN, name, files[name], column, bad, values)
        for name in ("writes", "links") if self._complete else ():
            peers = _column(held, name, "peer")
            if len(peers):
                bad = pc.and_(pc.is_valid(peers), pc.invert(pc.is_in(peers, value_set=self._ranks)))
                self._findings.rows(NO_RANK, name, files[name], "peer", bad, peers)
        self._check_groups(rank, held.get("collectives", pa.table({})), files)
        self._check_order(held, files)
        self._check_times(held, files)
        self._note_flags(rank, held, files)

    def check_operations(self) -> None:
        """Find operations in which some rank of the trace that belongs to the group took no part."""
        paired = pc.is_in(self._operations["operation"], value_set=_PAIRED)
        members = self._members.group_by("communicator").aggregate([("rank", "count_distinct")])
        members = members.rename_columns(["communicator", "members"])
        key = ["communicator", "sequence"]
        parts = (
            self._operations.filter(pc.invert(paired)).group_by(key).aggregate([("rank", "count_distinct")])
        )
        short = parts.join(members, "communicator").filter(
            pc.field("rank_count_distinct") < pc.field("members")
        )
        for row in short.sort_by([(c, "ascending") for c in key]).to_pylist():
            detail = f"{row['communicator']!r} sequence {row['sequence']}: {row['rank_count_distinct']}"
            self._report(UNMATCHED, f"{detail} of {row['members']} ranks")
        self._check_pairs(self._operations.filter(paired), key)
        never = {at: where for at, where in self._awaited.items() if at not in self._raised}
        for (_, flag), (file, row) in sorted(never.items()) if self._complete else ():
            self._findings.one(NEVER, "waits", file, "flag", str(flag), row)

    def _note_flags(self, rank: int, held: Mapping[str, pa.Table], files: Mapping[str, Path]) -> None:
        """Keep which flags a rank raises, and where it first waits for each of its own."""
        writes, waits = held.get("writes", pa.table({})), held.get("waits", pa.table({}))
        if {"peer", "flag"} <= set(writes.column_names):
            ends = writes.select(["peer", "flag"]).drop_null().group_by(["peer", "flag"]).aggregate([])
            self._raised.update(zip(*(ends[name].to_pylist() for name in ("peer", "flag")), strict=True))
        if "flag" in waits.column_names:
            rows = pa.table({"flag": waits["flag"], "row": np.arange(waits.num_rows)}).drop_null()
            first = rows.group_by("flag").aggregate([("row", "min")])
            for flag, row in zip(first["flag"].to_pylist(), first["row_min"].to_pylist(), strict=True):
                self._awaited[rank, flag] = files["waits"], row

    def _check_pairs(self, pairs: pa.Table, key: list[str]) -> None:
        """Compare sends and receives: of ranks that are both there, else in groups that the trace holds in full."""
        sent = pc.equal(pairs["operation"], "send")
        pairs = pairs.append_column("excess", pc.if_else(sent, 1, -1))
        ends: list[str] = []
        if pairs["peer"].null_count:
            sizes = self._members.group_by("communicator").aggregate(
                [("rank", "count_distinct"), ("group_size", "max")]
            )
            whole = sizes.filter(pc.field("rank_count_distinct") == pc.field("group_size_max"))
            pairs = pairs.filter(pc.is_in(pairs["communicator"], value_set=whole["communicator"]))
        elif pairs.num_rows:
            places = self._members.select(["rank", "communicator", "group_rank"])
            others = places.select(["communicator", "group_rank"]).rename_columns(["communicator", "peer"])
            pairs = pairs.join(others, ["communicator", "peer"], join_type="left semi")
            pairs = pairs.join(places, ["rank", "communicator"])
            sent = pc.equal(pairs["operation"], "send")
            for name, own, other in (("source", "group_rank", "peer"), ("target", "peer", "group_rank")):
                pairs = pairs.append_column(name, pc.if_else(sent, pairs[own], pairs[other]))
            ends = ["source", "target"]
        odd = pairs.group_by(key + ends).aggregate([("excess", "sum")]).filter(pc.field("excess_sum") != 0)
        for row in odd.sort_by([(c, "ascending") for c in key + ends]).to_pylist():
            more = "sends" if row["excess_sum"] > 0 else "receives"
            detail = f"{abs(row['excess_sum'])} more {more}"
            detail += f" from group rank {row['source']} to {row['target']}" if ends else ""
            self._report(UNPAIRED, f"{row['communicator']!r} sequence {row['sequence']}: {detail}")

    def _report(self, kind: Kind, detail: str) -> None:
        self._findings.one(kind, "collectives", self._path / "collectives", "sequence", detail)

    def _check_groups(self, rank: int, data: pa.Table, files: Mapping[str, Path]) -> None:
        """Check a rank's collectives against its communicators, and keep them for `check_operations`."""
        if not set(_OPERATION) <= set(data.column_names):
            return
        self._operations = pa.concat_tables([self._operations, data.select(_OPERATION)])
        mine = self._members.filter(pc.equal(self._members["rank"], rank))
        index = pc.index_in(data["communicator"], value_set=mine["communicator"])
        file = files["collectives"]
        self._findings.rows(
            NO_GROUP, "collectives", file, "communicator", pc.is_null(index), data["communicator"]
        )
        if "peer" in data.column_names:
            size = mine["group_size"].take(index)
            bad = pc.or_(pc.less(data["peer"], 0), pc.greater_equal(data["peer"], size))
            self._findings.rows(NO_MEMBER, "collectives", file, "peer", bad, data["peer"])

    def _check_order(self, held: Mapping[str, pa.Table], files: Mapping[str, Path]) -> None:
        spans, edges = held.get("spans", pa.table({})), held.get("dependencies", pa.table({}))
        needed = {"span", "start_ns", "end_ns"} <= set(spans.column_names)
        if needed and {"before", "after", "kind"} <= set(edges.column_names):
            cycle = find_cycle(spans, edges)
            if cycle:
                shown = " -> ".join(map(str, cycle[:8])) + (" -> ..." if len(cycle) > 8 else "")
                row = edge_back(cycle, spans, edges)
                self._findings.one(CYCLE, "dependencies", files["dependencies"], "", f"spans {shown}", row)

    def _check_times(self, held: Mapping[str, pa.Table], files: Mapping[str, Path]) -> None:
        """Find work that starts before its launch, and collectives that overlap on one GPU stream."""
        for name in ("spans", "collectives"):
            data = held.get(name, pa.table({}))
            if {"launch_ns", "start_ns"} <= set(data.column_names):
                bad = pc.less(data["start_ns"], data["launch_ns"])
                self._findings.rows(EARLY, name, files[name], "start_ns", bad, data["start_ns"])
        parts, spans = held.get("collectives", pa.table({})), held.get("spans", pa.table({}))
        if {"span", "start_ns", "end_ns"} <= set(parts.column_names) and {
            "span", "lane", "kind"
        } <= set(spans.column_names):  # fmt: skip
            bad = _overlapping(parts, spans)
            self._findings.rows(
                OVERLAP, "collectives", files["collectives"], "start_ns", bad, parts["start_ns"]
            )


def _overlapping(parts: pa.Table, spans: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which collectives start while another runs on their stream; parts of one kernel do not count."""
    kernels = spans.select(["span", "lane", "kind"]).filter(pc.equal(spans["kind"], "kernel"))
    at = pc.index_in(parts["span"], value_set=kernels["span"].combine_chunks())
    lane = pc.dictionary_encode(kernels["lane"].take(at)).combine_chunks()
    rows = pa.table({
        "row": np.arange(parts.num_rows), "lane": lane.indices if len(lane) else pa.array([], pa.int32()),
        "span": parts["span"], "start_ns": parts["start_ns"], "end_ns": parts["end_ns"],
    }).drop_null().sort_by([("lane", "ascending"), ("start_ns", "ascending"), ("end_ns", "ascending")])  # fmt: skip
    bad = np.zeros(parts.num_rows, np.bool_)
    if rows.num_rows > 1:
        row, own, span, start, end = (rows[name].to_numpy() for name in rows.column_names)
        new = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
        latest = np.concatenate([np.maximum.accumulate(part) for part in np.split(end, new[1:])])
        clash = (own[1:] == own[:-1]) & (start[1:] < latest[:-1]) & (span[1:] != span[:-1])
        bad[row[1:][clash]] = True
    return bad


def _column(held: Mapping[str, pa.Table], name: str, column: str) -> pa.ChunkedArray:
    """Return a column, empty where the rank has no such table or the column failed its own check."""
    data = held.get(name)
    if data is None or column not in data.column_names:
        return pa.chunked_array([], TRACE_TABLES[name].by_name[column].type)
    return data[column]


def _empty(name: str, columns: list[str]) -> pa.Table:
    by_name = TRACE_TABLES[name].by_name
    return pa.table({column: pa.array([], by_name[column].type) for column in columns})
