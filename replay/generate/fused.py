"""A fused kernel's run on all ranks: when each workgroup does what, and each rank's rows of it.

The protocol is that of the captured kernels (`eidola capture kernel`): after an exchange's tiles a workgroup
raises one flag at each peer, and waits for the flags of the peers' workgroups of its own number, nearest first
(rank - 1, rank - 2, ...). Flag (exchange * ranks + source) * workgroups + workgroup holds the iteration, counted
from 1, and is never reset. A rank begins an iteration when all its workgroups have ended the one before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .columns import FLAG_BYTES, Columns, Mask, RankTraffic, chosen, named, nullable, served
from .draws import Ints, Purpose, below, words
from .exchange import Exchange

NUMBERING = (
    "(exchange * ranks + source rank) * workgroups + workgroup, at the waiting rank; "
    "the value is the iteration, counted from 1"
)
_KINDS = ("data", "flag")


@dataclass(frozen=True)
class Round:
    """One exchange of one iteration: (ranks, workgroups) when each begins it and has seen its last flag."""

    iteration: int
    exchange: int
    begin_ns: Ints
    end_ns: Ints


@dataclass(frozen=True)
class Fused:
    """`iterations` launches of `exchanges`; each rank starts each up to `jitter_ns` late, drawn by the seed.

    `launch_ns` passes before each iteration; a wait polls every `poll_ns`.
    """

    gpus: int
    workgroups: int
    exchanges: tuple[Exchange, ...]
    iterations: int
    launch_ns: int
    jitter_ns: int
    poll_ns: int
    seed: int

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield each rank's rows; with `targets`, writes and waits between others are left out."""
        keep = chosen(self.gpus, targets)
        rounds = self.rounds()
        for rank in range(self.gpus):
            writes = _joined([self._writes(rank, done, keep) for done in rounds])
            waits = _joined([self._waits(rank, done, keep) for done in rounds])
            yield RankTraffic(rank, self._spans(rank, rounds), self._named(writes), waits)

    def rounds(self) -> list[Round]:
        """Return when every workgroup begins and ends each exchange of each iteration."""
        free_ns = np.zeros(self.gpus, np.int64)
        late_ns = np.array([self._jitter(rank) for rank in range(self.gpus)])
        rounds = []
        for iteration in range(self.iterations):
            start_ns = free_ns + self.launch_ns + late_ns[:, iteration]
            begin_ns = np.repeat(start_ns[:, None], self.workgroups, axis=1)
            for number in range(len(self.exchanges)):
                end_ns = self._finished(self.exchanges[number], begin_ns)
                rounds.append(Round(iteration, number, begin_ns, end_ns))
                begin_ns = end_ns
            free_ns = begin_ns.max(axis=1)
        return rounds

    @property
    def _phases(self) -> list[str]:
        """Names of an iteration's phases, in order."""
        return [name for e in self.exchanges for name in (*(busy for busy, _ in e.busy), e.wait)]

    def _jitter(self, rank: int) -> Ints:
        return below(words(self.iterations, self.seed, Purpose.JITTER, rank), self.jitter_ns + 1)

    def _finished(self, exchange: Exchange, begin_ns: Ints) -> Ints:
        """Return when each workgroup has seen all its flags: the latest one of them decides."""
        latest = _latest(begin_ns, exchange.flag_ns)
        _, end_ns, _ = served(begin_ns + exchange.busy_ns, latest[..., None], self.poll_ns)
        return end_ns[..., 0]

    def _first_span(self, iteration: int, workgroup: Ints) -> Ints:
        """Return the first span of a workgroup's iteration: workgroup by workgroup, in order of time."""
        return (workgroup * self.iterations + iteration) * len(self._phases)

    def _writing(self, exchange: int) -> int:
        """Return which phase of an iteration writes in `exchange`."""
        return sum(len(e.busy) + 1 for e in self.exchanges[:exchange])

    def _writes(self, rank: int, done: Round, keep: Mask | None) -> dict[str, Ints]:
        exchange, number = self.exchanges[done.exchange], done.exchange
        take: slice | Ints = slice(None)
        if keep is not None and not keep[rank]:
            take = exchange.rows_to((np.flatnonzero(keep) - rank) % self.gpus)
        peer = (rank + exchange.hop[take]) % self.gpus
        group, offset = exchange.workgroup[take], exchange.offset_bytes[take]
        flag = offset < 0
        slot = (number * self.gpus + rank) * self.workgroups + group
        return {
            "peer": peer,
            "workgroup": group,
            "span": self._first_span(done.iteration, group) + self._writing(number),
            "issue_ns": done.begin_ns[rank, group] + exchange.after_ns[take],
            "size_bytes": np.where(flag, FLAG_BYTES, exchange.size_bytes[take]),
            "region": np.where(flag, -1, number),
            "offset_bytes": np.where(flag, -1, rank * exchange.slice_bytes + offset),
            "kind": flag.astype(np.int64),
            "flag": np.where(flag, slot, -1),
            "value": np.where(flag, done.iteration + 1, -1),
        }

    def _named(self, writes: dict[str, Ints]) -> Columns:
        """Give what is counted its names and nulls."""
        return {
            **writes,
            "region": named(writes["region"], [e.region for e in self.exchanges]),
            "offset_bytes": nullable(writes["offset_bytes"]),
            "kind": named(writes["kind"], _KINDS),
            "flag": nullable(writes["flag"]),
            "value": nullable(writes["value"]),
            "origin": named(np.zeros(len(writes["peer"]), np.int64), ["inferred"]),
        }

    def _waits(self, rank: int, done: Round, keep: Mask | None) -> dict[str, Ints]:
        exchange, number = self.exchanges[done.exchange], done.exchange
        source = (rank - np.arange(1, self.gpus)) % self.gpus
        issue_ns = done.begin_ns[source].T + exchange.flag_ns
        times = served(done.begin_ns[rank] + exchange.busy_ns, issue_ns, self.poll_ns)
        take = slice(None) if keep is None or keep[rank] else keep[source]
        start, end, polls = (column[:, take].ravel() for column in times)
        seen = source[take]
        group = np.repeat(np.arange(self.workgroups), len(seen))
        phase = self._writing(number) + len(exchange.busy)
        return {
            "workgroup": group,
            "span": self._first_span(done.iteration, group) + phase,
            "flag": (number * self.gpus + np.tile(seen, self.workgroups)) * self.workgroups + group,
            "expected": np.full(len(group), done.iteration + 1),
            "start_ns": start,
            "end_ns": end,
            "polls": polls,
        }

    def _spans(self, rank: int, rounds: list[Round]) -> Columns:
        """Return all phases, one after the other, workgroup by workgroup."""
        starts, ends = [], []
        for done in rounds:
            time_ns = done.begin_ns[rank]
            for _, duration_ns in self.exchanges[done.exchange].busy:
                starts.append(time_ns)
                ends.append(time_ns := time_ns + duration_ns)
            starts.append(time_ns)
            ends.append(done.end_ns[rank])
        start_ns, end_ns = np.array(starts).T.ravel(), np.array(ends).T.ravel()
        phases, total = self._phases, len(start_ns)
        group = np.repeat(np.arange(self.workgroups), total // self.workgroups)
        return {
            "span": np.arange(total),
            "lane": named(group, [f"workgroup {w}" for w in range(self.workgroups)]),
            "workgroup": group,
            "kind": named(np.zeros(total, np.int64), ["phase"]),
            "name": named(np.arange(total) % len(phases), phases),
            "start_ns": start_ns,
            "end_ns": end_ns,
        }


def _latest(begin_ns: Ints, flag_ns: Ints) -> Ints:
    """Return (ranks, W) when the last flag of the others is raised; rank + h is h hops behind.

    A flag that cannot be the last one, however late its writer began among all, is not looked at.
    """
    first_ns, last_ns = begin_ns.min(axis=0), begin_ns.max(axis=0)
    if (flag_ns == flag_ns[:, :1]).all():  # the last writer's, or where that is oneself, the last but one's
        second_ns = np.partition(begin_ns, -2, axis=0)[-2]
        alike: Ints = np.where(begin_ns == last_ns, second_ns, last_ns) + flag_ns[:, 0]
        return alike
    decides = flag_ns >= flag_ns.max(axis=1, keepdims=True) - (last_ns - first_ns)[:, None]
    latest = np.full_like(begin_ns, -1)
    for hop in np.flatnonzero(decides.any(axis=0)) + 1:
        np.maximum(latest, np.roll(begin_ns, hop, axis=0) + flag_ns[:, hop - 1], out=latest)
    return latest


def _joined(parts: list[dict[str, Ints]]) -> dict[str, Ints]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
