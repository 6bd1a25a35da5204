"""Begin and end records of one lane -> spans; what begins and never ends, or the reverse, is counted."""

from collections import Counter, defaultdict
from collections.abc import Hashable
from typing import Any


class Brackets:
    """Spans of a rank, lane by lane, in the order in which they ended.

    A record that ends something belongs to the last of its key that began on its lane and has not ended.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[str, int | None, str, str, int, int]] = []
        self.dropped: Counter[str] = Counter()
        self._open: dict[Hashable, list[int]] = defaultdict(list)

    def begin(self, key: Hashable, time_ns: int) -> None:
        """Open a span."""
        self._open[key].append(time_ns)

    def end(self, key: Hashable, time_ns: int, lane: str, workgroup: int | None, name: str) -> int | None:
        """Close the span that `key` opened last; return its place among the rows, None where there is none."""
        if not self._open[key]:
            self.dropped["end without a begin"] += 1
            return None
        start_ns = self._open[key].pop()
        if time_ns < start_ns:
            self.dropped["end before its begin"] += 1
            return None
        self.rows.append((lane, workgroup, "phase", name, start_ns, time_ns))
        return len(self.rows) - 1

    def instant(self, time_ns: int, lane: str, workgroup: int | None, name: str) -> None:
        """Add a moment, as an annotation without length."""
        self.rows.append((lane, workgroup, "annotation", name, time_ns, time_ns))

    def finish(self) -> dict[str, Any]:
        """Return the columns of `spans`; what is still open is counted in `dropped`."""
        if left := sum(map(len, self._open.values())):
            self.dropped["begin without an end"] += left
        names = ("lane", "workgroup", "kind", "name", "start_ns", "end_ns")
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(names)
        return {"span": range(len(self.rows)), **dict(zip(names, columns, strict=True))}

    def window(self) -> tuple[int, int]:
        """Return the first start and the last end."""
        return min(row[4] for row in self.rows), max(row[5] for row in self.rows)
