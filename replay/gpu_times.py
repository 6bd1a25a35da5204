"""Where each GPU's time went: computing, or exposed waiting; and its traffic."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..schemas.intervals import union_length
from .program import ACTIVITY_KINDS, Ints, Mode

if TYPE_CHECKING:
    from .outcome import Outcome

_CHUNK = 1 << 16  # rows of intermediate columns that stay in a core's cache
_COMPUTING = tuple(ACTIVITY_KINDS.index(kind) for kind in ("kernel", "copy", "phase"))
_COLLECTIVE = ACTIVITY_KINDS.index("collective")
Intervals = tuple[Ints, Ints, Ints]  # (rank, start, end), each (n,)


def gpus(outcome: "Outcome") -> dict[str, Any]:
    """Return the table of GPUs; switches that compute are left out.

    A GPU computes while one of its kernels, copies or phases runs and does not wait inside; time in collectives and
    in polled waits without any of that is exposed. Without recorded waits (`record` none) those inside phases are
    not known, and count as computing.
    """
    program, size = outcome.program, outcome.program.endpoints
    kind, (start, end) = program.activities["kind"], outcome.activity_times
    rank = program.agent_endpoint[program.activities["agent"]]
    inside, polled = _waits(outcome, np.isin(kind, _COMPUTING))
    computing = _computing(outcome, inside)
    group = kind == _COLLECTIVE
    either = _joined(computing, polled, (rank[group], start[group], end[group]))
    busy = union_length(*computing, size)
    last = np.zeros(size, np.int64)
    np.maximum.at(last, program.agent_endpoint, outcome.final.agents["end_ps"])
    sent, received, writes = outcome.columns.traffic()
    columns = {
        "rank": np.arange(size),
        "end_ps": last,
        "compute_ps": busy,
        "exposed_ps": union_length(*either, size) - busy,
        "sent_bytes": sent,
        "received_bytes": received,
        "writes": writes,
        "flag_reads": np.bincount(program.agent_endpoint, outcome.final.agents["polls"], size).astype(
            np.int64
        ),
    }
    return {name: column[: program.gpus] for name, column in columns.items()}


def chunks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of rows to handle at once, which bounds the memory of intermediate columns."""
    return ((start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK))


def _joined(*parts: Intervals) -> Intervals:
    """Return intervals one after another."""
    rank, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rank, start, end


def _waits(outcome: "Outcome", computing: np.ndarray) -> tuple[Intervals, Intervals]:
    """Return (activity, start, end) of waits in what `computing` marks, and (rank, start, end) of polled ones."""
    empty = (np.zeros(0, np.int64),) * 3
    inside: list[Intervals] = [empty]
    polled: list[Intervals] = [empty]
    program = outcome.program
    any_wanted = outcome.recorded and (computing.any() or (program.ops["mode"] == Mode.POLL).any())
    for low, high in chunks(program.waits if any_wanted else 0):
        known, rows = outcome.columns.waits(low, high), outcome.final.rows.waits[low:high]
        within = (known["activity"] >= 0) & (rows["end_ps"] > rows["start_ps"])
        within[within] = computing[known["activity"][within]]
        inside.append((known["activity"][within], rows["start_ps"][within], rows["end_ps"][within]))
        poll = known["mode"] == Mode.POLL
        polled.append((known["endpoint"][poll], rows["start_ps"][poll], rows["end_ps"][poll]))
    return _joined(*inside), _joined(*polled)


def _computing(outcome: "Outcome", inside: Intervals) -> Intervals:
    """Return (rank, start, end) of what is left of activities that compute, when their waits are cut out.

    An agent does one thing at a time, so within an activity the k-th piece begins with the k-th of its start and
    its waits' ends, and ends with the k-th of its waits' starts and its end.
    """
    activities, (start, end) = outcome.program.activities, outcome.activity_times
    chosen = np.flatnonzero(np.isin(activities["kind"], _COMPUTING))
    owner = np.concatenate((chosen, inside[0]))
    begins = np.concatenate((start[chosen], inside[2]))
    ends = np.concatenate((inside[1], end[chosen]))
    first = np.lexsort((begins, owner))
    last = np.lexsort((ends, np.concatenate((inside[0], chosen))))
    rank = outcome.program.agent_endpoint[activities["agent"][owner[first]]]
    return rank, begins[first], ends[last]
