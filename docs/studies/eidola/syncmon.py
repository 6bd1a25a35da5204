"""What a SyncMon study asks: slots, finite monitors, false wakes, wake-one, back-off, memory shared with polls.

    python docs/studies/eidola/syncmon.py [--quick] [--out FOLDER]

The tables of syncmon.md. The fused GEMV + AllReduce on 4 GPUs of 64 workgroups, except where a table says
otherwise.
"""

import argparse
import tempfile
from pathlib import Path

from figures import plot, table
from late import LatePeers, trace

from eidola.replay import Device, Program, WaitPolicy, lower, parse_wait, run
from eidola.replay.builder import Builder
from eidola.replay.outcome import Outcome
from eidola.replay.presets import preset
from eidola.replay.program import Mode, compute, until, wait, write
from eidola.schemas import StallError

WORKGROUPS, GPUS = 64, 4
MONITOR = "monitor wake 50ns arm 10ns"
NS, US = 1000, 1_000_000
Points = dict[str, list[tuple[float, float]]]


def us(outcome: Outcome) -> str:
    """Return when the last agent ended."""
    return f"{outcome.makespan_ps / US:,.1f}"


def reads(outcome: Outcome, rank: int = 0) -> int:
    """Return a GPU's flag reads."""
    return int(outcome.tables()["gpus"]["flag_reads"][rank])


def oversubscribed(program: Program, slots: tuple[int, ...]) -> tuple[str, Points]:
    """Slots and dispatch orders, all GPUs closed-loop: who ends, and when."""
    fabric, rows = preset("hgx-h100", GPUS), []
    points: Points = {}
    policies = {"spin": "spin 100ns", "monitor": MONITOR, "monitor that yields": MONITOR + " yields"}
    for number in slots:
        for order in ("ascending", "shuffled"):
            row = []
            for name, words in policies.items():
                device = Device(number, order, switch_ps=1 * US)
                try:
                    outcome = run(program, fabric, wait=parse_wait(words), device=device)
                    row.append(us(outcome))
                    points.setdefault(f"{name}, {order}", []).append((number, outcome.makespan_ps / US))
                except StallError as error:
                    row.append("deadlock" if "oversubscription" in str(error) else "stall")
            rows.append((number, order, *row))
    names = ("slots of 64 workgroups", "dispatch order", *(f"{name}: us" for name in policies))
    return table(names, rows), points


def finite(program: Program, entries: tuple[int, ...]) -> tuple[str, Points]:
    """Finite monitors of one target; the waits that overflow spin."""
    fabric, rows = preset("ideal", GPUS), []
    points: Points = {"all flag reads": [], "of waits that overflow": []}
    for number in entries:
        outcome = run(program, fabric, wait=parse_wait(f"{MONITOR} entries {number} overflow 100ns"))
        shared = outcome.tables()["sharing"]
        traffic = outcome.tables()["memory"]
        rows_of = zip(traffic["rank"], traffic["traffic"], traffic["operations"], strict=True)
        spun = sum(count for rank, kind, count in rows_of if rank == 0 and kind == "overflow")
        rows.append((number, int(shared["overflows"][0]), f"{spun:,}", f"{reads(outcome):,}", us(outcome)))
        for series, count in zip(points.values(), (reads(outcome), spun), strict=True):
            series.append((number, count))
    names = ("monitors of a GPU", "waits that overflow", "their reads", "all flag reads", "end us")
    return table(names, rows), points


def false_wakes(program: Program, widths: tuple[int, ...]) -> tuple[str, Points]:
    """Return wakes in vain by flags a line; 16 of 64 workgroups at a time, so that flags arrive in waves."""
    fabric, device, rows = preset("hgx-h100", GPUS), Device(16, "shuffled", switch_ps=1 * US), []
    points: Points = {"false wakes": [], "flag reads": []}
    for width in widths:
        words = MONITOR + " yields" + (f" line {width}" if width else "")
        outcome = run(program, fabric, wait=parse_wait(words), device=device)
        false = outcome.tables()["sharing"]["false_wakes"][0]
        rows.append((width or "compares (SyncMon)", f"{false:,}", f"{reads(outcome):,}", us(outcome)))
        for series, count in zip(points.values(), (int(false), reads(outcome)), strict=True):
            series.append((width, count))
    return table(("flags a line", "false wakes", "flag reads", "end us"), rows), points


def barrier(waiters: int, policy: str) -> tuple[float, float]:
    """Return ns from one flag's arrival to the first and the last of its waiters that goes on."""
    builder = Builder(2)
    builder.flags([0, 1])
    builder.call(builder.agent(1, "stream"), builder.block([until(10 * US - 1), write(0, 8, 0)]))
    block = builder.block([wait(0, 1, mode=Mode.POLL)])
    for number in range(waiters):
        builder.call(builder.agent(0, f"workgroup {number}"), block)
    ends = (
        run(builder.build(), preset("ideal", 2), wait=parse_wait(policy)).final.agents["end_ps"][1:] - 10 * US
    )
    return ends.min() / NS, ends.max() / NS


