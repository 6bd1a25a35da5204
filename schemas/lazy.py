"""Public names that import their module on first use, so that the command line starts at once."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def attach(package: str, **modules: str) -> Callable[[str], Any]:
    """Return a module `__getattr__` (PEP 562) for `package`.

    Each keyword is a sub-module, its value the names, separated by spaces, that the package takes from it.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
