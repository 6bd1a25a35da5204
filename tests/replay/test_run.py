"""Programs that cannot run are refused or named, never hung."""

import numpy as np
import pytest

from eidola.replay import run
from eidola.replay.builder import Builder
from eidola.replay.program import Mode, wait, write
from eidola.replay.waiting import Policy, WaitPolicy
from eidola.schemas import StallError, UsageError

from .programs import alone, ring, star


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_stall_names_gpu_flag_expected_and_seen(engine):
    builder = Builder(2)
    flag = builder.flags([0, 1], name="ready")
    builder.call(builder.agent(0, "workgroup 3"), builder.block([write(1, 8, flag)]))
    builder.call(builder.agent(1, "workgroup 5"), builder.block([wait(flag, 2)]))
    with pytest.raises(StallError, match=r"GPU 1, workgroup 5: waits for ready to reach 2, saw 1"):
        run(builder.build(), star(2), engine=engine)


def test_a_stall_of_many_lists_ten_and_counts_the_rest():
    program = alone(64, *[(gpu, [wait(0, 1)]) for gpu in range(64)])
    with pytest.raises(StallError, match=r"64 of 64 agents .*; and 54 more"):
        run(program, star(64))


@pytest.mark.parametrize(
    ("ops", "what"),
    [
        ([write(7, 8, 0)], "writes to a GPU that does not exist"),
        ([write(1, 8, 99)], "uses a flag that was never reserved"),
        ([wait(99, 1)], "uses a flag that was never reserved"),
        ([write(1, -1)], "writes a negative size"),
    ],
)
def test_a_wrong_program_is_refused_by_name(ops, what):
    with pytest.raises(UsageError, match=what):
        run(alone(2, (0, ops)), star(2))


def test_a_fabric_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="8 GPUs, fabric star only 4"):
        run(ring(8), star(4))


def test_a_spin_without_a_period_is_refused():
    with pytest.raises(UsageError, match="--poll-period"):
        run(ring(2), star(2), wait=WaitPolicy(Policy.SPIN))


def test_message_and_wait_rows_are_in_program_order():
    program = ring(4)
    messages, waits = program.message_rows(), program.wait_rows()
    assert (np.diff(messages["agent"]) >= 0).all()
    assert (messages["destination"] == (messages["source"] + 1) % 4).all()
    assert waits["expected"].reshape(4, -1).tolist() == [list(range(1, 7))] * 4
    assert (waits["mode"] == Mode.EVENT).all()
