"""What-ifs: each edit changes what it names, exactly, and is recorded."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay import lower, read_edits, replay, run, scale, verify
from eidola.replay.edits import apportion, zipf_matrix
from eidola.replay.scaled import write_scaled
from eidola.schemas import InputError, Results, Trace, UsageError

from .jobs import job
from .programs import star
from .test_scale import assert_equal
from .test_scale_trace import as_run
from .traces import collective, ideal, member, span, write_trace


def edits(tmp_path, text):
    path = tmp_path / "edits.toml"
    path.write_text(text)
    return read_edits(path)


def exchange(path, ranks=4, operation="all_to_all", size=1 << 16):
    """One all-to-all of all ranks."""
    rows = {}
    for rank in range(ranks):
        part = collective(0, 0, 0, 700, operation, size, dtype="float32", protocol="simple")
        rows[rank] = {
            "spans": [span(0, "stream 20", 0, 700)],
            "collectives": [part],
            "communicators": [member(rank, ranks)],
        }
    return write_trace(path, rows)


def sent(program):
    """(N, N) bytes between GPUs."""
    rows = program.message_rows()
    found = np.zeros((program.endpoints, program.endpoints), np.int64)
    np.add.at(found, (rows["source"], rows["destination"]), rows["size_bytes"])
    return found - np.diag(np.diag(found))


def test_kernels_named_take_so_much_of_their_time(tmp_path):
    spans = [span(0, "stream 7", 0, 1000, name="sgemm"), span(1, "stream 7", 1000, 1300, name="relu")]
    trace = write_trace(tmp_path / "t", {0: {"spans": spans}})
    half = edits(tmp_path, '[[kernel]]\nmatch = "gemm"\nfactor = "1/4"\n')
    lowered = lower(trace, ideal(1), edits=half)
    assert run(lowered.program, ideal(1)).makespan_ps == 550_000
    assert lowered.notes == ("edit: 1 spans like 'gemm' x 1/4",)


def test_factors_of_several_edits_multiply(tmp_path):
    trace = write_trace(tmp_path / "t", {0: {"spans": [span(0, "stream 7", 0, 1000, name="sgemm")]}})
    text = '[[kernel]]\nmatch = "gemm"\nfactor = 0.5\n[[kernel]]\nmatch = "^s"\nfactor = 3\n'
    assert run(lower(trace, ideal(1), edits=edits(tmp_path, text)).program, ideal(1)).makespan_ps == 1_500_000


@pytest.mark.parametrize("mode", ["dependent", "timed"])
def test_bytes_and_algorithm_of_named_operations(tmp_path, mode):
    trace = job(tmp_path / "t")
    changed = edits(
        tmp_path,
        '[[collective]]\noperation = "all_reduce"\ncommunicator = "d0"\nbytes = 0.5\n'
        '[[collective]]\noperation = "all_reduce"\nalgorithm = "direct"\n',
    )
    fabric = star(4)
    was, now = (lower(trace, fabric, mode=mode, **kw).program.collectives for kw in ({}, {"edits": changed}))
    for before, after in zip(was, now, strict=True):
        factor = 2 if before.communicator == "d0" else 1
        assert after.size_bytes * factor == before.size_bytes
        assert after.algorithm == ("direct" if before.operation == "all_reduce" else before.algorithm)


@pytest.mark.parametrize("gpus", [4, 16])
def test_zipf_traffic_keeps_each_ranks_total(tmp_path, gpus):
    trace = exchange(tmp_path / "t")
    uneven = edits(tmp_path, '[[collective]]\noperation = "all_to_all"\nzipf = 1.5\n')
    lowered = scale(trace, gpus, star(gpus), edits=uneven, seed=5)
    weights = zipf_matrix(gpus, uneven.collectives[0].zipf, 5, 0, 0)[0]
    shares = apportion(weights, 1 << 16, 4)
    assert shares.sum() == 1 << 16
    expected = np.tile(shares, (gpus, 1))
    assert np.array_equal(sent(lowered.program), expected - np.diag(np.diag(expected)))
    hot = np.sort(shares)[::-1] / (1 << 16)
    law = 1 / np.arange(1, gpus + 1) ** 1.5
    assert hot == pytest.approx(law / law.sum(), abs=1e-3)
    other = scale(trace, gpus, star(gpus), edits=uneven, seed=6).program
    assert not np.array_equal(sent(other), sent(lowered.program))


@pytest.mark.parametrize("file", [True, False])
def test_a_given_matrix_says_who_sends_whom(tmp_path, file):
    rows = [[0, 1, 2, 1], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 5]]
    (tmp_path / "routing.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    matrix = '"routing.csv"' if file else json.dumps(rows)
    given = edits(tmp_path, f"[[collective]]\nmatrix = {matrix}\n")
    found = sent(lower(exchange(tmp_path / "t"), star(4), edits=given).program)
    whole = np.array([[r * (1 << 16) // sum(row) for r in row] for row in rows])
    assert np.array_equal(found, whole - np.diag(np.diag(whole)))
    with pytest.raises(UsageError, match="a matrix of 4 ranks for all_to_all of 8"):
        scale(Trace(tmp_path / "t"), 8, star(8), edits=given)


@given(
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=40),
    st.integers(0, 1 << 40),
    st.sampled_from([1, 4]),
)
def test_apportioned_totals_are_exact(weights, total, unit):
    shares = apportion(weights, total, unit)
    assert shares.min() >= 0
    assert shares.sum() == (total if sum(weights) else 0)


@given(st.integers(1, 40), st.integers(0, 9))
def test_zipf_draws_are_by_index_and_alike_for_all_senders(members, sequence):
    from decimal import Decimal

    weights = zipf_matrix(members, Decimal("1.1"), 3, 0, sequence)
    assert (weights == weights[0]).all()
    even = zipf_matrix(members, Decimal(0), 3, 0, sequence)
    assert len(set(even[0].tolist())) == 1
    assert sorted(weights[0].tolist()) == sorted(
        zipf_matrix(members, Decimal("1.1"), 4, 1, sequence)[0].tolist()
    )


def test_an_edited_scaled_trace_is_the_edited_scaled_program(tmp_path):
    trace = job(tmp_path / "t", steps=2)
    text = '[[kernel]]\nmatch = "gemm"\nfactor = 0.3\n[[collective]]\nbytes = 2\nalgorithm = "ring"\n'
    text = text.replace("[[collective]]", '[[collective]]\noperation = "all_reduce"')
    fabric, shape = star(16), {"data": 4, "tensor": 4}
    scaled = write_scaled(trace, tmp_path / "s", parallel=shape, edits=edits(tmp_path, text))
    direct = scale(trace, None, fabric, parallel=shape, edits=edits(tmp_path, text))
    assert_equal(as_run(lower(scaled, fabric).program), as_run(direct.program))
    assert scaled.notes["edits"]["content"]["kernel"] == [{"match": "gemm", "factor": 0.3}]


def test_a_run_records_its_edits_and_can_be_verified(tmp_path):
    job(tmp_path / "t")
    asked = edits(
        tmp_path, '[[kernel]]\nmatch = "gemm"\nfactor = 2\n[replay]\nfabric = "hgx-h100"\ngpus = 8\n'
    )
    results = replay(tmp_path / "t", tmp_path / "run", edits=asked.path)
    recorded = Results(results.path).manifest["inputs"]["edits"]
    assert recorded == {"path": asked.path, "sha256": asked.sha256, "content": asked.content}
    assert results.summary["gpus"] == 8
    assert results.summary["fabric"].startswith("hgx-h100")
    assert any("gemm" in note for note in results.summary["extrapolated"])
    assert verify(results).summary["results_hash"] == results.summary["results_hash"]
    edits(tmp_path, '[[kernel]]\nmatch = "gemm"\nfactor = 4\n')
    with pytest.raises(InputError, match="has changed since"):
        verify(results)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no TOML"),
        ("[kernels]", "no table 'kernels'"),
        ('[[kernel]]\nmatch = "a"', "needs `match` and `factor`"),
        ('[[kernel]]\nmatch = "("\nfactor = 1', "no regular expression"),
        ('[[kernel]]\nmatch = "a"\nfactor = -1', "negative"),
        ('[[kernel]]\nmatch = "a"\nfactor = "x"', "no number"),
        ('[[kernel]]\nmatch = "a"\nfactor = 1\ntypo = 1', "no key 'typo'"),
        ('[kernel]\nmatch = "a"', r"write \[\[kernel\]\]"),
        ('[[collective]]\noperation = "all_reduce"', "changes nothing"),
        ('[[collective]]\noperation = "all_reduce"\nzipf = 1', "has no splits"),
        ("[[collective]]\nzipf = 99", "from 0"),
        ('[[collective]]\nmatrix = "nowhere.csv"', "nowhere.csv: cannot be read"),
        ("[[collective]]\nmatrix = [[1, 2]]", "as many columns as rows"),
        ("[[collective]]\nmatrix = [[0]]", "one above 0"),
    ],
)
def test_what_edits_cannot_mean_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        edits(tmp_path, text)


def test_an_edit_that_fits_nothing_is_an_error(tmp_path):
    trace = job(tmp_path / "t")
    for text in ('[[kernel]]\nmatch = "nobody"\nfactor = 1', '[[collective]]\ncommunicator = "x"\nbytes = 2'):
        with pytest.raises(InputError, match="fits nothing in the trace"):
            lower(trace, star(4), edits=edits(tmp_path, text))
    with pytest.raises(InputError, match="give the path"):
        read_edits(tmp_path / "none.toml")
