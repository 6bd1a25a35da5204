"""Which node of a rank's ExecutionTrace is which of its host records."""

from difflib import SequenceMatcher
from typing import Any

from .execution_trace import ExecutionTrace
from .host_records import HostRecords
from .operations import operation_of


def join(records: HostRecords, trace: ExecutionTrace) -> dict[int, dict[str, Any]]:
    """Give host records what the ExecutionTrace says of them: by record function id, else by order.

    Ids are the same in both files only in newer profilers; the order of execution is the same in all, and the
    operation and its element count keep a missing record from shifting what follows.
    """
    spans = records.records
    by_function = {node.function: node for node in trace.nodes if node.function > 0}
    ids = [int(records.work.function[s]) for s in spans]
    if any(i > 0 for i in ids) and all(i in by_function for i in ids if i > 0):
        return {s: by_function[i].args for s, i in zip(spans, ids, strict=True) if i > 0}
    host = [_host_key(records, span) for span in spans]
    nodes = [_key(node.args) for node in trace.nodes]
    joined: dict[int, dict[str, Any]] = {}
    for i, j, length in SequenceMatcher(None, host, nodes, autojunk=False).get_matching_blocks():
        joined |= {spans[i + k]: trace.nodes[j + k].args for k in range(length)}
    return joined


def _key(args: dict[str, Any]) -> tuple[str, int | None]:
    operation = operation_of(str(args.get("Collective name", "wait")))
    count = args.get("In msg nelems")
    coarse = "all_to_all" if operation == "all_to_allv" else operation
    return coarse, None if coarse == "wait" else count


def _host_key(records: HostRecords, record: int) -> tuple[str, int | None]:
    if "Collective name" in (told := records.of(record)):
        return _key(told)
    return _key(records.of_annotation(records.annotation_in(record)))
