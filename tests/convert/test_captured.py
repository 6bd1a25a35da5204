import json
import shutil
from pathlib import Path

import pytest

from eidola.convert.captured import captured
from eidola.schemas import InputError, Trace, UsageError, check

SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"
KERNELS = ["gemv_allreduce_host_2", "gemv_allreduce_host_4"]
SCATTERS = ["embedding_alltoall_host_2", "gemm_alltoall_host_2"]
# Which phase writes which region, and which phases wait.
WRITING = {
    "gemv-allreduce": {("partials", "remote_tiles"), ("results", "reduce")},
    "embedding-alltoall": {("embeddings", "remote_tiles")},
    "gemm-alltoall": {("outputs", "remote_tiles")},
}
WAITING = {
    "gemv-allreduce": {"wait_partials", "wait_results"},
    "embedding-alltoall": {"wait_embeddings"},
    "gemm-alltoall": {"wait_outputs"},
}


@pytest.fixture(params=[*KERNELS, *SCATTERS])
def raw(request):
    return SAMPLES / request.param / "raw"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(SAMPLES / KERNELS[0] / "raw", tmp_path / "raw")


def edit(folder, change):
    file = folder / "capture.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def test_the_bundled_trace_is_what_the_converter_makes_of_the_bundled_raw_capture(raw, tmp_path):
    made, bundled = Trace(captured(raw, tmp_path / "t.eidola")), Trace(raw.with_name("trace.eidola"))
    assert made.notes == bundled.notes
    for table in ("ranks", "links", "clocks", "spans", "writes", "waits"):
        assert made.read(table).equals(bundled.read(table))


def test_the_trace_keeps_to_the_schema(raw, tmp_path):
    assert not [p for p in check(captured(raw, tmp_path / "t.eidola")) if p.severity == "error"]


@pytest.mark.parametrize("name", KERNELS)
def test_counts_follow_from_the_kernels_shape(name):
    trace = Trace(SAMPLES / name / "trace.eidola")
    p = trace.notes["parameters"]
    n, workgroups, iterations = p["gpus"], p["workgroups"], p["iterations"]
    tiles = p["rows"] // n // p["tile_rows"]
    writes = trace.read("writes").to_pandas()
    assert (
        (writes.kind == "flag").sum()
        == trace.read("waits").num_rows
        == 2 * iterations * n * (n - 1) * workgroups
    )
    assert (writes.kind == "data").sum() == 2 * iterations * n * (n - 1) * tiles
    assert writes[writes.kind == "data"].size_bytes.sum() == 2 * iterations * (n - 1) * p["rows"] * 4
    assert trace.read("spans").num_rows == 5 * iterations * n * workgroups


