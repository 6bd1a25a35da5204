"""Steps of a captured rank, and draws of whole steps for ranks that nobody captured.

An added rank repeats its source rank, so who is slow stays slow; each of its steps takes all its durations from one
step of that source, drawn by index (seed, rank, step). Steps are the profiler's annotations (`ProfilerStep#12`,
`step 3`). An item belongs to the step in which its host launched it. Lanes whose
steps hold unlike items keep theirs.
"""

from bisect import bisect_right
from dataclasses import dataclass

from ..generate.draws import Purpose, below, words
from .items import Item, RankWork
from .retiming import replaced_work


@dataclass(frozen=True)
class Steps:
    """Items of a rank, by step and lane, where its steps are alike; with `count` 0 or 1 nothing is drawn."""

    count: int
    lanes: tuple[tuple[tuple[Item, ...], ...], ...] = ()

    def draw(self, seed: int, gpu: int) -> tuple[int, ...]:
        """Return which captured step each step of an added rank repeats."""
        if self.count < 2 or not self.lanes:
            return ()
        return tuple(below(words(self.count, seed, Purpose.STEP, gpu), self.count).tolist())

    def apply(self, work: RankWork, drawn: tuple[int, ...]) -> RankWork:
        """Return the work whose step i has the durations of step `drawn[i]`."""
        durations = {}
        for lane in self.lanes:
            for mine, other in zip(lane, (lane[i] for i in drawn), strict=True):
                for item, like in zip(mine, other, strict=True):
                    if not item.parts and not item.steps:
                        durations[id(item)] = (like.gap_ns, like.busy_ns)
        return replaced_work(work, durations)


def find_steps(work: RankWork) -> Steps:
    """Find the items of each annotated step."""
    starts = sorted(start for start, _ in work.step_windows)
    if len(starts) < 2:
        return Steps(len(starts))
    launched = {id(e.after): e.before.start_ns for e in work.edges if e.from_start}
    alike = []
    for lane in work.lanes:
        steps: list[list[Item]] = [[] for _ in starts]
        for item in lane.items:
            at = bisect_right(starts, launched.get(id(item), item.start_ns)) - 1
            if at >= 0:
                steps[at].append(item)
        names = {tuple((item.kind, item.name, len(item.parts)) for item in step) for step in steps}
        if len(names) == 1 and steps[0]:
            alike.append(tuple(tuple(step) for step in steps))
    return Steps(len(starts), tuple(alike))
