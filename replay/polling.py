"""How often a capture polled its flags."""

from statistics import median

import pyarrow.compute as pc

from ..schemas import Trace


def captured_period_ns(trace: Trace) -> float | None:
    """Return the time between two polls of one flag, in whole picoseconds as ns; None: not told.

    Where the capture measured what a round of polls costs (`poll_round_ns` in its notes), the median over ranks;
    otherwise the time of all waits over the polls in them, which also holds what a waiter did between polls.
    """
    rounds = [rank.get("poll_round_ns") for rank in trace.notes.get("ranks", []) if isinstance(rank, dict)]
    if measured := [float(cost) for cost in rounds if cost]:
        return round(median(measured), 3)
    waits = trace.read("waits", ["start_ns", "end_ns", "polls"], filters=pc.field("polls") > 1)
    if not waits.num_rows:
        return None
    spent = pc.sum(pc.subtract(waits["end_ns"], waits["start_ns"])).as_py()
    return round(float(spent / (pc.sum(waits["polls"]).as_py() - waits.num_rows)), 3) if spent else None
