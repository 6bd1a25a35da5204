"""One value of a study's file as the argument of `replay` that it is for."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ...schemas import InputError, Trace
from ..api import Arguments
from ..routing import routing
from ..wait_text import parse_wait

_HINTS = get_type_hints(Arguments) | {"trace": str, "wait": str}
NAMES = ("trace", *(field.name for field in fields(Arguments)))
TABLES = tuple(name for name in NAMES if get_origin(_HINTS[name]) is dict)
_LEAST = {"gpus": 1, "segment_bytes": 0}


def read_value(key: str, value: Any, base: Path) -> Any:
    """Return the value of `key` (an argument, or `table.entry`) as `replay` takes it.

    Traces and files of fabrics become absolute paths, from the folder `base`. Raises InputError or UsageError with
    the remedy for a value that the argument does not take, and for a trace or a file that is not there.
    """
    name, dot, _ = key.partition(".")
    hint = get_args(_HINTS[name])[1] if dot else _HINTS[name]
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise InputError(f"no {key} {value!r}; use {', '.join(get_args(hint))}")
    if not _fits(value, hint) or (key in _LEAST and value < _LEAST[key]):
        least = f" of at least {_LEAST[key]}" if key in _LEAST else ""
        raise InputError(f"{value!r} will not do; give {_kind(hint)}{least}")
    if key in _READERS:
        return _READERS[key](value, base)
    return tuple(value) if get_origin(hint) is tuple else value


def _trace(value: str, base: Path) -> Path:
    return Trace((base / value).resolve()).path


def _fabric(value: str, base: Path) -> str:
    if not value.endswith(".toml"):
        return value
    file = (base / value).resolve()
    if not file.is_file():
        raise InputError(f"{file} is not there; give a preset's name, or the path of a TOML file")
    return str(file)


def _wait(value: str, _: Path) -> Any:
    return parse_wait(value)


def _routing(value: str, _: Path) -> str:
    routing(value)  # refuses what it does not know
    return value


_READERS: dict[str, Callable[[str, Path], Any]] = {
    "trace": _trace,
    "fabric": _fabric,
    "wait": _wait,
    "routing": _routing,
}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from TOML is of the type that a hint names."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or origin is Literal:
        return True
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if inner:
        return any(_fits(value, one) for one in inner)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _kind(hint: Any) -> str:
    """Return a hint in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"a list, each {_kind(inner[0])}"
    if origin is dict:
        return "a table"
    if inner:
        return " or ".join(_kind(one) for one in inner if one is not type(None))
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(
        hint, "another value"
    )
