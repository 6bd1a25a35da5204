"""Which operations of a trace are whole, and the tags of their messages."""

from collections.abc import Sized

from ...schemas.errors import InputError
from .expansion import Collective
from .job import Job

_TAGS = (1 << 32) - 1  # the last stands for any tag


class Tags:
    """Tags of all messages: operation by operation, then pair by pair; then writes, by their number.

    `whole` has the operations that all ranks of a whole group took part in, with sizes; `collectives` those among
    them that can be expanded into messages. Raises InputError where there are more messages than `most` tags.
    """

    def __init__(self, job: Job, most: int = _TAGS) -> None:
        self.whole: dict[tuple[str, int], Collective] = {}
        for key, parts in sorted(job.operations.items(), key=lambda item: item[0]):
            group = job.groups.get(key[0])
            if group and group.whole and len(parts) == group.size:
                rows = [parts[group.ranks[place]] for place in range(group.size)]
                collective = Collective(rows[0]["operation"], rows)
                if collective.sized:
                    self.whole[key] = collective
        self.collectives = {key: found for key, found in self.whole.items() if found.known}
        self.first: dict[tuple[str, int], int] = {}
        count = 0
        for key, found in self.collectives.items():
            self.first[key] = count
            count += found.tags
        pairs = [key for key, sides in sorted(job.pairs.items()) if len(sides) == 2]
        self.pairs = {key: count + i for i, key in enumerate(pairs)}
        self.writes = count + len(pairs)
        self._operations = len(job.operations) + len(job.pairs)
        last_write = max((int(rows[1].max()) + 1 for rows in job.incoming.values()), default=0)
        if self.writes + last_write > most:
            raise InputError(
                f"{job.trace.path} has more messages than there are tags; export fewer ranks or steps"
            )

    def without(self, held: Sized) -> int:
        """Return how many operations are neither in `held` nor pairs."""
        return self._operations - len(held) - len(self.pairs)
