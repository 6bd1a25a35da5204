"""A study: a TOML file with a trace, fixed arguments of `replay`, and a grid over others.

    trace = "job.eidola"           # relative to this file; a list in [grid] sweeps over traces

    [fixed]
    fabric = "star"

    [grid]
    gpus = [2, 4, 8]
    wait = ["ideal", "spin 100ns", "monitor"]
    fabric_settings.rate_gb_per_s = [25, 50]

Arguments that are not named have the defaults of `replay`, but `record` is "none".
"""

import hashlib
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schemas import InputError, Trace, UsageError
from ..api import Arguments, digest_folder
from ..presets import fabric
from .point import Point
from .values import NAMES, TABLES, read_value


@dataclass(frozen=True)
class Study:
    """What a file asks for: `axes` in the file's order with their values as written, and every point.

    An axis is an argument's name, or `fabric_settings.rate_gb_per_s` for one entry of a table. Points are in grid
    order: the last axis varies fastest.
    """

    path: Path
    axes: Mapping[str, list[Any]]
    points: tuple[Point, ...]


def read_study(path: str | Path) -> Study:
    """Return the study that a TOML file describes.

    Raises InputError, naming the file, the key and the remedy: no file or no TOML, an unknown key, a value that the
    argument does not take, an argument twice, an empty grid, the same point twice, a trace that cannot be read, a
    fabric that cannot be built.
    """
    path = Path(path)
    table = _load(path)
    if unknown := [name for name in table if name not in ("trace", "fixed", "grid")]:
        raise InputError(f"{path}: unknown key {unknown[0]}; a study has trace, [fixed] and [grid]")
    fixed = {"trace": table["trace"]} if "trace" in table else {}
    fixed |= dict(_flat(path, "fixed", table.get("fixed", {})))
    grid = dict(_flat(path, "grid", table.get("grid", {})))
    if "trace" in table and "trace" in table.get("fixed", {}):
        raise InputError(f"{path}: trace is both on top and in [fixed]; remove one")
    _check_keys(path, fixed, grid)
    chosen = {key: _read(path, key, key, value) for key, value in fixed.items()}
    axes = {key: _axis(path, key, values) for key, values in grid.items()}
    digests: dict[str, str] = {}
    points = [_point(chosen | choice, digests) for choice in _choices(axes)]
    _check_points(path, grid, points)
    _check_fabrics(path, points)
    return Study(path, grid, tuple(points))


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML: {error}") from error


def _flat(path: Path, section: str, table: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a section, entries of tables as `table.entry`."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: {section} is a table; write it as [{section}]")
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{entry}", inner) for entry, inner in value.items())
        else:
            yield key, value


def _check_keys(path: Path, fixed: Mapping[str, Any], grid: Mapping[str, Any]) -> None:
    for key in [*fixed, *grid]:
        name, dot, _ = key.partition(".")
        if name not in NAMES or (dot and name not in TABLES):
            raise InputError(f"{path}: replay takes no argument {key}; it takes {', '.join(NAMES)}")
    if twice := sorted(set(fixed) & set(grid)):
        raise InputError(f"{path}: {twice[0]} is both fixed and in the grid; remove one")
    if "trace" not in {*fixed, *grid}:
        raise InputError(
            f'{path}: no trace; write trace = "job.eidola" on top, or a list of traces in [grid]'
        )
    if not grid:
        raise InputError(f"{path}: [grid] is empty; give at least one argument a list of values there")


def _axis(path: Path, key: str, values: Any) -> list[Any]:
    where = f"[grid] {key}"
    if not isinstance(values, list) or not values:
        raise InputError(f"{path}, {where}: give a list with at least one value, or move it to [fixed]")
    return [_read(path, where, key, value) for value in values]


def _read(path: Path, where: str, key: str, value: Any) -> Any:
    try:
        return read_value(key, value, path.parent)
    except (InputError, UsageError) as error:
        raise InputError(f"{path}, {where}: {error}") from error


def _choices(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _point(chosen: Mapping[str, Any], digests: dict[str, str]) -> Point:
    """Return the point with these values. `digests` keeps the SHA-256 of files that several points share."""
    given: dict[str, Any] = {"record": "none"}
    for key, value in chosen.items():
        name, dot, entry = key.partition(".")
        held = {entry: value} if dot else value
        given[name] = {**given.get(name, {}), **held} if name in TABLES else held
    trace: Path = given.pop("trace")
    named = str(given.get("fabric", ""))
    if str(trace) not in digests:
        digests[str(trace)] = digest_folder(trace)
    if named.endswith(".toml") and named not in digests:
        digests[named] = hashlib.sha256(Path(named).read_bytes()).hexdigest()
    return Point(trace, digests[str(trace)], digests.get(named), Arguments(**given))


def _check_points(path: Path, grid: Mapping[str, list[Any]], points: list[Point]) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for point, choice in zip(points, _choices(grid), strict=True):
        if point.id in seen:
            raise InputError(
                f"{path}: [grid] has one point twice, {seen[point.id]} and {choice}; remove a value"
            )
        seen[point.id] = choice


def _check_fabrics(path: Path, points: list[Point]) -> None:
    """Raise InputError for a fabric that cannot be built at any of its GPU counts; the smallest is tried first.

    One that is impossible at some counts only, such as a torus, fails at those points, and the others go on.
    """
    wanted: dict[str, list[Point]] = {}
    for point in points:
        wanted.setdefault(f"{point.arguments.fabric} {point.arguments.fabric_settings}", []).append(point)
    for group in wanted.values():
        if refusals := _refusals(group):
            raise InputError(f"{path}, fabric: {refusals[0]}") from refusals[0]


def _refusals(group: list[Point]) -> list[InputError | UsageError]:
    """Return why a fabric can be built at none of the GPU counts of `group`; nothing where it can at one."""
    refused: list[InputError | UsageError] = []
    arguments = group[0].arguments
    for size in sorted({p.arguments.gpus or len(Trace(p.trace).ranks()) for p in group}):
        try:
            fabric(arguments.fabric, size, **arguments.fabric_settings)
        except (InputError, UsageError) as error:
            refused.append(error)
        else:
            return []
    return refused