def test_counts_of_a_scatter_follow_from_its_shape():
    embedding, gemm = (Trace(SAMPLES / name / "trace.eidola") for name in SCATTERS)
    p, q = embedding.notes["parameters"], gemm.notes["parameters"]
    sent = {
        embedding: (p["batch"] // p["tile_samples"], p["batch"] * p["tables"] * p["dimension"]),
        gemm: (q["rows"] // q["tile_rows"] * q["columns"] // q["tile_columns"], q["rows"] * q["columns"]),
    }
    for trace, (tiles, words) in sent.items():
        n, workgroups, iterations = (
            trace.notes["parameters"][k] for k in ("gpus", "workgroups", "iterations")
        )
        writes = trace.read("writes").to_pandas()
        flags = iterations * n * (n - 1) * workgroups
        assert (writes.kind == "flag").sum() == trace.read("waits").num_rows == flags
        data = writes[writes.kind == "data"]
        assert len(data) == iterations * (n - 1) * tiles
        assert data.size_bytes.sum() == iterations * (n - 1) * words * 4
        assert trace.read("spans").num_rows == 3 * iterations * n * workgroups


def test_writes_and_waits_lie_in_the_phase_that_they_name(raw):
    trace = Trace(raw.with_name("trace.eidola"))
    spans = trace.read("spans").to_pandas().set_index(["rank", "span"])
    writes = trace.read("writes").to_pandas().join(spans.add_suffix("_span"), on=["rank", "span"])
    assert (writes.workgroup == writes.workgroup_span).all()
    assert ((writes.start_ns_span <= writes.issue_ns) & (writes.issue_ns <= writes.end_ns_span)).all()
    data = writes[writes.kind == "data"]
    kernel = trace.notes["kernel"]
    assert set(zip(data.region, data.name_span, strict=True)) == WRITING[kernel]
    waits = trace.read("waits").to_pandas().join(spans.add_suffix("_span"), on=["rank", "span"])
    assert set(waits.name_span) == WAITING[kernel]
    assert ((waits.start_ns_span <= waits.start_ns) & (waits.end_ns <= waits.end_ns_span)).all()


def test_a_host_capture_gives_no_rates(raw):
    trace = Trace(raw.with_name("trace.eidola"))
    links = trace.read("links").to_pandas()
    assert set(links.kind) == {"host_memory"}
    assert links.rate_bytes_per_s.isna().all()
    assert links.latency_ns.isna().all()
    assert set(trace.read("ranks").to_pandas().backend) == {"host"}
    assert "never link rates" in trace.notes["truth"]


def test_more_ranks_than_cores_is_noted():
    by_name = {name: Trace(SAMPLES / name / "trace.eidola").notes["oversubscribed"] for name in KERNELS}
    assert by_name == {"gemv_allreduce_host_2": False, "gemv_allreduce_host_4": True}


def test_samples_name_no_host_and_no_path():
    for file in SAMPLES.rglob("capture.json"):
        assert json.loads(file.read_text())["machine"]["host"] is None
        assert "/home" not in file.read_text()
        assert "/root" not in file.read_text()


def test_a_full_buffer_marks_its_workgroup_truncated_and_leaves_no_open_phase(copy, tmp_path):
    def cut(manifest):
        # Keep 20 of workgroup 0's records, as a buffer of 20 would have: phase 0 is then still open.
        entry = manifest["ranks"][0]
        file = copy / entry["file"]
        size = 32
        kept = entry["workgroups"][0]["kept"]
        data = file.read_bytes()
        file.write_bytes(data[: 20 * size] + data[kept * size :])
        entry["workgroups"][0]["kept"] = 20

    whole = Trace(captured(copy, tmp_path / "whole.eidola"))
    edit(copy, cut)
    trace = Trace(captured(copy, tmp_path / "cut.eidola"))
    emitted = 96
    assert trace.notes["truncated"] == [{"rank": 0, "workgroup": 0, "kept": 20, "emitted": emitted}]
    rows = trace.read("spans", ranks=[0]).to_pandas()
    of_first = rows[rows.workgroup == 0]
    before = whole.read("spans", ranks=[0]).to_pandas()
    assert of_first.name.tolist() == before[before.workgroup == 0].name.tolist()[: len(of_first)]
    assert trace.read("spans", ranks=[1]).equals(whole.read("spans", ranks=[1]))
    others = whole.read("writes", ranks=[0]).to_pandas().query("workgroup != 0").drop(columns="span")
    still = trace.read("writes", ranks=[0]).to_pandas().query("workgroup != 0").drop(columns="span")
    assert still.reset_index(drop=True).equals(others.reset_index(drop=True))


def test_damage_is_refused_by_name_and_leaves_nothing(copy, tmp_path):
    file = copy / "rank00001.probes.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"rank00001\.probes\.bin has \d+ bytes, not the"):
        captured(copy, tmp_path / "t.eidola")
    file.unlink()
    with pytest.raises(InputError, match=r"rank00001\.probes\.bin cannot be read"):
        captured(copy, tmp_path / "t.eidola")
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("phases"), "phases"),
        (lambda m: m.update(format=2), "upgrade"),
        (lambda m: m.update(kind="dream"), "kind 'dream'"),
        (lambda m: m.update(kind=["kernel"]), "holds kind"),
        (lambda m: m.update(kind="x" * 9000), "holds kind 'x{60}';"),
        (lambda m: m.pop("format"), "no format number"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copy, tmp_path, change, message):
    edit(copy, change)
    with pytest.raises(InputError, match=message):
        captured(copy, tmp_path / "t.eidola")


def test_a_folder_that_is_no_capture_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no raw capture"):
        captured(tmp_path, tmp_path / "t.eidola")


def test_an_existing_trace_is_kept(raw, tmp_path):
    captured(raw, tmp_path / "t.eidola")
    with pytest.raises(UsageError, match="exists"):
        captured(raw, tmp_path / "t.eidola")


@pytest.mark.parametrize(
    ("sample", "ranks", "operations"), [("gloo_ddp_2", 2, 11), ("gloo_ddp_4", 4, 11), ("gloo_fsdp_2", 2, 45)]
)
def test_bundled_gloo_jobs_convert_without_torch_and_all_their_collectives_match(
    tmp_path, sample, ranks, operations
):
    folder = SAMPLES / sample
    made, bundled = Trace(captured(folder / "raw", tmp_path / "t.eidola")), Trace(folder / "trace.eidola")
    for table in ("ranks", "clocks", "communicators", "spans", "dependencies", "collectives"):
        assert made.read(table).equals(bundled.read(table))
    assert_matched(made, ranks, operations)
    assert not [p for p in check(tmp_path / "t.eidola") if p.severity == "error"]


def test_a_capture_of_the_first_format_is_still_read(tmp_path):
    old = SAMPLES.parent / "tests" / "data" / "captured_torch_v1"
    trace = Trace(captured(old, tmp_path / "t.eidola"))
    assert_matched(trace, 2, 11)
    assert "step 4" in trace.read("spans")["name"].to_pylist()
    assert not [p for p in check(trace.path) if p.severity == "error"]


def assert_matched(trace, ranks, operations):
    what = ["sequence", "operation", "dtype", "size_bytes", "peer"]
    by_rank = [trace.read("collectives", what, ranks=[rank]).sort_by("sequence") for rank in range(ranks)]
    assert all(rows.equals(by_rank[0]) for rows in by_rank)
    assert by_rank[0].num_rows == operations
