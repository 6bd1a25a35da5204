"""The scripts in docs/studies give what docs/validation.md says."""

import importlib.util
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).resolve().parents[1] / "docs" / "studies"


def study(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


TOLERANCE = {"alpha-beta": 1e-9, "LogGOP": 1e-9, "max-min": 0.001, "FIFO-proportional": 0.01}


@pytest.mark.parametrize("group", ["alpha_beta", "loggop", "max_min", "parking_lot"])
def test_the_engine_agrees_with_closed_forms_and_solvers(group):
    found = list(getattr(study("crosschecks"), group)())
    assert found
    for check in found:
        assert check.simulated == pytest.approx(check.expected, rel=TOLERANCE[check.against]), check


def test_fifos_on_a_parking_lot_are_not_max_min():
    crosschecks = study("crosschecks")
    flows = [crosschecks.Flow(0, 2), crosschecks.Flow(0, 1), crosschecks.Flow(1, 2)]
    assert crosschecks.proportional(flows) == pytest.approx([1 / 3, 1 / 2, 2 / 3])  # max-min: all 1/2
