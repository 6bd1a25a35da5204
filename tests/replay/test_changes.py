"""Links that slow down, fail and come back, by hand; and the file that says so."""

import textwrap
from pathlib import Path

import pytest

from eidola.replay import run
from eidola.replay.changes import LinkChange, load_changes
from eidola.replay.fabric import FabricBuilder
from eidola.replay.presets import preset
from eidola.replay.program import wait, write
from eidola.schemas import InputError, StallError

from .programs import alone, star

ENGINES = ("compiled", "reference")
SER, LATENCY = 1_000_000, 10_000  # of 1,000 bytes at 1 GB/s; of every link
FOUR = alone(2, (0, [write(1, 4000, 0)]), (1, [wait(0, 1)]))


def makespan(changes, engine, fabric=None):
    fabric = fabric or star(2, 1000, LATENCY)
    return run(FOUR, fabric, segment_bytes=1000, changes=changes, engine=engine).makespan_ps


@pytest.mark.parametrize("engine", ENGINES)
def test_a_slow_link_serves_what_starts_from_then_on_slowly(engine):
    """Link 0 at half rate from 1.5 segments on: the second is finished, the third and fourth take twice as long."""
    slowed = makespan([LinkChange(3 * SER // 2, 0, 500)], engine)
    assert slowed == 2 * SER + 2 * (2 * SER) + 2 * LATENCY


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_that_comes_back_goes_on_where_it_was(engine):
    down_up = [LinkChange(3 * SER // 2, 0, 0), LinkChange(10 * SER, 0, 1000)]
    assert makespan(down_up, engine) == 10 * SER + 2 * SER + 2 * LATENCY


@pytest.mark.parametrize("engine", ENGINES)
def test_what_waits_for_a_failed_link_takes_another(engine):
    """Two links lead to the switch; the one in use fails in its second segment, the other serves the rest."""
    builder = FabricBuilder("two ways", 2)
    switch = builder.node("switch")
    both = [builder.link(0, switch, 1000, LATENCY), builder.link(0, switch, 1000, LATENCY)]
    builder.rule(0, 1, 2, [both])
    builder.rule(switch, 1, 2, [[builder.link(switch, 1, 1000, LATENCY)]])
    fabric = builder.build()
    used = fabric.next_link(0, 1)
    assert makespan([], engine, fabric) == 4 * SER + 2 * LATENCY
    failed = makespan([LinkChange(3 * SER // 2, used, 0)], engine, fabric)
    # At 1.5 the other link starts the third segment, while the second is still on the first link until 2.
    assert failed == 4 * SER + 2 * LATENCY
    outcome = run(
        FOUR, fabric, segment_bytes=1000, changes=[LinkChange(3 * SER // 2, used, 0)], record="hops"
    )
    hops = outcome.final.rows.hops
    other = both[1 - both.index(used)]
    assert sorted(hops["segment"][hops["link"] == other].tolist()) == [2, 3]
    assert hops["start_ps"][hops["link"] == other].min() == 3 * SER // 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_a_failed_link_stops_names_it(engine):
    with pytest.raises(StallError, match=r"links that are down: \[gpu 0 -> switch\]"):
        makespan([LinkChange(SER, 0, 0)], engine)


def write_events(tmp_path, text):
    path = tmp_path / "events.toml"
    path.write_text(text)
    return path


def test_a_file_names_links_and_nodes_with_wildcards(tmp_path):
    fabric = star(3, 1000, LATENCY)
    path = write_events(
        tmp_path,
        """
        [[event]]
        at = "20us"
        what = "gpu * -> switch"
        action = "slow"
        factor = 0.5
        [[event]]
        at = "1.5us"
        what = "gpu 2"
        action = "fail"
        """,
    )
    changes = load_changes(path, fabric)
    slowed = {c.link for c in changes if c.rate_mb_per_s == 500}
    failed = {c.link for c in changes if c.rate_mb_per_s == 0}
    assert slowed == {i for i in range(fabric.links) if fabric.link_name(i).endswith("switch")}
    assert {fabric.link_name(i) for i in failed} == {"gpu 2 -> switch", "switch -> gpu 2"}
    assert {c.time_ps for c in changes} == {20_000_000, 1_500_000}


EVENT = "[[event]]\nat = '{}'\nwhat = '{}'\naction = '{}'\n"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["nic 0.3", "gpu 3"])
def test_a_nic_or_gpu_that_fails_stalls_what_needs_it_until_it_comes_back(tmp_path, what, engine):
    """GPU 3 reaches its rail's GPU in the next box over one NIC, and nothing else."""
    fabric = preset("hgx-h100", 16)
    program = alone(16, (3, [write(11, 1 << 20, 0)]), (11, [wait(0, 1)]))
    undisturbed = run(program, fabric, engine=engine).makespan_ps
    down = EVENT.format("0ns", what, "fail")
    with pytest.raises(StallError, match=r"links that are down: .*\[gpu 3 -> nic 0.3\]"):
        run(program, fabric, changes=load_changes(write_events(tmp_path, down), fabric), engine=engine)
    back = down + EVENT.format("1ms", what, "restore")
    restored = run(program, fabric, changes=load_changes(write_events(tmp_path, back), fabric), engine=engine)
    assert restored.makespan_ps == 10**9 + undisturbed


@pytest.mark.parametrize("engine", ENGINES)
def test_a_spine_that_fails_is_gone_around(tmp_path, engine):
    """From rail to rail every spine will do: the way is as long over another."""
    fabric = preset("hgx-h100", 16)
    program = alone(16, (0, [write(9, 1 << 20, 0)]), (9, [wait(0, 1)]))
    spine = fabric.node_names[fabric.destination[fabric.route(0, 9)[2]]]
    assert spine.startswith("spine")
    failed = load_changes(write_events(tmp_path, EVENT.format("0ns", spine, "fail")), fabric)
    times = [run(program, fabric, changes=c, engine=engine).makespan_ps for c in ((), failed)]
    assert times[0] == times[1]


def test_the_example_in_the_docs_is_read(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "network.md").read_text()
    example = page[page.index("    [[event]]") : page.index("A link finishes")]
    changes = load_changes(write_events(tmp_path, textwrap.dedent(example)), preset("hgx-h100", 64))
    assert [c.time_ps for c in changes] == sorted(c.time_ps for c in changes)
    assert {c.rate_mb_per_s == 0 for c in changes if c.time_ps == 1_500_000_000} == {True}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "give .*event.* tables"),
        ("[[event]]\nat = '1us'\n", "an event has at, what, action"),
        ("[[event]]\nat = '1us'\nwhat = 'gpu 9'\naction = 'fail'\n", "gpu 9.* is no link or node"),
        ("[[event]]\nat = '1us'\nwhat = 'gpu 0'\naction = 'burn'\n", "action 'burn'"),
        ("[[event]]\nat = '1us'\nwhat = 'gpu 0'\naction = 'slow'\n", "slow needs either factor"),
        ("[[event]]\nat = '1us'\nwhat = 'gpu 0'\naction = 'fail'\nwhy = 1\n", "unknown key 'why'"),
    ],
)
def test_a_wrong_file_is_refused_by_event_and_key(tmp_path, text, what):
    with pytest.raises(InputError, match=what):
        load_changes(write_events(tmp_path, text), star(2))
