"""Edits: what if kernels, sizes, algorithms or expert traffic were others.

A TOML file:

    [[kernel]]
    match = "gemm|attention"      # regular expression, searched in the kernel's name
    factor = 0.5                  # its compute becomes this much; a number or "3/4"

    [[collective]]
    operation = "all_to_all"      # default: every operation
    communicator = "7"            # its name in the trace; default: every one
    bytes = 0.5                   # buffers become this much
    algorithm = "tree"
    zipf = 1.2                    # all-to-all only: member k in popularity gets 1/k**zipf of each rank's bytes
    matrix = "routing.csv"        # all-to-all only: weights from (row) to (column), a file or a list of lists

    [replay]
    gpus = 64                     # instead of the command's
    fabric = "hgx-h100"

    [replay.parallel]
    tensor = 8

Entries apply in their order: factors multiply, of the rest the last one holds. An entry that matches nothing is an
error: a typo must not look like "no effect".
"""

import csv
import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import InputError
from .fabric import Ints
from .generate.draws import Purpose, words

_SPLIT = ("all_to_all", "all_to_allv")
_KEYS = {
    "kernel": {"match", "factor"},
    "collective": {"operation", "communicator", "bytes", "algorithm", "zipf", "matrix"},
    "replay": {"gpus", "fabric", "parallel"},
}


@dataclass(frozen=True)
class KernelEdit:
    """Compute of kernels whose name `match` finds, times `factor`."""

    match: re.Pattern[str]
    factor: Fraction


@dataclass(frozen=True)
class CollectiveEdit:
    """Operations (None: every) of a communicator (None: every): their size, algorithm, and who sends how much."""

    operation: str | None = None
    communicator: str | None = None
    factor: Fraction = Fraction(1)
    algorithm: str | None = None
    zipf: Decimal | None = None
    matrix: tuple[tuple[int, ...], ...] | None = None

    def fits(self, operation: str, communicator: str) -> bool:
        """Whether it is about this operation; all_to_all is also any all_to_allv."""
        kind = "all_to_all" if operation in _SPLIT else operation
        wanted = "all_to_all" if self.operation in _SPLIT else self.operation
        splits = self.zipf is None and self.matrix is None
        return (
            wanted in (None, kind)
            and self.communicator in (None, communicator)
            and (splits or kind == "all_to_all")
        )


@dataclass(frozen=True)
class Edits:
    """All edits, what they were read from, and how often each was used (by its index)."""

    path: str = ""
    sha256: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    kernels: tuple[KernelEdit, ...] = ()
    collectives: tuple[CollectiveEdit, ...] = ()
    used: Counter[int] = field(default_factory=Counter, compare=False)

    @property
    def replay(self) -> dict[str, Any]:
        """What replaces arguments of the command: gpus, fabric, parallel."""
        return dict(self.content.get("replay", {}))

    def kernel_factor(self, name: str) -> Fraction:
        """Return the factor on a kernel's compute."""
        factor = Fraction(1)
        for index, edit in enumerate(self.kernels):
            if edit.match.search(name):
                factor *= edit.factor
                self.used[index] += 1
        return factor

    def of(self, operation: str, communicator: str) -> list[CollectiveEdit]:
        """Return the edits of an operation, in their order."""
        found = [
            (i, e)
            for i, e in enumerate(self.collectives, len(self.kernels))
            if e.fits(operation, communicator)
        ]
        self.used.update(i for i, _ in found)
        return [edit for _, edit in found]

    def check_used(self) -> None:
        """Raise InputError for an entry that matched nothing in the whole job."""
        entries: tuple[KernelEdit | CollectiveEdit, ...] = (*self.kernels, *self.collectives)
        for index, edit in enumerate(entries):
            if not self.used[index]:
                what = (
                    f"kernel match = {edit.match.pattern!r}"
                    if isinstance(edit, KernelEdit)
                    else f"collective operation = {edit.operation!r}, communicator = {edit.communicator!r}"
                )
                raise InputError(
                    f"{self.path}: {what} fits nothing in the trace; correct it, or leave it out"
                )

    def notes(self) -> list[str]:
        """Say what was edited, and how often."""
        told = []
        entries: tuple[KernelEdit | CollectiveEdit, ...] = (*self.kernels, *self.collectives)
        for index, edit in enumerate(entries):
            if isinstance(edit, KernelEdit):
                told.append(f"edit: {self.used[index]} spans like {edit.match.pattern!r} x {edit.factor}")
            else:
                changes = [f"bytes x {edit.factor}"] if edit.factor != 1 else []
                changes += [f"algorithm {edit.algorithm}"] if edit.algorithm else []
                changes += [f"splits by Zipf({edit.zipf})"] if edit.zipf is not None else []
                changes += ["splits by a given matrix"] if edit.matrix is not None else []
                who = edit.operation or "operations"
                told.append(f"edit: {self.used[index]} x {who}: {', '.join(changes)}")
        return told


NONE = Edits()


