"""Traffic made to order: what is written by closed form, and that replay gives its own times back."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eidola.replay import IDEAL, lower, run, spin
from eidola.replay.generate import (
    GENERATORS,
    EmbeddingAllToAll,
    GemmAllToAll,
    GemvAllReduce,
    Pattern,
    Patterns,
    generate,
    read_patterns,
)
from eidola.replay.generate.columns import served
from eidola.replay.generate.draws import Purpose, below, exponential, words
from eidola.replay.generate.patterns import rate_per_s
from eidola.schemas import InputError, Trace, UsageError, check

from .traces import ideal

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {
    "gemv-allreduce": {"rows": 512, "columns": 256, "iterations": 2},
    "embedding-alltoall": {"batch": 256, "iterations": 2},
    "gemm-alltoall": {"rows": 1024, "columns": 512, "inner": 64, "tile_rows": 64},
}
PATTERNS = {
    "uniform": {"rate_per_s": 1e6, "flags": "each"},
    "poisson": {"rate_per_s": 1e6, "size_bytes": (100, 5000), "duration_ns": 40_000},
    "incast": {"peers": (0, 3), "messages": 5},
    "permutation": {"messages": 2},
}
PHASES = ["remote_tiles", "local_tiles", "wait_partials", "reduce", "wait_results"]
EVERY = {**KERNELS, **PATTERNS}


def made(name, path, *, targets=None, gpus=4, seed=7, jitter_ns=777, **options) -> Trace:
    parameters = {**EVERY[name], **options}
    traffic = GENERATORS[name](gpus=gpus, seed=seed, jitter_ns=jitter_ns, **parameters)
    return generate(traffic, path / "t", targets=targets, overwrite=True)


def table(trace, name):
    return trace.read(name).to_pandas()


def digest(trace):
    """Return a hash of all columns but the manifest."""
    found = hashlib.sha256()
    for name in ("ranks", "spans", "writes", "waits"):
        found.update(trace.read(name).to_pandas().to_csv().encode())
    return found.hexdigest()


def captured(lowered, activities):
    """Return the captured times of activities in picoseconds from the run's start."""
    columns, epoch_ns = lowered.program.activities, lowered.program.epoch_ns
    return [(columns[f"captured_{end}_ns"][activities] - epoch_ns) * 1000 for end in ("start", "end")]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("targets", [None, 1, 2])
def test_a_generated_trace_keeps_to_the_schema(name, targets, tmp_path):
    trace = made(name, tmp_path, targets=targets)
    assert check(trace.path) == []
    assert set(table(trace, "ranks")["backend"]) == {"virtual"}
    assert set(table(trace, "writes")["origin"]) == {"inferred"}
    assert trace.notes["generated"]
    assert trace.notes["parameters"]["seed"] == trace.notes["seed"] == 7


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("targets", [None, 1])
def test_dependent_replay_on_the_ideal_fabric_gives_the_trace_back(name, targets, tmp_path):
    trace = made(name, tmp_path, targets=targets)
    lowered = lower(trace, ideal(4), mode="dependent")
    outcome = run(lowered.program, ideal(4), wait=spin(100))
    every = np.arange(len(lowered.program.activities["agent"]))
    for simulated, wanted in zip(outcome.activity_times, captured(lowered, every), strict=True):
        assert simulated.tolist() == wanted.tolist()
    polls = [int(p) for p in table(trace, "waits")["polls"]]
    assert sorted(outcome.final.rows.waits["polls"].tolist()) == sorted(polls)


@pytest.mark.parametrize("name", EVERY)
def test_timed_replay_on_the_ideal_fabric_breaks_no_causality(name, tmp_path):
    trace = made(name, tmp_path)
    lowered = lower(trace, ideal(4), mode="timed")
    outcome = run(lowered.program, ideal(4))
    assert outcome.causality_violations() == 0
    assert outcome.program.waits == len(table(trace, "waits"))
    posted = np.sort(outcome.final.rows.messages["post_ps"])
    issued = np.sort(table(trace, "writes")["issue_ns"].to_numpy() - lowered.program.epoch_ns) * 1000
    assert posted.tolist() == issued.tolist()


