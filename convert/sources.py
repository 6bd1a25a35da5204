"""Which files are given for which rank."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..schemas.errors import InputError, UsageError


@dataclass
class Source:
    """The files of one rank."""

    trace: Path
    execution_trace: Path | None = None


def find_sources(traces: Iterable[str | Path], execution_traces: Iterable[str | Path]) -> list[Source]:
    """Return one source a trace, with its rank's ExecutionTrace.

    Both are files, or folders of `*.json` and `*.json.gz`. Raises UsageError where they cannot be paired, and
    InputError where there is nothing to read.
    """
    return _sources(_files(traces, "trace"), _files(execution_traces, "ExecutionTrace"))


def _files(paths: Iterable[str | Path], what: str) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if p.name.endswith((".json", ".json.gz")) and p.is_file()
            )
            if not inside:
                raise InputError(
                    f"{path} holds no {what} (*.json or *.json.gz); give its files or their folder"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist; give a {what} file or a folder of them")
    if len({p.resolve() for p in found}) < len(found):
        raise UsageError(f"a {what} file is given twice; give every file once")
    return found


def _sources(traces: Sequence[Path], execution_traces: Sequence[Path]) -> list[Source]:
    """Pair each trace with its rank's ExecutionTrace, by the rank in their names; one and one are a pair."""
    if not traces:
        raise UsageError("no traces given; name at least one Kineto file or folder")
    if len(traces) == len(execution_traces) == 1:
        return [Source(traces[0], execution_traces[0])]
    by_rank: dict[int, Path] = {}
    for path in execution_traces:
        rank = rank_in_name(path)
        if rank is None or rank in by_rank:
            raise UsageError(
                f"{path}: cannot tell whose ExecutionTrace this is; name the files so that each holds its "
                "rank<N>, once"
            )
        by_rank[rank] = path
    sources = [Source(path, by_rank.get(rank)) for path in traces if (rank := rank_in_name(path)) is not None]
    if execution_traces and len(sources) < len(traces):
        raise UsageError(
            "with --execution-trace, name the traces so that each holds rank<N>, as their pairs do"
        )
    paired = {source.execution_trace for source in sources}
    if left := [path for path in by_rank.values() if path not in paired]:
        raise UsageError(
            f"{left[0]} is the ExecutionTrace of a rank that no trace is given for; leave it out"
        )
    return sources if execution_traces else [Source(path) for path in traces]


def rank_in_name(path: Path) -> int | None:
    """Return the rank that a file's name tells: rank0.json, trace_rank-3.json.gz, worker1_step_12..."""
    match_ = re.search(r"(?i)(?:rank|worker|gpu)[-_.]?(\d+)", path.name)
    return int(match_[1]) if match_ else None
