"""Files as they come: what can be used is used and the rest reported, or the file is refused by name."""

import gzip
import json

import pytest

from eidola.convert import auto, kineto
from eidola.convert.events import read_events
from eidola.schemas import InputError, Trace, UsageError, check


def convert(tmp_path, *paths, **options):
    return kineto(paths, tmp_path / "out.eidola", **options)


def refused(tmp_path, *paths, error=InputError, match=""):
    with pytest.raises(error, match=match):
        kineto(paths, tmp_path / "out.eidola")
    assert not list(tmp_path.glob("*.eidola")) + list(tmp_path.glob(".out*"))


def clean(report):
    return not any(problem.severity == "error" for problem in check(report.path))


def test_a_truncated_file_gives_its_whole_events_and_says_so(tmp_path, write, make):
    text = json.dumps(make.document(make.rank_events()))
    cut = text.rindex('"ph"', 0, len(text) // 2) + 30
    report = convert(tmp_path, write("rank0.json", text[:cut]))
    whole = text[:cut].count('"ph"') - 1
    assert report.spans == whole
    assert report.truncated_ranks == [0]
    assert report.dropped == {0: {"cut-off event": 1}}
    assert clean(report)


@pytest.mark.parametrize("kept", [0.6, 0.9])
def test_a_truncated_gzip_file_is_survived(tmp_path, shared, kept):
    data = shared("kineto/a100_nccl_rank0of2.json.gz").read_bytes()
    path = tmp_path / "rank0.json.gz"
    path.write_bytes(data[: int(len(data) * kept)])
    report = convert(tmp_path, path)
    assert report.truncated_ranks == [0]
    assert report.spans > 500
    assert clean(report)


def test_bytes_that_are_no_json_are_refused(tmp_path, write):
    path = write("rank0.json", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    refused(tmp_path, path, match=r"rank0\.json is no JSON")


def test_json_that_is_no_trace_is_refused(tmp_path, write):
    refused(tmp_path, write("rank0.json", {"nodes": []}), match="holds no traceEvents")
    refused(tmp_path, write("rank1.json", {"traceEvents": []}), match="no GPU work")


def test_an_empty_file_is_refused(tmp_path, write):
    refused(tmp_path, write("rank0.json", b""), match=r"rank0\.json is empty")
    refused(tmp_path, write("rank0.json.gz", b""), match="is empty")


def test_a_folder_without_traces_and_a_missing_file_are_refused(tmp_path, write):
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", match="holds no trace")
    refused(tmp_path, tmp_path / "nothing.json", match="does not exist")
    refused(tmp_path, error=UsageError, match="no traces given")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_cost_the_event_they_time_and_nothing_else(tmp_path, write, make, literal):
    text = json.dumps(make.document(make.rank_events()))
    text = text.replace('"dur": 20.5', f'"dur": {literal}', 1).replace('"cbid": 211', f'"cbid": {literal}')
    report = convert(tmp_path, write("rank0.json", text))
    assert report.spans == len(make.rank_events()) - 1
    assert report.dropped == {0: {"no duration": 1}}
    assert clean(report)


@pytest.mark.parametrize("render", [str, float, lambda us: f"{us:.3f}"])
def test_times_may_be_strings_or_floats_and_differ_inside_a_file(write, make, render):
    events = make.rank_events()
    for event in events[::2]:
        event["ts"] = render(event["ts"])
    mixed = read_events(write("a.json", make.document(events))).table
    plain = read_events(write("b.json", make.document(make.rank_events()))).table
    assert mixed.equals(plain)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dur": -3}, "negative duration"),
        ({"dur": None}, "no duration"),
        ({"ts": None}, "no timestamp"),
        ({"ts": "soon"}, "no timestamp"),
        ({"dur": 1e300}, "no duration"),
    ],
)
def test_an_event_that_cannot_be_placed_is_dropped_and_counted(tmp_path, write, make, change, reason):
    events = make.rank_events()
    events[1].update(change)
    report = convert(tmp_path, write("rank0.json", make.document(events)))
    assert report.spans == len(events) - 1
    assert report.dropped == {0: {reason: 1}}
    assert Trace(report.path).notes["dropped_events"] == {"0": {reason: 1}}
    assert clean(report)


def test_a_missing_duration_is_dropped_and_counted(tmp_path, write, make):
    events = make.rank_events()
    del events[1]["dur"]
    report = convert(tmp_path, write("rank0.json", make.document(events)))
    assert report.dropped == {0: {"no duration": 1}}


@pytest.mark.parametrize("broken", ['"na"me"', '"na\\u12"', "nme", '"x", "args": {'])
def test_a_broken_event_costs_itself_only(write, make, broken):
    events = [make.kernel(i, 10 * i, 5, name=f"k{i}") for i in range(9)]
    text = json.dumps(make.document(events)).replace('"k4"', broken)
    read = read_events(write("rank0.json", text))
    assert read.table["name"].to_pylist() == [f"k{i}" for i in range(9) if i != 4]
    assert read.dropped == {"malformed event": 1}


@pytest.mark.parametrize("place", [0, 8])
def test_a_broken_event_at_either_end_costs_itself_only(write, make, place):
    events = [make.kernel(i, 10 * i, 5, name=f"k{i}") for i in range(9)]
    text = json.dumps(make.document(events)).replace(f'"k{place}"', '"a"b"')
    read = read_events(write("rank0.json", text))
    assert read.table["name"].to_pylist() == [f"k{i}" for i in range(9) if i != place]
    assert read.dropped == {"malformed event": 1}
    assert read.base_ns == 1_700_000_000_000_000_000
    assert not read.truncated