@pytest.mark.parametrize("name", EVERY)
def test_a_target_among_eidolons_takes_as_long_as_in_the_trace(name, tmp_path):
    trace = made(name, tmp_path)
    lowered = lower(trace, ideal(4), mode="target", targets=(0,))
    outcome = run(lowered.program, ideal(4), wait=spin(100))
    own = np.flatnonzero(lowered.program.agent_endpoint[lowered.program.activities["agent"]] == 0)
    for simulated, wanted in zip(outcome.activity_times, captured(lowered, own), strict=True):
        assert simulated[own].tolist() == wanted.tolist()


@pytest.mark.parametrize("name", EVERY)
def test_what_only_targets_have_is_the_whole_traffic_of_the_target(name, tmp_path):
    whole = made(name, tmp_path)
    tables = {t: table(whole, t) for t in ("writes", "waits")}
    some = made(name, tmp_path, targets=1)
    writes, waits = tables["writes"], tables["waits"]
    touching = writes[(writes["rank"] == 0) | (writes["peer"] == 0)]
    keys = ["rank", "peer", "workgroup", "issue_ns", "size_bytes", "kind", "flag", "value"]
    assert table(some, "writes")[keys].to_csv(index=False) == touching[keys].to_csv(index=False)
    mine = table(some, "waits")
    assert mine[mine["rank"] == 0].to_csv(index=False) == waits[waits["rank"] == 0].to_csv(index=False)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("targets", [None, 2])
