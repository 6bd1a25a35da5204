"""Many ranks: several at once, through workers that die; and a killed conversion, which the next goes on with."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from eidola.convert import convert, kineto
from eidola.convert.columns import whole
from eidola.convert.kineto import FORMAT, read_rank
from eidola.convert.rank_file import load_ranks, save_ranks
from eidola.convert.sources import Source
from eidola.schemas import TRACE_TABLES, InputError, Trace, UsageError

RANKS = 6

MORTAL = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from eidola.convert import convert
from eidola.convert.kineto import FORMAT

def read(source, alone):
    mark = Path(os.environ["MARKS"]) / source.trace.name
    if "2" in source.trace.name and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with mark.open("a") as marks:
        marks.write("read ")
    return FORMAT.read(source, alone)

MORTAL = replace(FORMAT, read=read)

def tell(what, done, total):
    print(what, done, flush=True)

if __name__ == "__main__":
    import mortal
    how, output, *paths = sys.argv[1:]
    if how == "one":
        convert(FORMAT, paths, output, progress=tell, jobs=1)
    elif how == "two":
        convert(mortal.MORTAL, paths, output, progress=tell, jobs=2)
    else:
        from distributed import LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            convert(mortal.MORTAL, paths, output, progress=tell, cluster=cluster.scheduler_address)
"""


@pytest.fixture
def paths(write, make):
    return [
        write(
            f"rank{r}.json",
            make.document(make.rank_events(shift_us=3.5 * r, operations=40), rank=r, world=RANKS),
        )
        for r in range(RANKS)
    ]


@pytest.fixture
def start(tmp_path, paths):
    """Start a conversion in a process of its own."""
    (tmp_path / "mortal.py").write_text(MORTAL)
    (tmp_path / "marks").mkdir()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "MARKS": str(tmp_path / "marks"), "PYTHONPATH": path}

    def begin(how):
        command = [sys.executable, "mortal.py", how, "out.eidola", *map(str, paths)]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return begin


def content(path):
    """Return all that a trace holds, but for its own name."""
    trace = Trace(path)
    return trace.notes, {name: trace.read(name).to_pylist() for name in TRACE_TABLES}


def test_a_conversion_that_is_killed_leaves_nothing_and_is_gone_on_with(tmp_path, paths, start):
    output, chance = tmp_path / "out.eidola", random.Random(6)
    had = 0
    for enough in (1, 3, RANKS):
        with start("one") as process:
            told = iter(process.stdout.readline, "")
            first = int(next(told).split()[-1])
            assert first >= had
            had = next(done for done in (first, *(int(line.split()[-1]) for line in told)) if done >= enough)
            time.sleep(chance.random() / 50)
            process.kill()
        if output.exists():  # it was quicker than the kill: then the trace is whole
            break
    with start("one") as process:
        out, err = process.communicate()
    if "exists" not in err:
        assert out.startswith(f"reading kineto {RANKS}"), err
    kineto(paths, tmp_path / "plain.eidola")
    assert content(output) == content(tmp_path / "plain.eidola")
    kineto(paths, output, overwrite=True)
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("how", ["two", "dask"])
def test_a_killed_worker_loses_nothing(tmp_path, paths, start, how):
    if how == "dask":
        pytest.importorskip("distributed", reason="Dask is not installed: a cluster is not tested")
    with start(how) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == f"done {RANKS}"
    assert (tmp_path / "marks" / "rank2.json").read_text() == "read "
    kineto(paths, tmp_path / "plain.eidola")
    assert content(tmp_path / "out.eidola")[1] == content(tmp_path / "plain.eidola")[1]


def test_a_conversion_killed_with_its_pool_at_work_is_gone_on_with(tmp_path, paths, start):
    for _ in range(2):
        with start("two") as process:
            assert process.stdout.readline().startswith("reading kineto")
            time.sleep(random.Random(9).random())
            process.kill()
    with start("one") as process:
        _, err = process.communicate()
    assert "exists" in err or process.returncode == 0, err
    kineto(paths, tmp_path / "plain.eidola")
    assert content(tmp_path / "out.eidola") == content(tmp_path / "plain.eidola")


def test_a_rank_that_changed_is_read_again_and_others_are_not(tmp_path, paths, make, write):
    def stop(what, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kineto(paths, tmp_path / "out.eidola", progress=stop)
    assert not (tmp_path / "out.eidola").exists()
    write("rank1.json", make.document(make.rank_events(operations=7), rank=1, world=RANKS))
    seen = []
    report = kineto(paths, tmp_path / "out.eidola", progress=lambda what, done, total: seen.append(done))
    assert seen[0] == 3
    assert Trace(report.path).read("spans", ["rank"], [1]).num_rows == 7 * 4
    assert not list(tmp_path.glob(".out*"))


def test_a_bad_rank_fails_the_conversion_and_leaves_nothing(tmp_path, paths, write):
    write("rank3.json", b"no trace")
    with pytest.raises(InputError, match=r"rank3\.json"):
        kineto(paths, tmp_path / "out.eidola")
    assert not list(tmp_path.glob(".out*")) + list(tmp_path.glob("*.eidola"))
    with pytest.raises(UsageError, match="--jobs 0"):
        convert(FORMAT, paths, tmp_path / "out.eidola", jobs=0)


@pytest.mark.parametrize(
    "name", ["kineto/a100_nccl_rank0of2.json.gz", "kineto/mi300x_resnet_rank0of8.json.gz"]
)
def test_a_rank_comes_back_from_its_file_as_it_was(tmp_path, shared, name):
    record = read_rank(Source(shared(name)), alone=True)
    save_ranks([record, record], tmp_path / "kept")
    back, again = load_ranks(tmp_path / "kept")
    plain = (
        "rank",
        "path",
        "world_size",
        "hardware",
        "window_ns",
        "dropped",
        "notes",
        "parts",
        "contradicted",
    )
    for field in plain:
        assert getattr(back, field) == getattr(again, field) == getattr(record, field)
    for table in ("spans", "edges"):
        assert pa.table(whole(getattr(back, table))).equals(pa.table(whole(getattr(record, table)))), table


def test_a_replaced_trace_comes_back_where_its_replacement_was_killed(tmp_path, paths):
    """Killed between the two renames, the old trace lies aside; whoever writes there next finds it again."""
    kineto(paths, tmp_path / "out.eidola")
    (tmp_path / "out.eidola").rename(tmp_path / ".out.eidola.partial.77.old")
    (tmp_path / ".out.eidola.partial.77").mkdir()
    with pytest.raises(UsageError, match="exists"):
        kineto(paths, tmp_path / "out.eidola")
    assert Trace(tmp_path / "out.eidola").ranks() == list(range(RANKS))
    assert not list(Path(tmp_path).glob(".out*"))
