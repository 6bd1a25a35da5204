"""Names of a trace's flags: what its writes say of who raises them."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .trace import Trace


def flag_writers(trace: Trace) -> pa.Table:
    """Return a row for each (peer, flag) that one workgroup of one rank raises: with rank, workgroup and region.

    `peer` is the rank in whose memory the flag lies. Flags that several raise are left out.
    """
    columns = ["peer", "flag", "rank", "workgroup", "region"]
    writes = trace.read("writes", columns, filters=pc.field("flag").is_valid())
    writes = writes.set_column(4, "region", writes["region"].cast(pa.string()))
    raised = writes.group_by(columns).aggregate([])
    alone = raised.group_by(["peer", "flag"]).aggregate([([], "count_all")])
    alone = alone.filter(pc.field("count_all") == 1).select(["peer", "flag"])
    return raised.join(alone, ["peer", "flag"], join_type="left semi")


def flag_names(trace: Trace) -> dict[tuple[int, int], str]:
    """Return the name of each (rank, flag) that one workgroup raises: `flag 17 (workgroup 1 of rank 2)`."""
    return {(row["peer"], row["flag"]): flag_name(row) for row in flag_writers(trace).to_pylist()}


def flag_name(row: Mapping[str, Any]) -> str:
    """Return the name of the flag of a row of `flag_writers`."""
    group = "" if row["workgroup"] is None else f"workgroup {row['workgroup']} of "
    region = f"{row['region']}, " if row["region"] else ""
    return f"flag {row['flag']} ({region}{group}rank {row['rank']})"
