"""Wait policies as text, for files and tables: `ideal`, `spin 100ns`, `monitor wake 50ns arm 10ns`."""

from ...schemas import UsageError
from ...schemas.durations import parse_ps, text_ps
from ..waiting import IDEAL, Policy, WaitPolicy

_REMEDY = "write `ideal`, `spin 100ns`, `monitor`, or `monitor wake 50ns arm 10ns`"


def parse_wait(text: str) -> WaitPolicy:
    """Return the wait policy that `text` describes: a name, then for monitor what differs from 0.

    Raises UsageError for anything else, and for a spin without time between its polls.
    """
    kind, *rest = text.split() or [""]
    if kind == "ideal" and not rest:
        return IDEAL
    if kind == "spin" and len(rest) == 1:
        period_ps = parse_ps(rest[0], "spin")
        if period_ps == 0:
            raise UsageError(f"{text}: a spin needs time between its polls; give at least 1ps")
        return WaitPolicy(Policy.SPIN, period_ps=period_ps)
    times = dict(zip(rest[::2], rest[1::2], strict=False))
    if kind != "monitor" or len(rest) != 2 * len(times) or not set(times) <= {"wake", "arm"}:
        raise UsageError(f"no wait policy {text!r}; {_REMEDY}")
    wake_ps, arm_ps = (parse_ps(times.get(name, "0ns"), name) for name in ("wake", "arm"))
    return WaitPolicy(Policy.MONITOR, wake_ps=wake_ps, arm_ps=arm_ps)


def wait_words(wait: WaitPolicy) -> str:
    """Return the shortest text that `parse_wait` reads as `wait`."""
    if wait.kind is Policy.SPIN:
        return f"spin {text_ps(wait.period_ps)}"
    if wait.kind is Policy.IDEAL:
        return "ideal"
    times = (("wake", wait.wake_ps), ("arm", wait.arm_ps))
    return " ".join(["monitor", *(f"{name} {text_ps(time)}" for name, time in times if time)])
