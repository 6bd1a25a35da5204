"""Ranks that nobody captured, predicted from those that somebody did, against the ranks themselves.

From a capture of 8 ranks 2 or 4 are kept; the others are filled in, and what comes out is compared with all 8. The
kept ranks took part in operations of 8, so sizes and the network are not at stake: what is predicted is the missing
ranks' work, and with it who is late, and how long the step takes.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from eidola.convert import kineto
from eidola.replay.scaled import write_scaled
from eidola.schemas import Trace, UsageError, check

from .test_scale_trace import assert_same
from .test_v100_job import EXECUTION, KINETO

STUDY = Path(__file__).resolve().parents[2] / "docs/studies/scaling.py"

CHOICES = {
    2: [(0, 1), (2, 3), (4, 5), (6, 7)],
    4: [(0, 1, 2, 3), (4, 5, 6, 7), (0, 2, 4, 6), (1, 3, 5, 7)],
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    if not KINETO.is_dir():
        pytest.skip(f"{KINETO} is not there")
    path = tmp_path_factory.mktemp("v100") / "dlrm.eidola"
    kineto([KINETO], path, [EXECUTION])
    return Trace(path)


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("scaling", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_missing_ranks_of_the_v100_job(trace, study, tmp_path):
    """Errors stay within what docs/validation.md says of all choices of 2 and of 4 ranks.

    Ranks reach the first collective up to 7.6 ms apart, an accident of when each one's recording began: who is last
    decides the step's length, and is known only where that rank was captured. What follows is the job's.
    """
    whole, captured = study.replayed(trace)
    assert abs(whole.length / captured.length - 1) < 0.001
    for choices in CHOICES.values():
        for ranks in choices:
            found, _ = study.replayed(study.kept(trace, ranks, tmp_path / "-".join(map(str, ranks))))
            missing = [rank for rank in range(8) if rank not in ranks]
            assert abs(found.after / captured.after - 1) < 0.08
            assert np.abs(found.compute[missing] / whole.compute[missing] - 1).mean() < 0.13
            assert np.array_equal(found.compute[list(ranks)], whole.compute[list(ranks)])
            assert found.length < captured.length * 1.001  # whoever was last is missing, or is not


@pytest.mark.parametrize(("gpus", "law"), [(8, "weak"), (24, "weak"), (24, "strong"), (12, "weak")])
def test_the_v100_job_as_a_scaled_trace(trace, tmp_path, gpus, law):
    assert_same(trace, tmp_path / "s", gpus, law=law)


def test_two_ranks_of_128_can_be_filled_in(tmp_path):
    """Who is not captured is stood for, and listed; without `fill` the shape is refused."""
    source = KINETO.parent / "a100_2of128ranks"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    kineto([source], tmp_path / "t")
    with pytest.raises(UsageError, match="holds 2 of the 128 ranks"):
        write_scaled(tmp_path / "t", tmp_path / "s", gpus=256)
    made = write_scaled(tmp_path / "t", tmp_path / "s", gpus=256, fill=True)
    assert len(made.ranks()) == 256
    assert any("254 added" in note for note in made.notes["extrapolated"])
    assert [str(p) for p in check(made.path) if p.severity == "error"] == []
