"""Logs of the NCCL inspector from v4.1 on: rings, sends and receives, and headers that stand once a dump."""

import json

import pytest

from eidola.convert import auto, convert, find_format
from eidola.schemas import Trace, check

T0 = 1_752_867_229_000_000


def context(rank, version):
    header = {"id": "0xe62dedaa97644a", "comm_name": "DP Group 0", "rank": rank, "n_ranks": 2, "nnodes": 1}
    metadata = {"inspector_output_format_version": version, "git_rev": "", "dump_timestamp_us": T0 + 10_000,
                "hostname": "node", "pid": 7 + rank}  # fmt: skip
    return {"header": header, "metadata": metadata}


def all_reduce(number, algorithm="RING", kind="AllReduce"):
    """An operation of 800 us as inspector_json.cc writes it without verbosity."""
    return {"coll_perf": {"coll": kind, "coll_algo": algorithm, "coll_proto": "LL128", "coll_sn": number,
                          "coll_msg_size_bytes": 16384, "coll_exec_time_us": 800,
                          "coll_timing_source": "kernel_gpu", "coll_algobw_gbs": 1.5}}  # fmt: skip


def pair(kind, peer, size_bytes):
    told = {"p2p": kind, "p2p_sn": 3, "p2p_peer": peer, "p2p_msg_size_bytes": size_bytes,
            "p2p_exec_time_us": 100, "p2p_timing_source": "kernel_gpu"}  # fmt: skip
    return {"p2p_perf": told}


def dump(folder, rank, version, records, *, lost=(0, 0), keep=None, pairs=0):
    """Write one dump: its stats, then its records, each with the context where the version repeats it."""
    folder.mkdir(exist_ok=True)
    stats = {"coll_records": len(records) - pairs, "coll_dropped_total": lost[0], "p2p_records": pairs,
             "p2p_dropped_total": lost[1]}  # fmt: skip
    own = context(rank, version)
    repeated = own if version == "v4.2" else {}
    lines = [own | {"dump_stats": stats}, *(repeated | record for record in records)][:keep]
    (folder / f"node-pid{rank}.log").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("version", ["v4.2", "v4.3", "v4.4"])
def test_what_the_later_versions_tell_is_there(version, tmp_path):
    for rank in range(2):
        kinds = ("Send", "Recv") if rank == 0 else ("Recv", "Send")
        records = [
            *(all_reduce(i) for i in range(3)),
            pair(kinds[0], 1 - rank, 9000),
            pair(kinds[1], 1 - rank, 8500),
        ]
        dump(tmp_path / "d", rank, version, records, pairs=2)
    report = auto([tmp_path / "d"], tmp_path / "t")
    assert check(tmp_path / "t") == []
    assert (report.dropped, report.truncated_ranks) == ({}, [])
    trace = Trace(tmp_path / "t")
    rows = trace.read("collectives").to_pylist()
    reduced = [r for r in rows if r["operation"] == "all_reduce"]
    assert {(r["algorithm"], r["protocol"], r["size_bytes"]) for r in reduced} == {("ring", "ll128", 16384)}
    assert len({r["sequence"] for r in reduced}) == 3
    pairs = {(r["rank"], r["operation"], r["peer"], r["size_bytes"]) for r in rows} - {
        (r["rank"], "all_reduce", None, 16384) for r in reduced
    }
    sizes = {0: {"send": 9000, "recv": 8500}, 1: {"recv": 9000, "send": 8500}}
    assert pairs == {
        (rank, kind, 1 - rank, size) for rank, own in sizes.items() for kind, size in own.items()
    }
    assert set(trace.read("communicators")["name"].to_pylist()) == {"DP Group 0"}


def test_operations_that_were_written_together_ended_one_after_another(tmp_path):
    dump(tmp_path / "d", 0, "v4.4", [all_reduce(i) for i in range(3)])
    convert(find_format("nccl-inspector"), [tmp_path / "d"], tmp_path / "t")
    rows = Trace(tmp_path / "t").read("collectives").sort_by("sequence").to_pylist()
    end = (T0 + 10_000) * 1000
    assert [(r["start_ns"], r["end_ns"]) for r in rows] == [
        (end - 2_400_000 + i * 800_000, end - 1_600_000 + i * 800_000) for i in range(3)
    ]


def test_an_algorithm_that_the_inspector_does_not_know_is_none(tmp_path):
    dump(tmp_path / "d", 0, "v4.2", [all_reduce(0, "unknown"), all_reduce(1, kind="All2All")])
    convert(find_format("nccl-inspector"), [tmp_path / "d"], tmp_path / "t")
    rows = Trace(tmp_path / "t").read("collectives").to_pylist()
    assert {(r["operation"], r["algorithm"], r["size_bytes"]) for r in rows} == {
        ("all_reduce", None, 16384),
        ("all_to_all", "ring", 2 * 16384),  # NCCL counts what goes to one rank
    }


def test_what_the_rings_lost_and_what_is_cut_is_told(tmp_path):
    records = [all_reduce(0), all_reduce(5), all_reduce(6)]
    dump(tmp_path / "d", 0, "v4.4", records, lost=(4, 2), keep=3)
    report = convert(find_format("nccl-inspector"), [tmp_path / "d"], tmp_path / "t")
    assert report.collectives == {"all_reduce": 2}
    assert report.dropped == {0: {"operation that the inspector's rings lost": 6}}
    assert report.truncated_ranks == [0]
    assert any("raise NCCL_INSPECTOR_DUMP_COLL_RING_SIZE" in note for note in report.notes)
    assert any("raise NCCL_INSPECTOR_DUMP_P2P_RING_SIZE" in note for note in report.notes)


def test_a_line_behind_those_that_its_dump_promised_is_nobodys(tmp_path):
    """Two files run together: the second's operations must not become the first's."""
    dump(tmp_path / "d", 0, "v4.4", [all_reduce(0)])
    with (tmp_path / "d" / "node-pid0.log").open("a") as file:
        file.write(json.dumps(all_reduce(1)) + "\n")
    report = convert(find_format("nccl-inspector"), [tmp_path / "d"], tmp_path / "t")
    assert report.collectives == {"all_reduce": 1}
    assert report.dropped == {0: {"line that is cut or not the inspector's": 1}}
