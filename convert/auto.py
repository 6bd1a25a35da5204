"""What given files are, told by their content, and their conversion as that."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..schemas import Trace
from ..schemas.errors import InputError, UsageError
from .captured import MANIFEST as CAPTURE
from .captured import captured
from .conversion import convert
from .execution_trace import recognise as is_execution_trace
from .formats import Format, Head, find_format, read_head, titles
from .reading import Progress
from .report import ConversionReport

_EXECUTION_TRACE = "execution-trace"
_PACKED = (".zip", ".zst", ".xz", ".bz2", ".tar", ".tgz", ".7z")
_NSYS = "`nsys export -t sqlite --include-blobs=true`"
_OTHERWISE = {".nsys-rep": _NSYS, ".qdrep": _NSYS, ".pftrace": "`rocprofv3 --output-format rocpd`"}
"""What makes a file that can be read in place of one that cannot, by the suffix of that."""


@dataclass
class Recognised:
    """What each file was taken for: raw captures, files by format, companions by theirs, and what is unknown."""

    captures: list[Path] = field(default_factory=list)
    files: dict[str, list[Path]] = field(default_factory=dict)
    companions: dict[str, list[Path]] = field(default_factory=dict)
    unknown: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a line a file, with what it was taken for."""
        named = titles()
        taken = [(path, "raw capture of eidola") for path in self.captures]
        taken += [(path, named[name]) for name, paths in self.files.items() for path in paths]
        taken += [(path, name.replace("-", " ")) for name, paths in self.companions.items() for path in paths]
        taken += [(path, _left_out(path)) for path in self.unknown]
        return [f"{path}: {what}" for path, what in sorted(taken)]


def _left_out(path: Path) -> str:
    """Return what is said of a file that is not recognised."""
    if path.suffix in _PACKED:
        return "not recognised, left out; unpack it (only gzip is read as it is)"
    other = _OTHERWISE.get(path.suffix)
    return "not recognised, left out" + (f"; what can be read is what {other} writes" if other else "")


def recognise(paths: Iterable[str | Path]) -> Recognised:
    """Tell what `paths`, files or folders (searched through), are. Raises InputError where one does not exist."""
    found = Recognised()
    for path in _files(map(Path, paths), found):
        head = read_head(path)
        if is_execution_trace(head):
            found.companions.setdefault(_EXECUTION_TRACE, []).append(path)
        elif kind := _kind(head):
            found.files.setdefault(kind.name, []).append(path)
        else:
            found.unknown.append(path)
    return found


def _kind(head: Head) -> Format | None:
    return next((kind for kind in map(find_format, titles()) if kind.recognise(head)), None)


def _files(paths: Iterable[Path], found: Recognised) -> Iterator[Path]:
    """Yield the files to look at; folders that are raw captures go to `found` as they are."""
    for path in paths:
        if (path / CAPTURE).is_file():
            found.captures.append(path)
        elif path.is_dir():
            yield from _files(sorted(p for p in path.iterdir() if not p.name.startswith(".")), found)
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path} does not exist; give files, or folders of them")


def auto(
    paths: Iterable[str | Path],
    output: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Callable[[Recognised], None] | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
) -> ConversionReport:
    """Recognise `paths` and convert them into the trace folder `output`.

    `tell` is called with what was recognised before anything is converted; `jobs` and `cluster` are as for
    `convert`. Raises InputError where nothing is
    recognised, UsageError where the files are of several formats.
    """
    found = recognise(paths)
    if tell:
        tell(found)
    if len(found.captures) == 1 and not found.files:
        return _captured(found.captures[0], output, overwrite)
    if not found.files:
        raise InputError(
            f"none of {len(found.unknown)} files was recognised as one of: {', '.join(titles())}; name the format "
            "with `eidola convert FORMAT` if you know it"
        )
    if found.captures or len(found.files) > 1:
        kinds = [*("raw capture" for _ in found.captures[:1]), *found.files]
        raise UsageError(
            f"the files are of several formats ({', '.join(sorted(kinds))}); a trace comes from one: give "
            "files of one format, or convert each with `eidola convert FORMAT`"
        )
    ((name, files),) = found.files.items()
    kind = find_format(name)
    companions = found.companions.get(kind.companion or "", [])
    return convert(
        kind,
        files,
        output,
        companions=companions,
        overwrite=overwrite,
        progress=progress,
        jobs=jobs,
        cluster=cluster,
    )


def _captured(folder: Path, output: str | Path, overwrite: bool) -> ConversionReport:
    """Convert one raw capture; its report is what the trace then holds."""
    trace = Trace(captured(folder, output, overwrite=overwrite))
    report = ConversionReport(trace.path, trace.ranks(), trace.notes.get("missing_ranks", []))
    report.spans = trace.read("spans", ["rank"]).num_rows
    report.notes += trace.notes.get("notes", [])
    report.dependencies.update(trace.read("dependencies", ["kind"])["kind"].to_pylist())
    report.collectives.update(trace.read("collectives", ["operation"])["operation"].to_pylist())
    report.matched = _matched(trace)
    return report


def _matched(trace: Trace) -> int:
    """Return how many operations every captured rank of their group took part in."""
    members = Counter(trace.read("communicators", ["communicator"])["communicator"].to_pylist())
    parts = trace.read("collectives", ["communicator", "sequence", "operation", "rank"])
    parts = parts.filter(pc.invert(pc.is_in(parts["operation"], value_set=pa.array(["send", "recv"]))))
    ranks = parts.group_by(["communicator", "sequence"]).aggregate([("rank", "count_distinct")])
    return sum(row["rank_count_distinct"] == members[row["communicator"]] for row in ranks.to_pylist())