def wakes(counts: tuple[int, ...]) -> tuple[str, Points]:
    """Wake-one against wake-all: many workgroups that wait for one flag."""
    rows, points = [], {}
    for number in counts:
        for name, words in (("wake-all", MONITOR), ("wake-one, 50 ns apart", MONITOR + " stagger 50ns")):
            first, last = barrier(number, words)
            rows.append((number, name, f"{first:,.0f}", f"{last:,.0f}"))
            points.setdefault(name, []).append((number, last))
    return table(("workgroups on one flag", "policy", "first goes on after ns", "last"), rows), points


def backed_off(
    programs: dict[int, Program], caps: tuple[str, ...]
) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """Back-off by its cap: reads saved against time lost."""
    fabric, rows = preset("ideal", GPUS), []
    points: Points = {}
    for late, program in programs.items():
        ideal = run(program, fabric).final.agents["end_ps"].max()
        for cap in caps:
            words = "spin 100ns" if cap == "100ns" else f"backoff 100ns cap {cap}"
            outcome = run(program, fabric, wait=parse_wait(words))
            lost = (outcome.final.agents["end_ps"].max() - ideal) / NS
            rows.append((late, cap, f"{reads(outcome):,}", f"{lost:,.0f}"))
            points.setdefault(f"peers {late} us late", []).append((reads(outcome), float(lost)))
    return table(
        ("peers late by us", "longest gap", "flag reads", "end later than without polls, ns"), rows
    ), points


def bandwidth(spins: tuple[int, ...], policies: dict[str, WaitPolicy]) -> tuple[str, Points]:
    """One memory shared by 4 streaming workgroups and spinning ones: what polls cost the others."""
    rows, points = [], {}
    for number in spins:
        for name, policy in policies.items():
            builder = Builder(2)
            builder.flags([0, 1])
            builder.call(builder.agent(1, "stream"), builder.block([until(200 * US), write(0, 8, 0)]))
            stream = builder.block([compute(1, 25_000_000)])
            for group in range(4):
                builder.call(builder.agent(0, f"workgroup {group}"), stream)
            for group in range(number):
                poll = builder.block([wait(0, 1, mode=Mode.POLL)])
                builder.call(builder.agent(0, f"workgroup {4 + group}"), poll)
            device = Device(memory_mb_per_s=1_000_000)
            outcome = run(builder.build(), preset("ideal", 2), wait=policy, device=device)
            agents = outcome.final.agents
            polls = agents["polls"][5:].sum()
            period = f"{200_000 / (polls / number):.1f}" if policy.kind.name == "SPIN" else "-"
            end = float(agents["end_ps"][1:5].max() / US)
            rows.append((number, name, f"{end:.1f}", f"{polls:,}", period))
            points.setdefault(name, []).append((number, end))
    names = ("spinning workgroups", "policy", "streams end us (100 alone)", "flag reads", "mean period ns")
    return table(names, rows), points


def main() -> None:
    """Print all tables, draw their plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    quick = args.quick

    def shown(title: str, made: tuple[str, Points], name: str, x: str, y: str, **logarithmic: bool) -> None:
        print(f"## {title}\n\n{made[0]}\n")
        plot(args.out / f"{name}.svg", title, x, y, made[1], **logarithmic)

    with tempfile.TemporaryDirectory() as name:
        folder, shape = Path(name), {"gpus": GPUS, "workgroups": WORKGROUPS}
        whole = lower(trace(folder, LatePeers(**shape), None), preset("hgx-h100", GPUS)).program
        target, fabric = {}, preset("ideal", GPUS)
        for late in (20,) if quick else (5, 20, 40):
            written = trace(folder, LatePeers(**shape, late_ns=late * 1000))
            target[late] = lower(written, fabric, mode="target", targets=(0,)).program
    shown("Oversubscription", oversubscribed(whole, (16,) if quick else (64, 48, 32, 16, 8)), "oversubscription",
          "slots of 64 workgroups", "end, us", log_y=True)  # fmt: skip
    shown("Finite monitors", finite(target[20], (64, 8) if quick else (64, 48, 32, 16, 8, 4, 1)), "finite",
          "monitors of a GPU", "flag reads")  # fmt: skip
    shown("False wakes", false_wakes(whole, (0, 8) if quick else (0, 1, 2, 4, 8, 16, 64)), "false_wakes",
          "flags a line (0: the monitor compares)", "count")  # fmt: skip
    shown("Wake-one, wake-all", wakes((8,) if quick else (8, 64, 512)), "wakes", "workgroups on one flag",
          "last goes on after, ns", log_x=True, log_y=True)  # fmt: skip
    caps = (
        ("100ns", "1600ns") if quick else ("100ns", "200ns", "400ns", "800ns", "1600ns", "3200ns", "12800ns")
    )
    shown(
        "Back-off",
        backed_off(target, caps),
        "backoff",
        "flag reads",
        "later than without polls, ns",
        log_x=True,
    )
    policies = {"spin 20 ns": parse_wait("spin 20ns"), "spin 100 ns": parse_wait("spin 100ns"),
                "monitor": parse_wait(MONITOR)}  # fmt: skip
    shown("Memory shared with polls", bandwidth((60,) if quick else (4, 60, 252, 1020), policies), "memory",
          "spinning workgroups", "streams end, us (100 alone)", log_x=True)  # fmt: skip


if __name__ == "__main__":
    main()
