"""The tables of docs/robustness.md, from the lines of results."""

import os
import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOOD = {
    "equal": "equal",
    "loss told": "loss told",
    "other": "as the file now says",
    "refused": "refused",
}
"""Ends that are right, with the heads of their columns."""
MARK = "<!-- table -->"


@dataclass
class Outcome:
    """How the mutations of one format ended: counts by mutation and end, failures with their case, and the cost."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    fewer: Counter[str] = field(default_factory=Counter)
    total_s: float = 0
    longest_s: float = 0
    most_mib: int = 0
    bombs_s: float = 0
    digests: set[str] = field(default_factory=set)

    def add(self, line: dict[str, Any]) -> None:
        """Count a line; one whose file another line had is left out."""
        self.total_s += line.get("s", 0)
        self.bombs_s += line.get("s", 0) if line["case"] < 0 else 0
        self.most_mib = max(self.most_mib, line.get("mib", 0))
        if line["end"] == "again" or line["digest"] in self.digests:
            return
        self.digests |= {line["digest"]} - {""}
        self.longest_s = max(self.longest_s, line.get("s", 0))
        self.counts[line["mutation"], line["end"] if line["end"] in GOOD else "failures"] += 1
        if line.get("fewer"):
            self.fewer[line["mutation"]] += 1
        if line["end"] not in GOOD:
            self.failures.append(line)

    def ends(self) -> Counter[str]:
        """Return the counts by end."""
        total = Counter[str]()
        for (_, end), count in self.counts.items():
            total[end] += count
        return total

    def line(self) -> str:
        """Return it all in a line."""
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(self.ends().items()))
        return f"{ends}; {self.total_s:.0f} s in all, longest {self.longest_s:.1f} s, {self.most_mib:,} MiB"


def page(text: str, found: dict[str, Outcome]) -> str:
    """Return the page `text` with its tables made anew."""
    head, _, rest = text.partition(MARK)
    lines = [*_formats(found), "", *_kinds(found), "", _told(found)]
    return f"{head}{MARK}\n\n" + "\n".join(lines) + "\n" + _behind(rest)


def _told(found: dict[str, Outcome]) -> str:
    """Return what ran where, and what the bombs and the fewer rows were."""
    total = sum(one.ends().total() for one in found.values())
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    machine = f"a {os.cpu_count()}-core {model[1] if model else ''} machine"
    fewer = sum((one.fewer for one in found.values()), Counter[str]())
    seconds, bombs = (sum(getattr(one, name) for one in found.values()) for name in ("total_s", "bombs_s"))
    text = (
        f"{total:,} mutations took {seconds:,.0f} s of processor time on {machine}, at the lowest priority while "
        f"other programs ran; of that the bombs, which take longest and the most memory, took {bombs:,.0f} s. Of "
        f"the traces *as the file now says*, {fewer.total():,} have fewer rows or sizes than the undamaged one. "
        "What a run finds is mended on the way, and those cases are converted again; the others are not."
    )
    return textwrap.fill(text, 116, break_on_hyphens=False)


def _behind(rest: str) -> str:
    """Return what the page says behind its tables."""
    at = rest.find("\n## ")
    return rest[at:] if at >= 0 else ""


def _formats(found: dict[str, Outcome]) -> list[str]:
    heads = [*GOOD.values(), "failures"]
    lines = [
        f"| format | mutations | {' | '.join(heads)} | processor time, s | longest, s | peak memory, MiB |",
        "|---|" + "---:|" * (len(heads) + 4),
    ]
    for name, one in found.items():
        ends = one.ends()
        figures = [ends.total(), *(ends[end] for end in (*GOOD, "failures"))]
        told = " | ".join(f"{n:,}" for n in figures)
        lines.append(f"| {name} | {told} | {one.total_s:,.0f} | {one.longest_s:.1f} | {one.most_mib:,} |")
    total = sum((one.ends() for one in found.values()), Counter[str]())
    figures = [total.total(), *(total[end] for end in (*GOOD, "failures"))]
    seconds = sum(one.total_s for one in found.values())
    longest = max(one.longest_s for one in found.values())
    most = max(one.most_mib for one in found.values())
    told = " | ".join(f"{n:,}" for n in figures)
    return [*lines, f"| all | {told} | {seconds:,.0f} | {longest:.1f} | {most:,} |"]


def _kinds(found: dict[str, Outcome]) -> list[str]:
    heads = [*GOOD.values(), "failures"]
    lines = [f"| mutation | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    kinds = Counter[tuple[str, str]]()
    for one in found.values():
        kinds.update(one.counts)
    for kind in sorted({kind for kind, _ in kinds if kind}):
        told = " | ".join(f"{kinds[kind, end]:,}" for end in (*GOOD, "failures"))
        lines.append(f"| {kind} | {told} |")
    return lines
