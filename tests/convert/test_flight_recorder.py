"""Flight-recorder dumps as a trace, and what they say of a hang; dumps of Gloo jobs come from PyTorch itself."""

import json
import pickle
import struct
import subprocess
import sys

import pytest

from eidola.convert import auto, convert, find_format
from eidola.convert.plain_pickle import load
from eidola.schemas import InputError, Trace, check

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
GROUP = ("0", "default_pg")


def entry(sequence, state="completed", name="nccl:all_reduce", *, shape=(1024,), group=GROUP, p2p=0, **more):
    """An entry as torch 2.9 to 2.13 write it, of a job that begins an operation every 10 ms."""
    created = T0 + (sequence + p2p) * 10 * MS
    return {
        "record_id": sequence,
        "pg_id": int(group[0]),
        "process_group": group,
        "collective_seq_id": sequence,
        "p2p_seq_id": p2p,
        "op_id": sequence,
        "profiling_name": name,
        "time_created_ns": created,
        "input_sizes": [list(shape)],
        "input_dtypes": ["BFloat16"],
        "output_sizes": [list(shape)],
        "output_dtypes": ["BFloat16"],
        "state": state,
        "time_discovered_started_ns": created + MS if state != "scheduled" else None,
        "time_discovered_completed_ns": created + 9 * MS if state == "completed" else None,
        "retired": state == "completed",
        "timeout_ms": 600000,
        "is_p2p": p2p > 0,
        "frames": [{"name": "step", "filename": "train.py", "line": 7}],
        **more,
    }


def dump(folder, rank, entries, world=3, version="2.10", status=None):
    ranks = str([*range(world)])
    folder.mkdir(exist_ok=True)
    document = {
        "version": version,
        "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": ranks}},
        "pg_status": status or {},
        "entries": entries,
    }
    (folder / f"nccl_trace_rank_{rank}").write_bytes(pickle.dumps(document, 2))


def run(folder, out):
    return convert(find_format("flight-recorder"), [folder], out)


def test_what_ended_is_a_collective_with_sizes_group_and_number(tmp_path):
    timed = [entry(1, duration_ms=2.5), entry(2, name="nccl:_all_gather_base", shape=(8, 4))]
    for rank in range(3):
        dump(tmp_path / "d", rank, timed)
    report = run(tmp_path / "d", tmp_path / "t")
    assert check(tmp_path / "t") == []
    rows = [r for r in Trace(tmp_path / "t").read("collectives").to_pylist() if r["rank"] == 1]
    assert [(r["operation"], r["sequence"], r["dtype"], r["size_bytes"]) for r in rows] == [
        ("all_reduce", 1, "bfloat16", 2048),
        ("all_gather", 2, "bfloat16", 64),
    ]
    assert rows[0]["end_ns"] - rows[0]["start_ns"] == 2_500_000  # the GPU's own duration, where it is told
    assert report.matched == 2
    assert "every operation in the dumps has ended" in report.notes
    assert set(Trace(tmp_path / "t").read("spans")["kind"].to_pylist()) == {"annotation"}


def test_types_whose_names_have_underscores_are_known(tmp_path):
    for rank in range(3):
        dump(tmp_path / "d", rank, [entry(1, input_dtypes=["Float8_e4m3fn"])])
    run(tmp_path / "d", tmp_path / "t")
    rows = Trace(tmp_path / "t").read("collectives").to_pylist()
    assert {(r["dtype"], r["size_bytes"]) for r in rows} == {("float8e4m3", 1024)}


def test_late_ends_align_no_clock(tmp_path):
    for rank in range(2):
        dump(
            tmp_path / "d",
            rank,
            [entry(1, time_discovered_completed_ns=T0 + (19 + rank * 100) * MS)],
            world=2,
        )
    report = run(tmp_path / "d", tmp_path / "t")
    assert Trace(tmp_path / "t").read("clocks")["method"].to_pylist() == ["none", "none"]
    assert report.residual_ns is None
    assert any("late by up to its polling interval" in note for note in report.notes)


