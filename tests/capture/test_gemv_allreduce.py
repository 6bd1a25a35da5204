"""The fused kernel's protocol, read off its own probe records."""

import json

import numpy as np
import pytest

from eidola.capture import GemvAllReduce, capture_kernel
from eidola.capture.fused.cpu import run
from eidola.capture.host import build
from eidola.capture.records import KINDS, RECORD
from eidola.schemas import CaptureError, MissingError, UsageError

PHASE_BEGIN, DATA, FLAG = KINDS["phase_begin"], KINDS["data_write"], KINDS["flag_write"]
WAIT_BEGIN, WAIT_END = KINDS["wait_begin"], KINDS["wait_end"]

SHAPES = [
    GemvAllReduce(gpus=2, rows=512, columns=64, workgroups=4, tile_rows=16),
    GemvAllReduce(gpus=4, rows=1024, columns=96, workgroups=3, tile_rows=32, iterations=5),
    GemvAllReduce(gpus=3, rows=3 * 50, columns=7, workgroups=2, tile_rows=16),  # uneven tiles and columns
    GemvAllReduce(gpus=2, rows=8, columns=2, workgroups=4, tile_rows=4, iterations=1),  # idle workgroups
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"{s.gpus}x{s.rows}x{s.columns}")
def spec_and_run(request, c_compiler):
    return request.param, run(request.param)


def of_kind(records, *kinds):
    return records[np.isin(records["kind"], kinds)]


def test_every_rank_has_the_plain_product_of_every_iteration(spec_and_run):
    spec, result = spec_and_run
    inputs = spec.inputs()
    matrix, vectors = (np.hstack([rank[name] for rank in inputs]) for name in ("matrix", "vectors"))
    expected = vectors.astype(np.float64) @ matrix.astype(np.float64).T
    for rank in range(spec.gpus):
        assert np.array_equal(result.outputs[rank], expected)


def test_iterations_differ_so_that_a_stale_result_would_show(spec_and_run):
    spec, result = spec_and_run
    if spec.iterations > 1:
        assert not np.array_equal(result.outputs[0, 0], result.outputs[0, 1])


def test_remote_slices_come_before_the_own_one(spec_and_run):
    spec, result = spec_and_run
    for rank in result.records:
        for records in rank:
            names = of_kind(records, PHASE_BEGIN)["name"]
            assert names.tolist() == [0, 1, 2, 3, 4] * spec.iterations
            local = np.flatnonzero((records["kind"] == PHASE_BEGIN) & (records["name"] == 1))
            ends = np.flatnonzero((records["kind"] == KINDS["phase_end"]) & (records["name"] == 1))
            assert (ends == local + 1).all()  # nothing is written to a peer while the own slice is computed


def test_one_flag_a_peer_a_workgroup_a_phase(spec_and_run):
    spec, result = spec_and_run
    for rank, workgroups in enumerate(result.records):
        for number, records in enumerate(workgroups):
            flags = of_kind(records, FLAG)
            expected = [
                ((rank + hop) % spec.gpus, (region * spec.gpus + rank) * spec.workgroups + number, epoch)
                for epoch in range(1, spec.iterations + 1)
                for region in (0, 1)
                for hop in range(1, spec.gpus)
            ]
            assert flags[["peer", "flag", "value"]].tolist() == expected


