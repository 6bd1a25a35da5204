"""Where a GPU's time went: waits inside of a phase are not computing."""

from eidola.replay import run
from eidola.replay.builder import Builder
from eidola.replay.program import Mode, compute, wait, write

from .programs import MIB, US, star

ARRIVAL = 20_971_520 + 2 * US


def waiting_phase(beside: bool):
    """GPU 1, in one phase: compute 5 us, wait for 1 MiB from GPU 0, compute 3 us. Beside it 10 us."""
    builder = Builder(2)
    flag = builder.flags([0, 1])
    builder.call(builder.agent(0, "sender"), builder.block([write(1, MIB, flag)]))
    agent = builder.agent(1, "workgroup 0")
    phase = builder.activity(agent, "phase", "reduce")
    ops = [compute(5 * US), wait(flag, 1, mode=Mode.POLL), compute(3 * US)]
    builder.call(agent, builder.block(ops), activity=phase)
    if beside:
        other = builder.agent(1, "workgroup 1")
        kernel = builder.activity(other, "kernel", "gemv")
        builder.call(other, builder.block([compute(10 * US)]), activity=kernel)
    return run(builder.build(), star(2), segment_bytes=0).tables()["gpus"]


def test_a_wait_inside_a_phase_is_exposed_not_computing():
    gpus = waiting_phase(beside=False)
    assert gpus["compute_ps"].tolist() == [0, 8 * US]
    assert gpus["exposed_ps"].tolist() == [0, ARRIVAL - 5 * US]


def test_a_wait_that_another_agent_covers_is_not_exposed():
    gpus = waiting_phase(beside=True)
    assert gpus["compute_ps"].tolist() == [0, 13 * US]
    assert gpus["exposed_ps"].tolist() == [0, ARRIVAL - 10 * US]
