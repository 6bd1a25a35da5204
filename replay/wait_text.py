"""Wait policies as text: `spin 100ns`, `monitor wake 50ns arm 10ns`, or the name of one that a package registers.

A package names its policies in the group `eidola.wait_policies`; each is a WaitPolicy, or a function without
parameters that returns one:

    [project.entry-points."eidola.wait_policies"]
    "patient" = "my_package.waits:PATIENT"
"""

from dataclasses import fields, replace
from importlib.metadata import entry_points
from typing import Any

from ..schemas import UsageError
from ..schemas.durations import parse_ps, text_ps
from .waiting import IDEAL, Policy, WaitPolicy

GROUP = "eidola.wait_policies"
_TIMES = {
    "wake": "wake_ps",
    "arm": "arm_ps",
    "overflow": "overflow_ps",
    "stagger": "stagger_ps",
    "cap": "cap_ps",
}
_COUNTS = {"line": "line_flags", "entries": "entries"}
_TAKES = {
    "spin": (),
    "backoff": ("cap",),
    "table": ("wake", "arm"),
    "monitor": ("wake", "arm", "line", "entries", "overflow", "stagger", "yields"),
}
_REMEDY = (
    "write `ideal`, `spin 100ns`, `backoff 100ns cap 3200ns`, `table 100ns*16 1us`, `monitor`, `monitor wake 50ns "
    "arm 10ns line 8 entries 64 overflow 200ns stagger 10ns yields` (any of these), or a registered name"
)


def parse_wait(text: str) -> WaitPolicy:
    """Return the wait policy that `text` describes; see docs/waiting.md.

    Raises UsageError for anything else, and for parameters that make no sense.
    """
    kind, *rest = text.split() or [""]
    if kind == "ideal" and not rest:
        return IDEAL
    if kind not in _TAKES:
        if kind == text and kind != "ideal" and kind:
            return registered(kind)
        raise UsageError(f"no wait policy {text!r}; {_REMEDY}")
    policy = WaitPolicy(Policy[kind.upper()])
    if kind in ("spin", "backoff"):
        if not rest:
            raise UsageError(f"no wait policy {text!r}; {_REMEDY}")
        policy = replace(policy, period_ps=parse_ps(rest.pop(0), kind))
    while kind == "table" and rest and rest[0][0].isdigit():
        gap, _, times = rest.pop(0).partition("*")
        policy = replace(policy, table=(*policy.table, (parse_ps(gap, kind), _count(times or "0", text))))
    policy = replace(policy, **_settings(kind, rest, text))
    if problem := policy.problem():
        raise UsageError(f"{text}: {problem}")
    return policy


def _settings(kind: str, rest: list[str], text: str) -> dict[str, Any]:
    """Return the named parameters of a policy."""
    found: dict[str, Any] = {}
    while rest:
        name = rest.pop(0)
        if name not in _TAKES[kind] or name in found or (name != "yields" and not rest):
            raise UsageError(f"no wait policy {text!r}; {_REMEDY}")
        found[name] = True
        if name != "yields":
            found[name] = parse_ps(rest.pop(0), name) if name in _TIMES else _count(rest.pop(0), text)
    return {({**_TIMES, **_COUNTS}).get(name, name): value for name, value in found.items()}


def _count(word: str, text: str) -> int:
    if not word.isdecimal():
        raise UsageError(f"{text}: {word} is no count; {_REMEDY}")
    return int(word)


def wait_words(wait: WaitPolicy) -> str:
    """Return the shortest text that `parse_wait` reads as `wait`."""
    if wait.name or wait.kind is Policy.IDEAL:
        return wait.name or "ideal"
    words = [wait.kind.name.lower()]
    if wait.kind in (Policy.SPIN, Policy.BACKOFF):
        words.append(text_ps(wait.period_ps))
    words += [text_ps(gap) + (f"*{times}" if times else "") for gap, times in wait.table]
    for name in _TAKES[words[0]]:
        value = getattr(wait, {**_TIMES, **_COUNTS}.get(name, name))
        if value:
            words += [name] if name == "yields" else [name, text_ps(value) if name in _TIMES else str(value)]
    return " ".join(words)


def registered(name: str) -> WaitPolicy:
    """Return the policy that an installed package registers as `name`.

    Raises UsageError where there is none, where it cannot be imported, and where it is something else.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise UsageError(
            f"no wait policy {name!r} (registered: {', '.join(sorted(known)) or 'none'}); {_REMEDY}"
        )
    entry = known[name]
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"wait policy {name} cannot be imported from {entry.value}: {error}; correct the entry point of group "
            f"{GROUP}, or uninstall the package"
        ) from error
    policy = found() if callable(found) else found
    if not isinstance(policy, WaitPolicy):
        raise UsageError(
            f"wait policy {name} ({entry.value}) is a {type(policy).__name__}; it must be a WaitPolicy"
        )
    policy = type(policy)(**{**{f.name: getattr(policy, f.name) for f in fields(policy)}, "name": name})
    if problem := policy.problem():
        raise UsageError(f"wait policy {name} ({entry.value}): {problem}")
    return policy
