"""What exports of Nsight Systems leave out or put elsewhere: payloads as text, names, launchers' ranks."""

import json

import pytest

from eidola.convert import convert
from eidola.schemas import Trace

from .test_nsys import COMM, NSYS, Report, global_pid, two_ranks


def collectives(report, out):
    convert(NSYS, [report.done()], out)
    return Trace(out).read("collectives").to_pylist()


@pytest.mark.parametrize("registered", [True, False])
def test_payloads_as_json_say_what_binary_ones_do(tmp_path, registered):
    """They stand in the column jsonText, or are registered and named by jsonTextId."""
    binary = collectives(two_ranks(tmp_path / "a.sqlite"), tmp_path / "binary")
    report = two_ranks(tmp_path / "b.sqlite", payload=False)
    for name in ("jsonText", "jsonTextId"):
        report.db.execute(f"ALTER TABLE NVTX_EVENTS ADD COLUMN {name}")
    for rank, pid in enumerate((10, 20)):
        tid = global_pid(pid) + pid
        report.range(pid, 10, 20, "ncclCommInitRank")
        told = {"NCCL communicator ID": COMM, "No. of ranks": 2, "Rank": 1 - rank, "CUDA device": rank}
        rows = [(10, json.dumps(told))]
        rows += [
            (
                100_000 * i + 10_000,
                json.dumps({"NCCL communicator ID": COMM, "Message size [bytes]": 1024 * i}),
            )
            for i in (1, 2, 3)
        ]
        for start, text in rows:
            column, value = ("jsonTextId", report.string(text)) if registered else ("jsonText", text)
            where = "start = ? AND globalTid = ?"
            report.db.execute(f"UPDATE NVTX_EVENTS SET {column} = ? WHERE {where}", (value, start, tid))
    assert collectives(report, tmp_path / "json") == binary


def test_an_entry_whose_offset_is_not_told_is_not_read_from_the_payloads_start(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite")
    report.db.execute("UPDATE NVTX_PAYLOAD_SCHEMA_ENTRIES SET offset = NULL WHERE idx > 0")
    report.db.execute("UPDATE NVTX_EVENTS SET binaryData = CAST(substr(binaryData, 1, 32) || "
                      "x'0500000000000000' || substr(binaryData, 41) AS BLOB)")  # fmt: skip
    parts = collectives(report, tmp_path / "out")
    assert {(p["communicator"], p["size_bytes"]) for p in parts} == {("nccl 0x5", None)}


@pytest.mark.parametrize(
    ("missing", "note"),
    [("StringIds", "no table StringIds, which holds all names"), ("NVTX_EVENTS", "`--trace=cuda,nvtx`")],
)
def test_a_table_that_is_not_there_is_told_with_the_remedy(tmp_path, missing, note):
    report = two_ranks(tmp_path / "a.sqlite")
    report.db.execute(f"DROP TABLE {missing}")
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert any(note in given for given in found.notes)


@pytest.mark.parametrize("registered", [True, False])
def test_pytorchs_operators_are_left_out_however_their_names_are_kept(tmp_path, registered):
    report = two_ranks(tmp_path / "a.sqlite")
    for name in ("aten::mm, seq = 5, op_id = 17", "step #3, op_id = 18", "forward"):
        report.range(10, 5000, 6000, name, registered=registered)
    convert(NSYS, [report.done()], tmp_path / "out")
    spans = Trace(tmp_path / "out").read("spans", ["kind", "name"]).to_pylist()
    assert [s["name"] for s in spans if s["kind"] == "annotation"] == ["step #3", "forward"]


def test_a_copy_to_a_gpu_of_no_known_rank_is_counted_and_no_write(tmp_path):
    """Processes number the GPUs that they see; without TARGET_INFO_CUDA_DEVICE nothing says which one is which."""
    report = two_ranks(tmp_path / "a.sqlite")
    report.copy(10, 7000, 8000, 77, 8192, 0, 1)
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert Trace(tmp_path / "out").read("writes").num_rows == 0
    assert any("1 copies of process 10 go to GPUs of which no rank is known" in note for note in found.notes)


def test_of_two_variants_of_a_table_the_newest_is_read(tmp_path):
    report = two_ranks(tmp_path / "a.sqlite")
    report.db.execute(
        "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL_V2 AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL"
    )
    report.db.execute("DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL")
    assert convert(NSYS, [report.done()], tmp_path / "out").collectives == {"all_reduce": 6}


def one_rank(path, environment, kernel="gemm"):
    report = Report(path)
    report.kernel(10, 100, 200, 1, kernel)
    words = ";".join(f"{name}={value}" for name, value in environment.items())
    report.insert(
        "TARGET_INFO_SYSTEM_ENV", name="DeviceEnvironment", value=f"PATH=/bin:/usr/bin;{words};_=nsys"
    )
    return report


@pytest.mark.parametrize("names", [("SLURM_PROCID", "SLURM_NTASKS"), ("RANK", "WORLD_SIZE")])
def test_files_of_one_process_have_the_ranks_that_the_launcher_told_nsys(tmp_path, names):
    files = [
        one_rank(
            tmp_path / f"report_{i}.sqlite", dict(zip(names, (rank, 2), strict=True)), f"of {rank}"
        ).done()
        for i, rank in enumerate((1, 0))
    ]
    report = convert(NSYS, files, tmp_path / "out")
    assert not any("not told" in note for note in report.notes)
    spans = Trace(tmp_path / "out").read("spans", ["rank", "name"]).to_pylist()
    assert [(s["rank"], s["name"]) for s in spans] == [(0, "of 0"), (1, "of 1")]


def test_a_launcher_that_told_one_of_several_processes_tells_no_rank(tmp_path):
    report = one_rank(tmp_path / "a.sqlite", {"SLURM_PROCID": 1, "SLURM_NTASKS": 2})
    report.kernel(20, 100, 200, 1, device=1)
    found = convert(NSYS, [report.done()], tmp_path / "out")
    assert found.ranks == [0, 1]
    assert any("the ranks are not told" in note for note in found.notes)
