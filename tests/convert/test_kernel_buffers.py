"""What profilers inside kernels leave (NPKit, FlashInfer, Mirage, iris), written here from their definitions."""

import json
import struct
from itertools import pairwise

import numpy as np
import pytest

from eidola.convert import auto, convert, find_format
from eidola.schemas import InputError, Trace, check

HEADER = """
#define NPKIT_EVENT_INVALID 0x0
#define NPKIT_EVENT_NET_SEND_ENTRY 0x2F
#define NPKIT_EVENT_NET_SEND_EXIT 0x30
#define NPKIT_EVENT_SEND_ENTRY 0X1F
#define NPKIT_EVENT_SEND_EXIT 0x20
#define NPKIT_EVENT_TIME_SYNC_GPU                               0x33
#define NPKIT_EVENT_TIME_SYNC_CPU                               0x34
"""
SEND, SENT, NET, NET_DONE, GPU_SYNC, CPU_SYNC = 0x1F, 0x20, 0x2F, 0x30, 0x33, 0x34
T0 = 1_700_000_000_000_000_000


def record(number, timestamp, size=0, slot=0):
    """An NpKitEvent: id u8, size u32, reserved u24, timestamp u64, little-endian."""
    return struct.pack("<BI", number, size) + slot.to_bytes(3, "little") + struct.pack("<Q", timestamp)


def npkit(folder, rank=0, header=HEADER):
    """One send of a kernel at 1.5 GHz: 3,000 cycles from 1,500 cycles after the sync; and two of a proxy."""
    folder.mkdir(exist_ok=True)
    gpu = [(CPU_SYNC, T0), (GPU_SYNC, 7_000_000), (SEND, 7_001_500), (SENT, 7_004_500, 4096)]
    cpu = [
        (NET, T0 + 10, 0, 1),
        (NET, T0 + 20, 0, 2),
        (NET_DONE, T0 + 50, 100, 1),
        (NET_DONE, T0 + 90, 200, 2),
    ]
    texts = {"cpu_clock_period_num": "1", "cpu_clock_period_den": "1000000000", "gpu_clock_rate": "1500000"}
    for name, text in texts.items():
        (folder / f"{name}_rank_{rank}").write_text(text)
    (folder / f"gpu_events_rank_{rank}_buf_0").write_bytes(b"".join(record(*row) for row in gpu))
    (folder / f"gpu_events_rank_{rank}_buf_1").write_bytes(b"")
    (folder / f"cpu_events_rank_{rank}_channel_3").write_bytes(b"".join(record(*row) for row in cpu))
    if header:
        (folder / "npkit_event.h").write_text(header)
    return folder


def spans(trace):
    rows = Trace(trace).read("spans").to_pylist()
    return [(r["lane"], r["name"], r["start_ns"], r["end_ns"]) for r in rows]


def test_npkits_gpu_records_are_put_on_the_hosts_clock(tmp_path):
    for rank in range(2):
        npkit(tmp_path / "d", rank)
    report = auto([tmp_path / "d"], tmp_path / "t")
    assert check(tmp_path / "t") == []
    assert report.ranks == [0, 1]
    assert report.dropped == {}
    assert spans(tmp_path / "t")[:3] == [
        ("proxy channel 3 slot 1", "net_send", T0 + 10, T0 + 50),
        ("proxy channel 3 slot 2", "net_send", T0 + 20, T0 + 90),
        ("buffer 0", "send", T0 + 1000, T0 + 3000),
    ]
    counters = Trace(tmp_path / "t").read("counters").to_pylist()
    assert [c["value"] for c in counters if c["rank"] == 0] == [100.0, 200.0, 4096.0]


def test_npkits_ids_mean_nothing_without_the_builds_header(tmp_path):
    with pytest.raises(InputError, match=r"has no npkit_event\.h: ids of events differ between builds; copy"):
        convert(find_format("npkit"), [npkit(tmp_path / "d", header="")], tmp_path / "t")
    with pytest.raises(InputError, match="defines no NPKIT_EVENT_TIME_SYNC_GPU"):
        convert(find_format("npkit"), [npkit(tmp_path / "d", header="#define X 1")], tmp_path / "t")


MSCCLPP = """
#define NPKIT_EVENT_TIME_SYNC_GPU 0x1
#define NPKIT_EVENT_TIME_SYNC_CPU 0x2
#define NPKIT_EVENT_EXECUTOR_INIT_ENTRY 0x3
#define NPKIT_EVENT_EXECUTOR_INIT_EXIT 0x4
#define NPKIT_EVENT_EXECUTOR_OP_BASE_ENTRY 0x5
#define NPKIT_EVENT_EXECUTOR_OP_BASE_EXIT 0x18
"""


