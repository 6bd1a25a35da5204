"""The CSV list of peer writes, read back against the trace's own table."""

import csv
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.convert.export import export
from eidola.schemas import Trace, TraceWriter
from eidola.schemas.errors import InputError

SAMPLE = Path(__file__).resolve().parents[3] / "sample_traces/gemv_allreduce_host_4/trace.eidola"


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_list_is_the_traces_writes_in_order_of_time(tmp_path):
    report = export("writes", SAMPLE, tmp_path / "w.csv")
    rows = read(tmp_path / "w.csv")
    times = [int(row["wakeup_ns"]) for row in rows]
    assert times == sorted(times)
    assert times[0] >= 0
    trace = Trace(SAMPLE)
    origin = min(trace.read("spans", ["start_ns"])["start_ns"].to_pylist())
    assert f"{origin} ns" in report.notes[0]
    names = ["source_gpu", "destination_gpu", "size_bytes", "value", "kind", "region", "offset_bytes"]
    found = sorted((int(r["wakeup_ns"]) + origin, *(r[name] for name in names)) for r in rows)
    text = {None: ""}
    assert found == sorted(
        (w["issue_ns"], *(str(text.get(w[name], w[name])) for name in ["rank", "peer", *names[2:]]))
        for w in trace.read("writes").to_pylist()
    )


def test_buffers_of_a_destination_do_not_overlap_and_hold_their_writes(tmp_path):
    export("writes", SAMPLE, tmp_path / "w.csv")
    bases, ends = {}, {}
    for row in read(tmp_path / "w.csv"):
        key = (row["destination_gpu"], row["region"])
        base = int(row["address"], 16) - int(row["offset_bytes"] or 64 * int(row["flag"]))
        assert bases.setdefault(key, base) == base
        ends[key] = max(ends.get(key, 0), int(row["address"], 16) + int(row["size_bytes"]))
    spans = sorted((key[0], base, ends[key]) for key, base in bases.items())
    for (gpu, _, end), (other, base, _) in pairwise(spans):
        assert gpu != other or end <= base
    assert len(bases) > len({gpu for gpu, _ in bases})  # more than one buffer a destination


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=5))
def test_names_with_quotes_commas_and_newlines_come_back(names):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with TraceWriter(path / "t.eidola") as writer:
            for rank in (0, 1):
                writer.write("ranks", rank, {"backend": ["gpu"]})
            writer.write("writes", 0, {
                "peer": [1] * len(names), "issue_ns": range(len(names)), "size_bytes": [4] * len(names),
                "region": names, "offset_bytes": [0] * len(names), "kind": ["data"] * len(names),
                "origin": ["measured"] * len(names),
            })  # fmt: skip
        export("writes", path / "t.eidola", path / "w.csv")
        assert [row["region"] for row in read(path / "w.csv")] == names
        assert len({row["address"] for row in read(path / "w.csv")}) == len(set(names))


def test_a_trace_without_writes_is_refused_by_name(tmp_path):
    with TraceWriter(tmp_path / "t.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
    with pytest.raises(InputError, match="no peer writes"):
        export("writes", tmp_path / "t.eidola", tmp_path / "w.csv")
    assert not (tmp_path / "w.csv").exists()
