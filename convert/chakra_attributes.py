"""Attributes of Chakra's nodes and files, as numbers and texts that fit the schema."""

from collections.abc import Mapping
from typing import Any

from .chakra_nodes import LATEST_NS

OWN = "eidola."
"""What this project adds to nodes that it exports: exact times, lanes, and what Chakra has no name for."""


def number_in(told: Mapping[str, Any], name: str, least: int = 0) -> int | None:
    """Return an attribute that is a number from `least` to LATEST_NS, which fits the schema; else None."""
    value = told.get(name)
    return value if type(value) is int and least <= value <= LATEST_NS else None


def small_in(told: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    """Return a number that fits a column of 32 bits; else None."""
    value = number_in(told, name, least)
    return value if value is not None and value < 1 << 31 else None


def numbers_in(told: Mapping[str, Any], name: str) -> list[int] | None:
    """Return an attribute that is a list of numbers from 0 to LATEST_NS; else None."""
    value = told.get(name)
    fits = isinstance(value, list) and all(type(n) is int and 0 <= n <= LATEST_NS for n in value)
    return value if isinstance(value, list) and fits else None


def text_in(told: Mapping[str, Any], name: str) -> str | None:
    """Return an attribute as text; None where there is none."""
    value = told.get(name)
    return str(value) if value is not None else None
