"""ExecutionTraces, old layout and new."""

import json

import pytest

from eidola.convert import kineto
from eidola.convert.execution_trace import read_execution_trace
from eidola.schemas import InputError, Trace, UsageError


def attrs(**values):
    return [{"name": name, "type": "x", "value": value} for name, value in values.items()]


def new_node(number, function, operation, nelems, **more):
    given = {
        "collective_name": operation,
        "dtype": "BFloat16",
        "in_msg_nelems": nelems,
        "out_msg_nelems": nelems,
        "in_split_size": more.get("split", "[]"),
        "out_split_size": more.get("split", "[]"),
        "global_rank_start": 0,
        "global_rank_stride": 1,
        "pg_name": "0",
        "pg_desc": "default_pg",
        "pg_size": 2,
    }
    return {
        "id": number,
        "name": "record_param_comms",
        "ctrl_deps": 1,
        "inputs": {
            "values": [[[9, 8, 0, nelems, 2, "cuda:0"]], [function, False], ["0", "default_pg"], 0],
            "types": [],
        },
        "outputs": {"values": []},
        "attrs": attrs(rf_id=function, fw_parent=0, **given),
    }


def new_trace(nodes):
    groups = json.dumps([{"pg_name": "0", "pg_desc": "default_pg", "pg_size": 2, "ranks": [0, 1]}])
    init = {
        "id": 2,
        "name": "## process_group:init ##",
        "inputs": {"values": [groups]},
        "attrs": attrs(rf_id=1),
    }
    return {"schema": "1.1.1-chakra.0.0.4", "pid": 1, "nodes": [init, *nodes], "finish_ts": 5}


def host(ts, function, operation, nelems):
    common = {"ph": "X", "pid": 1, "tid": 100, "ts": ts}
    return [
        {
            **common,
            "cat": "cpu_op",
            "name": "record_param_comms",
            "dur": 30,
            "args": {"Record function id": function},
        },
        {
            **common,
            "cat": "user_annotation",
            "name": f"nccl:{operation}",
            "ts": ts + 2,
            "dur": 20,
            "args": {"Input Dims": [[nelems]], "Input type": ["c10::BFloat16"]},
        },
    ]


def job(make, functions=(0, 0, 0)):
    events = []
    for i, operation in enumerate(("all_to_all", "all_reduce", "all_to_all")):
        ts = 100 * i
        events += host(ts, functions[i], operation, 64 * (i + 1))
        events += [
            make.launch(i + 1, ts + 5),
            make.kernel(i + 1, ts + 40, 30, 20, "ncclDevKernel_Generic(args)"),
        ]
    return make.document(events)


NODES = [
    new_node(10, 5, "all_to_allv", 64, split="[16, 48]"),
    new_node(11, 7, "allreduce", 128),
    new_node(12, 9, "all_to_allv", 192, split="[1, 2]"),
]


@pytest.mark.parametrize("functions", [(0, 0, 0), (5, 7, 9)])
def test_a_new_execution_trace_completes_kineto_by_id_or_by_order(tmp_path, write, make, functions):
    trace, et = write("rank0.json", job(make, functions)), write("et0.json", new_trace(NODES))
    report = kineto([trace], tmp_path / "out.eidola", [et])
    rows = Trace(report.path).read("collectives").to_pylist()
    assert [r["operation"] for r in rows] == ["all_to_allv", "all_reduce", "all_to_allv"]
    assert [r["size_bytes"] for r in rows] == [128, 256, 384]
    assert rows[0]["in_split_bytes"] == [32, 96]
    assert rows[2]["in_split_bytes"] == [128, 256]  # splits count rows: 64 elements each
    assert {r["communicator"] for r in rows} == {"0"}
    assert report.sources == {"execution trace": 3}


def test_a_node_that_kineto_did_not_see_does_not_shift_the_others(tmp_path, write, make):
    extra = [new_node(8, 1, "broadcast", 7), *NODES[:1], new_node(9, 6, "allgather", 9), *NODES[1:]]
    trace, et = write("rank0.json", job(make)), write("et0.json", new_trace(extra))
    report = kineto([trace], tmp_path / "out.eidola", [et])
    assert [r["operation"] for r in Trace(report.path).read("collectives").to_pylist()] == [
        "all_to_allv", "all_reduce", "all_to_allv",
    ]  # fmt: skip


def test_the_old_layout_is_read_with_sizes_and_splits(shared):
    trace = read_execution_trace(shared("execution_trace/v100_dlrm_8ranks/rank0.json.gz"))
    assert (trace.schema, trace.pid, len(trace.nodes)) == ("1.0.1", 59811, 13)
    names = [node.args["Collective name"] for node in trace.nodes]
    assert names.count("wait") == 5
    assert names.count("all_to_allv") == 4
    assert trace.nodes[2].args["In msg nelems"] == 6144


