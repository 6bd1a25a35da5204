"""GPU work of a rocpd database: kernels and copies of one process on one GPU."""

import numpy as np

from .database import Table
from .profile import Place, Profile, dictionary, peer_copies
from .rocm import blocks, copy_name, lanes_are_queues, unnamed_note
from .rocpd_tables import Tables, column
from .scanner import COPY, KERNEL, NULL


def add_kernels(tables: Tables, profile: Profile) -> None:
    """Add the dispatches of a rank."""
    place = profile.task.place
    table = tables.find("kernel_dispatch")
    if table is None:
        return
    symbols = tables.find("info_kernel_symbol")
    name = "display_name" if symbols and "display_name" in symbols.columns else "kernel_name"
    join, others = tables.event(table)
    lane = _lane(tables, table, place)
    columns = ("start", "end", "kernel_id", lane, "grid_size_x", "workgroup_size_x")
    where = f"t.pid = {place.process} AND t.agent_id = {place.device}"
    unnamed = 0
    for batch, _ in tables.database.batches(table, columns, where, joined=join, others=others):
        ids, places = np.unique(batch["kernel_id"], return_inverse=True)
        words = tables.database.strings(symbols, ids, name)
        unnamed += int(np.array([not word for word in words], bool)[places].sum())
        words = [word or "unnamed kernel" for word in words]
        own = {"device": np.full(len(places), place.number), "stream": batch[lane]}
        grid = blocks(batch["grid_size_x"], batch["workgroup_size_x"])
        calls = column(batch, "correlation")
        words_here = dictionary(words, places)
        profile.rows.add(
            KERNEL, words_here, batch["start"], batch["end"], **own, correlation=calls, grid_x=grid
        )
    profile.notes += unnamed_note(place, unnamed)


def _lane(tables: Tables, table: Table, place: Place) -> str:
    """Return which column tells lanes: streams where HIP's were recorded, else hardware queues."""
    names = [name if name in table.columns else "NULL" for name in ("stream_id", "queue_id")]
    where = f"pid = {place.process} AND agent_id = {place.device}"
    query = f'SELECT DISTINCT {", ".join(names)} FROM "{table.name}" WHERE {where} LIMIT 1000'
    return "queue_id" if lanes_are_queues(tables.database.rows(query)) else "stream_id"


def add_copies(tables: Tables, profile: Profile) -> None:
    """Add the copies of a rank: of its source's, or where that is the host or a stranger's GPU, its target's."""
    place, ranks = profile.task.place, dict(profile.task.peers)
    table = tables.find("memory_copy")
    if table is None or not {"pid", "src_agent_id", "dst_agent_id"} <= table.columns:
        return
    join, others = tables.event(table)
    where = (
        f"t.pid = {place.process} AND (t.src_agent_id = {place.device} OR t.dst_agent_id = {place.device})"
    )
    columns = ("start", "end", "name_id", "src_agent_id", "dst_agent_id", "size", "stream_id", "queue_id")
    for batch, _ in tables.database.batches(table, columns, where, joined=join, others=others):
        gpus = np.array([gpu for gpu in ranks if gpu != place.device], np.int64)
        batch = {n: c[~np.isin(batch["src_agent_id"], gpus)] for n, c in batch.items()}
        ids, places = np.unique(batch["name_id"], return_inverse=True)
        words = [copy_name(w) for w in tables.strings(ids)]
        stream = np.where(batch["stream_id"] != NULL, batch["stream_id"], batch["queue_id"])
        correlation = column(batch, "correlation")
        away = (batch["src_agent_id"] == place.device) & np.isin(batch["dst_agent_id"], gpus)
        profile.rows.add(
            COPY, dictionary(words, places), batch["start"], batch["end"],
            device=np.full(len(places), place.number), stream=stream, correlation=correlation,
            **peer_copies(away, batch["dst_agent_id"], batch["size"], ranks),
        )  # fmt: skip
