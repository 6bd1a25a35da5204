"""The folders become packages below `eidola`; all else about the build is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("capture", "cli", "convert", "replay", "report", "schemas")

found = find_namespace_packages(include=[*FOLDERS, *(f"{f}.*" for f in FOLDERS)], exclude=["*__pycache__*"])
setup(packages=[f"eidola.{name}" for name in found], package_dir={f"eidola.{f}": f for f in FOLDERS})
