"""Nsight Systems' SQLite exports: a real one, small ones made from the tables' definitions, and broken ones."""

import gzip
import sqlite3
import struct
from collections import Counter
from contextlib import closing

import pytest

from eidola.convert import auto, convert, find_format
from eidola.convert.auto import recognise
from eidola.schemas import Trace, check
from eidola.schemas.errors import EidolaError, InputError

REAL = "nsys/sm90_2gpu_training.sqlite"
NSYS = find_format("nsys")
UTC, CLOCK = 1_779_782_330_000_000_000, 28_000_000_000
COMM = 0xCAFEBABEDEADBEEF
ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
SCHEMAS = {
    # schema: (entry, type, offset)s, as NCCL 2.24 registers them (nvtx_payload_schemas.h)
    100: (("NCCL communicator ID", 18, None), ("Message size [bytes]", 22, 8)),
    200: (("NCCL communicator ID", 18, None), ("Message size [bytes]", 22, 8), ("Peer rank", 5, 16)),
    300: (
        ("NCCL communicator ID", 18, None),
        ("No. of ranks", 5, 8),
        ("Rank", 5, 12),
        ("CUDA device", 5, 16),
    ),
}
FORMATS = {100: "<QQ", 200: "<QQi4x", 300: "<Qiii4x"}


def global_pid(pid):
    return 1 << 48 | pid << 24


class Report:
    """A database under construction; tables are made when first used, as the exporter does."""

    def __init__(self, path, **names):
        self.path, self.names = path, names
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path)
        self.strings = {}

    def insert(self, table, **row):
        table = self.names.get(table, table)
        columns = ", ".join(row)
        known = self.db.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        if not known:
            self.db.execute(f"CREATE TABLE {table} ({columns})")
        for name in set(row) - {name for (name,) in known} if known else ():
            self.db.execute(f"ALTER TABLE {table} ADD COLUMN {name}")
        self.db.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", list(row.values())
        )

    def string(self, text):
        if text not in self.strings:
            self.strings[text] = len(self.strings) + 1
            self.insert("StringIds", id=self.strings[text], value=text)
        return self.strings[text]

    def call(self, pid, start, end, correlation, name="cudaLaunchKernel_v7000"):
        self.insert("CUPTI_ACTIVITY_KIND_RUNTIME", start=start, end=end, globalTid=global_pid(pid) + pid,
                    correlationId=correlation, nameId=self.string(name))  # fmt: skip

    def kernel(self, pid, start, end, correlation, name="gemm", device=0, stream=7):
        self.insert("CUPTI_ACTIVITY_KIND_KERNEL", start=start, end=end, deviceId=device, streamId=stream,
                    correlationId=correlation, globalPid=global_pid(pid), gridX=32,
                    demangledName=self.string(name), shortName=self.string(name.partition("(")[0]))  # fmt: skip

    def copy(self, pid, start, end, correlation, size, source, target, device=0):
        self.insert("CUPTI_ACTIVITY_KIND_MEMCPY", start=start, end=end, deviceId=device, streamId=7,
                    correlationId=correlation, globalPid=global_pid(pid), bytes=size, copyKind=10, srcKind=2,
                    dstKind=2, srcDeviceId=source, dstDeviceId=target)  # fmt: skip

    def range(self, pid, start, end, name, schema=None, *values, registered=True):
        data = None
        if schema is not None:
            body = struct.pack(FORMATS[schema], *values)
            data = struct.pack("<IIIIQQ", 1, 0, schema, 0, len(body), 32 + len(body)) + body
            if not self.db.execute(
                "SELECT name FROM pragma_table_info('NVTX_PAYLOAD_SCHEMA_ENTRIES')"
            ).fetchall():
                for key, entries in SCHEMAS.items():
                    for i, (entry, kind, offset) in enumerate(entries):
                        self.insert("NVTX_PAYLOAD_SCHEMA_ENTRIES", domainId=1, schemaId=key, idx=i, type=kind,
                                    name=entry, offset=offset)  # fmt: skip
        self.insert("NVTX_EVENTS", start=start, end=end, eventType=59, globalTid=global_pid(pid) + pid, domainId=1,
                    text=None if registered else name, textId=self.string(name) if registered else None,
                    binaryData=data)  # fmt: skip

    def session(self, **details):
        self.insert("TARGET_INFO_SESSION_START_TIME", utcEpochNs=UTC, systemClockNs=CLOCK)
        if details:
            self.insert("ANALYSIS_DETAILS", **details)

    def all_reduce(self, pid, at, correlation, size=4096, device=0, payload=True):
        """One all-reduce of `size` bytes: NCCL's range, the launch in it, and the kernel."""
        described = (100, COMM, size) if payload else ()
        self.range(pid, at, at + 900, "ncclAllReduce", *described)
        self.call(pid, at + 100, at + 200, correlation)
        self.kernel(pid, at + 500, at + 5000, correlation, ALL_REDUCE, device)

    def done(self):
        self.db.commit()
        self.db.close()
        return self.path


