"""rocprofv3's JSON -> a trace: a file is a process, which is a rank.

Times are nanoseconds since the host's boot; a kernel shares its correlation id with the call that launched it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..schemas.errors import InputError, UsageError
from .formats import Format, Head
from .profile import Place, Task, build_record, number
from .rank import RankRecord
from .rocm import finished
from .rocprofv3_file import TOP, integer_in, object_in, read_file, read_metadata
from .rocprofv3_rank import profile_of
from .scanner import NULL

_SUFFIXES = ("results.json", "results.json.gz")


def recognise(head: Head) -> bool:
    """Whether a file starts as rocprofv3's JSON does."""
    return head.start.lstrip()[:1] == b"{" and f'"{TOP}"'.encode() in head.start[:1024]


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Task]:
    """Return a task a file given, or in folders (*results.json). Raises InputError where there is none."""
    del companions
    files = [f for path in paths for f in (_inside(path) if path.is_dir() else [path])]
    if len({f.resolve() for f in files}) < len(files):
        raise UsageError("a file is given twice; give every file once")
    if not files:
        raise InputError(
            f"no *results.json in {', '.join(map(str, paths))}; record with `rocprofv3 --output-format json`"
        )
    return finished(number(sorted(map(_place, files), key=lambda p: (p.host or "", p.pid))))


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(_SUFFIXES))


def _place(path: Path) -> Place:
    """Return which process a file is of."""
    told = read_metadata(path)
    host = object_in(told.get("node")).get("hostname")
    pid, init = integer_in(told.get("pid")), integer_in(told.get("init_time"))
    return Place(
        path, "", max(pid, 0), -1, max(pid, 0), host if isinstance(host, str) else None,
        init_ns=init if init > 0 else None,
    )  # fmt: skip


def read(task: Task, alone: bool) -> list[RankRecord]:
    """Read the rank of a file; where it is the only one, each GPU that its process used is a rank."""
    file = read_file(task.place.path)
    used: Counter[int] = Counter()
    for (agent,) in file.rows("kernel_dispatch", "agent"):
        used.update(agent[agent != NULL].tolist())
    if not used:
        raise InputError(
            f"{task.place.path} holds no kernel dispatch; was `rocprofv3` run with --kernel-trace or --sys-trace?"
        )
    gpus = sorted(used, key=lambda a: (integer_in(file.agents.get(a, {}).get("node_id")), a))
    if not alone or len(gpus) == 1:
        main = used.most_common(1)[0][0]
        profile = profile_of(file, task, main, frozenset(gpus))
        del file
        return [build_record(profile)]
    ranks = {gpu: rank for rank, gpu in enumerate(gpus)}
    note = (
        f"{task.place.path.name} is of one process on {len(gpus)} GPUs; each is a rank, in the host's order"
    )
    records = []
    for gpu, rank in ranks.items():
        own = replace(task, rank=rank, peers=tuple(ranks.items()), notes=(*task.notes, note))
        records.append(build_record(profile_of(file, own, gpu, frozenset({gpu}))))
    return records


FORMAT = Format(name="rocprofv3", recognise=recognise, plan=plan, read=read)
