"""All routes of a fabric at once are those that one at a time gives; what does not arrive is named."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.replay.routes import check_routes
from eidola.schemas import UsageError

from .programs import fabrics, star


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_lengths_are_those_of_single_routes(data):
    gpus = data.draw(st.integers(1, 7))
    fabric = data.draw(fabrics(gpus))
    found = check_routes(fabric)
    assert found.pairs == gpus * (gpus - 1)
    if fabric.ideal:
        return
    routes = [fabric.route(a, b) for a in range(gpus) for b in range(gpus) if a != b]
    assert found.lengths == {n: sum(len(r) == n for r in routes) for n in {len(r) for r in routes}}
    assert found.busiest_pairs == max(
        (sum(link in r for r in routes) for link in range(fabric.links)), default=0
    )


def test_a_pair_without_a_route_is_named():
    fabric = star(4)
    with pytest.raises(UsageError, match=r"no route from GPU 0 to GPU 3 \(gpu 0 -> switch\)"):
        check_routes(replace(fabric, rule_high=fabric.rule_high - (fabric.rule_stride == 1)))


def test_routes_that_loop_are_named():
    fabric = star(2)
    back = fabric.choices.copy()
    back[fabric.choice_first[-2] :] = (
        2  # the switch sends what is for GPU 1 to GPU 0, which sends it up again
    )
    with pytest.raises(UsageError, match="no route from GPU 0 to GPU 1"):
        check_routes(replace(fabric, choices=back))