def read_edits(path: str | Path) -> Edits:
    """Read an edits file; raises InputError, naming file, entry and remedy, for what it cannot mean."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        content = tomllib.loads(raw.decode())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML: {error}") from error
    if unknown := set(content) - set(_KEYS):
        raise InputError(f"{path}: no table {sorted(unknown)[0]!r}; there are {', '.join(_KEYS)}")
    kernels = tuple(_kernel(path, entry) for entry in _entries(path, content, "kernel"))
    collectives = tuple(_collective(path, entry) for entry in _entries(path, content, "collective"))
    _check_keys(path, "replay", content.get("replay", {}))
    digest = hashlib.sha256(raw)
    for edit, entry in zip(collectives, content.get("collective", []), strict=True):
        if edit.matrix is not None:  # the file that a matrix is in counts as part of the edits
            digest.update(repr(edit.matrix).encode())
            entry["matrix"] = [list(row) for row in edit.matrix]
    return Edits(str(path.resolve()), digest.hexdigest(), content, kernels, collectives)


def _entries(path: Path, content: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    entries = content.get(table, [])
    if not isinstance(entries, list):
        raise InputError(f"{path}: {table} is a list of tables; write [[{table}]]")
    for entry in entries:
        _check_keys(path, table, entry)
    return entries


def _check_keys(path: Path, table: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {table} is a table; write [{table}]")
    if unknown := set(entry) - _KEYS[table]:
        raise InputError(
            f"{path}: {table} has no key {sorted(unknown)[0]!r}; its keys are {', '.join(sorted(_KEYS[table]))}"
        )


def _kernel(path: Path, entry: Mapping[str, Any]) -> KernelEdit:
    if not {"match", "factor"} <= set(entry):
        raise InputError(f"{path}: each [[kernel]] needs `match` and `factor`")
    try:
        return KernelEdit(re.compile(entry["match"]), _factor(path, "kernel factor", entry["factor"]))
    except (re.error, TypeError) as error:
        raise InputError(
            f"{path}: kernel match = {entry['match']!r} is no regular expression: {error}"
        ) from error


def _collective(path: Path, entry: Mapping[str, Any]) -> CollectiveEdit:
    if not {"bytes", "algorithm", "zipf", "matrix"} & set(entry):
        raise InputError(f"{path}: a [[collective]] changes nothing; give bytes, algorithm, zipf or matrix")
    split = "zipf" in entry or "matrix" in entry
    if split and entry.get("operation", "all_to_all") not in _SPLIT:
        raise InputError(f"{path}: zipf and matrix are for all_to_all; {entry['operation']!r} has no splits")
    return CollectiveEdit(
        entry.get("operation"),
        entry.get("communicator"),
        _factor(path, "collective bytes", entry.get("bytes", 1)),
        entry.get("algorithm"),
        _zipf(path, entry["zipf"]) if "zipf" in entry else None,
        _matrix(path, entry["matrix"]) if "matrix" in entry else None,
    )


def _factor(path: Path, what: str, value: Any) -> Fraction:
    try:
        factor = Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: {what} = {value!r} is no number; write 0.5 or '1/2'") from error
    if factor < 0:
        raise InputError(f"{path}: {what} = {value!r} is negative; give 0 or more")
    return factor


def _zipf(path: Path, value: Any) -> Decimal:
    try:
        exponent = Decimal(str(value))
    except InvalidOperation as error:
        raise InputError(f"{path}: zipf = {value!r} is no number") from error
    if not 0 <= exponent <= 16:
        raise InputError(f"{path}: zipf = {value!r}; give an exponent from 0 (even) to 16")
    return exponent


def _matrix(path: Path, value: Any) -> tuple[tuple[int, ...], ...]:
    rows: Iterable[Iterable[Any]] = value
    source = f"{path}: matrix"
    if isinstance(value, str):
        file = path.parent / value
        source = str(file)
        try:
            rows = [row for row in csv.reader(file.read_text().splitlines()) if row]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); give a CSV of whole numbers") from error
    try:
        found = tuple(tuple(int(cell) for cell in row) for row in rows)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: {error}; give whole numbers, a row a sender") from error
    if not found or any(len(row) != len(found) or min(row) < 0 or not sum(row) for row in found):
        raise InputError(
            f"{source}: give as many columns as rows, no weight below 0, and in each row one above 0"
        )
    return found


def zipf_matrix(members: int, exponent: Decimal, seed: int, copy: int, sequence: int) -> Ints:
    """Return (N, N) weights: the k-th in popularity has 1/k**exponent; their order is drawn, alike in all rows.

    The draw is by index: of the seed, the copy of the group and the operation's sequence. Powers are decimal, which
    every machine rounds alike.
    """
    with localcontext() as context:
        context.prec = 30
        weights = [int(Decimal(2**40) / Decimal(k) ** exponent) for k in range(1, members + 1)]
    order = np.argsort(words(members, seed, Purpose.SPLIT, copy, sequence), kind="stable")
    row = np.zeros(members, np.int64)
    row[order] = weights
    return np.tile(row, (members, 1))


def apportion(weights: Iterable[int], total: int, unit: int = 1) -> Ints:
    """Share `total` out by weights, in whole units where the total is one; the sum is exact."""
    unit = unit if total % unit == 0 else 1
    shares = [int(weight) for weight in weights]
    whole, before, upto = sum(shares), 0, [0]
    for share in shares:
        before += share
        upto.append(total // unit * before // whole * unit if whole else 0)
    return np.diff(np.array(upto, np.int64)).astype(np.int64)
