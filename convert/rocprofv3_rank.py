"""A rank of a file of rocprofv3's JSON: the kernels, copies and calls of one or more of its process's GPUs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .profile import Place, Profile, Rows, Task, dictionary, peer_copies
from .rocm import blocks, clock_of, copy_name, lanes_are_queues, unnamed_note
from .rocprofv3_file import ProfileFile, integer_in
from .scanner import ANNOTATION, CALL, COPY, KERNEL, NULL

_GPU = 2  # rocprofiler_agent_type_t
Ints = npt.NDArray[np.int64]


def profile_of(file: ProfileFile, task: Task, main: int, gpus: frozenset[int]) -> Profile:
    """Return one rank: work of `gpus`, on whose first, `main`, it counts as running."""
    ordinal = {handle: integer_in(agent.get("logical_node_type_id")) for handle, agent in file.agents.items()}
    ordinals = {handle: max(n, 0) for handle, n in ordinal.items()}
    place = replace(task.place, device=ordinals.get(main, 0))
    profile = Profile(replace(task, place=place), Rows(), _metadata(file, main, place), base_ns=task.base_ns)
    profile.rows.dropped += file.dropped
    profile.truncated = file.truncated
    profile.clock = clock_of(place)
    if len(gpus) > 1:
        profile.notes.append(
            f"{place.path.name}: the process used {len(gpus)} GPUs, which are lanes of one rank"
        )
    _add_kernels(file, profile, gpus, ordinals)
    _add_copies(file, profile, main, gpus, ordinals)
    _add_calls(file, profile)
    return profile


def _metadata(file: ProfileFile, main: int, place: Place) -> dict[str, Any]:
    agent = file.agents.get(main, {})
    model = agent.get("product_name") or agent.get("name")
    told = {"id": place.device, "name": model, "numSms": agent.get("cu_count")}
    return {"host_name": place.host, "deviceProperties": [told]}


def _ordinals(handles: Ints, ordinals: dict[int, int]) -> Ints:
    unique, places = np.unique(handles, return_inverse=True)
    return np.array([ordinals.get(h, NULL) for h in unique.tolist()], np.int64)[places]


def _lane(file: ProfileFile) -> str:
    """Return what tells lanes: streams where HIP's were recorded, else hardware queues."""
    parts = file.rows("kernel_dispatch", "stream", "queue")
    pairs = {(s, q) for part in parts for s, q in np.unique(np.stack(part, axis=1), axis=0).tolist()}
    return "queue" if lanes_are_queues(pairs) else "stream"


def _add_kernels(file: ProfileFile, profile: Profile, gpus: frozenset[int], ordinals: dict[int, int]) -> None:
    names = ("start", "end", "agent", "kernel", _lane(file), "correlation", "grid", "group")
    unnamed = 0
    for columns in file.rows("kernel_dispatch", *names):
        rows = np.isin(columns[2], list(gpus))
        start, end, agent, kernel, lane, correlation, grid, group = (c[rows] for c in columns)
        ids, places = np.unique(kernel, return_inverse=True)
        known = [file.symbols.get(i, "") for i in ids.tolist()]
        unnamed += int(np.array([not word for word in known], bool)[places].sum())
        words = dictionary([word or "unnamed kernel" for word in known], places)
        profile.rows.add(
            KERNEL, words, start, end, device=_ordinals(agent, ordinals), stream=lane, correlation=correlation,
            grid_x=blocks(grid, group),
        )  # fmt: skip
    profile.notes += unnamed_note(profile.task.place, unnamed)


def _add_copies(
    file: ProfileFile, profile: Profile, main: int, gpus: frozenset[int], ordinals: dict[int, int]
) -> None:
    """Add the copies of a rank: of its source's, or where that is no GPU of a rank, of its destination's."""
    names = ("start", "end", "source", "target", "lane", "correlation", "bytes", "kind", "operation")
    ranks = dict(profile.task.peers)
    others = [gpu for gpu in ranks if gpu not in gpus]
    agents = {handle for handle, agent in file.agents.items() if agent.get("type") == _GPU}
    strangers = list(agents - gpus - set(ranks))
    abroad = 0
    for columns in file.rows("memory_copy", *names):
        rows = np.isin(columns[2], list(gpus)) | (
            np.isin(columns[3], list(gpus)) & ~np.isin(columns[2], others)
        )
        start, end, source, target, lane, correlation, size, kind, operation = (c[rows] for c in columns)
        words = _operations(file, kind, operation, copy_name)
        device = _ordinals(np.where(np.isin(source, list(gpus)), source, target), ordinals)
        away = (source == main) & np.isin(target, others)
        profile.rows.add(
            COPY, words, start, end, device=device, stream=lane, correlation=correlation,
            **peer_copies(away, target, size, ranks),
        )  # fmt: skip
        abroad += int((np.isin(source, list(gpus)) & np.isin(target, strangers)).sum())
    if abroad:
        profile.notes.append(
            f"{profile.task.place.path.name}: {abroad} copies go to GPUs of other processes; which ranks these are "
            "is not told, so they are no writes"
        )


def _operations(
    file: ProfileFile, kind: Ints, operation: Ints, name: Callable[[str], str] = str
) -> pa.DictionaryArray:
    """Return the names of operations, each of its kind."""
    ids, places = np.unique(np.stack([kind, operation], axis=1), axis=0, return_inverse=True)
    return dictionary([name(file.operation(*pair)) for pair in ids.tolist()], places.reshape(-1))


def _add_calls(file: ProfileFile, profile: Profile) -> None:
    names = ("start", "end", "tid", "correlation", "kind", "operation")
    for start, end, tid, correlation, kind, operation in file.rows("hip_api", *names):
        words = _operations(file, kind, operation)
        profile.rows.add(CALL, words, start, end, tid=tid, correlation=correlation)
    for start, end, tid, correlation, _, _ in file.rows("marker_api", *names):
        texts = [file.messages.get(i) or "roctx range" for i in correlation.tolist()]
        words = pa.array(texts, pa.string()).dictionary_encode()
        profile.rows.add(ANNOTATION, words, start, end, tid=tid, correlation=correlation)
    profile.calls = [replace(call) for call in file.calls]
    if "hip_api/start" not in file.columns:
        profile.notes.append(
            f"{profile.task.place.path.name} has no HIP calls: nothing says what launched kernels; record with "
            "--sys-trace"
        )
