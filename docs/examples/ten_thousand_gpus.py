"""All-reduce gradients over 10,000 GPUs, one of them late; say what limits: `ten_thousand_gpus.py [GPUS]`."""

import sys

import numpy as np

from eidola.replay import Builder, run
from eidola.replay.collectives import Operation, expand, tuning
from eidola.replay.presets import preset
from eidola.replay.program import compute

US = 1_000_000  # picoseconds
KERNEL, LATE = 1000 * US, 1100 * US  # how long the GPUs compute, and the one that is late


def main(gpus: int = 10_000, size_bytes: int = 8 << 20) -> dict[str, float]:
    """Let the GPUs at each of the eight places in a box reduce among themselves: eight groups, a rail each."""
    fabric, builder = preset("hgx-h100", gpus), Builder(gpus)
    gradients = Operation("all_reduce", size_bytes, element_bytes=2)
    for place in range(8):
        group = list(range(place, gpus, 8))
        how = tuning(fabric, gradients, group)  # algorithm and protocol as NCCL would choose
        reduce = expand(builder, fabric, group, gradients, how, f"rail {place}").calls
        for gpu, calls in zip(group, reduce, strict=True):
            stream = builder.agent(gpu, "stream")
            builder.call(stream, builder.block([compute(LATE if gpu == 0 else KERNEL)]))
            for call in calls:
                builder.call(stream, **call)
    outcome = run(builder.build(), fabric, record="none")

    links, agents = (outcome.tables()[name] for name in ("links", "agents"))
    ends = [np.max(agents["end_ps"][agents["rank"] % 8 == place]) for place in range(8)]
    busiest = np.argmax(links["busy_ps"])
    busy = links["busy_ps"][busiest] / (ends[1] - KERNEL)
    print(f"{gpus:,} GPUs, {outcome.program.messages:,} messages, {how.algorithm} and {how.protocol}")
    print(f"{ends[1] / US:,.1f} us: {KERNEL / US:,.0f} us compute, the rest {how.algorithm} all-reduce")
    print(f"busiest link: {links['name'][busiest]}, busy for {busy:.0%} of the all-reduce")
    added = f"its rail ends {(ends[0] - ends[1]) / US:,.1f} us later"
    print(f"GPU 0 computes {(LATE - KERNEL) / US:,.0f} us longer: {added}")
    return {"on_time_us": float(ends[1] / US), "late_us": float(ends[0] / US), "busiest": float(busy)}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
