"""A user's own algorithm: the example of docs/algorithms.md, installed as a package, and what goes wrong."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from eidola.replay import replay, run
from eidola.replay.collectives import Operation, Tuning
from eidola.replay.presets import preset
from eidola.schemas import UsageError

from .programs import MIB, US
from .test_collectives import program
from .test_lower_collectives import job

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/algorithms.md"
SERIALISED = 20_971_520  # of a MiB on the star, in picoseconds


def install(folder: Path, name: str, code: str, entries: dict[str, str]) -> None:
    """Lay a package out as pip does."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[eidola.algorithms]\n{lines}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path that nothing was imported from."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def example(site):
    text = DOCUMENT.read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.S)[1])["project"]
    install(site, project["name"], code, project["entry-points"]["eidola.algorithms"])
    return project


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_documented_example_takes_a_step_a_bit(example, n):
    fabric = preset("star", n)
    made = program(fabric, range(n), (Operation("all_reduce", MIB), Tuning("doubling")))
    for engine in ("compiled", "reference"):
        took = run(made, fabric, segment_bytes=0, engine=engine).makespan_ps
        assert took == (n.bit_length() - 1) * (SERIALISED + 2 * US)


def test_a_trace_is_replayed_with_it(example, tmp_path):
    results = replay(job(tmp_path / "t"), fabric="star", algorithms={"all_reduce": "doubling"})
    assert set(results.read("collectives")["algorithm"].to_pylist()) == {"doubling"}


def test_its_own_refusal_reaches_the_user(example):
    with pytest.raises(UsageError, match="power of two of ranks, not 6; take ring"):
        program(preset("star", 6), range(6), (Operation("all_reduce", 8), Tuning("doubling")))


def test_an_unknown_name_lists_what_there_is(example):
    with pytest.raises(UsageError, match=r"no algorithm 'tripling'; it has ring, .*, doubling"):
        program(preset("star", 4), range(4), (Operation("all_reduce", 8), Tuning("tripling")))


def test_a_new_operation_can_be_taught(site):
    install(site, "teach", "def nothing(work):\n    return [[[] for _ in work.members]]\n",
            {"hush.quiet": "teach:nothing"})  # fmt: skip
    made = program(preset("star", 4), range(4), (Operation("hush", 8), Tuning("quiet")))
    assert made.messages == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "def wrong(work):\n    return 1 / 0\n",
            r"all_reduce.wrong \(faulty:wrong\) failed.*ZeroDivisionError",
        ),
        ("def wrong(work):\n    return [[]]\n", r"faulty:wrong.*for each of the 4 ranks; .* tracks for 0"),
        ("def wrong(work):\n    return []\n", "faulty:wrong.*returned tracks for none"),
        ("other = 1\n", "all_reduce.wrong cannot be imported from faulty:wrong"),
        ("import nowhere_to_be_found\n", "cannot be imported.*nowhere_to_be_found"),
    ],
)
def test_what_goes_wrong_in_it_is_reported_with_its_name(site, code, said):
    install(site, "faulty", code, {"all_reduce.wrong": "faulty:wrong"})
    with pytest.raises(UsageError, match=said):
        program(preset("star", 4), range(4), (Operation("all_reduce", 8), Tuning("wrong")))


def test_it_never_hides_one_of_eidolas_own(site):
    install(site, "greedy", "def ring(work):\n    raise RuntimeError\n", {"all_reduce.ring": "greedy:ring"})
    made = program(preset("star", 4), range(4), (Operation("all_reduce", 800), Tuning("ring")))
    assert made.messages == 24
