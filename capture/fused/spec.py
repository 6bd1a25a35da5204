"""What every fused kernel is asked for, and what it hands to a backend: numbers, inputs, expected results.

Inputs are small integers, so that every order of float32 addition gives the same sums and the check against a
plain product is exact.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...schemas.errors import UsageError

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

LARGEST_INPUT = 4
LARGEST_SUM = 2**24  # float32 counts integers exactly up to here
_SILENT = ("gpus", "deadline_s", "buffer_records", "mute_rank")  # not in the command that is recorded


@dataclass(frozen=True, kw_only=True)
class FusedKernel(ABC):
    """`workgroups` are physical workgroups a rank, each looping over its tiles; `iterations` are launches.

    The first iteration is a warm-up. `buffer_records` is each workgroup's probe buffer. A wait longer than
    `deadline_s` ends the run. `mute_rank` never raises a flag: it shows what a broken protocol looks like.
    Raises UsageError for a shape that makes no sense.
    """

    name: ClassVar[str]
    phases: ClassVar[tuple[str, ...]]
    regions: ClassVar[tuple[str, ...]]  # one an exchange
    flags: ClassVar[dict[str, str]] = {}  # options whose name is not the field's
    gpus: int = 4
    workgroups: int = 8
    iterations: int = 3
    seed: int = 0
    deadline_s: float = 10.0
    buffer_records: int = 16384
    mute_rank: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("seed", "deadline_s", "mute_rank") and value < 1:
                raise UsageError(f"{field.name} is {value}; it must be at least 1")
        if not 2 <= self.gpus < 0xFFFF:
            raise UsageError(f"gpus is {self.gpus}; peers need at least 2 (and at most 65534)")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must not be negative")
        if self.deadline_s <= 0:
            raise UsageError(f"deadline_s is {self.deadline_s}; it must be positive")
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise UsageError for a shape of this kernel that makes no sense."""

    @abstractmethod
    def numbers(self) -> tuple[int, ...]:
        """Return the shape, in the order of the kernel's `struct fused_job`."""

    @abstractmethod
    def inputs(self) -> list[Arrays]:
        """Return each rank's inputs, in the order of the kernel's tables."""

    @abstractmethod
    def expected(self, inputs: list[Arrays]) -> Floats:
        """Return what a plain product gives: ranks x iterations x words of a result."""

    @property
    def result_words(self) -> int:
        """Floats of one rank's result of one iteration."""
        raise NotImplementedError

    def scratch(self) -> dict[str, int]:
        """Return the floats of each buffer beside `results`, a rank; after the inputs in the tables."""
        return {}

    @property
    def source(self) -> Path:
        """The kernel's source."""
        return Path(__file__).with_name(f"{self.name.replace('-', '_')}.c")

    def command(self, backend: str) -> str:
        """Return the command line that runs this."""
        options = [f"--backend {backend} --gpus {self.gpus}"]
        for field in sorted(fields(self), key=lambda f: f.name in FusedKernel.__dataclass_fields__):
            if field.name not in _SILENT:
                flag = self.flags.get(field.name, "--" + field.name.replace("_", "-"))
                options.append(f"{flag} {getattr(self, field.name)}")
        return f"eidola capture kernel {self.name} {' '.join(options)}"

    def share(self, name: str) -> int:
        """Return a rank's share of field `name`. Raises UsageError where it is no whole number."""
        total: int = getattr(self, name)
        if total % self.gpus:
            raise UsageError(f"{name} is {total}, no multiple of gpus {self.gpus}: slices must be equal")
        return total // self.gpus

    def exact(self, name: str, largest: int) -> None:
        """Raise UsageError where sums of `name` terms, each up to `largest`, are no longer exact in float32."""
        if getattr(self, name) > LARGEST_SUM // largest:
            limit = LARGEST_SUM // largest
            raise UsageError(f"{name} is {getattr(self, name)}; it must be at most {limit} (exact sums)")


def draw(random: np.random.Generator, *shape: int) -> Floats:
    """Return small integers of this shape, as floats."""
    return random.integers(-LARGEST_INPUT, LARGEST_INPUT + 1, shape, np.int8).astype(np.float32)
