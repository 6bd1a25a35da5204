"""Patterns of messages: who sends to whom, when, how much; uniform, Poisson, incast, permutation, and mixtures.

Every pattern is one lane (`workgroup p`) of each of its senders, which posts its messages at their times, and of
each of its receivers, which at its end waits for one flag of every sender that wrote to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from ...schemas import UsageError
from .columns import RankTraffic, at_least, check_gpus, chosen
from .draws import Ints, Purpose, below, exponential, words
from .messages import NUMBERING, Messages, rank_columns

Flags = Literal["last", "each", "none"]
Arrivals = Literal["regular", "poisson"]
MESSAGES = 100  # a sender, where neither their number nor a duration is given
LONGEST_S = 1_000_000  # picoseconds then stay far below 2**63


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What the GPUs `senders` (empty: all) do from `start_ns` on.

    A message goes to a GPU of `peers` (empty: all), never the sender's own, drawn uniformly; with `cycle` a
    sender has one peer only, the next one in a random cycle through `peers`, or with `shift` the one so many
    further. Its size is drawn from `size_bytes`. Messages follow each other at `rate_per_s` a sender, at equal
    distances or as a Poisson process (0: all at once), until there are `messages` or `duration_ns` is over.
    `flags`: raised after each message, after the last one to a peer, or never.
    """

    size_bytes: tuple[int, ...] = (65536,)
    senders: tuple[int, ...] = ()
    peers: tuple[int, ...] = ()
    cycle: bool = False
    shift: int | None = None
    arrivals: Arrivals = "regular"
    rate_per_s: float = 0
    messages: int | None = None
    duration_ns: int | None = None
    start_ns: int = 0
    flags: Flags = "last"

    def check(self, gpus: int) -> None:
        """Raise UsageError for what makes no sense among `gpus` GPUs."""
        at_least(0, size_bytes=min(self.size_bytes, default=-1), start_ns=self.start_ns)
        at_least(1, messages=_given(self.messages), duration_ns=_given(self.duration_ns))
        if self.flags not in get_args(Flags):
            raise UsageError(f"--flags {self.flags}: choose {', '.join(get_args(Flags))}")
        self._check_rate()
        self._check_peers(gpus)

    def _check_rate(self) -> None:
        if self.rate_per_s and not 1 <= self.rate_per_s <= 1e12:
            raise UsageError(f"--rate-per-s {self.rate_per_s:g}: give 1 to 1e12 messages a second")
        if not self.rate_per_s and (self.arrivals == "poisson" or self.messages is None):
            raise UsageError("the messages have no rate: give --rate-per-s, or --load and --link-rate")
        if self.messages is None and self.duration_ns is None:
            raise UsageError("the messages have no end: give --messages or --duration-ns")
        longest_s = max((self.duration_ns or 0) / 1e9, (self.messages or 0) / (self.rate_per_s or 1e12))
        if longest_s > LONGEST_S:
            raise UsageError(
                f"the messages take {longest_s:g} s; give fewer, or a higher rate (at most {LONGEST_S} s)"
            )

    def _check_peers(self, gpus: int) -> None:
        """Refuse GPUs that do not exist, and senders that would have nobody to write to."""
        outside = [gpu for gpu in (*self.senders, *self.peers) if not 0 <= gpu < gpus]
        if outside:
            raise UsageError(f"GPU {outside[0]} is none of 0 to {gpus - 1}: correct the senders or the peers")
        senders, peers = set(self.senders or range(gpus)), set(self.peers or range(gpus))
        if self.fixed and not senders <= peers:
            raise UsageError(
                f"GPU {min(senders - peers)} sends and is no peer: in a permutation all senders are peers"
            )
        step = 1 if self.shift is None else self.shift
        if (senders == peers and len(peers) == 1) or (self.fixed and step % len(peers) == 0):
            raise UsageError(
                f"GPU {min(senders)} would only write to itself: give other peers, or another --shift"
            )

    @property
    def fixed(self) -> bool:
        """Whether a sender has one peer only."""
        return self.cycle or self.shift is not None


def _given(value: int | None) -> int:
    return 1 if value is None else value


def uniform(**options: Any) -> Pattern:
    """Return messages at equal distances to random peers; 100 a sender, unless told how many or how long."""
    return Pattern(**_counted(MESSAGES, options))


def poisson(**options: Any) -> Pattern:
    """Return messages to random peers, as a Poisson process of `rate_per_s` a sender; by default 100."""
    return Pattern(arrivals="poisson", **_counted(MESSAGES, options))


def incast(*, peers: tuple[int, ...] = (0,), **options: Any) -> Pattern:
    """Return messages from all GPUs to the hot ones, `peers`; without a rate all at once, by default one."""
    return Pattern(peers=peers, **_counted(1, options))


def permutation(
    *, shift: int | None = None, senders: tuple[int, ...] = (), peers: tuple[int, ...] = (), **options: Any
) -> Pattern:
    """Return messages from each GPU to one other: `shift` further, or the next in a random cycle through all.

    By default one message; `peers` (by default the senders) are the GPUs of the cycle.
    """
    cycle = shift is None
    return Pattern(shift=shift, cycle=cycle, senders=senders, peers=peers or senders, **_counted(1, options))