def test_operations_of_mscclpps_executor_are_counted_from_their_base(tmp_path):
    folder = npkit(tmp_path / "d", header="")
    (folder / "npkit_event.hpp").write_text(MSCCLPP)
    rows = [
        (2, T0),
        (1, 7_000_000),
        (5 + 3, 7_001_500),
        (0x18 + 3, 7_004_500, 4096),
        (3, 7_006_000),
        (4, 7_007_500),
    ]
    (folder / "gpu_events_rank_0_buf_0").write_bytes(b"".join(record(*row) for row in rows))
    (folder / "cpu_events_rank_0_channel_3").unlink()
    report = auto([folder], tmp_path / "t")
    assert report.dropped == {}
    assert spans(tmp_path / "t") == [
        ("buffer 0", "executor_op_3", T0 + 1000, T0 + 3000),
        ("buffer 0", "executor_init", T0 + 4000, T0 + 5000),
    ]


def test_what_npkit_began_and_never_ended_is_counted(tmp_path):
    npkit(tmp_path / "d")
    with (tmp_path / "d" / "gpu_events_rank_0_buf_1").open("ab") as file:
        file.write(record(SEND, 1) + record(CPU_SYNC, T0) + record(SEND, 5) + record(0x77, 9) + b"cut")
    report = convert(find_format("npkit"), [tmp_path / "d"], tmp_path / "t")
    assert report.dropped[0] == {
        "record before its buffer's first clock record": 1,
        "begin without an end": 1,
        "record of an id that the header does not define": 1,
        "record that is cut": 1,
    }


def flash(block_group, event, kind, sm):
    return sm << 24 | block_group << 12 | event << 2 | kind


def mirage(block_group, event, kind, number):
    return number << 22 | block_group << 11 | event << 2 | kind


def buffer(encode, blocks=3, groups=2, rounds=4, first=2**32 - 5_000, gap=2_000):
    """Entries as kernels write them; each group begins event 5 and ends it, over and over, across the wrap."""
    entries = np.zeros((1 + blocks * groups * (2 * rounds + 3), 2), np.uint32)
    entries[0] = blocks, groups
    for place in range(blocks * groups):
        for k in range(2 * rounds):
            at = 1 + k * blocks * groups + place
            entries[at] = encode(place, 5, k % 2, 7), (first + place * 100 + k * gap) % 2**32
    return entries


@pytest.mark.parametrize(("encode", "said"), [(flash, "FlashInfer's"), (mirage, "Mirage's")])
def test_tags_are_cut_as_their_places_tell_and_the_timer_goes_on_where_it_wraps(encode, said, tmp_path):
    (tmp_path / "rank0.bin").write_bytes(buffer(encode).tobytes())
    np.save(tmp_path / "rank1.npy", buffer(encode).view(np.uint64).ravel())
    (tmp_path / "rank1.npy.events").write_text("a\nb\nc\nd\ne\ngemm\n")
    report = auto([tmp_path], tmp_path / "t")
    assert check(tmp_path / "t") == []
    assert report.ranks == [0, 1]
    assert sum(f"tags are {said}" in note for note in report.notes) == 2
    rows = Trace(tmp_path / "t").read("spans").to_pylist()
    assert len(rows) == 2 * 6 * 4
    assert {r["end_ns"] - r["start_ns"] for r in rows} == {2_000}
    assert max(r["end_ns"] for r in rows) - min(r["start_ns"] for r in rows) == 7 * 2_000 + 5 * 100
    assert {(r["rank"], r["name"]) for r in rows} == {(0, "event 5"), (1, "gemm")}
    assert {r["workgroup"] for r in rows} == {0, 1, 2}


def test_an_array_that_is_shorter_than_its_head_says_is_told(tmp_path):
    file = tmp_path / "rank0.npy"
    np.save(file, buffer(mirage, rounds=2).view(np.uint64).ravel())
    file.write_bytes(file.read_bytes()[: -8 * 6 * 5])  # the unused end, and the second round
    report = convert(find_format("flashinfer"), [file], tmp_path / "t")
    assert any("of the 344 bytes that it promises" in note for note in report.notes)


def test_blocks_that_begin_on_both_sides_of_a_wrap_stay_together(tmp_path):
    (tmp_path / "rank0.bin").write_bytes(buffer(flash, first=2**32 - 250, rounds=1).tobytes())
    convert(find_format("flashinfer"), [tmp_path / "rank0.bin"], tmp_path / "t")
    rows = Trace(tmp_path / "t").read("spans").to_pylist()
    starts = sorted(r["start_ns"] for r in rows)
    assert [b - a for a, b in pairwise(starts)] == [100] * 5
    assert starts[0] >= 0


def test_other_bytes_are_no_profiler_buffer(tmp_path):
    entries = buffer(flash)
    entries[1:, 0] = 0xFFFFFFFF
    (tmp_path / "rank0.bin").write_bytes(entries.tobytes())
    with pytest.raises(InputError, match="have tags that fit their places in any known layout"):
        convert(find_format("flashinfer"), [tmp_path / "rank0.bin"], tmp_path / "t")
    (tmp_path / "rank0.bin").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match="no buffer of 8-byte entries that begins with blocks and groups"):
        convert(find_format("flashinfer"), [tmp_path / "rank0.bin"], tmp_path / "t")


