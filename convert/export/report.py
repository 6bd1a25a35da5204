"""What an export wrote, and what the format cannot hold."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class ExportReport:
    """What is in `path`, and what is not.

    `written` counts what was written, by kind; `lost` has a line for each thing that the format cannot say, `notes`
    one for anything else that a reader must know.
    """

    path: Path
    format: str
    written: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        written = dict(sorted(self.written.items()))
        said = {"lost": self.lost, "notes": self.notes}
        return {"path": str(self.path), "format": self.format, "written": written, **said}

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.written.items()) if count)
        lost = [f"lost: {line}" for line in self.lost]
        return [f"wrote {self.path}: {counts or 'nothing'}", *lost, *self.notes]