def test_a_control_character_in_a_name_is_survived(write, make):
    text = json.dumps(make.document([make.kernel(1, 1, 1, name="a#b")])).replace("a#b", "a\x01b")
    assert read_events(write("rank0.json", text)).table["name"].to_pylist() == ["a\x01b"]


def test_bytes_that_are_no_utf8_are_survived(write, make):
    data = json.dumps(make.document([make.kernel(1, 1, 1, name="a#b"), make.kernel(2, 5, 1)])).encode()
    read = read_events(write("rank0.json", data.replace(b"a#b", b"a\xff\xfeb")))
    assert read.table.num_rows == 2


def test_several_gzip_members_and_padding_are_one_file(tmp_path, make):
    data = json.dumps(make.document(make.rank_events())).encode()
    path = tmp_path / "rank0.json.gz"
    path.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]) + b"\0" * 512)
    report = convert(tmp_path, path)
    assert report.spans == len(make.rank_events())
    assert not report.truncated_ranks


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace('}, "traceEvents"', ',}, "traceEvents"'),
    lambda text: text.replace('}], "base', '},], "base'),
    lambda text: text[:-1] + ",}",
], ids=["byte order mark", "comma in the metadata", "comma behind the events", "comma at the end"])  # fmt: skip
def test_what_editors_and_careless_writers_leave_changes_nothing(tmp_path, write, make, change):
    plain = json.dumps(make.document(make.rank_events(), rank=1))
    assert change(plain) != plain
    for name, text in (("plain", plain), ("changed", change(plain))):
        report = auto([write(f"{name}.json", text)], tmp_path / name)
        assert (report.ranks, report.dropped) == ([1], {})
    assert Trace(tmp_path / "plain").read("spans").equals(Trace(tmp_path / "changed").read("spans"))


def test_a_gzip_file_is_known_by_its_bytes_not_its_name(tmp_path, make):
    path = tmp_path / "rank0.json"
    path.write_bytes(gzip.compress(json.dumps(make.document(make.rank_events())).encode()))
    assert convert(tmp_path, path).spans == len(make.rank_events())


def test_two_files_of_one_rank_are_refused_by_their_names(tmp_path, write, make):
    one, two = (write(name, make.document(make.rank_events(), rank=0)) for name in ("a.json", "b.json"))
    refused(tmp_path, one, two, match=r"a\.json and .*b\.json are both of rank 0")
    refused(tmp_path, one, one, error=UsageError, match="given twice")


def test_ranks_of_jobs_of_different_size_are_refused(tmp_path, write, make):
    one = write("a.json", make.document(make.rank_events(), rank=0, world=2))
    two = write("b.json", make.document(make.rank_events(), rank=1, world=4))
    refused(tmp_path, one, two, match="different runs")


def test_ranks_that_never_overlap_are_refused(tmp_path, write, make):
    one = write("a.json", make.document(make.rank_events(), rank=0))
    two = write("b.json", make.document(make.rank_events(shift_us=5e6), rank=1))
    refused(tmp_path, one, two, match="never overlap")


def test_ranks_that_number_different_operations_alike_are_refused(tmp_path, write, make):
    def job(operation):
        return [
            make.collective(i, 100 * i, 50, operation if i == 3 else "allreduce", Seq=i) for i in range(5)
        ]

    one = write("a.json", make.document(job("allreduce"), rank=0))
    two = write("b.json", make.document(job("broadcast"), rank=1))
    refused(
        tmp_path,
        one,
        two,
        match="operation 3 of communicator '0' is all_reduce on rank 0 and broadcast on rank 1",
    )


def test_a_rank_beyond_the_job_is_refused(tmp_path, write, make):
    refused(
        tmp_path, write("a.json", make.document(make.rank_events(), rank=5, world=2)), match="the job has 2"
    )


def test_a_missing_rank_is_reported(tmp_path, write, make):
    paths = [write(f"{r}.json", make.document(make.rank_events(), rank=r, world=4)) for r in (0, 1, 3)]
    report = convert(tmp_path, *paths)
    assert report.ranks == [0, 1, 3]
    assert report.missing_ranks == [2]
    assert Trace(report.path).notes["missing_ranks"] == [2]


def test_a_rank_is_taken_from_the_files_name_where_the_trace_does_not_say(tmp_path, write, make):
    paths = [write(f"trace_rank-{r}.json", make.document(make.rank_events(), rank=None)) for r in (1, 0)]
    report = convert(tmp_path, *paths)
    assert report.ranks == [0, 1]
    assert "does not tell its rank" in report.notes[0]
    nameless = write("x.json", make.document(make.rank_events(), rank=None))
    with pytest.raises(InputError, match="does not tell its rank; name the file"):
        kineto([nameless, paths[0]], tmp_path / "other.eidola")


def test_an_existing_trace_is_kept_unless_told(tmp_path, write, make):
    path = write("rank0.json", make.document(make.rank_events()))
    convert(tmp_path, path)
    with pytest.raises(UsageError, match="exists"):
        convert(tmp_path, path)
    write("rank0.json", b"no trace")
    with pytest.raises(InputError):
        convert(tmp_path, path, overwrite=True)
    assert Trace(tmp_path / "out.eidola").ranks() == [0]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, write, make):
    path = write("rank0.json", make.document(make.rank_events()))

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, path, progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["rank0.json"]
