"""rocprofv3's databases: made from the tables of rocprofiler-sdk's rocpd_tables.sql, whole and broken."""

import json
import sqlite3
from contextlib import closing

import pytest

from eidola.convert import auto, convert, find_format
from eidola.schemas import Trace, check
from eidola.schemas.errors import InputError

ROCPD = find_format("rocpd")
UUID = "_0199f0a1_2b3c_7d4e_8f50_61728394a5b6"
# Schema 3.0.0; later ones add columns. Columns that are not read are left out of some tables.
TABLES = {
    "metadata": "id, tag, value",
    "string": "id INTEGER PRIMARY KEY, guid, string",
    "info_node": "id INTEGER PRIMARY KEY, guid, hash, machine_id, system_name, hostname",
    "info_process": "id INTEGER PRIMARY KEY, guid, nid, ppid, pid, init, fini, start, end, command, "
    "environment, extdata",
    "info_agent": "id INTEGER PRIMARY KEY, guid, nid, pid, type, absolute_index, logical_index, type_index, uuid, "
    "name, model_name, vendor_name, product_name, user_name, extdata",
    "info_kernel_symbol": "id INTEGER PRIMARY KEY, guid, nid, pid, code_object_id, kernel_name, display_name",
    "event": "id INTEGER PRIMARY KEY, guid, category_id, stack_id, parent_stack_id, correlation_id, extdata",
    "arg": "id INTEGER PRIMARY KEY, guid, event_id, position, type, name, value",
    "region": "id INTEGER PRIMARY KEY, guid, nid, pid, tid, start, end, name_id, event_id",
    "kernel_dispatch": "id INTEGER PRIMARY KEY, guid, nid, pid, tid, agent_id, kernel_id, dispatch_id, "
    "queue_id, stream_id, start, end, workgroup_size_x, grid_size_x, event_id",
    "memory_copy": "id INTEGER PRIMARY KEY, guid, nid, pid, tid, start, end, name_id, dst_agent_id, "
    "src_agent_id, size, queue_id, stream_id, event_id",
}  # fmt: skip


class Profiled:
    """A database of one process under construction."""

    def __init__(self, path, pid=10, gpu=2, host="node1", suffix=UUID, environment=None, init=1000):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.pid, self.gpu, self.suffix = path, pid, gpu, suffix
        self.db = sqlite3.connect(path)
        for name, columns in TABLES.items():
            self.db.execute(f'CREATE TABLE "rocpd_{name}{suffix}" ({columns})')
        self.strings, self.symbols, self.events = {}, {}, 0
        self.insert("info_node", id=1, hostname=host)
        self.insert("info_process", id=pid, pid=pid, init=init, environment=json.dumps(environment or {}))
        for agent in (gpu, 2, 3):
            self.db.execute(
                f'INSERT OR IGNORE INTO "rocpd_info_agent{suffix}" '
                "(id, type, absolute_index, name, product_name, extdata) "
                "VALUES (?, 'GPU', ?, 'gfx950', 'AMD Instinct MI350X', ?)",
                (agent, agent, '{"cu_count": 256}'),
            )

    def insert(self, table, **row):
        marks = ", ".join("?" * len(row))
        sql = f'INSERT INTO "rocpd_{table}{self.suffix}" ({", ".join(row)}) VALUES ({marks})'
        return self.db.execute(sql, list(row.values())).lastrowid

    def string(self, text):
        if text not in self.strings:
            self.strings[text] = self.insert("string", string=text)
        return self.strings[text]

    def event(self, category, correlation, extdata="{}"):
        return self.insert("event", category_id=self.string(category), stack_id=correlation,
                           parent_stack_id=correlation, extdata=extdata)  # fmt: skip

    def call(
        self, start, end, correlation, name="hipLaunchKernel", category="HIP_RUNTIME_API_EXT", **arguments
    ):
        event = self.event(category, correlation)
        self.insert(
            "region",
            pid=self.pid,
            tid=self.pid,
            start=start,
            end=end,
            name_id=self.string(name),
            event_id=event,
        )
        for i, (key, value) in enumerate(arguments.items()):
            self.insert("arg", event_id=event, position=i, type="", name=key, value=value)

    def marker(self, start, end, message):
        event = self.event("MARKER_CORE_RANGE_API", 999, json.dumps({"message": message}))
        self.insert("region", pid=self.pid, tid=self.pid, start=start, end=end,
                    name_id=self.string("roctxRangePushA"), event_id=event)  # fmt: skip

    def kernel(self, start, end, correlation, name="gemm", stream=1, grid=1024, group=256):
        if name not in self.symbols:
            self.symbols[name] = self.insert(
                "info_kernel_symbol", kernel_name=f"{name}.kd", display_name=name
            )
        self.insert("kernel_dispatch", pid=self.pid, tid=self.pid, agent_id=self.gpu, kernel_id=self.symbols[name],
                    dispatch_id=0, queue_id=5, stream_id=stream, start=start, end=end, workgroup_size_x=group,
                    grid_size_x=grid, event_id=self.event("KERNEL_DISPATCH", correlation))  # fmt: skip

    def copy(self, start, end, correlation, size, source, target, name="MEMORY_COPY_DEVICE_TO_DEVICE"):
        self.insert("memory_copy", pid=self.pid, tid=self.pid, start=start, end=end, name_id=self.string(name),
                    dst_agent_id=target, src_agent_id=source, size=size, stream_id=1,
                    event_id=self.event("MEMORY_COPY", correlation))  # fmt: skip

    def done(self):
        self.db.commit()
        self.db.close()
        return self.path


