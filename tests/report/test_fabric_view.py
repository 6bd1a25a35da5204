"""The fabric's picture: what it draws, and that it keeps every link between places."""

import numpy as np
import pyarrow as pa
import pytest

from eidola.replay.presets import fabric as preset
from eidola.report.fabric import fabric
from eidola.report.fabric_layout import lay_out

MAKESPAN_PS = 1_000_000


def links(name, gpus):
    """The results' links of a preset; link i was busy for i ps."""
    built = preset(name, gpus)
    names = np.array(built.node_names, object)
    source, destination = names[built.source].tolist(), names[built.destination].tolist()
    return pa.table(
        {
            "name": [f"{a} -> {b}" for a, b in zip(source, destination, strict=True)],
            "source": source,
            "destination": destination,
            "busy_ps": np.arange(built.links),
            "wire_bytes": np.ones(built.links, np.int64),
        }
    )


@pytest.mark.parametrize(
    ("name", "gpus", "box"),
    [("hgx-h100", 8, 8), ("hgx-h100", 64, 8), ("hgx-h100", 1024, 8), ("mi300x", 8, 8), ("mi300x", 256, 8)],
)
def test_every_link_between_places_is_in_one_line(name, gpus, box):
    table = links(name, gpus)
    places, source, destination = lay_out(table["source"].to_pylist(), table["destination"].to_pylist(), box)
    view = fabric(table, MAKESPAN_PS, box)
    columns = {column.name: column.values for column in view.tables[0].columns}
    assert sum(columns["links"]) == sum(columns["bytes on the wire"]) == (source != destination).sum()
    drawn = [c for trace in view.charts[0].data if trace["mode"] == "lines" for c in trace["x"] if c is None]
    assert len(drawn) == len(columns["links"])
    assert all(0 < place.x < 1 for place in places)
    assert len(places) <= 64 * len({place.kind for place in places})


def test_up_to_64_gpus_each_is_drawn_and_beyond_boxes_hold_them():
    def drawn(gpus):
        table = links("hgx-h100", gpus)
        return lay_out(table["source"].to_pylist(), table["destination"].to_pylist(), 8)[0]

    assert [p.name for p in drawn(64) if p.kind == "gpu"] == [f"gpu {i}" for i in range(64)]
    boxes = [p for p in drawn(1024) if p.kind == "box"]
    assert not [p for p in drawn(1024) if p.kind in ("gpu", "nic", "nvswitch")]
    assert [boxes[0].name, boxes[-1].name] == ["box 0 to 3", "box 124 to 127"]
    assert sum(p.members for p in boxes) == 128


def test_gpus_stand_below_switches_and_switches_below_spines():
    table = links("hgx-h100", 32)
    places, *_ = lay_out(table["source"].to_pylist(), table["destination"].to_pylist(), 8)
    levels = {place.kind: place.y for place in places}
    assert levels == {"gpu": 0, "nvswitch": 1, "nic": 1, "leaf": 2, "spine": 3}


def test_the_busiest_link_is_said_and_hottest():
    view = fabric(links("hgx-h100", 8), MAKESPAN_PS, 8)
    assert "The busiest, gpu 7 -> nvswitch 0" in view.sentence or "nvswitch 0 -> gpu 7" in view.sentence
    lines = [trace for trace in view.charts[0].data if trace["mode"] == "lines"]
    assert lines[-1]["line"]["color"] == "@heat4"


def test_idle_links_are_grey_and_no_links_no_view():
    table = links("hgx-h100", 8)
    idle = table.set_column(3, "busy_ps", pa.array(np.zeros(table.num_rows, np.int64)))
    view = fabric(idle, MAKESPAN_PS, 8)
    assert view.sentence == "None of the fabric's 16 links carried anything."
    assert {t["line"]["color"] for t in view.charts[0].data if t["mode"] == "lines"} == {"@line"}
    assert fabric(table.slice(0, 0), MAKESPAN_PS, 8) is None
