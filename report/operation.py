"""One operation of a group, as predicted, as captured, and at best."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One operation. Times in picoseconds; None where not captured (or not replayed) on all its ranks.

    `light_ps` is the least time possible, where it is known.
    """

    operation: str
    communicator: str
    sequence: int
    ranks: int
    size_bytes: int | None
    algorithm: str | None
    predicted_ps: int | None = None
    predicted_skew_ps: int | None = None
    captured_ps: int | None = None
    captured_skew_ps: int | None = None
    light_ps: int | None = None

    @property
    def name(self) -> str:
        """The operation and its place in its communicator, such as `all_reduce 3`."""
        return f"{self.operation} {self.sequence}"

    @property
    def error(self) -> float | None:
        """(predicted - captured) / captured own time; None where one of them is not there or nothing took time."""
        if self.predicted_ps is None or not self.captured_ps:
            return None
        return (self.predicted_ps - self.captured_ps) / self.captured_ps
