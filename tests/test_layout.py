"""The contract between the folders: who imports whom, what is public, what starts fast, what is installed."""

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"capture", "convert", "replay", "report"}
MAY_IMPORT = {
    "schemas": {"schemas"},
    **{stage: {stage, "schemas"} for stage in STAGES},
    "cli": STAGES | {"schemas", "cli"},
}
GPU_LIBRARIES = {"torch", "cupy", "pynvml", "amdsmi", "triton"}
HEAVY = GPU_LIBRARIES | {"numpy", "pyarrow", "pandas", "numba", "simpy", "plotly"}
SOURCES = sorted(file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py"))


def imports(file):
    """Yield the dotted name of everything that a file imports, relative names resolved below `eidola`."""
    package = ["eidola", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def python(code, *arguments):
    """Run code in a fresh interpreter, and return the JSON that it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    folder = file.relative_to(ROOT).parts[0]
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "eidola":
            assert rest.split(".")[0] in MAY_IMPORT[folder], f"{folder}/ may not import {name}"
        assert folder == "capture" or top not in GPU_LIBRARIES, f"only capture/ may import {name}"


def test_the_rule_sees_relative_imports():
    file = ROOT / "replay" / "deep" / "x.py"
    source = "from ...convert import kineto\nfrom .. import run\nfrom . import y\nimport eidola.report.page"
    found = [
        ".".join(["eidola", *part])
        for part in (("convert", "kineto"), ("replay", "run"), ("replay", "deep", "y"), ("report", "page"))
    ]

    class Written(type(file)):
        def read_text(self):
            return source

    assert list(imports(Written(file))) == found


def test_everything_imports_where_no_gpu_library_is_installed():
    code = """
import importlib, json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
for name in json.loads(sys.argv[1]):
    package = importlib.import_module(f"eidola.{name}")
    for public in package.__all__:
        getattr(package, public)
importlib.import_module("eidola.cli.main")
print("true")
"""
    assert python(code, json.dumps(sorted(STAGES | {"schemas"})), json.dumps(sorted(GPU_LIBRARIES)))


@pytest.mark.parametrize("command", [[], ["capture"], ["convert"], ["replay"], ["report"]], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    code = """
import json, sys
from eidola.cli.main import main
heavy = json.loads(sys.argv.pop())
try:
    main()
except SystemExit as stop:
    assert not stop.code
print()
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert python(code, *command, "--help", json.dumps(sorted(HEAVY))) == []


@pytest.mark.parametrize("name", sorted(STAGES | {"schemas"}))
def test_public_names_exist_and_are_documented(name):
    package = import_module(f"eidola.{name}")
    assert package.__doc__
    assert len(package.__all__) == len(set(package.__all__))
    for public in package.__all__:
        value = getattr(package, public)
        assert not inspect.ismodule(value), f"{public} is a module, not what it is named after"
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"eidola.{name}.{public} has no docstring"


def test_public_names_win_over_sub_modules_of_their_name():
    code = """
import importlib, inspect, json, pkgutil, sys
bad = []
for name in json.loads(sys.argv[1]):
    package = importlib.import_module(f"eidola.{name}")
    for public in package.__all__:
        if public in {module.name for module in pkgutil.iter_modules(package.__path__)}:
            importlib.import_module(f"eidola.{name}.{public}")
            bad += [public] if inspect.ismodule(getattr(package, public)) else []
print(json.dumps(bad))
"""
    assert python(code, json.dumps(sorted(STAGES | {"schemas"}))) == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this tree, built from a copy so that nothing is left in it."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in MAY_IMPORT:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*pip, "-w", folder, folder / "source"], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_holds_every_source_and_data_file_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = {file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*")}
    kinds = {".py", ".typed", ".c", ".h", ".cpp", ".toml", ".js", ".css", ".html", ".json"}
    wanted = {Path("eidola") / file.relative_to(ROOT) for file in files if file.suffix in kinds}
    assert held == wanted
    assert {Path("eidola") / name / "py.typed" for name in MAY_IMPORT} <= held
    assert Path("eidola/__init__.py") not in held


def test_the_command_works_from_an_installed_wheel(wheel, tmp_path):
    # The environment finds the dependencies here, but not this tree: .pth files below a .pth are not followed.
    venv.create(tmp_path, with_pip=False)
    paths = {"base": str(tmp_path), "platbase": str(tmp_path)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        tmp_path / "bin" / "python",
        "install",
        "--no-index",
        "-q",
    ]
    subprocess.run([*pip, "--no-deps", wheel], check=True, timeout=120)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [tmp_path / "bin" / "eidola", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=clean,
    )
    assert done.returncode == 0, done.stderr
    for stage in STAGES:
        assert stage in done.stdout
    where = "import eidola.schemas.lazy as m; print(m.__file__)"
    found = subprocess.run(
        [tmp_path / "bin" / "python", "-c", where],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean,
    )
    assert Path(found.stdout.strip()).is_relative_to(site)