def test_the_report_says_which_rank_is_stuck_in_what(tmp_path):
    dump(tmp_path / "d", 0, [entry(1), entry(2, "started"), entry(3, "scheduled")])
    dump(tmp_path / "d", 1, [entry(1), entry(2, "started")])
    dump(tmp_path / "d", 2, [entry(1)])
    report = run(tmp_path / "d", tmp_path / "t")
    assert (
        "not completed: all_reduce 2 of group 0 (default_pg): started on ranks [0, 1], not called on ranks [2]"
        in report.notes
    )
    assert "rank 0 is in all_reduce 2 of group 0 (default_pg), started" in report.notes
    assert "rank 2 is in no collective; its last was all_reduce 1 of group 0 (default_pg)" in report.notes
    assert Trace(tmp_path / "t").read("collectives")["sequence"].to_pylist() == [1, 1, 1]
    names = Trace(tmp_path / "t").read("spans")["name"].to_pylist()
    assert names.count("nccl:all_reduce (started, not completed)") == 2


def test_ranks_that_call_different_operations_are_named_not_refused(tmp_path):
    dump(tmp_path / "d", 0, [entry(1), entry(2, name="nccl:all_reduce")], world=2)
    dump(tmp_path / "d", 1, [entry(1), entry(2, name="nccl:broadcast")], world=2)
    report = run(tmp_path / "d", tmp_path / "t")
    assert "mismatch: number 2 of group 0 is all_reduce on ranks [0], broadcast on ranks [1]" in report.notes
    assert report.collectives == {"all_reduce": 2}


def test_ranks_that_bring_different_sizes_are_named(tmp_path):
    dump(tmp_path / "d", 0, [entry(1)], world=2)
    dump(tmp_path / "d", 1, [entry(1, shape=(7,))], world=2)
    notes = run(tmp_path / "d", tmp_path / "t").notes
    assert "mismatch: number 1 of group 0 has 2048 bytes on ranks [0], 14 bytes on ranks [1]" in notes


def test_a_rank_without_a_dump_is_missing_and_a_send_keeps_its_peer(tmp_path):
    dump(tmp_path / "d", 0, [entry(1, "started"), entry(1, p2p=1, name="nccl:send 0->2")])
    report = run(tmp_path / "d", tmp_path / "t")
    assert report.missing_ranks == [1, 2]
    assert any(note.endswith("started on ranks [0], no dump on ranks [1, 2]") for note in report.notes)
    (row,) = Trace(tmp_path / "t").read("collectives").to_pylist()
    assert (row["operation"], row["peer"], row["sequence"]) == ("send", 2, 1)


@pytest.mark.parametrize("version", ["2.1", "2.4", "2.7", "2.10"])
def test_dumps_of_older_versions_are_read_as_far_as_they_tell(version, tmp_path):
    """2.1 does not say what is point to point: the name does; a send has the number of the collective before it."""
    for rank, name in enumerate(("nccl:send 0->1", "nccl:recv 1<-0")):
        own = [entry(1), *({**entry(1, p2p=number, name=name)} for number in (1, 2))]
        for told in own if version == "2.1" else ():
            del told["is_p2p"], told["timeout_ms"]
        dump(tmp_path / "d", rank, own, world=2, version=version)
    report = run(tmp_path / "d", tmp_path / "t")
    assert report.collectives == {"all_reduce": 2, "send": 2, "recv": 2}
    rows = Trace(tmp_path / "t").read("collectives").to_pylist()
    pairs = {(r["operation"], r["sequence"]) for r in rows if r["operation"] != "all_reduce"}
    assert len(pairs) == 4


def as_json(folder):
    """Return a folder of the same dumps as `dump_json` writes them: 0 where nothing ended, text counts."""
    out = folder.with_name("json")
    out.mkdir()
    for file in folder.glob("*_rank_*"):
        told = pickle.loads(file.read_bytes())
        for status in told["pg_status"].values():
            status.update({key: str(number) for key, number in status.items()})
        for own in told["entries"]:
            own.pop("frames", None)
            own.update({key: own[key] or 0 for key in own if key.startswith("time_discovered")})
        (out / f"{file.name}.json").write_text(json.dumps({"comm_lib_version": "", **told}, sort_keys=True))
    return out


