"""What runs: an operation, how its library runs it, and a ring of it."""

from dataclasses import dataclass, replace

from ..fabric import Ints

Call = dict[str, int]
"""What Builder.call takes after the agent: block, repeat, group, position, flag_offset."""

Track = list[list[Call]]
"""Calls of each member, by its index in the group."""

WIRE_BYTES = {"simple": (1, 1), "ll": (2, 1), "ll128": (16, 15)}
"""Bytes on the wire a byte of data: LL writes a 4-byte flag after every 4 bytes, LL128 8 after 120 (NCCL)."""


@dataclass(frozen=True)
class Operation:
    """One operation of a group.

    `size_bytes` as in the schema's collectives table: a rank's input buffer (all_gather, gather: its contribution;
    scatter: the root's buffer; send, recv: the message). `split_bytes` (N, N) bytes from row to column, for
    all_to_allv, dispatch and combine. `box_bytes` (N, boxes): bytes of a dispatch from rank to box, where each
    token counts once (see `routed`). `root` as a group rank. Data is split in whole elements of `element_bytes`.
    `name` names its flags.
    """

    operation: str
    size_bytes: int
    split_bytes: Ints | None = None
    root: int = 0
    element_bytes: int = 1
    name: str = ""
    box_bytes: Ints | None = None


@dataclass(frozen=True)
class Tuning:
    """How an operation runs, and what its library's kernel costs. All zero: nothing but the network.

    `base_ps` passes once before anything moves; `step_ps` before each forwarding, `network_step_ps` instead
    where that leaves the box. `lanes` channels share the bytes of a step: each takes `pass_bytes` of them within
    the step, and moves `lane_mb_per_s` of the rest (0: no limit but the links), and
    `network_lane_mb_per_s`, where that is set, of what leaves the box. A ring's channel copies the last slice at
    `copy_lane_mb_per_s` (0: at once). `kernel_ps` is the least time that
    sends and receives take once posted. `channels` bounds the rings used (0: all). `chunk_bytes` cuts what is
    pipelined (0: whole). A switch reduces `reduce_mb_per_s` of what it collects (0: as fast as that comes). `poll`
    makes waits subject to the run's wait policy.
    """

    algorithm: str
    protocol: str = "simple"
    channels: int = 0
    chunk_bytes: int = 0
    base_ps: int = 0
    step_ps: int = 0
    network_step_ps: int = 0
    lanes: int = 1
    lane_mb_per_s: int = 0
    network_lane_mb_per_s: int = 0
    pass_bytes: int = 0
    copy_lane_mb_per_s: int = 0
    kernel_ps: int = 0
    poll: bool = False
    reduce_mb_per_s: int = 0


@dataclass(frozen=True)
class Ring:
    """A ring: group ranks in order, its share of the buffer, and its channels (`lanes`).

    Payload rates: of its slowest link out of boxes (`mb_per_s`) and in them, and of its channels together (0: no
    limit but the links; `network_mb_per_s` of what leaves a box, where that differs).
    """

    order: list[int]
    size_bytes: int
    mb_per_s: int
    inside_mb_per_s: int
    lanes: int = 1
    lanes_mb_per_s: int = 0
    network_mb_per_s: int = 0

    def part(self, size_bytes: int, count: int) -> "Ring":
        """Return one of `count` parts of the ring, with a share of its channels."""
        return replace(self, size_bytes=size_bytes, lanes=max(1, self.lanes // count),
                       lanes_mb_per_s=self.lanes_mb_per_s // count,
                       network_mb_per_s=self.network_mb_per_s // count)  # fmt: skip
