"""`eidola inspect`: what a trace or a run holds."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Quiet
from .tables import cell, say, show_table

if TYPE_CHECKING:
    from ..schemas import Trace

_NOTED = (
    "missing_ranks", "unmatched", "dropped_events", "truncated_ranks", "contradicted_edges", "notes"
)  # fmt: skip
_COLLECTIVES = ["operation", "rank records", "operations", "matched", "bytes", "own us", "skew us"]
_SHOWN = 8  # rows of a table; --json has all
_WAITS = ["rank", "waits", "waited us", "polls", "longest flag", "on it us"]
_ROLES = ["rank", "shared", "came last", "communication us", "exposed us", "overlapped us"]
_WRITES = ["from", "to", "writes", "bytes"]
_LINKS = ["from", "to", "kind", "links", "GB/s", "latency ns"]
_GROUPS = ["name", "size", "ranks in trace", "description"]


def inspect(
    path: Annotated[Path, typer.Argument(help="Trace or run folder.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Print what a trace or a run holds."""
    from .progress import progress

    with progress(enabled=not quiet) as show:
        summary = summarise(path, show)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    if quiet:
        return
    if "run" in summary:
        from ..schemas import Results
        from .show import show_facts, show_run

        show_facts(summary["run"])
        if (path / "gpus.parquet").is_file():
            show_run(Results(path))
        return
    for title, header, rows, shown in _tables(summary):
        show_table(title, header, rows, shown)
    say("\n" + "\n".join(_lines(summary)))


def summarise(path: Path, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Return what `eidola inspect` prints of `path`, a trace or a run; times in nanoseconds, sizes in bytes.

    `progress` is told what is done, how much of it, and of how much. Raises InputError where the folder is neither.
    """
    if (path / "manifest.json").is_file():
        return _run(path)
    from ..schemas import Trace
    from .roles import roles
    from .traffic import waits_by_rank, writes_by_pair

    trace = Trace(path)
    parts: dict[str, Callable[[], Any]] = {
        "ranks": lambda: _ranks(trace),
        "spans": lambda: _spans(trace),
        "dependencies": lambda: _counts(trace, "dependencies", ["kind", "origin"]),
        "collectives": lambda: _collectives(trace),
        "roles": lambda: roles(trace),
        "communicators": lambda: _communicators(trace),
        "peer_writes": lambda: sum(_counts(trace, "writes", ["kind"]).values()),
        "writes_by_pair": lambda: writes_by_pair(trace),
        "waits": lambda: trace.read("waits", ["rank"]).num_rows,
        "waits_by_rank": lambda: waits_by_rank(trace),
        "links": lambda: _links(trace),
        "notes": lambda: trace.notes,
    }
    found = {}
    for done, (name, part) in enumerate(parts.items()):
        if progress:
            progress("reading tables", done, len(parts))
        found[name] = part()
    return found


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


def _tables(summary: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]], int]]:
    """Yield title, header, rows and how many of them to show."""
    from .roles import SHOWN, extremes

    waits = [
        [str(w["rank"]), w["waits"], _us(w["time_ns"]), w["polls"], w["longest_flag_name"],
         _us(w["longest_flag_ns"])]
        for w in sorted(summary["waits_by_rank"], key=lambda w: -w["time_ns"])
    ]  # fmt: skip
    yield "who waited longest, and for which flag (who raises it)", _WAITS, waits, _SHOWN
    writes = [[str(w["rank"]), str(w["peer"]), w["writes"], w["bytes"]] for w in summary["writes_by_pair"]]
    yield "who wrote most to whom", _WRITES, writes, _SHOWN
    links = [
        [str(k["rank"]), _id(k["peer"]), k["kind"], k["count"], _gb(k["rate_bytes_per_s"]), k["latency_ns"]]
        for k in summary["links"]
    ]
    yield "links seen at capture", _LINKS, links, _SHOWN
    found = extremes(summary["roles"])
    which = f", the extremes of {len(summary['roles']):,} ranks" if len(found) < len(summary["roles"]) else ""
    title = f"who came last, and communication that no other kernel hides (exposed){which}"
    times = ("communication_ns", "exposed_ns", "overlapped_ns")
    roles = [[str(r["rank"]), r["shared"], r["last"], *(_us(r[t]) for t in times)] for r in found]
    yield title, _ROLES, roles, SHOWN
    yield *_rank_rows(summary["ranks"]), _SHOWN
    kinds = sorted({kind for counts in summary["spans"].values() for kind in counts})
    by_rank = sorted(summary["spans"].items(), key=lambda item: int(item[0]))
    spans = [[rank, *(counts.get(kind, 0) for kind in kinds)] for rank, counts in by_rank]
    yield "spans", ["rank", *(kind.replace("_", " ") for kind in kinds)], spans, _SHOWN
    collectives = [
        [kind, c["rank_records"], c["operations"], c["on_several_ranks"], c["bytes"],
         _us(c["own_time_ns_median"]), _us(c["skew_ns_median"])]
        for kind, c in summary["collectives"].items()
    ]  # fmt: skip
    yield "collectives (medians; own time: last start to latest end)", _COLLECTIVES, collectives, _SHOWN
    groups = [
        [c["communicator"], c["group_size"], c["ranks_in_trace"], c["name"]] for c in summary["communicators"]
    ]
    yield "communicators", _GROUPS, groups, _SHOWN


def _rank_rows(ranks: list[dict[str, Any]]) -> tuple[str, list[str], list[list[Any]]]:
    """Return title, header and rows of the ranks; what all of them have is said in the title."""
    facts = [name for name in ("backend", "model") if ranks[0][name] is not None]
    same = [name for name in facts if all(rank[name] == ranks[0][name] for rank in ranks)]
    title = ", ".join(["ranks", *(str(ranks[0][name]) for name in same)])
    columns = [name for name in facts if name not in same]
    times = ("duration_ns", "clock_offset_ns", "clock_residual_ns")
    rows = [
        [
            str(r["rank"]),
            *(r[name] for name in columns),
            _id(r["device"]),
            r["clock_method"],
            *(_us(r[t]) for t in times),
        ]
        for r in ranks
    ]
    return title, ["rank", *columns, "device", "clock", "lasts us", "offset us", "residual us"], rows


def _us(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else f"{nanoseconds / 1000:,.1f}"


def _id(number: int | None) -> str | None:
    return None if number is None else str(number)


def _gb(bytes_per_s: float | None) -> str | None:
    return None if bytes_per_s is None else f"{bytes_per_s / 1e9:,.1f}"


def _links(trace: "Trace") -> list[dict[str, Any]]:
    links = trace.read("links", ["rank", "peer", "kind", "count", "rate_bytes_per_s", "latency_ns"])
    return list(links.sort_by([("rank", "ascending"), ("peer", "ascending")]).to_pylist())


def _lines(summary: dict[str, Any]) -> list[str]:
    lines = [f"dependencies: {cell(summary['dependencies'] or 'none')}"]
    if summary["peer_writes"] or summary["waits"]:
        lines.append(f"peer writes: {summary['peer_writes']}; waits: {summary['waits']}")
    notes = summary["notes"]
    for key in _NOTED:
        value = notes.get(key)
        if isinstance(value, list) and len(value) > 6:
            value = [*value[:6], f"... {len(value)} in all (--json shows them)"]
        if value:
            lines.append(f"{key.replace('_', ' ')}: {cell(value)}")
    return lines
