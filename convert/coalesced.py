"""Collectives that PyTorch issued as a group: their kernel runs after the records of all of them.

Within a coalescing manager (batch_isend_irecv, for one) each call leaves its `record_param_comms`, but kernels are
launched only when the group ends, under the annotation `nccl:coalesced` (ProcessGroupNCCL::endCoalescing).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from .describing import described
from .host_records import HostRecords
from .operations import operation_of
from .parts import Part
from .work import Work

_GROUP = ":coalesced"


def spread(parts: Sequence[Part], work: Work, records: HostRecords) -> list[Part]:
    """Return parts, with a kernel that ran a group of calls as one part a call."""
    launched = {part.record for part in parts if part.record >= 0}
    kernels: dict[int, list[Part]] = defaultdict(list)
    for some in work.scratch.few(len(parts)):
        for part in parts[some]:
            if part.record < 0 and (group := _annotation(part, work, records)) >= 0:
                kernels[group].append(part)
    found: dict[int, list[Part]] = {}
    for group, own in kernels.items():
        calls = [_call(work, records, own[0], record) for record in _records(work, records, group, launched)]
        for part in own:
            alike = [p for p in own if p.operation == part.operation]
            fitting = [c for c in calls if part.operation in ("unknown", c.operation)]
            if len(alike) == 1 and fitting and (part.operation != "unknown" or len(own) == 1):
                found[part.span] = [_of_kernel(part, call) for call in fitting]
    return [new for part in parts for new in found.get(part.span, [part])]


def _annotation(part: Part, work: Work, records: HostRecords) -> int:
    """Return the annotation of a group's end where it is the last thing that its thread noted before a launch.

    It is not looked at how long the annotation lasts: some versions of PyTorch never end it.
    """
    launch = int(work.launch[part.span])
    found = records.last(int(work.tid[launch]), int(work.start_ns[launch])) if launch >= 0 else -1
    return found if found >= 0 and work.text(found).endswith(_GROUP) else -1


def _records(work: Work, records: HostRecords, group: int, launched: set[int]) -> list[int]:
    """Return the records of a group: those right before its end that launched nothing, of one process group."""
    found: list[int] = []
    for record in records.before(group):
        args = records.of(record)
        same = not found or all(
            args.get(key) == records.of(found[0]).get(key) for key in ("Process Group Name", "Seq")
        )
        known = operation_of(str(args.get("Collective name", ""))) not in ("unknown", "wait")
        if record in launched or not same or not known:
            break
        found.insert(0, record)
    return found


def _call(work: Work, records: HostRecords, part: Part, record: int) -> Part:
    return described(work, part.span, record, [("host record", records.of(record))])


def _of_kernel(kernel: Part, call: Part) -> Part:
    """Return a call with what its kernel tells."""
    names = (
        "span",
        "start_ns",
        "end_ns",
        "launch_ns",
        "algorithm",
        "protocol",
        "channels",
        "on_gpu",
        "stream",
    )
    return replace(call, **{name: getattr(kernel, name) for name in names})
