"""The rings of light records: what survives, what is lost, who reads them."""

import errno
import os

import numpy as np
import pytest

from eidola.capture.recorder import ring
from eidola.convert import captured_ring
from eidola.schemas import CaptureError, InputError


def test_both_sides_agree_on_the_layout():
    ours = np.dtype(list(ring.FIELDS))
    theirs = captured_ring._RECORD
    assert ours.itemsize == theirs.itemsize == ring.RECORD_BYTES
    assert {n: ours.fields[n][1] for n in ours.names} == {n: theirs.fields[n][1] for n in theirs.names}


@pytest.mark.parametrize("written", [0, 3, 8, 21])
def test_a_ring_keeps_its_newest_records_and_counts_the_rest(tmp_path, written):
    path = tmp_path / "r.ring"
    marks = ring.Marks(path, 8)
    for number in range(written):
        marks.write("step", 10 * number, 10 * number + 5, number=number)
    assert ring.last_ns(path) == max(10 * written - 5, 0)
    assert ring.compact(path) == {"kept": min(written, 8), "lost": max(written - 8, 0)}
    steps, phases = captured_ring.read_marks(path)
    assert [(s.name, s.start_ns, s.end_ns) for s in steps] == [
        (f"step {n}", 10 * n, 10 * n + 5) for n in range(max(0, written - 8), written)
    ]
    assert phases == []


def test_a_record_that_was_not_committed_is_not_read(tmp_path):
    path = tmp_path / "r.ring"
    marks = ring.Marks(path, 8)
    marks.write("phase", 1, 2, text="whole")
    marks.write("phase", 3, 4, text="torn")
    with path.open("r+b") as file:  # as if the process had been killed before the last store
        file.seek(ring.HEADER_BYTES + ring.RECORD_BYTES)
        file.write(bytes(8))
    assert [p.name for p in captured_ring.read_marks(path)[1]] == ["whole"]
    ring.compact(path)
    assert [p.name for p in captured_ring.read_marks(path)[1]] == ["whole"]


def test_long_names_are_cut_at_a_whole_character(tmp_path):
    marks = ring.Marks(tmp_path / "r.ring", 2)
    marks.write("phase", 1, 2, text="ä" * 40 + "x")
    marks.write("phase", 1, 2, text="x" + "ä" * 40)
    names = [p.name for p in captured_ring.read_marks(tmp_path / "r.ring")[1]]
    assert names == ["ä" * 28, "x" + "ä" * 27]


def test_the_scripts_own_steps_replace_the_optimizers(tmp_path):
    marks = ring.Marks(tmp_path / "r.ring", 8)
    marks.write("step", 0, 1, number=0)
    marks.write("own_step", 0, 4, number=0)
    assert [s.end_ns for s in captured_ring.read_marks(tmp_path / "r.ring")[0]] == [4]


def test_a_refused_allocation_is_named_and_leaves_no_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(CaptureError, match=r"ENOSPC.*the script goes on"):
        ring.create(tmp_path / "r.ring", 8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "cannot be read"),
        (lambda raw: b"x" * len(raw), "is no ring"),
        (lambda raw: raw[:8] + b"\x09" + raw[9:], "version 9"),
        (lambda raw: raw[:4200], "cannot be read"),
    ],
)
def test_a_damaged_ring_is_named(tmp_path, damage, message):
    path = tmp_path / "r.ring"
    ring.Marks(path, 8)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"r.ring.*{message}"):
        captured_ring.read_marks(path)
