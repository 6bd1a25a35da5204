"""Each rank's role in a trace's communication: who comes last, and whose communication other work hides."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ..schemas import Trace

SHOWN = 16  # ranks that the table has at most
_EXTREMES = 5  # ranks at each end of what is shown of more


def roles(trace: "Trace") -> list[dict[str, Any]]:
    """Return for each rank with collectives how often it came last, and its communication time in nanoseconds.

    `shared` counts its collectives in which other ranks of the trace took part too (no sends and receives), `last`
    those of them that it started later than every other rank. `communication_ns` is the time during which some
    collective, send or receive of the rank runs; `exposed_ns` the part of that during which no other kernel of the
    rank runs, `overlapped_ns` the rest.
    """
    import numpy as np
    import pyarrow.compute as pc

    from ..schemas.intervals import union_length

    columns = ["rank", "span", "communicator", "sequence", "operation", "start_ns", "end_ns"]
    rows = trace.read("collectives", columns)
    if not rows.num_rows:
        return []
    own = rows.select(["rank", "span"]).filter(pc.field("span").is_valid())
    spans = trace.read("spans", ["rank", "span", "kind", "start_ns", "end_ns"])
    kernels = spans.filter(pc.field("kind") == "kernel").join(own, ["rank", "span"], join_type="left anti")
    ranks = np.unique(rows["rank"].to_numpy())
    kernels = kernels.filter(pc.field("rank").isin(ranks.tolist()))
    busy, talking = _intervals(kernels, ranks), _intervals(rows, ranks)
    place, start, end = (np.concatenate(pair) for pair in zip(busy, talking, strict=True))
    communication = union_length(*talking, len(ranks))
    exposed = union_length(place, start, end, len(ranks)) - union_length(*busy, len(ranks))
    shared, last = _last(rows, talking[0], len(ranks))
    return [
        {
            "rank": int(rank),
            "shared": int(shared[at]),
            "last": int(last[at]),
            "communication_ns": int(communication[at]),
            "exposed_ns": int(exposed[at]),
            "overlapped_ns": int(communication[at] - exposed[at]),
        }
        for at, rank in enumerate(ranks)
    ]


def extremes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all of up to SHOWN ranks; of more those most often last, most exposed and least exposed."""
    if len(found) <= SHOWN:
        return found
    exposed = sorted(found, key=lambda row: -row["exposed_ns"])
    often = sorted(found, key=lambda row: -row["last"])
    kept = {row["rank"] for row in (*often[:_EXTREMES], *exposed[:_EXTREMES], *exposed[-_EXTREMES:])}
    return [row for row in found if row["rank"] in kept]


def _intervals(
    table: "pa.Table", ranks: "npt.NDArray[np.int32]"
) -> tuple["npt.NDArray[np.int64]", "npt.NDArray[np.int64]", "npt.NDArray[np.int64]"]:
    """Return (rows,) each row's place in `ranks`, start and end."""
    import numpy as np

    return (
        np.searchsorted(ranks, table["rank"].to_numpy()),
        table["start_ns"].to_numpy(),
        table["end_ns"].to_numpy(),
    )


def _last(
    rows: "pa.Table", place: "npt.NDArray[np.int64]", size: int
) -> tuple["npt.NDArray[np.int64]", "npt.NDArray[np.int64]"]:
    """Return (size,) each rank's operations shared with other ranks, and those that it alone started last."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    group = pc.invert(pc.is_in(rows["operation"].cast(pa.string()), value_set=pa.array(["send", "recv"])))
    kept = group.to_numpy(zero_copy_only=False)
    rows, place = rows.filter(group), place[kept]
    names = [_codes(rows[name]) for name in ("communicator", "operation")]
    keys = [*names, rows["sequence"].to_numpy()]
    start = rows["start_ns"].to_numpy()
    order = np.lexsort((start, *keys))
    place, start = place[order], start[order]
    new = np.concatenate(([True], np.any([key[order][1:] != key[order][:-1] for key in keys], 0)))[
        : len(order)
    ]
    first = np.flatnonzero(new)
    members = np.diff(np.concatenate((first, [len(order)])))
    several = np.repeat(members > 1, members)
    final = first[members > 1] + members[members > 1] - 1
    alone = start[final] > start[final - 1]
    return np.bincount(place[several], minlength=size), np.bincount(place[final[alone]], minlength=size)


def _codes(column: "pa.ChunkedArray") -> "npt.NDArray[np.int64]":
    """Return a number for each text, equal for equal texts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = column.cast(pa.string())
    return np.asarray(pc.index_in(texts, value_set=pc.unique(texts)).to_numpy(), np.int64)
