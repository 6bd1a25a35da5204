"""Runs that the report's tests look at: small programs run by the compiled engine and stored as any run is."""

from eidola.replay import FabricBuilder, run, spin
from eidola.replay.builder import Builder
from eidola.replay.program import Collective, Mode, compute, wait, write
from eidola.schemas import ResultsWriter

US = 1_000_000  # picoseconds
KIB = 1024
HOSTILE = (
    "<script>window.hit=1</script>",
    "</script><script>window.hit=2</script>",
    "<img src=x onerror=window.hit=3>",
    "\"'&<b>bold</b> $x^2$ &lt;i&gt;",
    '<a href="https://example.com/">click</a>',
    "line\u2028end\nand another",
    "x" * 10_000,
    "@wait",
)


def star(gpus, node="switch"):
    """GPUs around one switch: links of 50 GB/s and 1 us."""
    builder = FabricBuilder("star", gpus)
    switch = builder.node(node)
    for gpu in range(gpus):
        builder.rule(gpu, 0, gpus, [[builder.link(gpu, switch, 50_000, US)]])
    downs = [[builder.link(switch, gpu, 50_000, US)] for gpu in range(gpus)]
    builder.rule(switch, 0, gpus, downs, stride=1)
    return builder.build()


def fused(gpus, steps=2, names=("gemv", "ready", "workgroup 0", "world", "all_reduce"), captured=True):
    """Each step computes (GPU g for 5 + g us), writes 64 KiB to every peer and waits for every peer's flag.

    `names`: of the kernel, the flags, the agents, the communicator and the operation.
    """
    kernel, ready, agent_name, communicator, operation = names
    builder = Builder(gpus)
    group, flag = builder.group(list(range(gpus))), builder.flags(range(gpus), name=ready)
    for step in range(steps):
        known = builder.collective(Collective(operation, communicator, step, 64 * KIB, "direct"))
        for gpu in range(gpus):
            agent = builder.shared_agent(gpu, agent_name)
            at = 40_000 * step + 1000 * gpu
            times = (
                {"captured_start_ns": at, "captured_end_ns": at + 20_000 + 5_000 * step} if captured else {}
            )
            work = builder.activity(agent, "kernel", kernel)
            talk = builder.activity(agent, "collective", operation, collective=known, **times)
            builder.call(agent, builder.block([compute((5 + gpu % 8) * US)]), activity=work)
            sends = builder.block([write(1, 64 * KIB, flag, relative=True, peer_step=1)])
            builder.call(agent, sends, gpus - 1, group=group, position=gpu, activity=talk)
            waits = builder.block([wait(flag, (step + 1) * (gpus - 1), mode=Mode.POLL)])
            builder.call(agent, waits, activity=talk)
    return builder.build()


def ring(gpus, steps):
    """`steps` turns in which each GPU writes 1 MiB to the next and waits for the one before."""
    builder = Builder(gpus)
    group, flag = builder.group(list(range(gpus))), builder.flags(range(gpus), name="turn")
    turn = builder.block([write(1, KIB * KIB, flag, relative=True), wait(flag, 1, expected_step=1)])
    known = builder.collective(Collective("all_reduce", "world", 0, KIB * KIB * gpus, "ring"))
    for gpu in range(gpus):
        agent = builder.agent(gpu, "channel 0")
        talk = builder.activity(agent, "collective", "all_reduce", collective=known)
        builder.call(agent, turn, steps, group=group, position=gpu, activity=talk)
    return builder.build()


def saved(program, fabric, folder, summary=None, **options):
    """Run a program and store the run; return its folder."""
    options.setdefault("wait", spin(100))
    outcome = run(program, fabric, **options)
    with ResultsWriter(folder) as writer:
        for name, table in outcome.tables().items():
            writer.write(name, table)
        writer.summary = {"fabric": fabric.name, "makespan_ps": outcome.makespan_ps, **(summary or {})}
    return folder
