"""The same said in other ways gives the same trace: order of keys, members of gzip, parts of a job."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from eidola.convert import auto, captured, convert, find_format
from eidola.schemas import TRACE_TABLES, InputError, Trace, check

from . import test_chakra as chakra
from . import test_nccl_texts as texts
from . import test_rocprofv3 as rocprof

SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"


def rows(path):
    return {name: Trace(path).read(name).to_pylist() for name in TRACE_TABLES}


def test_rocprofv3_may_name_its_operations_behind_its_records(tmp_path):
    document = rocprof.rank_document(10, agent=102)
    for name, order in (("usual", 1), ("turned", -1)):
        (tool,) = document["rocprofiler-sdk-tool"]
        turned = {"rocprofiler-sdk-tool": [dict(list(tool.items())[::order])]}
        (tmp_path / name).mkdir()
        rocprof.save(tmp_path / name / "rank0_results.json", turned)
        convert(find_format("rocprofv3"), [tmp_path / name], tmp_path / f"{name}.eidola")
    assert rows(tmp_path / "usual.eidola") == rows(tmp_path / "turned.eidola")


@pytest.mark.parametrize("first", [0, 1, 7])
def test_a_log_is_recognised_whose_first_member_of_gzip_is_short(tmp_path, first):
    data = "".join(texts.line(i, 0, verbose=True) for i in range(4)).encode()
    (tmp_path / "plain").mkdir()
    texts.log(tmp_path / "plain", 0, data.decode())
    (tmp_path / "in").mkdir()
    packed = gzip.compress(data[:first]) + gzip.compress(data[first:])
    (tmp_path / "in" / "node-pid0.log").write_bytes(packed)
    auto([tmp_path / "plain"], tmp_path / "plain.eidola")
    auto([tmp_path / "in"], tmp_path / "packed.eidola")
    assert rows(tmp_path / "plain.eidola") == rows(tmp_path / "packed.eidola")


def test_one_rank_of_several_that_sends_to_another_is_a_whole_trace(tmp_path):
    (tmp_path / "in").mkdir()
    chakra.write(tmp_path / "in", chakra.METADATA, *chakra.STEP)
    convert(find_format("chakra"), [tmp_path / "in"], tmp_path / "out")
    assert [p for p in check(tmp_path / "out") if p.severity == "error"] == []
    sizes = {
        m["communicator"]: m["group_size"] for m in Trace(tmp_path / "out").read("communicators").to_pylist()
    }
    sends = [c for c in Trace(tmp_path / "out").read("collectives").to_pylist() if c["operation"] == "send"]
    assert [(c["peer"], sizes[c["communicator"]]) for c in sends] == [(1, 2)]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        ('"exit_code": 1e999', "a number that is not finite"),
        ('"rank": 1.5', "a rank 1.5"),
        ('"rank": 1e999', "a rank inf"),
        ('"rank": true', "a rank True"),
    ],
)
def test_odd_numbers_in_a_captures_manifest_are_refused(tmp_path, number, what):
    shutil.copytree(SAMPLES / "gloo_fsdp_2" / "raw", tmp_path / "raw")
    manifest = tmp_path / "raw" / "capture.json"
    key = number.split()[0]
    manifest.write_text(re.sub(rf"{key} \d+", number, manifest.read_text()))
    with pytest.raises(InputError, match=rf"capture\.json (has|holds) {what}"):
        captured(tmp_path / "raw", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize("name", ["rank00000.0.calls.ring", "rank00000.0.marks.ring"])
def test_records_that_moved_within_a_ring_are_refused_and_missing_ones_told(tmp_path, name):
    shutil.copytree(SAMPLES / "gloo_fsdp_2" / "raw", tmp_path / "raw")
    ring = tmp_path / "raw" / name
    data = ring.read_bytes()
    ring.write_bytes(data[:-256] + bytes(128) + data[-128:])
    trace = Trace(captured(tmp_path / "raw", tmp_path / "out"))
    assert trace.notes["notes"] == [
        "rank 0: 1 records of its rings are not there: never finished, or damaged"
    ]
    ring.write_bytes(data[:-256] + data[-128:] + data[-256:-128])
    with pytest.raises(InputError, match="records that no recorder wrote"):
        captured(tmp_path / "raw", tmp_path / "again")


def test_probe_records_of_no_known_kind_are_refused_and_phases_without_an_end_told(tmp_path):
    shutil.copytree(SAMPLES / "embedding_alltoall_host_2" / "raw", tmp_path / "raw")
    record = json.loads((tmp_path / "raw" / "capture.json").read_text())["record"]
    dtype = np.dtype([tuple(field) for field in record["fields"]])
    file = tmp_path / "raw" / "rank00000.probes.bin"
    rows = np.fromfile(file, dtype)
    first_end = np.flatnonzero(rows["kind"] == record["kinds"]["phase_end"])[0]
    rows["kind"][first_end] = record["kinds"]["phase_begin"]
    rows.tofile(file)
    assert Trace(captured(tmp_path / "raw", tmp_path / "out")).notes["phases_without_an_end"] == {"0": 2}
    rows["kind"][0] = 99
    rows.tofile(file)
    with pytest.raises(InputError, match="1 records of no known kind"):
        captured(tmp_path / "raw", tmp_path / "again")


def test_a_job_of_more_ranks_than_there_can_be_is_refused_before_its_missing_ones_are_listed(
    tmp_path, write, make
):
    trace = write("rank0.json", make.document(make.rank_events(), rank=0, world=10**12))
    with pytest.raises(InputError, match="more than 1048576 ranks"):
        auto([trace], tmp_path / "out")