def test_an_unknown_layout_is_refused_by_its_schema(write):
    nodes = [{"id": 3, "name": "record_param_comms", "inputs": [1, 2]}]
    path = write("et.json", {"schema": "9.9", "nodes": nodes})
    with pytest.raises(InputError, match=r"unknown layout, schema '9\.9'"):
        read_execution_trace(path)


def test_files_that_cannot_be_paired_are_refused(tmp_path, write, make):
    traces = [write(f"rank{r}.json", make.document(make.rank_events(), rank=r)) for r in (0, 1)]
    nameless = write("et.json", new_trace(NODES))
    other = write("et_rank7.json", new_trace(NODES))
    for given, match in ((nameless, "cannot tell whose"), (other, "no trace is given")):
        with pytest.raises(UsageError, match=match):
            kineto(traces, tmp_path / "out.eidola", [given])


def test_a_foreign_execution_trace_is_noticed(tmp_path, write, make):
    trace, et = write("rank0.json", job(make)), write("et0.json", {**new_trace(NODES), "pid": 4242})
    assert any("4242" in note for note in kineto([trace], tmp_path / "out.eidola", [et]).notes)


@pytest.mark.parametrize("first", ["id", "attrs"])
def test_the_order_of_a_nodes_keys_does_not_matter(tmp_path, write, first):
    nodes = [{first: node[first], **node} for node in NODES]
    read = read_execution_trace(write("et.json", json.dumps(new_trace(nodes)).encode()))
    assert read.nodes == read_execution_trace(write("usual.json", new_trace(NODES))).nodes


def test_an_execution_trace_that_breaks_off_is_told(tmp_path, write, make):
    whole = json.dumps(new_trace(NODES)).encode()
    trace, et = write("rank0.json", job(make, (5, 7, 9))), write("et0.json", whole[:-300])
    report = kineto([trace], tmp_path / "out.eidola", [et])
    assert any(note.startswith("et0.json breaks off") for note in report.notes)
    whole_report = kineto([trace], tmp_path / "whole.eidola", [write("et0.json", whole)])
    assert not any("breaks off" in note for note in whole_report.notes)


TENSORS = [[9, 8, 0, 64, 2, "cuda:0"]]
TYPES = ["GenericList[Tensor(c10::BFloat16)]"]


@pytest.mark.parametrize(
    ("schema", "values", "told"),
    [
        ("1.0.1", [TENSORS, 3, 140_000, 1, "broadcast", [], []], {"group_pointer": 140_000}),
        ("1.0.2-chakra.0.0.4", [TENSORS, 3, "7", 1, "broadcast", [], [], 0, 2, 4],
         {"Process Group Name": "7", "Global rank stride": 2, "Group size": 4}),
        ("1.0.3-chakra.0.0.4", [TENSORS, [3, False], ["7", "pipe"], 1, "broadcast", [], [], -1, -1, 4],
         {"Process Group Name": "7", "Process Group Description": "pipe", "Group size": 4}),
    ],
)  # fmt: skip
def test_every_schema_up_to_the_named_attributes_is_read(write, schema, values, told):
    """Their inputs are a list, later an object of values, shapes and types; waits have no tensors."""
    waits = [values[1], values[2], 0, "wait", [], []]
    if schema == "1.0.1":
        nodes = [
            {"id": i, "name": "record_param_comms", "rf_id": i, "inputs": given, "input_types": types}
            for i, (given, types) in enumerate(((waits, []), (values, TYPES)), 4)
        ]
    else:
        nodes = [
            {"id": i, "name": "record_param_comms", "inputs": {"values": given, "shapes": [], "types": types},
             "attrs": attrs(rf_id=i)}
            for i, (given, types) in enumerate(((waits, []), (values, TYPES)), 4)
        ]  # fmt: skip
    trace = read_execution_trace(write("et.json", {"schema": schema, "pid": 1, "nodes": nodes}))
    assert [n.args["Collective name"] for n in trace.nodes] == ["wait", "broadcast"]
    found = trace.nodes[1].args
    common = {"Rank": 1, "In msg nelems": 64, "element_bytes": 2, "dtype": "c10::BFloat16"}
    assert {key: found[key] for key in (common | told)} == common | told
    assert ("Global rank start" in found) == ("Global rank stride" in told)


def test_a_root_stands_before_the_operations_name(write):
    node = new_node(10, 5, "broadcast", 64)
    node["inputs"]["values"][3:] = [1, "broadcast", [], []]
    trace = read_execution_trace(write("et.json", new_trace([node])))
    assert [(n.args["Collective name"], n.args["Rank"]) for n in trace.nodes] == [("broadcast", 1)]