def test_every_wait_is_for_a_value_that_its_flag_reaches_before_it_ends(name, targets, tmp_path):
    trace = made(name, tmp_path, targets=targets)
    writes, waits = table(trace, "writes"), table(trace, "waits")
    raised = writes[writes["flag"].notna()].sort_values("issue_ns", kind="stable")
    values = {}
    for row in raised.itertuples():
        history = values.setdefault((row.peer, row.flag), [(None, 0)])
        before = history[-1][1]
        history.append((row.issue_ns, before + row.value if row.kind == "atomic" else row.value))
    for row in waits.itertuples():
        reached = min(time for time, value in values[row.rank, row.flag][1:] if value >= row.expected)
        polls = max(0, (reached - row.start_ns) // 100 + 1)
        assert row.end_ns == row.start_ns + 100 * polls
        assert row.polls == polls + 1
    if targets is None:
        assert set(values) == {(row.rank, row.flag) for row in waits.itertuples()}


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_alone_decides_what_is_drawn(name, tmp_path):
    first = digest(made(name, tmp_path))
    assert digest(made(name, tmp_path)) == first
    assert digest(made(name, tmp_path, seed=8)) != first


def test_jitter_of_a_gpu_does_not_depend_on_how_many_there_are(tmp_path):
    """GPU 2's first start is its own draw, whoever else takes part."""
    starts = []
    for gpus in (4, 8):
        spans = table(made("embedding-alltoall", tmp_path, gpus=gpus), "spans")
        starts.append(spans[spans["rank"] == 2]["start_ns"].min())
    assert starts[0] == starts[1]


def test_gemv_writes_partials_and_results_by_closed_form(tmp_path):
    """2 (N - 1) / N of the vector leaves each rank; one flag a peer, workgroup and exchange."""
    gpus, rows, groups = 4, 512, 8
    trace = made("gemv-allreduce", tmp_path, iterations=1)
    writes, waits = table(trace, "writes"), table(trace, "waits")
    data, flags = writes[writes["kind"] == "data"], writes[writes["kind"] == "flag"]
    per_peer = data.groupby(["rank", "peer", "region"])["size_bytes"].sum()
    assert len(per_peer) == gpus * (gpus - 1) * 2
    assert set(per_peer) == {rows // gpus * 4}
    assert len(flags) == len(waits) == 2 * gpus * (gpus - 1) * groups
    assert set(flags["size_bytes"]) == {8}
    expected = {
        (r, s, w, e)
        for r in range(gpus)
        for s in range(gpus)
        if s != r
        for w in range(groups)
        for e in (0, 1)
    }
    number = flags["flag"].astype(int)
    seen = set(
        zip(flags["peer"], number // groups % gpus, number % groups, number // groups // gpus, strict=True)
    )
    assert seen == expected
    assert (number // groups % gpus == flags["rank"]).all()
    assert (number % groups == flags["workgroup"]).all()


def test_gemv_tiles_cover_each_region_once(tmp_path):
    """At its owner, the remote partials of all sources and the results of all owners tile the buffer."""
    rows, gpus = 512, 4
    trace = made("gemv-allreduce", tmp_path, iterations=1)
    data = table(trace, "writes").query("kind == 'data'")
    for (peer, _), part in data.groupby(["peer", "region"]):
        covered = Counter()
        for row in part.itertuples():
            covered.update(range(int(row.offset_bytes), int(row.offset_bytes) + row.size_bytes))
        own = range(peer * rows // gpus * 4, (peer + 1) * rows // gpus * 4)
        assert covered == Counter(set(range(rows * 4)) - set(own))


def test_gemv_takes_the_time_of_reading_its_matrix():
    """Without jitter: M K / N elements at the memory's rate, shared by the workgroups, then the reduction's."""
    kernel = GemvAllReduce(gpus=4, rows=4096, columns=4096, memory_mb_per_s=1_000_000, poll_ns=10)
    first = next(iter(kernel.traffic()))
    matrix_bytes, partial_bytes = 4096 * 1024 * 4, 4 * 1024 * 4
    local_end_ns = -(-matrix_bytes // 1000)
    reduced_ns = local_end_ns + -(-partial_bytes // 1000)
    assert first.spans["name"].to_pylist()[:5] == PHASES
    assert first.spans["end_ns"][:5].tolist() == [
        -(-matrix_bytes * 3 // 4 // 1000),
        local_end_ns,
        local_end_ns,  # all partials were raised before the local tiles were done
        reduced_ns,
        reduced_ns + 10,  # raised in the instant of the first poll, and so seen by the next
    ]


def test_remote_tiles_come_nearest_first_and_a_flag_follows_its_tiles(tmp_path):
    writes = table(made("gemv-allreduce", tmp_path, iterations=1, tile_rows=4), "writes")
    mine = writes[(writes["rank"] == 1) & (writes["workgroup"] == 3) & (writes["span"] == 3 * 5)]
    assert mine["peer"].tolist() == [2] * 5 + [3] * 5 + [0] * 5
    assert mine["kind"].tolist() == (["data"] * 4 + ["flag"]) * 3


def test_embedding_and_gemm_write_each_peer_its_slice():
    embedding = EmbeddingAllToAll(gpus=4, batch=64, tables=3, dimension=16, pooling=5, tile_samples=4)
    gemm = GemmAllToAll(gpus=4, rows=256, columns=96, inner=32, tile_rows=48, tile_columns=40)
    for kernel, slice_bytes in ((embedding, 16 * 3 * 16 * 4), (gemm, 64 * 96 * 2)):
        for traffic in kernel.traffic():
            data = traffic.writes["flag"].is_null().to_numpy(zero_copy_only=False)
            sent = np.bincount(traffic.writes["peer"][data], traffic.writes["size_bytes"][data], 4)
            assert sent.tolist() == [0 if peer == traffic.rank else slice_bytes for peer in range(4)]
            assert len(traffic.waits["flag"]) == 3 * 8
            assert (~data).sum() == 3 * 8


def test_gemm_tiles_take_the_time_of_their_operations():
    kernel = GemmAllToAll(gpus=2, rows=256, columns=128, inner=1000, workgroups=1, gflop_per_s=1000)
    busy_ns = 2 * 256 * 128 * 1000 // 1000
    spans = next(iter(kernel.traffic())).spans
    assert spans["end_ns"][:2].tolist() == [busy_ns // 2, busy_ns]


def test_numbering_and_phases_are_those_of_the_host_capture(tmp_path):
    """Rows of one workgroup equal the bundled capture's, in all that is not time, place or epoch."""
    bundled = Trace(ROOT / "sample_traces/gemv_allreduce_host_4/trace.eidola")
    made_to_order = GemvAllReduce(gpus=4, rows=8192, columns=1024, tile_rows=64, iterations=3)
    trace = generate(made_to_order, tmp_path / "t")
    order = ["rank", "workgroup", "span"]
    for name, columns in (
        ("spans", ["lane", "workgroup", "kind", "name"]),
        (
            "writes",
            ["peer", "workgroup", "span", "size_bytes", "region", "offset_bytes", "kind", "flag", "value"],
        ),
        ("waits", ["workgroup", "span", "flag", "expected"]),
    ):
        ours, theirs = (table(t, name).sort_values(order, kind="stable") for t in (trace, bundled))
        assert ours[columns].to_csv(index=False) == theirs[columns].to_csv(index=False)


def test_waits_served_in_turn_poll_until_their_flag_is_seen():
    """Raised at 5, 130 and 131 ns; polls each 50 ns from 100 ns on."""
    start, end, polls = served(np.array(100), np.array([5, 130, 131, 150]), 50)
    assert start.tolist() == [100, 100, 150, 150]
    assert end.tolist() == [100, 150, 150, 200]
    assert polls.tolist() == [1, 2, 1, 2]


def test_with_ideal_waits_replay_is_never_later_than_the_polls(tmp_path):
    trace = made("gemv-allreduce", tmp_path)
    lowered = lower(trace, ideal(4))
    polled = run(lowered.program, ideal(4), wait=spin(100)).makespan_ps
    assert run(lowered.program, ideal(4), wait=IDEAL).makespan_ps < polled


def test_poisson_gaps_have_mean_and_spread_of_their_law():
    """20,000 gaps of mean 1,000 ns: mean within 5 sigma of it, as many above the mean as e says."""
    job = Patterns(gpus=2, patterns=(Pattern(arrivals="poisson", rate_per_s=1e6, messages=10_000),), seed=3)
    sent = job.messages(0)
    gaps = np.concatenate([np.diff(sent.time_ns[sent.source == gpu], prepend=0) for gpu in (0, 1)])
    assert len(gaps) == 20_000
    assert abs(gaps.mean() - 1000) < 5 * 1000 / 20_000**0.5
    share = (gaps > 1000).mean()
    assert abs(share - np.exp(-1)) < 5 * (np.exp(-1) * (1 - np.exp(-1)) / 20_000) ** 0.5
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 5 / 20_000**0.5


def test_a_poisson_count_in_a_duration_has_its_mean_and_variance():
    pattern = Pattern(arrivals="poisson", rate_per_s=1e7, messages=None, duration_ns=10_000)
    sent = Patterns(gpus=400, patterns=(pattern,), seed=1).messages(0)
    counts = np.bincount(sent.source, minlength=400)
    assert abs(counts.mean() - 100) < 5 * (100 / 400) ** 0.5
    assert abs(counts.var() - 100) < 5 * 100 * (2 / 400) ** 0.5
    assert sent.time_ns.max() < 10_000


def test_exponential_draws_are_the_logarithm():
    drawn = words(5000, 1, Purpose.GAP)
    assert np.allclose(exponential(drawn), -np.log(drawn / 2.0**64), rtol=1e-12, atol=1e-12)


def test_a_word_depends_on_its_index_not_on_how_many_are_drawn():
    assert words(3, 5, Purpose.PEER, 2, 1).tolist() == words(1000, 5, Purpose.PEER, 2, 1)[:3].tolist()
    streams = [
        (5, Purpose.PEER, 2, 1),
        (6, Purpose.PEER, 2, 1),
        (5, Purpose.SIZE, 2, 1),
        (5, Purpose.PEER, 3, 1),
    ]
    assert len({tuple(words(4, *stream).tolist()) for stream in streams}) == 4
    assert words(2, 0, Purpose.GAP).tolist() == [6312158256571094726, 10634814581434429480]


def test_draws_below_a_limit_are_even():
    counts = np.bincount(below(words(30_000, 2, Purpose.PEER), 3), minlength=3)
    assert np.abs(counts - 10_000).max() < 5 * (30_000 * 2 / 9) ** 0.5


def test_regular_load_fills_the_stated_fraction_of_a_link():
    rate = rate_per_s(0.5, 50_000, (1000, 3000))
    assert rate == 0.5 * 50e9 / 2000
    sent = Patterns(gpus=2, patterns=(Pattern(rate_per_s=rate, messages=11),)).messages(0)
    assert sent.time_ns[:11].tolist() == [80 * i for i in range(11)]


def test_incast_reaches_only_the_hot_ones(tmp_path):
    writes = table(made("incast", tmp_path, gpus=6, peers=(2,), messages=3, jitter_ns=0), "writes")
    data = writes[writes["kind"] == "data"]
    assert set(data["peer"]) == {2}
    assert Counter(data["rank"]) == dict.fromkeys((0, 1, 3, 4, 5), 3)
    assert set(data["issue_ns"]) == {0}


@pytest.mark.parametrize("seed", range(5))
def test_a_permutation_gives_each_gpu_one_peer_and_one_sender(seed, tmp_path):
    writes = table(made("permutation", tmp_path, gpus=9, seed=seed, flags="none"), "writes")
    pairs = set(zip(writes["rank"], writes["peer"], strict=True))
    assert len(writes) == 18
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 9
    assert all(a != b for a, b in pairs)


def test_a_shift_goes_that_far(tmp_path):
    writes = table(made("permutation", tmp_path, gpus=5, shift=-2), "writes")
    assert ((writes["peer"] - writes["rank"]) % 5 == 3).all()


def test_without_flags_nobody_waits(tmp_path):
    trace = made("uniform", tmp_path, flags="none")
    assert table(trace, "waits").empty
    assert set(table(trace, "writes")["kind"]) == {"data"}


def test_each_flag_counts_every_message(tmp_path):
    trace = made("uniform", tmp_path, flags="each", messages=50)
    writes, waits = table(trace, "writes"), table(trace, "waits")
    assert len(writes) == 2 * 4 * 50
    assert waits["expected"].sum() == 4 * 50


TOML = """
gpus = 6
poll_ns = 50

[[pattern]]
kind = "poisson"
gpus = "0-1,3"
peers = [4, 5]
load = 0.5
link_mb_per_s = 50000
size_bytes = [4096, 8192]
messages = 20
flags = "each"

[[pattern]]
kind = "permutation"
gpus = "0-2"
shift = 1
start_ns = 500
"""


def test_patterns_of_a_file_run_side_by_side(tmp_path):
    (tmp_path / "p.toml").write_text(TOML)
    trace = generate(read_patterns(tmp_path / "p.toml"), tmp_path / "t")
    writes = table(trace, "writes").query("kind == 'data'")
    first, second = (writes[writes["workgroup"] == number] for number in (0, 1))
    assert Counter(first["rank"]) == {0: 20, 1: 20, 3: 20}
    assert set(first["peer"]) == {4, 5}
    assert set(first["size_bytes"]) == {4096, 8192}
    assert list(zip(second["rank"], second["peer"], second["issue_ns"], strict=True)) == [
        (0, 1, 500), (1, 2, 500), (2, 0, 500)
    ]  # fmt: skip
    assert set(table(trace, "waits").query("workgroup == 0")["rank"]) == {4, 5}
    assert check(trace.path) == []
    lowered = lower(trace, ideal(6))
    outcome = run(lowered.program, ideal(6), wait=spin(50))
    every = np.arange(len(lowered.program.activities["agent"]))
    assert outcome.activity_times[1].tolist() == captured(lowered, every)[1].tolist()


def test_the_documented_file_works(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs/generate.md").read_text(), re.S)[1]
    (tmp_path / "p.toml").write_text(text)
    assert check(generate(read_patterns(tmp_path / "p.toml"), tmp_path / "t").path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus = 4", r"no \[\[pattern\]\]; write at least one"),
        ("gpus = [", r"p\.toml: .*give a TOML file"),
        ("[[pattern]]\nkind = 'incast'", "gpus is missing"),
        ("gpus = '4'\n[[pattern]]\nkind = 'incast'", "gpus is '4'; give a value of type int"),
        ("gpus = 4\n[[pattern]]\nkind = 'storm'", r"pattern 1: kind is 'storm'; choose uniform"),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\nrate = 3", r"pattern 1: unknown key rate; known are kind"),
        (
            "gpus = 4\n[[pattern]]\nkind = 'incast'\ngpus = '3-1'",
            r"pattern 1: gpus is '3-1'; give GPUs such as",
        ),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\ngpus = '3-4'", r"pattern 1: GPU 4 is none of 0 to 3"),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\nload = 0.5", "load and link_mb_per_s together"),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\nload = 2\nlink_mb_per_s = 1", "--load 2"),
        ("gpus = 4\n[[pattern]]\nkind = 'poisson'", "no rate"),
        ("gpus = 4\n[[pattern]]\nkind = 'uniform'\nshift = 1", "shift belongs to kind permutation"),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\nsize_bytes = -1", "size_bytes is -1; give a whole number"),
        ("gpus = 4\n[[pattern]]\nkind = 'incast'\nflags = 'some'", "--flags some: choose last"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_key_and_remedy(text, message, tmp_path):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_patterns(tmp_path / "p.toml")
    assert str(tmp_path / "p.toml") in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GemvAllReduce(gpus=6), "--rows 8192 is no multiple of --gpus 6.*give 8190"),
        (lambda: GemvAllReduce(gpus=1), "--gpus 1: traffic between GPUs needs 2"),
        (lambda: GemvAllReduce(gpus=4, tile_rows=0), "--tile-rows 0: give at least 1"),
        (lambda: EmbeddingAllToAll(gpus=4, poll_ns=0), "--poll-ns 0: give at least 1"),
        (lambda: GemmAllToAll(gpus=4, gflop_per_s=0), "--flop-rate 0: give at least 1"),
        (lambda: GENERATORS["permutation"](gpus=4, shift=4), "would only write to itself"),
        (lambda: GENERATORS["permutation"](gpus=4, shift=0), "would only write to itself"),
        (lambda: GENERATORS["incast"](gpus=4, peers=(4,)), "GPU 4 is none of 0 to 3"),
        (lambda: GENERATORS["poisson"](gpus=4), "no rate"),
        (lambda: GENERATORS["uniform"](gpus=4, rate_per_s=0.1), "--rate-per-s 0.1: give 1 to 1e12"),
        (lambda: GENERATORS["uniform"](gpus=4, rate_per_s=1, messages=10**7), "the messages take 1e"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_targets_out_of_range_leave_nothing_behind(tmp_path):
    with pytest.raises(UsageError, match="--targets 5: give 1 to 4"):
        made("incast", tmp_path, targets=5)
    assert list(tmp_path.iterdir()) == []
