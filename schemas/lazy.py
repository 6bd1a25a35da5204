"""Public names that import their module on first use, so that the command line starts at once."""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


def attach(package: str, **modules: str) -> Callable[[str], Any]:
    """Return a module `__getattr__` (PEP 562) for `package`.

    Each keyword is a sub-module, its value the names, separated by spaces, that the package takes from it. A
    public name may be that of its sub-module: the name wins, whichever is imported first.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    class Package(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            # The import system binds each loaded sub-module in its package, over a public name of that name.
            if not (name in home and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    sys.modules[package].__class__ = Package
    return __getattr__