def iris_event(name, ts, dur=None, rank=0, target=1, **args):
    told = {
        "name": name,
        "cat": "iris",
        "ts": ts,
        "pid": rank,
        "tid": "XCC0_CU3",
        "args": {"program_id": 4, "pid_m": 0, "pid_n": 0, "target_rank": target, "address": "0x7f00", **args},
    }
    return told | ({"ph": "i", "s": "t"} if dur is None else {"ph": "X", "dur": dur})


def iris(path, events, rank=0, **metadata):
    document = {
        "traceEvents": [*events, {"name": "process_name", "ph": "M", "pid": rank, "args": {"name": "Rank"}}],
        "displayTimeUnit": "ns",
        "metadata": {
            "schema_version": "1.1",
            "num_events": len(events),
            "rank": rank,
            "world_size": 2,
            "time_unit": "raw cycles (s_memrealtime @ 100MHz)",
            "gpu_device_name": "AMD Instinct MI300X",
            "gpu_cu_count": 304,
            **metadata,
        },
    }
    path.write_text(json.dumps(document, indent=2))


def test_half_a_surrogate_pair_in_iriss_texts_becomes_a_question_mark(tmp_path):
    for rank in range(2):  # written as an escape
        iris(tmp_path / f"t_rank{rank}.json", [iris_event("\ud800x", 10, 3, rank)], rank, hostname="\ud800h")
    convert(find_format("iris"), [tmp_path], tmp_path / "t")
    trace = Trace(tmp_path / "t")
    assert trace.read("spans")["name"].to_pylist() == ["?x", "?x"]
    assert trace.read("ranks")["host"].to_pylist() == ["?h", "?h"]


def test_iriss_writes_to_ranks_without_a_file_are_counted_and_left_out(tmp_path):
    events = [iris_event("put", 10 + peer, 3, 0, peer, payload_size=8) for peer in (1, 2, 2)]
    for rank in range(2):
        iris(
            tmp_path / f"t_rank{rank}.json",
            events if rank == 0 else [iris_event("get", 10, 3, 1, 0)],
            rank,
            world_size=3,
        )
    report = convert(find_format("iris"), [tmp_path], tmp_path / "t")
    assert report.dropped == {0: {"write to a rank of which no file was given": 2}}
    assert Trace(tmp_path / "t").read("writes")["peer"].to_pylist() == [1]
    assert check(tmp_path / "t") == []


def test_iris_stores_are_writes_with_peer_time_and_size(tmp_path):
    for rank in range(2):
        events = [
            iris_event("store", 1000, 25, rank, 1 - rank, payload_size=4096),
            iris_event("atomic_add", 1100, 5, rank, 1 - rank, payload_size=4),
            iris_event("store", 1200, 5, rank, rank, payload_size=4),
            iris_event("wait", 1300, 50, rank),
            iris_event("put", 1400, None, rank, 1 - rank),
        ]
        iris(tmp_path / f"trace_rank{rank}.json", events, rank)
    report = auto([tmp_path], tmp_path / "t")
    assert check(tmp_path / "t") == []
    rows = [r for r in Trace(tmp_path / "t").read("writes").to_pylist() if r["rank"] == 0]
    assert [(r["peer"], r["workgroup"], r["issue_ns"], r["size_bytes"], r["kind"]) for r in rows] == [
        (1, 4, 10_000, 4096, "data"),
        (1, 4, 11_000, 4, "atomic"),
    ]
    assert spans(tmp_path / "t")[0] == ("workgroup 4", "store", 10_000, 10_250)
    assert report.dropped[0] == {"write of unknown size (kept as a phase)": 1}
    assert Trace(tmp_path / "t").read("ranks")["model"].to_pylist()[0] == "AMD Instinct MI300X"


def test_a_merged_iris_trace_holds_all_ranks(tmp_path):
    iris(
        tmp_path / "t.json",
        [iris_event("put", 5, 9, r, 1 - r, payload_size=1) for r in range(2)],
        aligned="x",
    )
    report = convert(find_format("iris"), [tmp_path / "t.json"], tmp_path / "t")
    assert report.ranks == [0, 1]
    assert any("timers were not aligned" in note for note in report.notes)


def test_an_iris_trace_that_does_not_say_its_timers_rate_is_refused(tmp_path):
    iris(tmp_path / "t.json", [iris_event("put", 5, 9)], time_unit="cycles")
    with pytest.raises(InputError, match="does not say at which rate its timer ticks"):
        convert(find_format("iris"), [tmp_path / "t.json"], tmp_path / "t")
