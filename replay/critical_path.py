"""The critical path of a run: walked back from the last end, through waits and the messages that released them.

At any time of the run exactly one thing is on the path, so that the path's segments add up to the makespan.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..schemas import Results, UsageError
from .flight import Flight, Links

Ints = npt.NDArray[np.integer[Any]]
_FLIGHT = ("source_rank", "destination_rank", "size_bytes", "post_ps", "start_ps", "arrival_ps", "queued_ps",
           "bottleneck_link")  # fmt: skip
_SERVED = {"spin": "polling", "monitor": "wake latency"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the critical path.

    `what`: kernel, copy, host_call, phase, collective, other (an agent works through an activity), gap (it works
    between activities), queueing, serialisation, latency, delivery (a message is on its way), acknowledgement (its
    acknowledgement is), ordering (it landed before an earlier write of its flow), polling, wake latency (a wait
    policy notices an arrival). `name` is the activity, or the one after a gap; `link`, `flag` and `message` (-1)
    are there where the segment has them.
    """

    start_ps: int
    end_ps: int
    rank: int
    agent: str
    what: str
    name: str
    link: str | None = None
    flag: str | None = None
    message: int = -1


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait on the path: who waited how long for which flag."""

    rank: int
    flag: str
    start_ps: int
    end_ps: int
    message: int


def critical_path(results: Results) -> tuple[list[Segment], list[Wait]]:
    """Return the segments, from time 0 to the makespan without a gap, and the waits that the path goes through.

    A message's shares are listed in a fixed order, not in the order in which its segments met them.
    Raises UsageError where the run recorded no messages.
    """
    if not {"messages", "waits"} <= set(results.tables()):
        raise UsageError(
            f"{results.path} holds no messages, so nothing says what released what; "
            "run the replay again with --record messages"
        )
    return _Walk(results).back()


class _Walk:
    """The arrays that the walk needs; it loops only over the path."""

    def __init__(self, results: Results) -> None:
        agents = results.read("agents", ["rank", "name", "end_ps"])
        self.agent_rank, self.agent_end = (agents[c].to_numpy() for c in ("rank", "end_ps"))
        self.agent_name = agents["name"]
        self.links = Links(results.read("links"))
        messages = results.read("messages", ["agent", "activity", *_FLIGHT])
        self.messages = {name: messages[name].to_numpy() for name in messages.column_names}
        self._read_waits(results)
        self._read_activities(results)

    def _read_waits(self, results: Results) -> None:
        """Keep the waits that blocked; their ends rise within an agent."""
        names = [
            "agent",
            "rank",
            "flag",
            "flag_name",
            "policy",
            "start_ps",
            "arrival_ps",
            "end_ps",
            "released_by",
        ]
        waits = results.read("waits", names, pc.field("released_by") >= 0)
        self.flag_name, self.policy = waits["flag_name"], waits["policy"]
        numbers = waits.drop_columns(["flag_name", "policy"])
        self.waits = {name: numbers[name].to_numpy() for name in numbers.column_names}
        self.wait_first = np.searchsorted(self.waits["agent"], np.arange(len(self.agent_rank) + 1))

    def _read_activities(self, results: Results) -> None:
        table = results.read("activities", ["activity", "agent", "kind", "name", "start_ps", "end_ps"])
        self.activity_name = table["name"]
        order = np.lexsort((table["start_ps"].to_numpy(), table["agent"].to_numpy()))
        table = table.take(pa.array(order))
        self.kind, self.name = table["kind"], table["name"]
        self.activities = {name: table[name].to_numpy() for name in ("agent", "start_ps", "end_ps")}
        self.activity_first = np.searchsorted(self.activities["agent"], np.arange(len(self.agent_rank) + 1))

    def back(self) -> tuple[list[Segment], list[Wait]]:
        """Walk from the last end to time 0."""
        agent = int(np.argmax(self.agent_end)) if len(self.agent_end) else -1
        now = int(self.agent_end[agent]) if agent >= 0 else 0
        path: list[Segment] = []
        waits: list[Wait] = []
        while now > 0:
            wait = self._last_wait(agent, now)
            since = int(self.waits["end_ps"][wait]) if wait >= 0 else 0
            path += reversed(list(self._work(agent, since, now)))
            if wait < 0:
                break
            path += reversed(list(self._release(wait)))
            waits.append(self._wait(wait))
            agent = int(self.messages["agent"][waits[-1].message])
            now = int(self.messages["post_ps"][waits[-1].message])
        return path[::-1], waits[::-1]

    def _last_wait(self, agent: int, now: int) -> int:
        """Return the last wait that blocked `agent` and was over at `now`; -1: none."""
        first, end = self.wait_first[agent], self.wait_first[agent + 1]
        at = int(first + np.searchsorted(self.waits["end_ps"][first:end], now, side="right")) - 1
        return at if at >= first else -1

    def _wait(self, wait: int) -> Wait:
        number = {c: int(self.waits[c][wait]) for c in ("rank", "start_ps", "end_ps", "released_by")}
        return Wait(
            number["rank"], self._flag(wait), number["start_ps"], number["end_ps"], number["released_by"]
        )

    def _flag(self, wait: int) -> str:
        name = self.flag_name[wait].as_py() or f"flag {self.waits['flag'][wait]}"
        return f"{name} of GPU {self.waits['rank'][wait]}"

    def _work(self, agent: int, start: int, end: int) -> Iterator[Segment]:
        """Yield what `agent` did from `start` to `end`, when nothing held it back: activities and gaps between."""
        first, last = self.activity_first[agent], self.activity_first[agent + 1]
        starts, ends = (self.activities[c][first:last] for c in ("start_ps", "end_ps"))
        at = max(0, int(np.searchsorted(starts, start, side="right")) - 1)
        while start < end:
            while at < len(starts) and ends[at] <= start:
                at += 1
            begins = int(starts[at]) if at < len(starts) else end
            if begins > start:
                yield self._local(agent, start, min(begins, end), "gap", self._gap(agent, first + at))
                start = min(begins, end)
            elif start < end:
                stop = min(int(ends[at]), end)
                name, kind = self.name[first + at].as_py(), self.kind[first + at].as_py()
                yield self._local(agent, start, stop, kind, name)
                start = stop

    def _gap(self, agent: int, row: int) -> str:
        """Name a gap by the activity after it, or the one before, or the agent."""
        if row < self.activity_first[agent + 1]:
            return f"before {self.name[int(row)].as_py()}"
        if row > self.activity_first[agent]:
            return f"after {self.name[int(row) - 1].as_py()}"
        return str(self.agent_name[agent].as_py())

    def _local(self, agent: int, start: int, end: int, what: str, name: str) -> Segment:
        return Segment(start, end, int(self.agent_rank[agent]), self.agent_name[agent].as_py(), what, name)

    def _release(self, wait: int) -> Iterator[Segment]:
        """Yield the way of the message that released a wait, then what the wait policy added."""
        message = int(self.waits["released_by"][wait])
        flight = Flight(*(int(self.messages[column][message]) for column in _FLIGHT))
        poster, activity = (int(self.messages[c][message]) for c in ("agent", "activity"))
        sender = self.agent_name[poster].as_py()
        name = self.activity_name[activity].as_py() if activity >= 0 else f"writes of {sender}"
        flag, now = self._flag(wait), flight.post_ps
        for part in self.links.parts(flight):
            link = self.links.name[part.link] if part.link >= 0 else None
            yield Segment(
                now, now + part.duration_ps, flight.source, sender, part.what, name, link, flag, message
            )
            now += part.duration_ps
        arrival, end = int(self.waits["arrival_ps"][wait]), int(self.waits["end_ps"][wait])
        rank, waiter = int(self.waits["rank"][wait]), self.agent_name[int(self.waits["agent"][wait])].as_py()
        if now < arrival:
            there = rank == flight.destination != flight.source
            what = "ordering" if there else "acknowledgement"
            yield Segment(now, arrival, rank, waiter, what, name, None, flag, message)
        if arrival < end:
            served = _SERVED.get(self.policy[wait].as_py(), "polling")
            yield Segment(arrival, end, rank, waiter, served, name, None, flag, message)