def test_dumps_as_json_are_read_as_their_pickles(tmp_path):
    status = {
        "0": {"last_enqueued_collective": 4, "last_started_collective": -1, "last_completed_collective": 3}
    }
    dump(tmp_path / "d", 0, [entry(1), entry(2), entry(3, "started"), entry(4, "started")], status=status)
    dump(tmp_path / "d", 1, [entry(1), entry(2), entry(3), entry(4, "scheduled")], status=status)
    pickled = run(tmp_path / "d", tmp_path / "p")
    told = run(as_json(tmp_path / "d"), tmp_path / "j")
    assert told.notes == pickled.notes
    for table in ("spans", "collectives", "communicators"):
        assert Trace(tmp_path / "j").read(table).equals(Trace(tmp_path / "p").read(table))


def test_json_that_ends_early_is_refused(tmp_path):
    (tmp_path / "trace_rank_0.json").write_text('{"entries":[{"collective_seq_id":1,"profiling_name":"')
    with pytest.raises(InputError, match=r"trace_rank_0\.json is no whole JSON.*copy or dump it again"):
        run(tmp_path, tmp_path / "t")


JOB = """
import os, sys, torch, torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace, _dump_fr_trace_json
dist.init_process_group("gloo")
rank = dist.get_rank()
dist.all_reduce(torch.ones(10))
if rank == 0:
    dist.all_reduce(torch.ones(4), async_op=True)
open(os.path.join(sys.argv[1], f"trace_rank_{rank}"), "wb").write(_dump_fr_trace())
open(os.path.join(sys.argv[2], f"trace_rank_{rank}.json"), "wb").write(_dump_fr_trace_json())
os._exit(0)
"""


def test_dumps_that_pytorch_wrote_are_read_as_pickle_reads_them(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "100")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "d").mkdir()
    (tmp_path / "json").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, tmp_path / "job.py", tmp_path / "d", tmp_path / "json"], check=True, timeout=300
    )
    for file in (tmp_path / "d").glob("trace*"):
        assert load(file, file.read_bytes()) == pickle.loads(file.read_bytes())
    report = auto([tmp_path / "d"], tmp_path / "t")
    # Of the first operation a worker thread may still have to note the end.
    stuck = [note for note in report.notes if note.startswith("not completed")]
    assert stuck[-1].endswith("scheduled on ranks [0], not called on ranks [1]")
    auto(
        [tmp_path / "json"], tmp_path / "j"
    )  # a moment later: rank 1 may have gone, which ends what waited for it
    launches = [Trace(tmp_path / out).read("spans", ["rank", "launch_ns"]) for out in ("t", "j")]
    assert launches[0].equals(launches[1])


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"version": "2.10", "entries": [Evil()]}, 4),
        pickle.dumps(Evil(), 0),
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # a bytearray of a tebibyte
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        b"\x80\x02]r\xff\xff\xff\xff.",  # a memo of 2^32 places
        b"\x80\x02}]K\x01s.",  # a list as key
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
        b"(" * 100_000,
        b"\x80\x02\x8b" + struct.pack("<i", 4000) + b"\xff" * 4000 + b".",  # an integer of 32,000 bits
        b"",
    ],
    ids=["reduce", "global", "bytearray", "string", "memo", "key", "deep", "marks", "integer", "empty"],
)
def test_a_hostile_pickle_is_refused_and_does_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace_rank_0").write_bytes(content)
    with pytest.raises(InputError, match=r"trace_rank_0 .*(dump|version)"):
        convert(find_format("flight-recorder"), [tmp_path / "trace_rank_0"], tmp_path / "t")
    assert [p.name for p in tmp_path.iterdir()] == ["trace_rank_0"]


def test_shared_lists_are_counted_once_however_often_they_are_shared(tmp_path):
    """Lists in lists in lists, each a thousand times the same: a billion extents, kilobytes of file."""
    shape = [1] * 60
    sizes = [shape] * 1000
    one = entry(1)
    one["input_sizes"] = sizes
    dump(tmp_path / "d", 0, [one] * 1000, world=1)
    report = run(tmp_path / "d", tmp_path / "t")
    assert report.collectives == {"all_reduce": 1000}
