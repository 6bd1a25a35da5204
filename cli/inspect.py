"""`eidola inspect`: what a trace or a run holds."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..schemas import Trace

_WIDTH = 130  # columns that the widest table needs; a narrower terminal wraps lines rather than cells
_NOTED = (
    "missing_ranks", "unmatched", "dropped_events", "truncated_ranks", "contradicted_edges", "notes"
)  # fmt: skip
_RANKS = ["rank", "backend", "model", "device", "duration_us", "clock", "offset_us", "residual_us"]
_COLLECTIVES = ["operation", "rank_records", "operations", "matched", "bytes", "own_time_us", "skew_us"]
_SHOWN = 8  # rows of a table; --json has all
_WAITS = ["rank", "waits", "waited_us", "polls", "longest_flag", "on_it_us"]
_ROLES = ["rank", "shared collectives", "came last", "communication_us", "exposed_us", "overlapped_us"]
_WRITES = ["from", "to", "writes", "bytes"]
_GROUPS = ["name", "size", "ranks_in_trace", "description"]


def inspect(
    path: Annotated[Path, typer.Argument(help="Trace or run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a trace or a run holds."""
    summary = summarise(path)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    from rich.console import Console

    from ..schemas import Results

    console = Console()
    console.width = max(console.width, _WIDTH)
    if "run" in summary:
        from .show import show_facts, show_run

        show_facts(summary["run"])
        if (path / "gpus.parquet").is_file():
            show_run(Results(path))
        return
    for table in _tables(summary):
        console.print(table)
    for line in _lines(summary):
        console.print(line, markup=False, highlight=False)


def summarise(path: Path) -> dict[str, Any]:
    """Return what `eidola inspect` prints of `path`, a trace or a run; times in nanoseconds, sizes in bytes.

    Raises InputError where the folder is neither.
    """
    if (path / "manifest.json").is_file():
        return _run(path)
    from ..schemas import Trace
    from .roles import roles
    from .traffic import waits_by_rank, writes_by_pair

    trace = Trace(path)
    return {
        "ranks": _ranks(trace),
        "spans": _spans(trace),
        "dependencies": _counts(trace, "dependencies", ["kind", "origin"]),
        "collectives": _collectives(trace),
        "roles": roles(trace),
        "communicators": _communicators(trace),
        "peer_writes": sum(_counts(trace, "writes", ["kind"]).values()),
        "writes_by_pair": writes_by_pair(trace),
        "waits": trace.read("waits", ["rank"]).num_rows,
        "waits_by_rank": waits_by_rank(trace),
        "notes": trace.notes,
    }


def _run(path: Path) -> dict[str, Any]:
    from ..schemas.errors import InputError

    try:
        return {"run": json.loads((path / "summary.json").read_text())}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: its summary.json cannot be read ({error}); run the replay again"
        ) from error


def _ranks(trace: "Trace") -> list[dict[str, Any]]:
    ranks: list[dict[str, Any]] = trace.read(
        "ranks", ["rank", "backend", "host", "device", "vendor", "model", "compute_units"]
    ).to_pylist()
    spans = trace.read("spans", ["rank", "start_ns", "end_ns"])
    windows = spans.group_by("rank").aggregate([("start_ns", "min"), ("end_ns", "max")]).to_pylist()
    window = {row["rank"]: row["end_ns_max"] - row["start_ns_min"] for row in windows}
    clocks = {row["rank"]: row for row in trace.read("clocks").to_pylist()}
    for row in ranks:
        clock = clocks.get(row["rank"], {})
        row["duration_ns"] = window.get(row["rank"])
        row |= {f"clock_{key}": clock.get(key) for key in ("method", "offset_ns", "residual_ns", "anchors")}
    return ranks


def _spans(trace: "Trace") -> dict[str, dict[str, int]]:
    spans: dict[str, dict[str, int]] = defaultdict(dict)
    for name, count in _counts(trace, "spans", ["rank", "kind"]).items():
        rank, kind = name.split(" ", 1)
        spans[rank][kind] = count
    return dict(spans)


def _counts(trace: "Trace", table: str, columns: list[str]) -> dict[str, int]:
    rows = trace.read(table, columns).group_by(columns).aggregate([([], "count_all")]).to_pylist()
    named = {" ".join(str(row[c]) for c in columns): int(row["count_all"]) for row in rows}
    return dict(sorted(named.items()))


def _collectives(trace: "Trace") -> dict[str, dict[str, Any]]:
    """Count by operation; an operation's own time is from the last rank's start to the latest end."""
    columns = ["rank", "communicator", "sequence", "operation", "peer", "size_bytes", "start_ns", "end_ns"]
    rows = trace.read("collectives", columns).to_pylist()
    operations: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        pair = (row["rank"], row["peer"]) if row["operation"] in ("send", "recv") else ()
        operations[row["communicator"], row["sequence"], row["operation"], *pair].append(row)
    kinds: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for (_, _, operation, *_), members in operations.items():
        kinds[operation].append(members)
    return {kind: _operation_summary(members) for kind, members in sorted(kinds.items())}


