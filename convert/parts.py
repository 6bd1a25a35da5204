"""What is known of one rank's part in one collective, and of the process group that it is in."""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Group:
    """A process group as one rank sees it; `name` and `ranks` are None where the source does not say.

    `handle` tells unnamed groups of one rank apart (a stream or a pointer) and means nothing elsewhere.
    """

    name: str | None
    ranks: tuple[int, ...] | None
    size: int | None
    description: str | None
    handle: int | str | None = None
    start: int | None = None
    stride: int | None = None


@lru_cache(maxsize=1 << 10)
def shared(group: Group) -> Group:
    """Return a group as one object: thousands of collectives are in the same."""
    return group


@dataclass(slots=True)
class Part:
    """One rank's part in one collective; times are the rank's own until clocks are aligned.

    `source` is from what its operation is known: "kernel", "host record", "execution trace", "library call",
    "annotation", "kernel name" or "nothing". `communicator` is its name on all ranks, once they are matched.
    """

    span: int
    record: int
    operation: str
    source: str
    group: Group
    start_ns: int
    end_ns: int
    launch_ns: int | None
    sequence: int | None = None
    dtype: str | None = None
    size_bytes: int | None = None
    in_split_bytes: list[int] | None = None
    out_split_bytes: list[int] | None = None
    peer: int | None = None
    algorithm: str | None = None
    protocol: str | None = None
    channels: int | None = None
    on_gpu: bool = True
    stream: int | None = None
    communicator: str | None = None
