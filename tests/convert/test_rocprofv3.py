"""rocprofv3's JSON: a real file, small ones made to its layout, and broken ones."""

import gzip
import json
from collections import Counter

import pytest

from eidola.convert import auto, convert, find_format
from eidola.convert.json_walk import Walker
from eidola.schemas import Trace, check
from eidola.schemas.errors import InputError

REAL = "rocprofv3/mi350x_results.json.gz"
FORMAT = find_format("rocprofv3")
KINDS = [
    ("NONE", []),
    ("HIP", ["none", "hipLaunchKernel", "hipStreamWaitEvent", "hipGetDevice"]),
    ("RCCL_API", ["ncclAllReduce", "ncclGroupStart", "ncclGroupEnd"]),
    ("MEMORY_COPY", ["MEMORY_COPY_NONE", "MEMORY_COPY_HOST_TO_HOST", "MEMORY_COPY_HOST_TO_DEVICE",
                     "MEMORY_COPY_DEVICE_TO_HOST", "MEMORY_COPY_DEVICE_TO_DEVICE"]),
    ("MARKER_CORE_RANGE_API", ["roctxRangePushA"]),
]  # fmt: skip
GENERIC = "ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)"
NAMES = ["", "gemm", GENERIC]


def record(start, end, correlation, tid=10, **more):
    return {"size": 1, "thread_id": tid, "correlation_id": {"internal": correlation, "external": 0},
            "start_timestamp": start, "end_timestamp": end, **more}  # fmt: skip


def dispatch(start, end, correlation, kernel=1, agent=102, stream=1):
    told = {"agent_id": {"handle": agent}, "queue_id": {"handle": 5}, "kernel_id": kernel, "dispatch_id": 1,
            "workgroup_size": {"x": 256, "y": 1, "z": 1}, "grid_size": {"x": 26624, "y": 1, "z": 1}}  # fmt: skip
    streams = {} if stream is None else {"stream_id": {"handle": stream}}
    return record(start, end, correlation, kind=0, operation=2, dispatch_info=told, **streams)


def copy(start, end, correlation, size, source, target, operation=4):
    return record(start, end, correlation, kind=3, operation=operation, bytes=size,
                  src_agent_id={"handle": source}, dst_agent_id={"handle": target})  # fmt: skip


def call(start, end, correlation, kind=1, operation=1, **more):
    return record(start, end, correlation, kind=kind, operation=operation, **more)


def document(dispatches, pid=10, host="node1", init=1000, marks=(), **records):
    lists = ("kernel_dispatch", "hip_api", "hsa_api", "marker_api", "rccl_api", "memory_copy")
    given = {"kernel_dispatch": dispatches, **records}
    agents = [
        {"id": {"handle": 100 + n}, "type": 1 if n < 2 else 2, "node_id": n, "logical_node_type_id": max(n - 2, 0),
         "name": "gfx950", "product_name": "AMD Instinct MI350X", "cu_count": 256}
        for n in range(4)
    ]  # fmt: skip
    return {"rocprofiler-sdk-tool": [{
        "metadata": {"node": {"hostname": host}, "pid": pid, "init_time": init},
        "agents": agents,
        "counters": [],
        "strings": {
            "callback_records": [{"kind": "NONE", "operations": []}],
            "buffer_records": [{"kind": kind, "operations": names} for kind, names in KINDS],
            "marker_api": [{"key": key, "value": text} for key, text in marks],
            "correlation_id": {"external": []},
        },
        "code_objects": [{"size": 0}],
        "kernel_symbols": [{"kernel_id": i, "formatted_kernel_name": name} for i, name in enumerate(NAMES)],
        "buffer_records": {name: given.get(name, []) for name in lists},
    }]}  # fmt: skip


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def rank_document(pid=10, host="node1", base=0, agent=102):
    dispatches, calls, rccl = [], [], []
    for i in range(3):
        at = base + 100_000 * (i + 1)
        calls += [call(at, at + 10, 10 * i + 1), call(at + 10_100, at + 10_200, 10 * i + 3)]
        rccl.append(call(at + 10_000, at + 10_900, 10 * i + 2, kind=2, operation=0))
        dispatches += [dispatch(at + 20, at + 9_000, 10 * i + 1, agent=agent),
                       dispatch(at + 10_500, at + 15_000, 10 * i + 3, kernel=2, agent=agent, stream=2)]  # fmt: skip
    return document(dispatches, pid, host, base + 500, hip_api=calls, rccl_api=rccl)


