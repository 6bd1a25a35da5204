"""A run -> a GOAL schedule: every simulated message a send and a receive, every agent a chain of its own.

An agent computes for as long as the run had it compute between two events; a wait is a dependency on the receive of
the message that ended it, so that a simulator with another network moves it. A get is a request, and the message
that it caused.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from ...schemas import Results
from ...schemas.errors import InputError
from .registry import Progress
from .report import ExportReport

_PS = 1000  # picoseconds a nanosecond
CPUS = 255
"""LogGOPSim counts cpus in a byte (src/LogGOPSim/Parser.hpp, `GetNumCPU`): with a cpu 255 there would be none."""
REQUEST_BYTES = 32
BLOCK_ROWS = 50_000
_COLUMNS = {
    "messages": [
        "message", "agent", "source_rank", "destination_rank", "size_bytes", "post_ps", "released_by"
    ],
    "waits": ["wait", "agent", "start_ps", "end_ps", "released_by"],
}  # fmt: skip


def write_run(run: Results, file: TextIO, report: ExportReport, progress: Progress) -> None:
    """Write the schedule of `run`, some endpoints at a time. Raises InputError where it has no messages."""
    messages = run.read("messages", ["source_rank", "destination_rank"])
    if not messages.num_rows:
        raise InputError(f"{run.path} has no messages; there is nothing for a network to simulate")
    agents = run.read("agents", ["agent", "rank"])
    top = pc.max(pa.chunked_array([*agents["rank"].chunks, *messages["destination_rank"].chunks])).as_py()
    world = max(top, pc.max(messages["source_rank"]).as_py()) + 1
    homes: dict[int, list[int]] = defaultdict(list)
    for agent, rank in zip(agents["agent"].to_pylist(), agents["rank"].to_pylist(), strict=True):
        homes[rank].append(agent)
    step = max(1, world * BLOCK_ROWS // messages.num_rows)
    del messages
    file.write(f"num_ranks {world}\n")
    for first in range(0, world, step):
        progress("writing endpoints", first, world)
        _write_block(run, range(first, min(world, first + step)), homes, file, report)
    if (most := max(map(len, homes.values()), default=0)) > CPUS - 1:
        report.lost.append(
            f"an endpoint has {most} agents, and a schedule {CPUS - 1} cpus: those that share one take turns"
        )
    report.lost += [
        "names, flags and wait policies",
        "links and what order they kept: the simulator has a network of its own",
    ]


def _write_block(
    run: Results, ranks: range, homes: dict[int, list[int]], file: TextIO, report: ExportReport
) -> None:
    own = [agent for rank in ranks for agent in homes.get(rank, ())]
    posts, waits, leaving, arriving = (
        _by(run, table, column, values)
        for table, column, values in (
            ("messages", "agent", own),
            ("waits", "agent", own),
            ("messages", "source_rank", ranks),
            ("messages", "destination_rank", ranks),
        )
    )
    for rank in ranks:
        block = _Endpoint(rank, homes.get(rank, []), leaving[rank], arriving[rank])
        for place, agent in enumerate(homes.get(rank, ())):
            block.add_agent(agent, place % (CPUS - 1), posts[agent], waits[agent])
        file.write(f"\nrank {rank} {{\n")
        file.writelines(f"{line}\n" for line in block.lines or ["o0: calc 0"])
        file.writelines(f"{label} requires {other}\n" for label, other in block.requires)
        file.write("}\n")
        for kind in ("calc", "send", "recv"):
            report.written[f"{kind}s"] += sum(f": {kind} " in line for line in block.lines)


def _by(run: Results, table: str, column: str, values: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of a table whose `column` is among `values`, by it."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    held = run.read(table, _COLUMNS[table], pc.field(column).isin(pa.array(values, pa.int64())))
    for batch in held.to_batches(1 << 14):
        for row in batch.to_pylist():
            found[row[column]].append(row)
    return found


class _Endpoint:
    """The block of one endpoint: its lines, and what requires what.

    Labels: `r` a receive, `s` a send or what a local write stands for, `q` a get's request, each with the message's
    number; `a` an agent's own, with its number and a count.
    """

    def __init__(
        self, rank: int, agents: list[int], leaving: list[dict[str, Any]], arriving: list[dict[str, Any]]
    ) -> None:
        self.rank = rank
        self.lines: list[str] = []
        self.requires: list[tuple[str, str]] = []
        self.marks: dict[int, str] = {}
        for row in arriving:
            number, source = row["message"], row["source_rank"]
            if source != rank:
                self._put(
                    f"r{number}: recv {max(1, row['size_bytes'])}b from {source} tag {2 * number}", CPUS - 1
                )
            self.marks[number] = f"r{number}" if source != rank else f"s{number}"
        for row in leaving:
            if row["agent"] not in agents:
                self._answer(row)

    def _answer(self, row: dict[str, Any]) -> None:
        """Send what another endpoint's agent gets from this one, once it asks: the agent is where the data goes."""
        number, other = row["message"], row["destination_rank"]
        self._put(f"q{number}: recv {REQUEST_BYTES}b from {other} tag {2 * number + 1}", CPUS - 1)
        self._put(f"s{number}: send {max(1, row['size_bytes'])}b to {other} tag {2 * number}", CPUS - 1)
        self.requires.append((f"s{number}", f"q{number}"))

    def _put(self, line: str, cpu: int) -> None:
        self.lines.append(f"{line} cpu {cpu}")

    def add_agent(
        self, agent: int, cpu: int, posts: list[dict[str, Any]], waits: list[dict[str, Any]]
    ) -> None:
        """Add an agent's chain: compute, then a post or what a wait waits for, in order of simulated time."""
        done = [row for row in waits if row["end_ps"] >= row["start_ps"]]
        instant = {(row["end_ps"], row["released_by"]) for row in done if row["end_ps"] == row["start_ps"]}
        # At one time: a post, then a wait, but for a post that the message of a satisfied wait let go.
        events = [(row["start_ps"], 1, row["wait"], row) for row in done]
        for row in posts:
            late = (row["post_ps"], row["released_by"]) in instant
            events.append((row["post_ps"], 2 if late else 0, row["message"], row))
        at, last, count = 0, "", 0
        for time, _, _, row in sorted(events, key=lambda event: event[:3]):
            label = f"a{agent}_{count}"
            self._put(f"{label}: calc {max(0, time // _PS - at // _PS)}", cpu)
            self.requires += [(label, other) for other in (last,) if other]
            at, last, count = max(at, time), label, count + 1
            if "message" in row:
                self._post(row, label, cpu)
            elif mark := self.marks.get(row["released_by"]):
                last, count = f"a{agent}_{count}", count + 1
                self._put(f"{last}: calc 0", cpu)
                self.requires += [(last, label), (last, mark)]
            at = max(at, row.get("end_ps", at))

    def _post(self, row: dict[str, Any], label: str, cpu: int) -> None:
        number, to, source = row["message"], row["destination_rank"], row["source_rank"]
        if source == to == self.rank:
            self._put(f"s{number}: calc 0", cpu)
        elif source == self.rank:
            self._put(f"s{number}: send {max(1, row['size_bytes'])}b to {to} tag {2 * number}", cpu)
        else:
            self._put(f"s{number}: send {REQUEST_BYTES}b to {source} tag {2 * number + 1}", cpu)
        self.requires.append((f"s{number}", label))