def job(folder, ranks=2, shift=0, **options):
    """A database a rank: gemms, all-reduces whose ends agree, and the calls that launched both."""
    for rank in range(ranks):
        base = rank * shift
        made = Profiled(folder / f"{10 + rank}_results.db", 10 + rank, 2 + rank,
                        environment={"RANK": str(ranks - 1 - rank), "WORLD_SIZE": str(ranks)}, init=base + 500,
                        **{k: v[rank] if isinstance(v, list) else v for k, v in options.items()})  # fmt: skip
        for i in range(3):
            at = base + 100_000 * (i + 1)
            made.call(at, at + 10, 10 * i + 1)
            made.kernel(at + 20, at + 9_000, 10 * i + 1)
            made.call(at + 10_000, at + 10_900, 10 * i + 2, "ncclAllReduce", "RCCL_API", count="256",
                      datatype="7", op="0", comm=f"0x7f{rank}0")  # fmt: skip
            made.call(at + 10_100, at + 10_200, 10 * i + 3, "hipExtLaunchKernel")
            made.kernel(at + 10_500 + 100 * rank, at + 15_000, 10 * i + 3,
                        "ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)", 2, 26624, 256)  # fmt: skip
        made.done()
    return folder


def test_kernels_launches_collectives_and_ranks_of_a_job(tmp_path):
    report = auto([job(tmp_path / "in")], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    assert (report.ranks, report.matched, report.missing_ranks) == ([0, 1], 3, [])
    assert report.sources == {"library call": 6}
    ranks = trace.read("ranks").to_pylist()
    assert [(r["device"], r["model"], r["vendor"], r["compute_units"], r["host"]) for r in ranks] == [
        (3, "AMD Instinct MI350X", "amd", 256, "node1"), (2, "AMD Instinct MI350X", "amd", 256, "node1"),
    ]  # fmt: skip
    parts = trace.read("collectives").to_pylist()
    assert {(p["operation"], p["size_bytes"], p["dtype"], p["channels"]) for p in parts} == {
        ("all_reduce", 1024, "float32", 104)
    }
    spans = trace.read("spans", ["rank", "kind", "name", "lane", "launch_ns"]).to_pylist()
    kernels = [s for s in spans if s["kind"] == "kernel"]
    assert len(kernels) == 12
    assert all(s["launch_ns"] is not None for s in kernels)
    assert {s["lane"] for s in kernels} == {"stream 1", "stream 2"}
    assert not [p for p in check(tmp_path / "out") if p.severity == "error"]


@pytest.mark.parametrize("datatype", ["ncclFloat16", "ncclHalf", "6"])
def test_rccls_calls_find_their_kernels_where_hips_were_not_recorded(tmp_path, datatype):
    made = Profiled(tmp_path / "a.db")
    made.call(1000, 1900, 5, "ncclAllReduce", "RCCL_API", count="256", datatype=datatype)
    made.kernel(2000, 3000, 5, "ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)")
    found = convert(ROCPD, [made.done()], tmp_path / "out")
    (part,) = Trace(tmp_path / "out").read("collectives").to_pylist()
    assert (part["operation"], part["size_bytes"], part["dtype"]) == ("all_reduce", 512, "float16")
    assert any("no HIP calls" in note for note in found.notes)


def test_copies_into_another_ranks_gpu_are_writes(tmp_path):
    folder = job(tmp_path / "in")
    with closing(sqlite3.connect(folder / "10_results.db")) as db:
        made = Profiled.__new__(Profiled)
        made.db, made.pid, made.gpu, made.suffix, made.strings = db, 10, 2, UUID, {}
        made.copy(500_000, 501_000, 77, 4096, 2, 3)
        made.copy(502_000, 503_000, 78, 64, 1, 2, "MEMORY_COPY_HOST_TO_DEVICE")
        db.commit()
    auto([folder], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    (write,) = trace.read("writes").to_pylist()
    assert (write["rank"], write["peer"], write["size_bytes"]) == (1, 0, 4096)
    names = [s["name"] for s in trace.read("spans", ["kind", "name"]).to_pylist() if s["kind"] == "copy"]
    assert names == ["Memcpy DtoD (Device -> Device)", "Memcpy HtoD (Host -> Device)"]


def test_hosts_whose_clocks_count_from_their_boots_are_one_job(tmp_path):
    folder = job(tmp_path / "in", shift=7_000_000_000_000, host=["a", "b"])
    report = auto([folder], tmp_path / "out")
    assert report.matched == 3
    assert report.residual_ns == 0
    assert any("count from their boots" in note for note in report.notes)


def test_two_runs_in_one_file_and_ranges_of_roctx(tmp_path):
    first = Profiled(tmp_path / "a.db")
    first.kernel(1000, 2000, 1)
    first.marker(900, 2100, "step 1")
    first.done()
    second = Profiled(tmp_path / "a.db", pid=20, gpu=3, suffix="_0199f0a1_ffff")
    second.kernel(1500, 2500, 1)
    report = auto([second.done()], tmp_path / "out")
    assert report.ranks == [0, 1]
    spans = Trace(tmp_path / "out").read("spans", ["rank", "kind", "name"]).to_pylist()
    assert [(s["rank"], s["name"]) for s in spans if s["kind"] == "annotation"] == [(0, "step 1")]


@pytest.mark.parametrize("missing", sorted({*TABLES} - {"kernel_dispatch"}))
def test_any_table_but_the_dispatches_may_be_absent(tmp_path, missing):
    folder = job(tmp_path / "in", ranks=1)
    with closing(sqlite3.connect(folder / "10_results.db")) as db:
        db.execute(f'DROP TABLE "rocpd_{missing}{UUID}"')
        db.commit()
    convert(ROCPD, [folder], tmp_path / "out")
    kinds = Trace(tmp_path / "out").read("spans", ["kind"])["kind"].to_pylist()
    assert kinds.count("kernel") == 6
    assert not [p for p in check(tmp_path / "out") if p.severity == "error"]


@pytest.mark.parametrize(
    ("streams", "queues", "lanes"),
    [
        ((0, 0), (5, 6), ["stream 5", "stream 6"]),  # streams were not recorded
        ((0, 0), (5, 5), ["stream 0", "stream 0"]),
        ((3, 3), (5, 6), ["stream 3", "stream 3"]),  # HIP spreads a stream over queues, in order
        ((0, 3), (5, 5), ["stream 0", "stream 3"]),
        ((None, None), (5, 6), ["stream 5", "stream 6"]),
    ],
)
def test_lanes_are_streams_or_where_these_were_not_recorded_queues(tmp_path, streams, queues, lanes):
    made = Profiled(tmp_path / "a.db")
    for i, (stream, queue) in enumerate(zip(streams, queues, strict=True)):
        made.kernel(1000 * i + 100, 1000 * i + 200, i + 1, stream=stream)
        made.db.execute(f'UPDATE "rocpd_kernel_dispatch{UUID}" SET queue_id = ? WHERE id = ?', (queue, i + 1))
    convert(ROCPD, [made.done()], tmp_path / "out")
    assert Trace(tmp_path / "out").read("spans", ["lane"])["lane"].to_pylist() == lanes


def test_a_database_that_a_killed_profiler_left_half_written_is_refused(tmp_path):
    made = Profiled(tmp_path / "a.db")
    made.kernel(1, 2, 1)
    made.db.commit()
    made.kernel(3, 4, 2)
    made.db.execute("PRAGMA cache_size = 1")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) SELECT i FROM n"
    made.db.execute(
        f'INSERT INTO "rocpd_string{UUID}" (string) SELECT hex(randomblob(4000)) FROM ({numbers})'
    )
    left = tmp_path / "left.db"
    for end in ("", "-journal"):
        (tmp_path / f"left.db{end}").write_bytes((tmp_path / f"a.db{end}").read_bytes())
    with pytest.raises(InputError, match=r"left\.db was not written to its end, as left\.db-journal"):
        convert(ROCPD, [left], tmp_path / "out")
    with closing(sqlite3.connect(left)) as db:
        db.execute("PRAGMA integrity_check").fetchall()
    assert convert(ROCPD, [left], tmp_path / "out").spans == 1


def test_kernels_without_a_name_are_counted(tmp_path):
    (path, _) = sorted(job(tmp_path / "in").iterdir())
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"DELETE FROM \"rocpd_info_kernel_symbol{UUID}\" WHERE display_name LIKE 'nccl%'")
        db.commit()
    report = convert(ROCPD, [path], tmp_path / "out")
    assert any("does not hold the names of 3 kernels" in note for note in report.notes)


