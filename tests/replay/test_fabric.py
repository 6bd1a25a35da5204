"""Fabrics from TOML: routes are shortest, rules are few, and mistakes are named with file, key and remedy."""

from pathlib import Path

import pytest

from eidola.replay import Builder, run
from eidola.replay.collectives import Operation, expand, tuning
from eidola.replay.presets import check_routes, load
from eidola.replay.program import write
from eidola.schemas import InputError

from .programs import alone

STAR = """
gpus = 8
box_gpus = 4
[[switch]]
name = "middle"
[[link]]
from = "gpu 0-7"
to = "middle"
rate_gb_per_s = 50
latency_ns = 1000
"""

LEAVES = """
name = "two leaves"
gpus = 8
[[switch]]
name = "left"
[[switch]]
name = "right"
store_and_forward = true
[[switch]]
name = "spine 0"
[[switch]]
name = "spine 1"
[[link]]
from = ["gpu 0-2", "gpu 3"]
to = "left"
rate_gb_per_s = 50
latency_ns = 500
header_bytes = 32
payload_bytes = 128
[[link]]
from = "gpu 4-7"
to = "right"
rate_gb_per_s = 12.5
latency_ns = 0.5
[[link]]
from = ["left", "right"]
to = ["spine 0", "spine 1"]
rate_gb_per_s = 100
latency_ns = 500
"""

LINE = """
gpus = 3
forwarding = ["gpu 1"]
[[link]]
from = "gpu 0"
to = "gpu 1"
rate_gb_per_s = 50
latency_ns = 500
[[link]]
from = "gpu 1"
to = "gpu 2"
rate_gb_per_s = 50
latency_ns = 500
"""


def made(tmp_path, text):
    path = tmp_path / "net.toml"
    path.write_text(text)
    return load(path)


def test_a_star_is_read_with_few_rules(tmp_path):
    fabric = made(tmp_path, STAR)
    assert (fabric.name, fabric.endpoints, fabric.links) == ("net", 8, 16)
    assert fabric.box.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert len(fabric.rule_low) == 8 + 1  # one a GPU, one for the switch
    check_routes(fabric)
    assert [fabric.link_name(link) for link in fabric.route(2, 7)] == ["gpu 2 -> middle", "middle -> gpu 7"]


def test_links_and_switches_are_as_the_file_says(tmp_path):
    fabric = made(tmp_path, LEAVES)
    check_routes(fabric)
    assert fabric.name == "two leaves"
    assert fabric.store_and_forward.tolist() == [0] * 9 + [1, 0, 0]
    up = fabric.route(0, 1)[0]
    assert (fabric.rate_mb_per_s[up], fabric.latency_ps[up]) == (50_000, 500_000)
    assert (fabric.header_bytes[up], fabric.payload_bytes[up]) == (32, 128)
    slow = fabric.route(4, 5)[0]
    assert (fabric.rate_mb_per_s[slow], fabric.latency_ps[slow]) == (12_500, 500)


def test_destinations_spread_over_equally_short_routes(tmp_path):
    fabric = made(tmp_path, LEAVES)
    spines = [fabric.node_names[fabric.destination[fabric.route(0, goal)[1]]] for goal in range(4, 8)]
    assert spines == ["spine 0", "spine 1", "spine 0", "spine 1"]


def test_gpus_forward_only_where_the_file_says(tmp_path):
    fabric = made(tmp_path, LINE)
    assert len(fabric.route(0, 2)) == 2
    assert fabric.store_and_forward.tolist() == [0, 1, 0]
    with pytest.raises(InputError, match=r"net.toml: link: no route from 'gpu 2' to 'gpu 0'.*forwarding"):
        made(tmp_path, LINE.replace('forwarding = ["gpu 1"]', ""))


