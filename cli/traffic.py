"""Who waited and who wrote, of a trace: what `eidola inspect` says of peer traffic."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..schemas import Trace


def waits_by_rank(trace: "Trace") -> list[dict[str, Any]]:
    """Return for each rank its waits, their time and polls, and the flag that it waited for the longest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ..schemas.flags import flag_names

    waits = trace.read("waits", ["rank", "flag", "start_ns", "end_ns", "polls"])
    if not waits.num_rows:
        return []
    names = flag_names(trace)
    time = pc.subtract(waits["end_ns"], waits["start_ns"])
    table = pa.table({"rank": waits["rank"], "flag": waits["flag"], "time": time, "polls": waits["polls"]})
    flags = table.group_by(["rank", "flag"]).aggregate([("time", "sum")])
    flags = flags.sort_by([("rank", "ascending"), ("time_sum", "descending"), ("flag", "ascending")])
    longest: dict[int, dict[str, Any]] = {}
    for row in flags.to_pylist():
        longest.setdefault(row["rank"], row)
    summed = table.group_by("rank").aggregate([("time", "sum"), ("polls", "sum"), ([], "count_all")])
    return [
        {
            "rank": row["rank"],
            "waits": row["count_all"],
            "time_ns": row["time_sum"],
            "polls": row["polls_sum"],
            "longest_flag": longest[row["rank"]]["flag"],
            "longest_flag_name": names.get(
                (row["rank"], longest[row["rank"]]["flag"]), f"flag {longest[row['rank']]['flag']}"
            ),
            "longest_flag_ns": longest[row["rank"]]["time_sum"],
        }
        for row in summed.sort_by("rank").to_pylist()
    ]


def writes_by_pair(trace: "Trace") -> list[dict[str, Any]]:
    """Return for each pair of ranks the peer writes and their bytes, the most bytes first."""
    writes = trace.read("writes", ["rank", "peer", "size_bytes"])
    pairs = writes.group_by(["rank", "peer"]).aggregate([("size_bytes", "sum"), ([], "count_all")])
    pairs = pairs.sort_by([("size_bytes_sum", "descending"), ("rank", "ascending"), ("peer", "ascending")])
    return [
        {"rank": row["rank"], "peer": row["peer"], "writes": row["count_all"], "bytes": row["size_bytes_sum"]}
        for row in pairs.to_pylist()
    ]
