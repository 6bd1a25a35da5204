"""Files are told by their content, said what they were taken for, and converted as that."""

import gzip
import re
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.convert import auto, convert, find_format
from eidola.convert.auto import recognise
from eidola.schemas import Trace
from eidola.schemas.errors import InputError, UsageError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/formats.md"
SAMPLES = Path(__file__).resolve().parents[2] / "sample_traces"


def test_the_same_trace_comes_out_as_when_the_format_is_named(shared, tmp_path):
    traces, pairs = shared("kineto/v100_dlrm_8ranks"), shared("execution_trace/v100_dlrm_8ranks")
    report = auto([traces, pairs], tmp_path / "auto")
    convert(find_format("kineto"), [traces], tmp_path / "named", companions=[pairs])
    assert report.matched == 8
    for table in ("spans", "dependencies", "collectives", "clocks"):
        assert Trace(tmp_path / "auto").read(table).equals(Trace(tmp_path / "named").read(table)), table


def test_a_file_is_told_by_its_content_not_its_name(write, make, tmp_path):
    file = write("kept.json", make.document(make.rank_events()))
    packed = tmp_path / "somebody.bin"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    other = tmp_path / "notes.json"
    other.write_text('{"hello": 1}')
    found = recognise([packed, other])
    assert found.files == {"kineto": [packed]}
    assert found.unknown == [other]
    assert [line.partition(": ")[2] for line in found.lines()] == [
        "not recognised, left out",
        "PyTorch profiler traces (Kineto JSON)",
    ]


def test_nothing_recognised_is_an_error_that_lists_what_could_be(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match="kineto"):
        auto([tmp_path / "a.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_packed_file_says_that_it_must_be_unpacked(tmp_path):
    path = tmp_path / "rank0.json.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert recognise([path]).lines() == [
        f"{path}: not recognised, left out; unpack it (only gzip is read as it is)"
    ]


@pytest.mark.parametrize("suffix", [".nsys-rep", ".qdrep"])
def test_a_report_before_its_export_is_named_with_the_command(tmp_path, suffix):
    report = tmp_path / f"report1{suffix}"
    report.write_bytes(bytes(100))
    (line,) = recognise([report]).lines()
    assert "`nsys export -t sqlite --include-blobs=true`" in line
    with pytest.raises(InputError, match="before its export; give what `nsys export"):
        convert(find_format("nsys"), [report], tmp_path / "out")


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        auto([tmp_path / "nowhere"], tmp_path / "out")


def test_a_broken_gzip_file_is_named(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(b"\x1f\x8bgarbage")
    with pytest.raises(InputError, match=r"a\.json\.gz cannot be read"):
        auto([tmp_path / "a.json.gz"], tmp_path / "out")


@pytest.fixture
def mylog(tmp_path, monkeypatch):
    """The documented example, laid out as pip does; returns a folder with two files of its format."""
    text = DOCUMENT.read_text()
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S)[1])["project"]
    site = tmp_path / "site"
    info = site / f"{project['name']}-1.dist-info"
    info.mkdir(parents=True)
    (site / f"{project['name']}.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1\n")
    entries = project["entry-points"]["eidola.formats"]
    (info / "entry_points.txt").write_text(
        "[eidola.formats]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
    )
    monkeypatch.syspath_prepend(str(site))
    find_format.cache_clear()
    sample = re.search(r"    mylog rank=0.*?\n\n", text, re.S)[0].replace("    ", "")
    logs = tmp_path / "logs"
    logs.mkdir()
    for rank in range(2):
        (logs / f"{rank}.log").write_text(sample.strip().replace("rank=0", f"rank={rank}"))
    yield logs
    sys.modules.pop(project["name"], None)
    find_format.cache_clear()


def test_the_documented_format_of_another_package_is_recognised_and_converted(mylog, tmp_path):
    assert auto([mylog], tmp_path / "out").ranks == [0, 1]
    spans = Trace(tmp_path / "out").read("spans", ["rank", "name", "start_ns", "end_ns"])
    assert spans.to_pylist()[:2] == [
        {"rank": 0, "name": "gemm", "start_ns": 1000, "end_ns": 4000},
        {"rank": 0, "name": "relu", "start_ns": 4000, "end_ns": 4500},
    ]


def test_the_format_of_another_package_has_a_command_and_stands_in_the_help(mylog, tmp_path):
    assert "mylog" in CliRunner().invoke(app, ["convert", "--help"]).output
    result = CliRunner().invoke(app, ["convert", "mylog", str(mylog), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert Trace(tmp_path / "out").ranks() == [0, 1]


def test_files_of_two_formats_are_refused_by_name(mylog, write, make, tmp_path):
    write("kept.json", make.document(make.rank_events()))
    with pytest.raises(UsageError, match="kineto, mylog"):
        auto([mylog, tmp_path / "kept.json"], tmp_path / "out")


def test_a_raw_capture_is_recognised(tmp_path):
    raw = SAMPLES / "gloo_ddp_2" / "raw"
    if not raw.is_dir():
        pytest.skip("the sample's raw capture is absent")
    report = auto([raw], tmp_path / "out")
    assert report.ranks == [0, 1]
    assert report.matched == sum(n for k, n in report.collectives.items() if k not in ("send", "recv")) // 2


def test_the_command_says_what_each_file_was_taken_for(shared, tmp_path):
    file = shared("kineto/a100_nccl_rank0of2.json.gz")
    result = CliRunner().invoke(app, ["convert", "auto", str(file), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert f"{file}: PyTorch profiler traces (Kineto JSON)" in result.output