def test_the_real_file_is_read_whole(shared, tmp_path):
    report = auto([shared(REAL)], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    assert (report.spans, report.collectives, report.dropped) == (43_915, {"unknown": 1310}, {})
    parts = trace.read("collectives").to_pylist()
    assert Counter(p["channels"] for p in parts) == {104: 1208, 110: 101, 1: 1}
    assert Counter(p["communicator"] for p in parts) == {"unnamed 0": 1309, "unnamed 1": 1}
    (rank,) = trace.read("ranks").to_pylist()
    assert (rank["vendor"], rank["model"], rank["compute_units"], rank["device"], rank["host"]) == (
        "amd", "AMD Instinct MI350X", 256, 0, "smci350-zts-gtu-c6-25",
    )  # fmt: skip
    assert any("no HIP calls" in note for note in report.notes)
    assert not [p for p in check(tmp_path / "out") if p.severity == "error"]


def test_every_dispatch_keeps_its_times_stream_and_name(shared, tmp_path):
    auto([shared(REAL)], tmp_path / "out")
    with gzip.open(shared(REAL)) as file:
        tool = json.load(file)["rocprofiler-sdk-tool"][0]
    names = {s["kernel_id"]: s["formatted_kernel_name"] for s in tool["kernel_symbols"]}
    wanted = Counter(
        (r["start_timestamp"], r["end_timestamp"], f"stream {r['stream_id']['handle']}",
         names[r["dispatch_info"]["kernel_id"]], r["correlation_id"]["internal"])
        for r in tool["buffer_records"]["kernel_dispatch"]
    )  # fmt: skip
    columns = ("start_ns", "end_ns", "lane", "name", "correlation")
    spans = Trace(tmp_path / "out").read("spans", columns).to_pylist()
    assert Counter(tuple(s[c] for c in columns) for s in spans) == wanted


def test_launches_collectives_and_order_of_a_job_of_two_files(tmp_path):
    for pid, agent in ((20, 103), (10, 102)):
        save(tmp_path / "in" / f"{pid}_results.json", rank_document(pid, agent=agent))
    report = auto([tmp_path / "in"], tmp_path / "out")
    assert (report.ranks, report.matched, report.collectives) == ([0, 1], 3, {"all_reduce": 6})
    trace = Trace(tmp_path / "out")
    assert trace.read("ranks", ["device"])["device"].to_pylist() == [0, 1]
    spans = trace.read("spans", ["kind", "launch_ns"]).to_pylist()
    assert all(s["launch_ns"] is not None for s in spans if s["kind"] == "kernel")
    assert Counter(s["kind"] for s in spans) == {"kernel": 12, "host_call": 12}


def test_hosts_whose_clocks_count_from_their_boots_are_one_job(tmp_path):
    for i in range(2):
        save(tmp_path / "in" / f"rank{i}_results.json", rank_document(10, f"host{i}", i * 10**12))
    report = auto([tmp_path / "in"], tmp_path / "out")
    assert report.matched == 3
    assert any("count from their boots" in note for note in report.notes)


@pytest.mark.parametrize(("apart_ns", "told"), [(10**12, True), (10**6, False)])
def test_hosts_that_files_do_not_name_are_told_apart_by_their_clocks(tmp_path, apart_ns, told):
    """Files of ROCm 6 have no node in their metadata."""
    for i in range(2):
        given = rank_document(10, None, i * apart_ns)
        del given["rocprofiler-sdk-tool"][0]["metadata"]["node"]
        save(tmp_path / "in" / f"rank{i}_results.json", given)
    report = auto([tmp_path / "in"], tmp_path / "out")
    assert report.matched == 3
    assert any("2 hosts are told apart by their clocks alone" in note for note in report.notes) == told


def test_a_process_on_two_gpus_is_two_ranks_and_its_copies_between_them_are_writes(tmp_path):
    dispatches = [dispatch(1000, 2000, 1), dispatch(1100, 2100, 2, agent=103)]
    copies = [copy(3000, 4000, 3, 4096, 102, 103), copy(3000, 4000, 4, 64, 100, 103, operation=2)]
    file = save(tmp_path / "a_results.json", document(dispatches, memory_copy=copies))
    report = convert(FORMAT, [file], tmp_path / "out")
    trace = Trace(tmp_path / "out")
    assert report.ranks == [0, 1]
    (write,) = trace.read("writes").to_pylist()
    assert (write["rank"], write["peer"], write["size_bytes"], write["issue_ns"]) == (0, 1, 4096, 3000)
    spans = trace.read("spans", ["rank", "kind", "name"]).to_pylist()
    assert [(s["rank"], s["name"]) for s in spans if s["kind"] == "copy"] == [
        (0, "Memcpy DtoD (Device -> Device)"), (1, "Memcpy HtoD (Host -> Device)"),
    ]  # fmt: skip


def test_copies_to_gpus_of_other_processes_are_counted_not_guessed(tmp_path):
    file = save(
        tmp_path / "a_results.json",
        document([dispatch(1000, 2000, 1)], memory_copy=[copy(3, 4, 2, 8, 102, 103)]),
    )
    report = convert(FORMAT, [file], tmp_path / "out")
    assert not Trace(tmp_path / "out").read("writes").num_rows
    assert any("1 copies go to GPUs of other processes" in note for note in report.notes)


def test_older_files_without_streams_have_their_queues_as_lanes_and_markers_their_texts(tmp_path):
    marks = [call(900, 2100, 77, kind=4, operation=0), call(950, 950, 78, kind=4, operation=0)]
    given = document([dispatch(1000, 2000, 1, stream=None)], marks=[(77, "step 1")], marker_api=marks)
    convert(FORMAT, [save(tmp_path / "a_results.json", given)], tmp_path / "out")
    spans = Trace(tmp_path / "out").read("spans", ["kind", "lane", "name"]).to_pylist()
    assert [(s["kind"], s["lane"], s["name"]) for s in spans] == [
        ("annotation", "thread 10", "step 1"), ("kernel", "stream 5", "gemm"),
    ]  # fmt: skip


def test_ranges_of_roctx_before_rocm_7_are_told_from_its_other_calls(tmp_path):
    """They were of the kind MARKER_CORE_API, as marks and other calls still are."""
    operations = ["roctxMarkA", "roctxRangePushA", "roctxRangePop", "roctxRangeStartA", "roctxGetThreadId"]
    marks = [
        call(at, at + 1000, 70 + i, kind=4, operation=i) for i, at in enumerate((900, 910, 920, 930, 940))
    ]
    given = document([dispatch(1000, 2000, 1)], marks=[(71, "step"), (73, "range")], marker_api=marks)
    kinds = given["rocprofiler-sdk-tool"][0]["strings"]["buffer_records"]
    found = {}
    for name, own in (("before", []), ("since", [kinds[4]])):
        kinds[4:] = [{"kind": "MARKER_CORE_API", "operations": operations}, *own]
        convert(FORMAT, [save(tmp_path / f"{name}_results.json", given)], tmp_path / name)
        spans = Trace(tmp_path / name).read("spans", ["kind", "name"]).to_pylist()
        found[name] = [s["name"] for s in spans if s["kind"] == "annotation"]
    assert found == {"before": ["step", "range"], "since": []}


def test_where_no_stream_was_recorded_queues_are_the_lanes(tmp_path):
    """Without HIP's streams all dispatches are of stream 0, on whatever queue they ran at once."""
    pair = [dispatch(1000, 2000, 1, stream=0), dispatch(1500, 2500, 2, stream=0)]
    pair[1]["dispatch_info"]["queue_id"] = {"handle": 6}
    convert(FORMAT, [save(tmp_path / "a_results.json", document(pair))], tmp_path / "out")
    spans = Trace(tmp_path / "out").read("spans", ["lane"])["lane"].to_pylist()
    assert spans == ["stream 5", "stream 6"]


def test_kernels_without_a_name_are_counted(tmp_path):
    given = document([dispatch(1000, 2000, 1), dispatch(3000, 4000, 2, kernel=9)])
    report = convert(FORMAT, [save(tmp_path / "a_results.json", given)], tmp_path / "out")
    assert any("does not hold the names of 1 kernels" in note for note in report.notes)


def test_a_file_with_the_names_of_operations_behind_its_records_is_read_the_same(tmp_path):
    given, found = rank_document(), []
    for name in ("before", "behind"):
        convert(FORMAT, [save(tmp_path / f"{name}_results.json", given)], tmp_path / name)
        trace = Trace(tmp_path / name)
        found.append([trace.read(table).to_pylist() for table in ("spans", "collectives", "dependencies")])
        tool = given["rocprofiler-sdk-tool"][0]
        tool["strings"] = tool.pop("strings")
    assert found[0] == found[1]
    assert {c["operation"] for c in found[0][1]} == {"all_reduce"}


def test_a_cut_file_keeps_what_was_whole_and_says_so(tmp_path):
    text = json.dumps(document([dispatch(1000 * i, 1000 * i + 500, i) for i in range(1, 101)]))
    cut = text[: text.index('"start_timestamp": 50000')]
    report = convert(FORMAT, [save(tmp_path / "a_results.json", cut)], tmp_path / "out")
    assert report.spans == 49
    assert report.truncated_ranks == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"rocprofiler-sdk-tool": ', "ends before it says whose it is"),
        ('{"rocprofiler-sdk-tool": [{"metadata": {"pid": 1}}]}', "no kernel dispatch"),
        ('{"rocprofiler-sdk-tool": [{"metadata": {"pid": 1}} ; ]}', "a_results.json"),
        ('{"rocprofiler-sdk-tool": [{"metadata": {"pid": 1}}, {"metadata": {}}]}', "several processes"),
        ('{"rocprofiler-sdk-tool": [{"x": ' + "[" * 200_000 + "]" * 200_000 + "}]}", "nested too deep"),
    ],
)
def test_broken_files_end_in_an_error_that_names_them(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        convert(FORMAT, [save(tmp_path / "a_results.json", content)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_record_that_is_no_json_is_not_taken_for_the_files_end(tmp_path):
    text = json.dumps(document([dispatch(1000 * i, 1000 * i + 500, i) for i in range(1, 101)]))
    broken = text.replace('"start_timestamp": 50000', '"start_timestamp": oops')
    with pytest.raises(InputError, match=r"a_results\.json: no JSON .*oops"):
        convert(FORMAT, [save(tmp_path / "a_results.json", broken)], tmp_path / "out")


def test_records_of_odd_types_are_left_out_and_counted(tmp_path):
    odd = [dispatch(1000, 2000, 1), 7, dispatch("soon", 3, 2), dispatch(10**30, 10**30, 3), dispatch(5, 4, 4),
           {**dispatch(3000, 4000, 5), "dispatch_info": None}]  # fmt: skip
    report = convert(FORMAT, [save(tmp_path / "a_results.json", document(odd))], tmp_path / "out")
    assert report.spans == 1
    assert report.dropped == {0: {"not an object": 1, "no timestamp": 2, "negative duration": 1}}


def test_the_walker_reads_any_value_whatever_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("eidola.convert.json_walk.PIECE_BYTES", 3)
    given = {"a": [1, 22, 333, -4.5, 'é"\\', None, True, [], {}], "b": {"c": {"d": [[1], [2]]}}, "e": 12345}
    path = save(tmp_path / "a.json", json.dumps(given, ensure_ascii=False))
    with Walker(path) as walker:
        assert {key: walker.value() for key in walker.members()} == given
    with Walker(path) as walker:
        items = []
        for key in walker.members():
            if key == "a":
                items = [walker.value() for _ in walker.items()]
            else:
                walker.skip()
    assert items == given["a"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_to_a_file_it_is_read_or_refused_by_name(convert_damaged, tmp_path, seed):
    path = save(tmp_path / "a_results.json", rank_document())
    convert_damaged(FORMAT, path, seed, tmp_path / "out")


def test_calls_whose_name_is_not_in_the_file_are_counted(tmp_path):
    document = rank_document(10, agent=102)
    (tool,) = document["rocprofiler-sdk-tool"]
    tool["buffer_records"]["hip_api"][0]["operation"] = 99
    save(tmp_path / "rank0_results.json", document)
    report = convert(find_format("rocprofv3"), [tmp_path / "rank0_results.json"], tmp_path / "out")
    assert report.dropped == {0: {"call whose name the file does not have": 1}}
