"""`eidola replay generate`, as a user runs it."""

import subprocess
import sys

import pytest

from eidola.replay.generate import GENERATORS
from eidola.schemas import Trace

EIDOLA = [sys.executable, "-c", "from eidola.cli.main import main; main()"]


def eidola(*args, cwd, code=0):
    done = subprocess.run([*EIDOLA, *map(str, args)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("name", ["gemv-allreduce", "embedding-alltoall", "gemm-alltoall"])
def test_kernels_default_to_what_the_api_defaults_to(name, tmp_path):
    done = eidola("replay", "generate", name, cwd=tmp_path)
    assert f"wrote {name}.eidola: 8 ranks" in done.stdout
    notes = Trace(tmp_path / f"{name}.eidola").notes
    assert notes["parameters"] == vars(GENERATORS[name](gpus=8))
    assert notes["generator"] == name


def test_a_generated_trace_replays_and_knows_its_command(tmp_path):
    made = ("replay", "generate", "gemv-allreduce", "--gpus", 4, "-m", 256, "-k", 64, "-o", "g.eidola")
    eidola(*made, "--jitter-ns", 500, "--seed", 3, cwd=tmp_path)
    notes = Trace(tmp_path / "g.eidola").notes
    assert notes["command"].startswith("eidola ")
    assert (notes["seed"], notes["parameters"]["jitter_ns"]) == (3, 500)
    eidola(
        "replay", "run", "g.eidola", "--engine", "reference", "--fabric", "star", "-o", "run", cwd=tmp_path
    )
    assert (tmp_path / "run/summary.json").is_file()


def test_patterns_by_option_and_by_file_are_the_same(tmp_path):
    (tmp_path / "p.toml").write_text(
        "gpus = 6\nseed = 4\n[[pattern]]\nkind = 'incast'\npeers = [1, 2]\nload = 0.25\n"
        "link_mb_per_s = 1000\nsize_bytes = [100, 200]\nmessages = 30\nflags = 'each'\n"
    )
    eidola("replay", "generate", "patterns", "p.toml", "-q", cwd=tmp_path)
    sizes = ("--size-bytes", 100, "--size-bytes", 200, "--messages", 30, "--flags", "each")
    load = ("--load", 0.25, "--link-rate", 1000, "--hot", "1-2", "--seed", 4, "--gpus", 6)
    eidola("replay", "generate", "incast", *sizes, *load, "-q", cwd=tmp_path)
    for table in ("spans", "writes", "waits"):
        first, second = (Trace(tmp_path / f"{name}.eidola").read(table) for name in ("p", "incast"))
        assert first.equals(second)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("gemv-allreduce", "--gpus", 6), 2, "--rows 8192 is no multiple of --gpus 6"),
        (("poisson",), 2, "give --rate-per-s, or --load and --link-rate"),
        (("poisson", "--load", 0.5), 2, "give --load and --link-rate together"),
        (("incast", "--hot", "x"), 3, "--hot is 'x'"),
        (("patterns", "none.toml"), 3, "none.toml"),
        (("incast", "--targets", 9), 2, "--targets 9: give 1 to 8"),
    ],
)
def test_refusals_name_the_option_and_leave_nothing(args, code, message, tmp_path):
    assert message in eidola("replay", "generate", *args, cwd=tmp_path, code=code).stderr
    assert list(tmp_path.iterdir()) == []
