"""Communicators as captured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """A communicator: its captured members (indices into the job) by position, and its full size.

    `description` is the framework's, empty where there is none.
    """

    name: str
    size: int
    members: dict[int, int]
    description: str = ""

    @property
    def complete(self) -> bool:
        """Whether all its members were captured."""
        return len(self.members) == self.size

    @property
    def label(self) -> str:
        """Name and description, for messages."""
        return f"{self.name!r} ({self.description})" if self.description else repr(self.name)