def _counted(messages: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return options with a number of messages, where they have no end."""
    endless = options.get("messages") is None and options.get("duration_ns") is None
    return options | ({"messages": messages} if endless else {})


def rate_per_s(load: float, link_mb_per_s: int, size_bytes: Sequence[int]) -> float:
    """Return the messages a second that fill `load` of a link, sizes being drawn uniformly from `size_bytes`."""
    if not 0 < load <= 1:
        raise UsageError(f"--load {load}: give a fraction of the link's rate, above 0 and at most 1")
    at_least(1, link_rate=link_mb_per_s, size_bytes=min(size_bytes, default=0))
    return load * link_mb_per_s * 1e6 * len(size_bytes) / sum(size_bytes)


@dataclass(frozen=True, kw_only=True)
class Patterns:
    """Patterns side by side on `gpus` GPUs.

    Each sender starts each pattern up to `jitter_ns` late; waits poll every `poll_ns`; draws start from `seed`.
    """

    name: ClassVar[str] = "patterns"
    gpus: int
    patterns: tuple[Pattern, ...]
    jitter_ns: int = 0
    poll_ns: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_gpus(self.gpus)
        at_least(1, poll_ns=self.poll_ns, patterns=len(self.patterns))
        at_least(0, jitter_ns=self.jitter_ns, seed=self.seed)
        for pattern in self.patterns:
            pattern.check(self.gpus)

    def flags(self) -> str:
        """Return how flags are numbered."""
        return NUMBERING

    def traffic(self, targets: int | None = None) -> Iterator[RankTraffic]:
        """Yield every rank's rows; with `targets`, only traffic to or from the first so many ranks."""
        keep = chosen(self.gpus, targets)
        sent = [self.messages(number).kept(keep) for number in range(len(self.patterns))]
        for rank in range(self.gpus):
            yield rank_columns(rank, self.gpus, sent, self.poll_ns)

    def messages(self, number: int) -> Messages:
        """Return all messages of a pattern, sender by sender, in order of time."""
        pattern = self.patterns[number]
        draw = Draw(self, number)
        senders = [g for g in pattern.senders or range(self.gpus) if draw.others(g)]
        times = [draw.times_ns(gpu) for gpu in senders]
        peers = [draw.peers(gpu, len(time)) for gpu, time in zip(senders, times, strict=True)]
        sizes = [draw.sizes(gpu, len(time)) for gpu, time in zip(senders, times, strict=True)]
        source = np.repeat(senders, [len(time) for time in times])
        columns = (np.concatenate([np.zeros(0, np.int64), *c]) for c in (times, peers, sizes))
        return Messages(self.gpus, pattern.start_ns, pattern.flags, source.astype(np.int64), *columns)


@dataclass(frozen=True)
class Draw:
    """What a pattern's senders draw: each from streams of its own."""

    job: Patterns
    number: int

    @cached_property
    def pattern(self) -> Pattern:
        """The pattern."""
        return self.job.patterns[self.number]

    @cached_property
    def _among(self) -> Ints:
        """GPUs that are written to, in order."""
        return np.array(sorted(set(self.pattern.peers)) or range(self.job.gpus), np.int64)

    @cached_property
    def _next(self) -> Mapping[int, int]:
        """The one peer of each GPU, in a pattern in which it has one."""
        among = self._among
        if self.pattern.cycle:
            drawn = words(len(among), self.job.seed, Purpose.ORDER, pattern=self.number)
            among = among[np.argsort(drawn, kind="stable")]
        following = np.roll(among, -(self.pattern.shift or 1))
        return dict(zip(among.tolist(), following.tolist(), strict=True))

    def others(self, gpu: int) -> bool:
        """Return whether `gpu` has anybody to write to."""
        return gpu in self._next if self.pattern.fixed else bool((self._among != gpu).any())

    def times_ns(self, gpu: int) -> Ints:
        """(n,) when the GPU's messages are posted, ascending."""
        pattern = self.pattern
        late_ns = int(below(self._words(1, Purpose.JITTER, gpu), self.job.jitter_ns + 1)[0])
        times: Ints = pattern.start_ns + late_ns + self._since_start_ns(gpu)
        if pattern.duration_ns is not None:
            times = times[times < pattern.start_ns + pattern.duration_ns]
        return times

    def _since_start_ns(self, gpu: int) -> Ints:
        pattern = self.pattern
        if not pattern.rate_per_s:
            return np.zeros(pattern.messages or 0, np.int64)
        mean_ps = 1e12 / pattern.rate_per_s
        expected = (pattern.duration_ns or 0) * 1000 / mean_ps
        # Ten standard deviations above a Poisson count's mean, and 64 for small means: in effect always enough.
        count = int(expected + 10 * expected**0.5) + 64 if pattern.messages is None else pattern.messages
        if pattern.arrivals == "poisson":
            gaps_ps = (exponential(self._words(count, Purpose.GAP, gpu)) * mean_ps).astype(np.int64)
            return np.cumsum(gaps_ps) // 1000
        return (np.arange(count) * mean_ps).astype(np.int64) // 1000

    def peers(self, gpu: int, count: int) -> Ints:
        """(n,) whom the GPU's messages go to."""
        if self.pattern.fixed:
            return np.full(count, self._next[gpu], np.int64)
        others: Ints = self._among[self._among != gpu]
        return others[below(self._words(count, Purpose.PEER, gpu), len(others))]

    def sizes(self, gpu: int, count: int) -> Ints:
        """(n,) the messages' sizes in bytes."""
        sizes: Ints = np.array(self.pattern.size_bytes, np.int64)
        return sizes[below(self._words(count, Purpose.SIZE, gpu), len(sizes))]

    def _words(self, count: int, purpose: Purpose, gpu: int) -> Any:
        return words(count, self.job.seed, purpose, gpu, self.number)
