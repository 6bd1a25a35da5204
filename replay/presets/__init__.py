"""Fabrics of the machines that people have, by name; one that nobody named comes from a TOML file."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .catalogue import fabric, load, preset, preset_names
    from .check import check_routes

__all__ = ["check_routes", "fabric", "load", "preset", "preset_names"]

__getattr__ = attach(__name__, catalogue="fabric load preset preset_names", check="check_routes")