def _operation_summary(operations: list[list[dict[str, Any]]]) -> dict[str, Any]:
    from statistics import median

    ends = [max(m["end_ns"] for m in members) for members in operations]
    starts = [[m["start_ns"] for m in members] for members in operations]
    sizes = [m["size_bytes"] for members in operations for m in members if m["size_bytes"] is not None]
    return {
        "rank_records": sum(map(len, operations)),
        "operations": len(operations),
        "on_several_ranks": sum(len(members) > 1 for members in operations),
        "bytes": sum(sizes) if sizes else None,
        "own_time_ns_median": int(median(end - max(s) for end, s in zip(ends, starts, strict=True))),
        "skew_ns_median": int(median(max(s) - min(s) for s in starts)),
    }


def _communicators(trace: "Trace") -> list[dict[str, Any]]:
    table = trace.read("communicators", ["communicator", "group_size", "name", "rank"])
    rows = table.group_by(["communicator", "group_size", "name"]).aggregate([("rank", "count")]).to_pylist()
    named = [{**row, "ranks_in_trace": row.pop("rank_count")} for row in rows]
    return sorted(named, key=lambda row: str(row["communicator"]))


def _tables(summary: dict[str, Any]) -> list["Table"]:
    from .roles import SHOWN, extremes

    ranks = [
        [r["rank"], r["backend"], r["model"], r["device"], _us(r["duration_ns"]), r["clock_method"],
         _us(r["clock_offset_ns"]), _us(r["clock_residual_ns"])]
        for r in summary["ranks"]
    ]  # fmt: skip
    kinds = sorted({kind for counts in summary["spans"].values() for kind in counts})
    spans = [[rank, *(counts.get(kind, 0) for kind in kinds)] for rank, counts in summary["spans"].items()]
    collectives = [
        [kind, c["rank_records"], c["operations"], c["on_several_ranks"], c["bytes"],
         _us(c["own_time_ns_median"]), _us(c["skew_ns_median"])]
        for kind, c in summary["collectives"].items()
    ]  # fmt: skip
    groups = [
        [c["communicator"], c["group_size"], c["ranks_in_trace"], c["name"]] for c in summary["communicators"]
    ]
    waits = [
        [
            w["rank"],
            f"{w['waits']:,}",
            _us(w["time_ns"]),
            w["polls"],
            w["longest_flag"],
            _us(w["longest_flag_ns"]),
        ]
        for w in sorted(summary["waits_by_rank"], key=lambda w: -w["time_ns"])
    ]
    writes = [
        [w["rank"], w["peer"], f"{w['writes']:,}", f"{w['bytes']:,}"] for w in summary["writes_by_pair"]
    ]
    roles = [
        [
            r["rank"],
            r["shared"],
            r["last"],
            *map(_us, (r["communication_ns"], r["exposed_ns"], r["overlapped_ns"])),
        ]
        for r in extremes(summary["roles"])
    ]
    which = (
        "" if len(roles) == len(summary["roles"]) else f", the extremes of {len(summary['roles']):,} ranks"
    )
    tables = [
        _table("who waited longest, and for which flag", _WAITS, waits),
        _table("who wrote most to whom", _WRITES, writes),
        _table(
            f"who came last, and communication that no other kernel hides (exposed){which}",
            _ROLES,
            roles,
            SHOWN,
        ),
        _table("ranks", _RANKS, ranks),
        _table("spans", ["rank", *kinds], spans),
        _table(
            "collectives (medians; own time: last start to latest end)",
            _COLLECTIVES,
            collectives,
        ),
        _table("communicators", _GROUPS, groups),
    ]
    return [table for table in tables if table.row_count]


def _table(title: str, header: list[str], rows: list[list[Any]], shown: int = _SHOWN) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    more = f" (first {shown} of {len(rows):,}; --json has all)" if len(rows) > shown else ""
    table = Table(title=title + more, title_justify="left")
    for name in header:
        table.add_column(name)
    for row in rows[:shown]:
        table.add_row(*(escape(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _us(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else f"{nanoseconds / 1000:,.1f}"


def _lines(summary: dict[str, Any]) -> list[str]:
    lines = [f"dependencies: {_cell(summary['dependencies'])}"]
    if summary["peer_writes"] or summary["waits"]:
        lines.append(f"peer writes: {summary['peer_writes']}; waits: {summary['waits']}")
    notes = summary["notes"]
    for key in _NOTED:
        value = notes.get(key)
        if isinstance(value, list) and len(value) > 6:
            value = [*value[:6], f"... {len(value)} in all (--json shows them)"]
        if value:
            lines.append(f"{key.replace('_', ' ')}: {_cell(value)}")
    return lines
