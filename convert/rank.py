"""One rank of a job as any reader leaves it: on its own clock, ready to be aligned with the others and written."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .columns import Columns, drifted, moved
from .parts import Part

_ABSOLUTE_NS = 10**18  # 2001: no trace is older, and no host has been up for so long


@dataclass
class RankRecord:
    """What one rank's files hold.

    `hardware` is the row of `ranks`; `spans` and `edges` are columns of `spans` and `dependencies`; `parts` the
    rank's collectives; `more` columns of further tables by name (`writes`, `waits`, `counters`, `links`). Times
    are the rank's own nanoseconds, from first to last in `window_ns`; `base_ns` is what the source added to all of
    them. `dropped` counts events left out, by reason; `contradicted` edges that the times contradict, by kind.
    `late` says that ends are when somebody noticed them, too late to align clocks on; `clock` names the clock that
    times are of, where the source says that it is other ranks' too.
    """

    rank: int
    path: Path
    world_size: int | None
    hardware: dict[str, Any]
    spans: Columns
    edges: Columns
    parts: list[Part]
    window_ns: tuple[int, int]
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: bool = False
    contradicted: Counter[str] = field(default_factory=Counter)
    base_ns: int = 0
    notes: list[str] = field(default_factory=list)
    more: dict[str, Columns] = field(default_factory=dict)
    late: bool = False
    clock: str | None = None

    @property
    def absolute(self) -> bool:
        """Whether times count from 1970, as those of a trace without a base time may not."""
        return self.window_ns[0] > _ABSOLUTE_NS

    def shift(self, offset_ns: int) -> None:
        """Add `offset_ns` to all times of the rank."""
        self.spans = moved(self.spans, offset_ns)
        self.more = {name: moved(columns, offset_ns) for name, columns in self.more.items()}
        self.shift_parts(offset_ns)

    def shift_parts(self, offset_ns: int, drift_ppb: int = 0, at_ns: int = 0) -> None:
        """Add `offset_ns`, and `drift_ppb` of the time since `at_ns`, to the collectives' times and the window."""

        def later(time_ns: int) -> int:
            return time_ns + offset_ns + drifted(time_ns - at_ns, drift_ppb)

        for part in self.parts:
            for name in ("launch_ns", "start_ns", "end_ns"):
                if (time := getattr(part, name)) is not None:
                    setattr(part, name, later(time))
        self.window_ns = (later(self.window_ns[0]), later(self.window_ns[1]))
