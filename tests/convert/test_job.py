"""Whatever ranks a reader leaves, a job of them that is written keeps to the schema, or is refused by name."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eidola.convert.job import write_job
from eidola.convert.parts import Group, Part
from eidola.convert.rank import RankRecord
from eidola.convert.report import ConversionReport
from eidola.schemas import TraceWriter, check
from eidola.schemas.errors import InputError, SchemaError

OPERATIONS = ("all_reduce", "broadcast", "send", "recv", "all_to_all", "unknown")
GROUPS = st.builds(
    Group,
    name=st.sampled_from([None, "0", "1"]),
    ranks=st.sampled_from([None, (0, 1), (1, 0), (0, 2), (5,)]),
    size=st.sampled_from([None, 1, 2, 4]),
    description=st.none(),
    handle=st.sampled_from([None, 7]),
)
PARTS = st.tuples(
    st.sampled_from(OPERATIONS), GROUPS, st.sampled_from([None, 0, 1]), st.sampled_from([None, -1, 0, 1, 3, 9]),
    st.booleans(),
)  # fmt: skip


def record(rank, world, drawn):
    parts = []
    for span, (operation, group, sequence, peer, on_gpu) in enumerate(drawn):
        at = 1000 * span
        parts.append(Part(span, -1, operation, "kernel", group, at, at + 900, None, sequence=sequence, peer=peer,
                          on_gpu=on_gpu, stream=7))  # fmt: skip
    count = max(len(drawn), 1)
    spans = {
        "span": list(range(count)), "lane": ["stream 7"] * count, "kind": ["kernel"] * count,
        "name": ["k"] * count, "start_ns": [1000 * i for i in range(count)],
        "end_ns": [1000 * i + 900 for i in range(count)],
    }  # fmt: skip
    hardware = {"backend": "gpu"}
    return RankRecord(rank, Path(f"rank{rank}"), world, hardware, spans, {}, parts, (0, 1000 * count))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    ranks=st.dictionaries(st.integers(0, 5), st.lists(PARTS, max_size=4), min_size=1, max_size=3),
    world=st.sampled_from([None, 4, 6]),
)
def test_a_job_that_is_written_keeps_to_the_schema(tmp_path, ranks, world):
    output = tmp_path / "job.eidola"
    try:
        with TraceWriter(output, overwrite=True, verify=True) as writer:
            write_job(writer, [record(rank, world, drawn) for rank, drawn in ranks.items()], "test")
    except (InputError, SchemaError):
        return
    assert [str(problem) for problem in check(output) if problem.severity == "error"] == []


def test_what_is_so_on_several_ranks_is_one_line():
    notes = ["rank 0: same", "of all", "rank 1: same", "rank 9: same", "rank 9: other"]
    dropped = {0: {"a": 1}, 1: {"a": 1}, 9: {"a": 2}}
    report = ConversionReport(Path("x"), ranks=[0, 1, 9], dropped=dropped, truncated_ranks=[1], notes=notes)
    assert report.lines()[2:] == [
        "ranks 0, 1: dropped 1 a",
        "rank 9: dropped 2 a",
        "rank 1: the file ends before its end; what was whole is kept",
        "ranks 0, 1, 9: same",
        "of all",
        "rank 9: other",
    ]
    assert report.as_dict()["notes"] == notes