def test_data_precede_their_flag_and_cover_each_slice_once(spec_and_run):
    spec, result = spec_and_run
    rows = spec.rows // spec.gpus
    covered = np.zeros((2, spec.gpus, spec.gpus, rows), int)  # region, writer, peer, row
    for rank, workgroups in enumerate(result.records):
        for records in workgroups:
            pending: dict[int, int] = {}
            for record in of_kind(records, DATA, FLAG):
                if record["kind"] == FLAG:
                    # All of this peer's data of the phase are before its flag; the next flag is another's.
                    assert pending.pop(record["peer"], 0) <= record["time"]
                    continue
                pending[record["peer"]] = record["time"]
                first = record["extra"] // 4 - rank * rows
                covered[record["name"], rank, record["peer"], first : first + record["value"] // 4] += 1
            assert not pending
    off_diagonal = ~np.eye(spec.gpus, dtype=bool)
    assert (covered[:, off_diagonal] == spec.iterations).all()
    assert (covered[:, ~off_diagonal] == 0).all()


def test_every_wait_saw_a_flag_that_was_raised_before(spec_and_run):
    spec, result = spec_and_run
    raised = {
        (int(r["peer"]), int(r["flag"]), int(r["value"])): int(r["time"])
        for rank in result.records
        for records in rank
        for r in of_kind(records, FLAG)
    }
    waits = 0
    for rank, workgroups in enumerate(result.records):
        for records in workgroups:
            begins, ends = of_kind(records, WAIT_BEGIN), of_kind(records, WAIT_END)
            assert begins[["flag", "value"]].tolist() == ends[["flag", "value"]].tolist()
            assert (begins["time"] <= ends["time"]).all()
            assert (ends["extra"] >= 1).all()
            for end in ends:
                assert raised[rank, int(end["flag"]), int(end["value"])] <= end["time"]
            waits += len(ends)
    assert waits == len(raised) == 2 * spec.iterations * spec.gpus * (spec.gpus - 1) * spec.workgroups


def test_records_of_a_workgroup_are_in_order_of_time(spec_and_run):
    for rank in spec_and_run[1].records:
        for records in rank:
            assert (np.diff(records["time"].astype(np.int64)) >= 0).all()


def test_a_small_buffer_keeps_its_first_records_and_counts_the_rest(c_compiler):
    whole = GemvAllReduce(gpus=2, rows=512, columns=64, workgroups=2, tile_rows=16)
    small = GemvAllReduce(gpus=2, rows=512, columns=64, workgroups=2, tile_rows=16, buffer_records=10)
    full, cut = run(whole), run(small)
    assert (cut.emitted == full.emitted).all()
    for rank in range(2):
        for number in range(2):
            kept = cut.records[rank][number]
            assert len(kept) == 10
            what = ["kind", "name", "peer", "flag"]
            assert kept[what].tolist() == full.records[rank][number][:10][what].tolist()


def test_a_flag_that_never_comes_is_named(c_compiler):
    spec = GemvAllReduce(gpus=2, rows=64, columns=8, workgroups=2, tile_rows=16, mute_rank=1, deadline_s=0.2)
    # Rank 0 waits for the mute rank's partials, and so rank 1 for rank 0's results: either may be first.
    first = r"rank 0, workgroup 0 .* flag 2 \(partials from rank 1\)"
    second = r"rank 1, workgroup 0 .* flag 4 \(results from rank 0\)"
    with pytest.raises(CaptureError, match=f"({first}|{second}): expected 1, seen 0"):
        run(spec)


def test_no_compiler_is_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingError, match=r"no C compiler.*sample_traces/gemv_allreduce_host_4"):
        build.compiler()


def test_the_built_library_is_kept_in_the_users_cache(c_compiler, user_cache):
    run(SHAPES[3])
    before = {f: f.stat().st_mtime_ns for f in user_cache.rglob("*.so")}
    run(SHAPES[3])
    assert before
    assert before == {f: f.stat().st_mtime_ns for f in user_cache.rglob("*.so")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": 1}, "at least 2"),
        ({"rows": 10}, "multiple of gpus"),
        ({"columns": 3}, "columns is 3"),
        ({"columns": 2**21}, "exact sums"),
        ({"workgroups": 0}, "workgroups is 0"),
        ({"deadline_s": 0}, "deadline_s"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        GemvAllReduce(**change)


def test_the_raw_capture_is_complete_and_says_how_it_was_made(c_compiler, tmp_path):
    result = capture_kernel(SHAPES[1], tmp_path / "raw", anonymous=True)
    manifest = json.loads((tmp_path / "raw" / "capture.json").read_text())
    assert manifest["machine"]["host"] is None
    assert manifest["oversubscribed"] == (manifest["machine"]["cores"] < 4)
    assert "--gpus 4 -m 1024 -k 96" in manifest["command"]
    assert manifest["record_cost_ns"] > 0
    for entry, buffers in zip(manifest["ranks"], result.records, strict=True):
        kept = np.frombuffer((tmp_path / "raw" / entry["file"]).read_bytes(), RECORD)
        assert np.array_equal(kept, np.concatenate(buffers))
        assert entry["cpu_ns"] > 0
        assert entry["start_ns"] < entry["end_ns"]


def test_an_output_that_is_taken_is_left_alone(c_compiler, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is no raw capture"):
        capture_kernel(SHAPES[3], tmp_path / "mine", overwrite=True)
    capture_kernel(SHAPES[3], tmp_path / "raw")
    with pytest.raises(UsageError, match="--overwrite"):
        capture_kernel(SHAPES[3], tmp_path / "raw")
    capture_kernel(SHAPES[0], tmp_path / "raw", overwrite=True)
    assert json.loads((tmp_path / "raw" / "capture.json").read_text())["parameters"]["rows"] == 512
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "raw"]
