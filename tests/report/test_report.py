"""What a report says, read from the file itself."""

import json
import re
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.replay import IDEAL
from eidola.report import report
from eidola.report.collectives import collectives
from eidola.report.flags import NOBODY, by_flag
from eidola.report.operation import Operation
from eidola.report.text import label, short, size_text, time_text
from eidola.report.traffic import matrix, traffic
from eidola.schemas import InputError, TraceWriter, UsageError
from eidola.schemas.intervals import union_length

from .runs import HOSTILE, KIB, fused, ring, saved, star

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden_v1.eidola"


def held(file):
    """Return the page without its scripts, and the data that it embeds."""
    text = file.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), json.loads(data.group(1))


def test_a_run_and_a_trace_give_a_file(tmp_path):
    run = saved(fused(4), star(4), tmp_path / "run")
    assert report(run, tmp_path / "run.html") == tmp_path / "run.html"
    assert report(GOLDEN, tmp_path / "trace.html") == tmp_path / "trace.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.html", "trace.html"]


def test_the_command_adds_the_critical_path_where_the_run_has_one(tmp_path):
    runs = {
        "whole": saved(fused(4), star(4), tmp_path / "whole"),
        "bare": saved(fused(4), star(4), tmp_path / "bare", record="none"),
        "trace": GOLDEN,
    }
    seen = {}
    for name, path in runs.items():
        output = tmp_path / f"{name}.html"
        done = CliRunner().invoke(app, ["report", str(path), "-o", str(output)])
        assert (done.exit_code, done.stdout) == (0, f"wrote {output}; open it in a browser\n")
        seen[name] = 'id="path"' in held(output)[0]
    assert seen == {"whole": True, "bare": False, "trace": False}


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = saved(fused(4), star(4), tmp_path / "run")
    assert report(run, tmp_path / "a.html").read_bytes() == report(run, tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("program", [fused(4), fused(40, 1), ring(300, 2), fused(2, 30)], ids=str)
def test_the_charts_are_valid_plotly(tmp_path, program):
    """Validated by the library itself, once roles have become colors."""
    file = report(saved(program, star(program.endpoints), tmp_path / "run"), tmp_path / "run.html")

    def colored(value):
        if isinstance(value, dict):
            return {k: "Blues" if k == "colorscale" else colored(v) for k, v in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [colored(each) for each in value]
        return "#123456" if isinstance(value, str) and value.startswith("@") else value

    charts = [chart for view in held(file)[1] for chart in view["charts"]]
    assert len(charts) >= 4
    for chart in charts:
        go.Figure([colored(trace) for trace in chart["data"]], colored(chart["layout"]))


def test_what_was_extrapolated_and_what_the_capture_cannot_tell_is_said(tmp_path):
    summary = {"backends": ["gpu", "host"], "extrapolated": ["GPUs 4 to 7 repeat GPUs 0 to 3", "<b>"]}
    text, _ = held(report(saved(fused(4), star(4), tmp_path / "run", summary), tmp_path / "r.html"))
    assert "Captured on backend host: truth for order, sizes, counts and protocol" in text
    assert "Extrapolated: GPUs 4 to 7 repeat GPUs 0 to 3; &lt;b&gt;" in text


def test_a_run_without_messages_gives_the_other_views(tmp_path):
    run = saved(ring(4, 3), star(4), tmp_path / "run", record="none")
    text, _ = held(report(run, tmp_path / "r.html"))
    assert re.findall(r'<section id="(\w+)"', text) == ["gpus", "fabric", "links", "collectives"]


def test_the_flag_waited_for_longest_and_who_raised_it(tmp_path):
    """GPU 0 computes least, so it waits longest; its last flag comes from GPU 1, which posts to it last."""
    text, data = held(report(saved(fused(8, 1), star(8), tmp_path / "run", wait=IDEAL), tmp_path / "r.html"))
    assert "The flag waited for longest is ready of GPU 0" in text
    assert "mostly for ready, raised by GPU" in text
    table = next(t for view in data for t in view["tables"] if t["title"] == "waiting by flag")
    columns = {c["name"]: c.get("values") or [c["unique"][i] for i in c["index"]] for c in table["columns"]}
    assert columns["flag"] == ["ready"] * 8
    assert columns["GPU"][0] == 0
    assert columns["waited (µs)"] == sorted(columns["waited (µs)"], reverse=True)


def test_embedded_data_cannot_end_its_script(tmp_path):
    run = saved(fused(3, 1, HOSTILE[:5]), star(3, HOSTILE[5]), tmp_path / "run")
    text = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    data = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028") & set(data)
    assert json.loads(data)
    assert "<script>window" not in text


def test_the_page_allows_no_connection_and_no_other_script(tmp_path):
    text = report(GOLDEN, tmp_path / "r.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_what_is_neither_a_run_nor_a_trace_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a run nor a trace"):
        report(tmp_path, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_an_output_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        report(GOLDEN, tmp_path / "missing" / "r.html")


def test_an_empty_trace_has_a_head_and_no_view(tmp_path):
    with TraceWriter(tmp_path / "empty.eidola") as writer:
        writer.write("ranks", 0, {"backend": ["gpu"]})
    text, data = held(report(tmp_path / "empty.eidola", tmp_path / "r.html"))
    assert data == []
    assert "A trace of 1 rank" in text


def test_the_traffic_matrix_sums_pairs():
    source, destination, size = (
        np.array([0, 0, 1, 2, 1]),
        np.array([1, 1, 0, 2, 2]),
        np.array([5, 6, 7, 8, 9]),
    )
    sums, group = matrix(source, destination, size, 3)
    assert group == 1
    assert sums.tolist() == [[0, 11, 0], [7, 0, 9], [0, 0, 0]]


@pytest.mark.parametrize(
    ("gpus", "rows", "group"), [(256, 256, 1), (257, 33, 8), (1024, 128, 8), (16384, 128, 128)]
)
def test_many_gpus_share_rows_and_lose_no_byte(gpus, rows, group):
    source = np.arange(gpus)
    sums, found = matrix(source, (source + 1) % gpus, np.full(gpus, KIB), gpus)
    assert (sums.shape, found) == ((rows, rows), group)
    assert sums.sum() == gpus * KIB


def test_no_traffic_no_view():
    here = np.zeros(3, np.int64)
    assert traffic(here, here, here + 5, 4) is None


def test_errors_are_signed_and_of_own_times():
    """Own time: last start to latest end. Half the captured time is -50 %, twice is +100 %."""
    both = {"predicted_skew_ps": 0, "captured_skew_ps": 10}
    view = collectives(
        [
            Operation("all_reduce", "world", 0, 2, 8, "ring", 50, captured_ps=100, **both),
            Operation("all_reduce", "world", 1, 2, 8, "ring", 200, captured_ps=100, **both),
            Operation("all_reduce", "world", 2, 2, 8, "ring", 200),
        ]
    )
    errors = next(c for c in view.tables[0].columns if c.name == "error (%)")
    assert errors.values == [-50, 100, None]
    assert "2 of 3 operations compared" in view.sentence
    assert "worst is +100.0\u00a0%, all_reduce 1" in view.sentence


def test_times_of_scaled_runs_are_not_compared_with_smaller_captures(tmp_path):
    text, _ = held(report(saved(fused(4, captured=False), star(4), tmp_path / "run"), tmp_path / "r.html"))
    assert "Nothing was captured at this size to compare with" in text


def test_a_flag_is_summed_and_its_longest_releaser_named():
    """GPU 0 waits on flag 7 for 5 + 6 released by GPU 2, 8 by GPU 1, and 90 by itself, which is left out."""
    waits = pa.table(
        {
            "rank": [0, 0, 0, 0, 1],
            "flag": [7, 7, 7, 7, 7],
            "flag_name": ["ready", "ready", "ready", "ready", None],
            "policy": ["spin"] * 5,
            "polls": [1, 2, 3, 4, None],
        }
    )
    found = by_flag(waits, np.array([5, 8, 90, 6, 1]), np.array([2, 1, 0, 2, NOBODY]))
    assert [found.name(0), found.name(1)] == ["ready", "flag 7"]
    assert [found.rank.tolist(), found.waited_ps.tolist(), found.waits.tolist()] == [[0, 1], [19, 1], [3, 1]]
    assert [found.reads.tolist(), found.releaser.tolist()] == [[7, 0], [2, NOBODY]]
    assert found.released_ps.tolist() == [11, 1]


def test_union_length_counts_overlap_once():
    group = np.array([0, 0, 0, 2, 2])
    start, end = np.array([5, 0, 20, 1, 2]), np.array([15, 10, 25, 9, 3])
    assert union_length(group, start, end, 3).tolist() == [20, 0, 8]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999\u00a0ps"), (1_000, "1\u00a0ns"), (12_345_678, "12.35\u00a0µs"), (3 * 10**12, "3\u00a0s"),
     (46_999_729_920, "47\u00a0ms"), (99_999, "100\u00a0ns")],
)  # fmt: skip
def test_times_read_in_their_best_unit(value, text):
    assert time_text(value) == text


def test_sizes_read_in_their_best_unit():
    assert [size_text(n) for n in (0, 1, 1048576, 10**9)] == [
        "0\u00a0B",
        "1\u00a0B",
        "1.049\u00a0MB",
        "1\u00a0GB",
    ]


def test_kernels_of_one_template_have_labels_that_differ():
    loop = "void at::native::vectorized_elementwise_kernel<4, at::native::"
    lambdas = "::{lambda()#2}::operator()() const::{lambda(float)#1}"
    array = "at::detail::Array<char*, 2>"
    copy = "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 2, "
    names = {
        f"{loop}sqrt_kernel_cuda(at::TensorIteratorBase&){lambdas}, {array} >(int, {array})": "rt_kernel_cuda >",
        f"{loop}FillFunctor<int>, {array} >(int, at::native::FillFunctor<int>": "llFunctor<int> >",
        "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long)": "RING_SIMPLE_Sum_int8_t",
        f"{copy}128, 1>(float*, int)": "2, 128, 1>",
        f"{copy}64, 64>(float*, int)": "2, 64, 64>",
    }
    assert all(short(name).endswith(end) for name, end in names.items())
    assert all(len(short(name)) <= 50 for name in names)
    assert len({short(name) for name in names}) == len(names)


def test_labels_are_short_and_plain():
    assert len(short("a" * 10_000)) == 50
    assert short("void gemm" + "x" * 100 + "tail").startswith("void gemm")
    assert short("void gemm" + "x" * 100 + "tail").endswith("tail")
    assert label("<b>&amp;\n$x$</b>") == "&lt;b&gt;&amp;amp; &#36;x&#36;&lt;/b&gt;"
