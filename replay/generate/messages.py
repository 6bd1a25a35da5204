"""A pattern's messages as rows: data writes, the flags that follow them, and the waits that end it all."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .columns import FLAG_BYTES, Mask, RankTraffic, named, nullable, served
from .draws import Ints

NUMBERING = "pattern * ranks + source rank, at the waiting rank; each raise adds 1"
_KINDS = ("data", "atomic")


@dataclass(frozen=True)
class Messages:
    """All messages of one pattern: (n,) `source`, `time_ns`, `peer`, `size_bytes`, by source and time."""

    gpus: int
    start_ns: int
    flags: str
    source: Ints
    time_ns: Ints
    peer: Ints
    size_bytes: Ints

    def kept(self, keep: Mask | None) -> "Messages":
        """Return the messages from or to the ranks of `keep` (None: all)."""
        if keep is None:
            return self
        take = keep[self.source] | keep[self.peer]
        columns = ("source", "time_ns", "peer", "size_bytes")
        return replace(self, **{name: getattr(self, name)[take] for name in columns})

    @cached_property
    def first(self) -> Ints:
        """(gpus + 1,) where each source's messages begin."""
        return np.searchsorted(self.source, np.arange(self.gpus + 1))

    @cached_property
    def raises(self) -> Mask:
        """(n,) after which messages a flag is raised."""
        found = np.full(len(self.source), self.flags == "each")
        if self.flags == "last":
            found[self._pairs[2]] = True
        return found

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return of each pair that has messages, by peer: peer, source, last message, and how many."""
        pair = (self.peer * self.gpus + self.source)[::-1]
        found, from_end, count = np.unique(pair, return_index=True, return_counts=True)
        return found // self.gpus, found % self.gpus, len(pair) - 1 - from_end, count

    def awaited(self, rank: int) -> tuple[Ints, Ints, Ints]:
        """Return source, time of the last raise, and count of raises, of all that raise a flag at `rank`.

        The nearest source comes first: rank - 1, rank - 2, ...
        """
        peer, source, last, count = self._pairs
        end = rank if self.flags == "none" else rank + 1
        mine = slice(*np.searchsorted(peer, (rank, end)))
        nearest = np.argsort((rank - source[mine]) % self.gpus)
        raised = count[mine][nearest] if self.flags == "each" else np.ones(len(nearest), np.int64)
        return source[mine][nearest], self.time_ns[last[mine][nearest]], raised


def rank_columns(rank: int, gpus: int, sent: list[Messages], poll_ns: int) -> RankTraffic:
    """Return one rank's rows of all patterns: a lane a pattern in which it sends or waits."""
    parts = [_Part(rank, gpus, number, messages, poll_ns) for number, messages in enumerate(sent)]
    writes = {name: np.concatenate([p.writes[name] for p in parts]) for name in parts[0].writes}
    waits = {name: np.concatenate([p.waits[name] for p in parts]) for name in parts[0].waits}
    spans = [row for p in parts for row in p.spans]
    count = len(writes["peer"])
    lane = np.array([pattern for pattern, *_ in spans], np.int64)
    return RankTraffic(
        rank,
        {
            "span": [pattern * 2 + waiting for pattern, waiting, _, _ in spans],
            "lane": named(lane, [f"workgroup {number}" for number in range(len(sent))]),
            "workgroup": lane,
            "kind": ["phase"] * len(spans),
            "name": ["wait" if waiting else "send" for _, waiting, _, _ in spans],
            "start_ns": [start for _, _, start, _ in spans],
            "end_ns": [end for _, _, _, end in spans],
        },
        {
            **writes,
            "region": named(np.where(writes["flag"] < 0, 0, -1), ["messages"]),
            "kind": named((writes["flag"] >= 0).astype(np.int64), _KINDS),
            "flag": nullable(writes["flag"]),
            "value": nullable(np.where(writes["flag"] < 0, -1, 1)),
            "origin": named(np.zeros(count, np.int64), ["inferred"]),
        },
        waits,
    )


class _Part:
    """One rank's part in one pattern; `spans` are (pattern, whether it waits, start, end)."""

    def __init__(self, rank: int, gpus: int, number: int, messages: Messages, poll_ns: int) -> None:
        mine = slice(messages.first[rank], messages.first[rank + 1])
        raises, time_ns = messages.raises[mine], messages.time_ns[mine]
        row = np.repeat(np.arange(len(raises)), 1 + raises)  # a message, and its flag where it raises one
        flag = np.diff(row, prepend=-1) == 0
        self.writes = {
            "peer": messages.peer[mine][row],
            "workgroup": np.full(len(row), number),
            "span": np.full(len(row), number * 2),
            "issue_ns": time_ns[row],
            "size_bytes": np.where(flag, FLAG_BYTES, messages.size_bytes[mine][row]),
            "flag": np.where(flag, number * gpus + rank, -1),
        }
        start_ns = messages.start_ns
        self.spans = []
        if len(time_ns):
            self.spans.append((number, False, start_ns, int(time_ns[-1])))
            start_ns = int(time_ns[-1])
        source, raised_ns, counts = messages.awaited(rank)
        begin, end, polls = served(np.array(start_ns), raised_ns, poll_ns)
        if len(source):
            self.spans.append((number, True, start_ns, int(end[-1])))
        self.waits = {
            "workgroup": np.full(len(source), number),
            "span": np.full(len(source), number * 2 + 1),
            "flag": number * gpus + source,
            "expected": counts,
            "start_ns": begin,
            "end_ns": end,
            "polls": polls,
        }
