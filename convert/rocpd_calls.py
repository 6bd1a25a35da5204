"""Calls in rocpd's databases: HIP's that launch or wait, RCCL's with their arguments, and roctx's ranges."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .nccl_calls import Call
from .profile import Profile, dictionary
from .rocm import is_hip_call, rccl_call
from .rocpd_tables import Tables, column
from .scanner import ANNOTATION, CALL, NULL

_MARKER = "MARKER_CORE"
Ints = npt.NDArray[np.int64]


def add_regions(tables: Tables, profile: Profile) -> None:
    """Add the calls and ranges of a rank's process."""
    place = profile.task.place
    table = tables.find("region")
    if table is None or not {"pid", "tid", "name_id"} <= table.columns:
        profile.notes.append(f"{place.path.name} has no calls: nothing says what launched kernels")
        return
    join, others = tables.event(table)
    columns = ("start", "end", "tid", "name_id", "event_id")
    rccl: list[tuple[Any, ...]] = []
    hip = 0
    for batch, _ in tables.database.batches(
        table, columns, f"t.pid = {place.process}", joined=join, others=others
    ):
        batch = {n: c[batch["tid"] != NULL] for n, c in batch.items()}
        ids, places = np.unique(batch["name_id"], return_inverse=True)
        words = tables.strings(ids)
        kinds, of_kind = np.unique(column(batch, "category"), return_inverse=True)
        marker = np.array([k.startswith(_MARKER) for k in tables.strings(kinds)], bool)[of_kind]
        calls = np.flatnonzero(np.array([is_hip_call(w) for w in words], bool)[places] & ~marker)
        _add_ranges(profile, CALL, {n: c[calls] for n, c in batch.items()}, dictionary(words, places[calls]))
        marks = np.flatnonzero(marker)
        own = {n: c[marks] for n, c in batch.items()}
        _add_ranges(profile, ANNOTATION, own, _messages(tables, own["event_id"], words, places[marks]))
        chosen = np.array([w.startswith("nccl") for w in words], bool)[places] & ~marker
        for row in np.flatnonzero(chosen).tolist():
            told = (int(column(batch, n)[row]) for n in ("tid", "start", "end", "correlation", "event_id"))
            rccl.append((words[places[row]], *told))
        hip += len(calls)
    profile.calls = _rccl_calls(tables, rccl)
    if not hip:
        profile.notes.append(
            f"{place.path.name} has no HIP calls: nothing says what launched kernels; record with --sys-trace"
        )


def _add_ranges(profile: Profile, kind: int, rows: dict[str, Ints], names: pa.DictionaryArray) -> None:
    call = column(rows, "correlation")
    profile.rows.add(kind, names, rows["start"], rows["end"], tid=rows["tid"], correlation=call)


def _messages(tables: Tables, events: Ints, words: list[str], places: Ints) -> pa.DictionaryArray:
    """Return the texts of roctx ranges, which their events hold as JSON; without one it is the call's name."""
    found = tables.database.strings(tables.find("event"), events, "extdata")
    texts = []
    for text, place in zip(found, places.tolist(), strict=True):
        try:
            message = json.loads(text or "{}").get("message")
        except (ValueError, RecursionError, AttributeError):
            message = None
        texts.append(message if isinstance(message, str) and message else words[place])
    return pa.array(texts, pa.string()).dictionary_encode()


def _rccl_calls(tables: Tables, rows: list[tuple[Any, ...]]) -> list[Call]:
    arguments: dict[int, dict[str, str]] = {}
    table = tables.find("arg")
    if rows and table is not None and {"event_id", "name", "value"} <= table.columns:
        events = sorted(row[5] for row in rows if row[5] != NULL)
        wanted = set(events)
        where = f"t.event_id BETWEEN {events[0]} AND {events[-1]}" if events else "0"
        for numbers, texts in tables.database.batches(table, ("event_id",), where, texts=("name", "value")):
            for event, name, value in zip(
                numbers["event_id"].tolist(), texts["name"], texts["value"], strict=True
            ):
                if event in wanted and isinstance(name, str) and isinstance(value, str):
                    arguments.setdefault(event, {})[name] = value
    calls = (
        rccl_call(name, tid, start, end, max(correlation, -1), arguments.get(event, {}))
        for name, tid, start, end, correlation, event in rows
        if NULL not in (start, end)
    )
    return [call for call in calls if call is not None]