def test_events_whose_parents_form_a_loop_do_no_harm(tmp_path):
    folder = job(tmp_path / "in", ranks=1)
    with closing(sqlite3.connect(folder / "10_results.db")) as db:
        db.execute(f'UPDATE "rocpd_event{UUID}" SET parent_stack_id = stack_id, correlation_id = stack_id')
        db.commit()
    assert convert(ROCPD, [folder], tmp_path / "out").collectives == {"all_reduce": 3}


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute(f'CREATE TABLE "rocpd_kernel_dispatch{UUID}" (id, track_id, kernel_id, start, end)')
        db.commit()
    with pytest.raises(InputError, match=r"a\.db.*schema 4.*--output-format json"):
        convert(ROCPD, [tmp_path / "a.db"], tmp_path / "out")


def test_a_database_without_dispatches_says_how_to_record_them(tmp_path):
    with pytest.raises(InputError, match=r"a\.db holds no kernel dispatch.*--kernel-trace"):
        convert(ROCPD, [Profiled(tmp_path / "a.db").done()], tmp_path / "out")


def test_views_that_hide_the_tables_are_not_read(tmp_path):
    made = Profiled(tmp_path / "a.db")
    made.db.execute(f'DROP TABLE "rocpd_kernel_dispatch{UUID}"')
    made.db.execute(
        f'CREATE VIEW "rocpd_kernel_dispatch{UUID}" AS SELECT 1 AS pid, 1 AS agent_id, 1 AS start, 2 AS end'
    )
    with pytest.raises(InputError, match="no kernel dispatch"):
        convert(ROCPD, [made.done()], tmp_path / "out")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_file_it_is_read_or_refused_by_name(convert_damaged, tmp_path, seed):
    path = job(tmp_path / "in", ranks=1) / "10_results.db"
    convert_damaged(ROCPD, path, seed, tmp_path / "out")