def two_ranks(path, pids=(10, 20), base=0, payload=True, **names):
    report = Report(path, **names)
    for rank, pid in enumerate(pids):
        if payload:
            report.range(pid, base + 10, base + 20, "ncclCommInitRank", 300, COMM, 2, 1 - rank, rank)
        for i in range(3):
            at = base + 100_000 * (i + 1)
            report.call(pid, at, at + 10, 10 * i + 1)
            report.kernel(pid, at + 20, at + 9_000, 10 * i + 1, device=rank)
            report.all_reduce(pid, at + 10_000, 10 * i + 2, 1024 * (i + 1), rank, payload)
    return report


def test_the_real_report_is_read_whole(shared, tmp_path):
    report = auto([shared(REAL)], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    spans = trace.read("spans", ["rank", "kind", "name", "launch_ns"]).to_pylist()
    assert report.ranks == [0, 1]
    assert Counter((s["rank"], s["kind"]) for s in spans if s["kind"] in ("kernel", "copy")) == {
        (0, "kernel"): 1993, (1, "kernel"): 2017, (0, "copy"): 643, (1, "copy"): 646,
    }  # fmt: skip
    assert report.collectives == {"all_to_all": 64, "unknown": 2}
    assert report.matched == 33
    assert not report.dropped
    parts = trace.read("collectives").to_pylist()
    assert {p["channels"] for p in parts} == {32}
    assert {p["size_bytes"] for p in parts} == {None}
    assert any("include-blobs" in note for note in report.notes)
    launched = [s for s in spans if s["kind"] in ("kernel", "copy") and s["launch_ns"] is not None]
    assert len(launched) == report.dependencies["launch measured"] == 5268
    assert trace.read("ranks", ["host"])["host"].to_pylist() == ["modal", "modal"]
    assert not [p for p in check(tmp_path / "out") if p.severity == "error"]


def test_times_count_from_1970_and_keep_every_nanosecond(shared, tmp_path):
    auto([shared(REAL)], tmp_path / "out")
    with closing(sqlite3.connect(f"file:{shared(REAL)}?mode=ro&immutable=1", uri=True)) as db:
        ((utc, clock),) = db.execute("SELECT utcEpochNs, systemClockNs FROM TARGET_INFO_SESSION_START_TIME")
        wanted = db.execute(
            "SELECT start, end FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE deviceId = 0 ORDER BY start, end"
        ).fetchall()
    spans = Trace(tmp_path / "out").read("spans", ["rank", "kind", "start_ns", "end_ns"]).to_pylist()
    kernels = sorted((s["start_ns"], s["end_ns"]) for s in spans if s["rank"] == 0 and s["kind"] == "kernel")
    assert kernels == [(start + utc - clock, end + utc - clock) for start, end in wanted]


def test_payloads_give_ranks_sizes_communicators_and_the_kernels_name_the_rest(tmp_path):
    convert(NSYS, [two_ranks(tmp_path / "a.sqlite").done()], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    parts = trace.read("collectives").to_pylist()
    assert [(p["rank"], p["sequence"], p["operation"], p["size_bytes"]) for p in parts] == [
        (rank, i, "all_reduce", 1024 * (i + 1)) for rank in range(2) for i in range(3)
    ]
    assert {(p["algorithm"], p["protocol"], p["channels"]) for p in parts} == {("ring", "ll", 32)}
    members = trace.read("communicators").to_pylist()
    assert [(m["rank"], m["communicator"], m["group_rank"], m["group_size"]) for m in members] == [
        (0, f"nccl {COMM:#x}", 0, 2), (1, f"nccl {COMM:#x}", 1, 2),
    ]  # fmt: skip
    ranks = trace.read("ranks", ["rank", "device"]).to_pylist()
    assert [(r["rank"], r["device"]) for r in ranks] == [
        (0, 1),
        (1, 0),
    ]  # the payload said so, against the order


def test_sends_and_receives_between_group_calls_become_an_exchange(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    for rank, pid in enumerate((10, 20)):
        report.range(pid, 1, 2, "ncclCommInitRank", 300, COMM, 2, rank, rank)
        report.range(pid, 1000, 1010, "ncclGroupStart")
        for peer in range(2):
            report.range(
                pid, 1020 + 40 * peer, 1030 + 40 * peer, "ncclSend", 200, COMM, 100 * (peer + 1), peer
            )
            report.range(
                pid, 1040 + 40 * peer, 1050 + 40 * peer, "ncclRecv", 200, COMM, 100 * (rank + 1), peer
            )
        report.range(pid, 1200, 1400, "ncclGroupEnd")
        report.call(pid, 1250, 1300, 5)
        report.kernel(pid, 1500, 2000, 5, "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", rank)
    convert(NSYS, [report.done()], tmp_path / "out")
    parts = Trace(tmp_path / "out").read("collectives").to_pylist()
    assert [(p["operation"], p["size_bytes"], p["in_split_bytes"], p["out_split_bytes"]) for p in parts] == [
        ("all_to_allv", 300, [100, 200], [100, 100]),
        ("all_to_allv", 300, [100, 200], [200, 200]),
    ]


def test_a_send_and_its_receive_have_their_peers(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    for rank, (pid, call) in enumerate(((10, "ncclSend"), (20, "ncclRecv"))):
        report.range(pid, 1, 2, "ncclCommInitRank", 300, COMM, 2, rank, rank)
        report.range(pid, 1000, 1400, call, 200, COMM, 640, 1 - rank)
        report.call(pid, 1250, 1300, 5)
        report.kernel(pid, 1500, 2000, 5, "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", rank)
    convert(NSYS, [report.done()], tmp_path / "out")
    parts = Trace(tmp_path / "out").read("collectives").to_pylist()
    assert [(p["operation"], p["peer"], p["size_bytes"]) for p in parts] == [
        ("send", 1, 640),
        ("recv", 0, 640),
    ]


@pytest.mark.parametrize("suffix", ["_V2", "_V3", "_V10"])
def test_newer_names_of_tables_are_found(tmp_path, suffix):
    convert(NSYS, [two_ranks(tmp_path / "a.sqlite").done()], tmp_path / "plain")
    report = two_ranks(tmp_path / "b.sqlite")
    for (name,) in report.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        report.db.execute(f"ALTER TABLE {name} RENAME TO {name}{suffix}")
    convert(NSYS, [report.done()], tmp_path / "newer")
    for table in ("ranks", "communicators", "spans", "collectives", "dependencies"):
        plain, newer = (Trace(tmp_path / name).read(table).to_pylist() for name in ("plain", "newer"))
        assert newer == plain


@pytest.mark.parametrize("missing", ["NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "StringIds"])
def test_any_table_but_the_kernels_may_be_absent(tmp_path, missing):
    report = two_ranks(tmp_path / "a.sqlite")
    report.db.execute(f"DROP TABLE {missing}")
    found = convert(NSYS, [report.done()], tmp_path / "out")
    spans = Trace(tmp_path / "out").read("spans", ["kind"])["kind"].to_pylist()
    assert spans.count("kernel") == 12
    assert found.ranks == [0, 1]
    assert not [p for p in check(tmp_path / "out") if p.severity == "error"]


@pytest.mark.parametrize(
    ("base", "details", "offset"),
    [
        (CLOCK, {"startTime": CLOCK}, UTC - CLOCK),  # the host's clock
        (CLOCK, {}, UTC - CLOCK),
        (0, {"startTime": 0}, UTC),  # the session's
        (0, {}, UTC),
        (UTC, {"startTime": UTC}, 0),  # --ts-normalize
    ],
)
def test_times_of_host_session_and_wall_clock_all_count_from_1970(tmp_path, base, details, offset):
    report = two_ranks(tmp_path / "a.sqlite", base=base)
    report.session(**details)
    convert(NSYS, [report.done()], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    clocks = {c["rank"]: c["offset_ns"] for c in trace.read("clocks", ["rank", "offset_ns"]).to_pylist()}
    spans = trace.read("spans", ["rank", "kind", "start_ns"]).to_pylist()
    first = min(s["start_ns"] - clocks[s["rank"]] for s in spans if s["kind"] == "kernel")
    assert first == base + 100_020 + offset


def test_two_files_of_one_run_are_one_job(tmp_path):
    for rank in range(2):
        report = Report(tmp_path / "reports" / f"rank{rank}.sqlite")
        report.session()
        for i in range(3):
            report.all_reduce(10, 100_000 * (i + 1), i + 1, payload=False)
        report.done()
    found = auto([tmp_path / "reports"], tmp_path / "out")
    assert (found.ranks, found.matched) == ([0, 1], 3)
    assert found.collectives == {"all_reduce": 6}


def test_a_process_that_drives_two_gpus_is_two_ranks(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite", pids=(10, 10), payload=False)
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert found.ranks == [0, 1]
    assert any("process 10 on GPU 1" in note for note in found.notes)


def test_a_copy_into_another_ranks_gpu_is_a_write(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite", pids=(10, 10), payload=False)
    report.call(10, 50_000, 50_010, 77, "cudaMemcpyPeerAsync_v4000")
    report.copy(10, 51_000, 52_000, 77, 8192, 0, 1)
    report.copy(10, 53_000, 54_000, 78, 99, 1, 0)  # a read from the peer, which is no write of this rank
    convert(NSYS, [report.done()], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    (write,) = trace.read("writes").to_pylist()
    span = next(s for s in trace.read("spans").to_pylist() if s["rank"] == 0 and s["span"] == write["span"])
    assert (write["rank"], write["peer"], write["size_bytes"], write["kind"]) == (0, 1, 8192, "data")
    assert write["issue_ns"] == span["start_ns"]
    assert span["name"] == "Memcpy PtoP (Device -> Device)"


def test_the_users_ranges_stay_and_pytorchs_operators_do_not(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite")
    names = ("ProfilerStep#3, op_id = 7", "aten::copy_, op_id = 991", "aten::mm, seq = 4, op_id = 9", "my phase",
             "FSDP::pre_forward (blocks.1), op_id = 3", "nccl:all_reduce, op_id = 5")  # fmt: skip
    for i, name in enumerate(names):
        report.range(10, 1000 + i, 2000 + i, name, registered=False)
    convert(NSYS, [report.done()], tmp_path / "out")
    spans = Trace(tmp_path / "out").read("spans", ["kind", "name"]).to_pylist()
    assert [s["name"] for s in spans if s["kind"] == "annotation"] == [
        "ProfilerStep#3", "my phase", "FSDP::pre_forward (blocks.1)", "nccl:all_reduce",
    ]  # fmt: skip


def test_recorded_events_tell_what_streams_waited_for(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    report.call(10, 100, 110, 1)
    report.kernel(10, 200, 900, 1, "producer", stream=7)
    report.call(10, 120, 130, 2, "cudaEventRecord_v3020")
    report.insert("CUPTI_ACTIVITY_KIND_CUDA_EVENT", deviceId=0, streamId=7, correlationId=2,
                  globalPid=global_pid(10), eventId=1, eventSyncId=5)  # fmt: skip
    report.call(10, 140, 150, 3, "cudaStreamWaitEvent_v3020")
    report.insert("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", start=140, end=150, deviceId=0, streamId=13,
                  correlationId=3, globalPid=global_pid(10), syncType=2, eventId=1, eventSyncId=5)  # fmt: skip
    report.call(10, 160, 170, 4)
    report.kernel(10, 950, 1900, 4, "consumer", stream=13)
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert found.dependencies["event measured"] == 1


def test_a_gzip_report_is_recognised_and_reads_the_same(tmp_path):
    plain = two_ranks(tmp_path / "a.sqlite").done()
    packed = tmp_path / "packed" / "b.sqlite.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    auto([packed], tmp_path / "gz")
    auto([plain], tmp_path / "plain")
    for table in ("spans", "collectives", "dependencies"):
        assert Trace(tmp_path / "gz").read(table).equals(Trace(tmp_path / "plain").read(table)), table


def test_rows_of_other_types_and_impossible_times_are_counted(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite")
    report.kernel(10, "soon", 900, 91)
    report.kernel(10, 900, None, 92)
    report.kernel(10, 900, 100, 93)
    report.kernel(10, -(2**63), 2**63 - 1, 94)
    report.kernel(10, 900, 950, "x", stream="y")
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert found.dropped[1] == {
        "no timestamp": 2, "no end": 1, "negative duration": 1,
    }  # fmt: skip


def test_a_database_without_kernels_says_how_to_record_them(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    report.session()
    with pytest.raises(InputError, match=r"a\.sqlite holds no CUDA kernel.*--trace=cuda"):
        convert(NSYS, [report.done()], tmp_path / "out")


def test_views_in_place_of_tables_are_not_read(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    report.session()
    report.db.execute(
        "CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS WITH RECURSIVE n(start) AS "
        "(SELECT 1 UNION ALL SELECT start FROM n) SELECT start, start AS end, 0 AS deviceId FROM n"
    )
    with pytest.raises(InputError, match="no CUDA kernel"):
        convert(NSYS, [report.done()], tmp_path / "out")


def test_a_computed_column_is_not_read(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    report.session()
    report.db.execute(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId GENERATED ALWAYS AS (length(hex(start))))"
    )
    with pytest.raises(InputError, match="no CUDA kernel"):
        convert(NSYS, [report.done()], tmp_path / "out")


def test_a_database_with_an_unmerged_log_names_the_remedy(tmp_path):
    path = two_ranks(tmp_path / "a.sqlite").done()
    (tmp_path / "a.sqlite-wal").write_bytes(b"x")
    with pytest.raises(InputError, match="wal_checkpoint"):
        convert(NSYS, [path], tmp_path / "out")


def test_an_interior_page_that_points_at_itself_ends_in_an_error(tmp_path):
    report = Report(tmp_path / "a.sqlite")
    for i in range(4000):
        report.kernel(10, 1000 * i, 1000 * i + 500, i + 1)
    path = report.done()
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE '%KERNEL'").fetchone()
    page = (root - 1) * size
    assert data[page] == 5  # an interior table page
    for cell in range(int.from_bytes(data[page + 3 : page + 5], "big")):
        at = page + int.from_bytes(data[page + 12 + 2 * cell : page + 14 + 2 * cell], "big")
        data[at : at + 4] = root.to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.sqlite is no whole SQLite database"):
        convert(NSYS, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_database_is_named(tmp_path, kept):
    path = two_ranks(tmp_path / "a.sqlite").done()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(EidolaError, match=r"a\.sqlite"):
        convert(NSYS, [path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_databases_are_not_taken_for_reports(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as db:
        db.execute("CREATE TABLE notes (text)")
        db.commit()
    (tmp_path / "bad.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    found = recognise([tmp_path])
    assert found.files == {}
    assert sorted(p.name for p in found.unknown) == ["bad.sqlite", "other.sqlite"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_file_it_is_read_or_refused_by_name(convert_damaged, tmp_path, seed):
    path = two_ranks(tmp_path / "a.sqlite").done()
    convert_damaged(NSYS, path, seed, tmp_path / "out")


def test_a_database_shorter_than_its_header_says_is_refused(tmp_path):
    path = two_ranks(tmp_path / "a.sqlite").done()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.sqlite is no whole SQLite database \(\d+ of \d+ bytes\)"):
        convert(NSYS, [path], tmp_path / "out")
