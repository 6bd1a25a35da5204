"""Where rings are while their processes run: shared memory is taken where there is plenty, and given back."""

import pytest

from eidola.capture.recorder import place


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "SHARED", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_all_ranks_of_a_host_share_one_place_and_their_rings_end_in_the_folder(shared, folder):
    home = place.make(folder, 1)
    assert place.make(folder, 1) == place.home(folder) == home
    assert home.resolve().parent == shared
    (home / "rank00000.0.calls.ring").write_bytes(b"zero")
    (home / "nccl.rank00001.7.ring").write_bytes(b"one")
    place.collect(folder, "*rank00001.*")
    assert [file.name for file in folder.glob("*.ring")] == ["nccl.rank00001.7.ring"]
    place.collect(folder)
    assert (folder / "rank00000.0.calls.ring").read_bytes() == b"zero"
    assert sorted(p.name for p in folder.iterdir()) == ["nccl.rank00001.7.ring", "rank00000.0.calls.ring"]
    assert list(shared.iterdir()) == []


def test_without_plenty_of_room_rings_are_in_the_folder(shared, folder):
    assert place.make(folder, 1 << 60) == folder
    place.collect(folder)
    assert list(shared.iterdir()) == list(folder.iterdir()) == []


def test_where_the_memory_is_not_seen_rings_are_in_the_folder(shared, folder, monkeypatch):
    home = place.make(folder, 1)
    monkeypatch.setattr(place.platform, "node", lambda: "another-host")
    assert place.home(folder) == folder
    monkeypatch.undo()
    home.resolve().rename(shared / "as in another container")
    assert place.home(folder) == folder


def test_without_shared_memory_rings_are_in_the_folder(shared, folder):
    shared.rmdir()
    assert place.make(folder, 1) == folder


def test_what_a_capture_left_is_removed_once_its_folder_is_gone(shared, folder, tmp_path):
    left = place.make(folder, 1).resolve()
    (tmp_path / "other").mkdir()
    place.make(tmp_path / "other", 1)
    assert left.exists()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (tmp_path / "third").mkdir()
    place.make(tmp_path / "third", 1)
    assert not left.exists()


def test_what_comes_to_nothing_leaves_nothing(shared, folder):
    place.make(folder, 1)
    place.discard(folder)
    assert list(shared.iterdir()) == []