def test_one_way_links_are_one_way(tmp_path):
    ring = "gpus = 3\nforwarding = ['gpu 0-2']\n" + "".join(
        f"[[link]]\nfrom = 'gpu {i}'\nto = 'gpu {(i + 1) % 3}'\nrate_gb_per_s = 1\nlatency_ns = 1\nboth = false\n"
        for i in range(3)
    )
    fabric = made(tmp_path, ring)
    assert fabric.links == 3
    assert [len(fabric.route(0, goal)) for goal in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpus = ", "net.toml: no TOML"),
        ("", "top level: key 'gpus' is missing"),
        ("gpus = 2\n", "key 'link' is missing"),
        (STAR.replace("gpus = 8", "gpus = 0"), "gpus: 0 GPUs"),
        (STAR.replace("gpus = 8", "gpus = true"), "gpus: True is no int"),
        (STAR.replace("gpus = 8", "gpus = 9"), "'gpu 8' has no link; add one"),
        (
            STAR.replace("latency_ns", "latency_us"),
            "link 1: unknown key 'latency_us'; keys are from, to, rate",
        ),
        (STAR.replace("= 50\n", "= 0\n"), "link 1, rate_gb_per_s"),
        (STAR.replace("= 50\n", "= -3.5\n"), "link 1, rate_gb_per_s"),
        (STAR.replace("= 50\n", "= 'fast'\n"), "link 1, rate_gb_per_s: 'fast' is no int or float"),
        (STAR + "header_bytes = 8\n", "headers need a payload_bytes"),
        (STAR.replace('to = "middle"', 'to = "centre"'), "link 1, to: no GPU or switch 'centre'; add"),
        (STAR.replace("gpu 0-7", "gpu 0-9"), "no GPU or switch 'gpu 8'"),
        (STAR.replace('to = "middle"', 'to = "gpu 3"'), "links 'gpu 3' to itself"),
        (STAR.replace('"middle"', '"gpu 3"', 1), "switch 1, name: 'gpu 3' is there already; rename"),
        (STAR.replace("name =", "title ="), "switch 1: unknown key 'title'"),
        (STAR.replace("[[switch]]", "[switch]"), "switch: .* is no list"),
        ("switch = [3]\n" + STAR.replace('[[switch]]\nname = "middle"', ""), "switch 1: is no table"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        made(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.toml: No such file"):
        load(tmp_path / "absent.toml")


EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/two_generations.toml"


def arrival_ps(fabric, source, destination, size):
    """When a message posted at time 0 lands whole, moved as one segment."""
    program = alone(fabric.gpus, (source, [write(destination, size)]))
    return int(run(program, fabric, segment_bytes=0).final.rows.messages["arrival_ps"][0])


def test_the_example_has_hosts_nics_and_links_that_differ():
    """A message takes the latencies of its way, and its serialisation on the slowest link, headers included."""
    fabric = load(EXAMPLE)
    assert fabric.box.tolist() == [0] * 8 + [1] * 4
    assert check_routes(fabric).lengths == {2: 8 * 7 + 4 * 3, 5: 2 * 32}
    size = 4096 * 1000
    nvlink, pcie4 = size + 27 * 32_000, size + 24 * 32_000
    net = size + 82 * 1000
    assert arrival_ps(fabric, 0, 7, size) == 2 * 150_000 + -(-nvlink * 1000 // 450)
    assert arrival_ps(fabric, 8, 11, size) == 2 * 250_000 + -(-pcie4 * 10**6 // 31_508)
    assert arrival_ps(fabric, 0, 2, size) < arrival_ps(fabric, 8, 11, size)
    across = 500_000 + 2 * 250_000 + 2 * 250_000
    assert arrival_ps(fabric, 0, 8, size) == across + -(-net * 1000 // 25)


def test_a_switch_that_computes_and_the_generation_make_nvls_possible(tmp_path):
    """Eight Hoppers on a switch that computes, for which NCCL's choice for a large all-reduce is NVLS."""
    text = STAR.replace("box_gpus = 4", 'box_gpus = 8\ngpu = "hopper"')
    plain = made(tmp_path, text)
    fabric = made(tmp_path, text.replace('"middle"\n[[', '"middle"\ncomputes = true\n[['))
    operation = Operation("all_reduce", 1 << 30, element_bytes=2)
    chosen = [tuning(f, operation, list(range(8))).algorithm for f in (plain, fabric)]
    assert chosen == ["ring", "nvls"]
    assert fabric.endpoints == 9
    builder = Builder(8)
    how = tuning(fabric, operation, list(range(8)))
    for gpu, calls in enumerate(expand(builder, fabric, range(8), operation, how).calls):
        agent = builder.agent(gpu, "stream")
        for call in calls:
            builder.call(agent, **call)
    assert not run(builder.build(), fabric, segment_bytes=0, record="none").blocked()
