"""`eidola convert`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from ..convert.formats import TITLES, find_format, titles
from .captured import captured_command
from .export import export_command
from .options import Quiet as _Quiet
from .tables import say

if TYPE_CHECKING:
    from ..convert import ConversionReport
    from ..convert.auto import Recognised

_ET = "--execution-trace"


class _Where(NamedTuple):
    """Where ranks are read."""

    jobs: int | None
    cluster: str | None


class _Formats(TyperGroup):
    """The commands of this package's formats; those of other packages are looked for only when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in titles() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None."""
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in titles():
            other = typer.Typer(add_completion=False)
            _register(other, cmd_name, titles()[cmd_name])
            found = typer.main.get_command(other)
        return found


app = typer.Typer(
    cls=_Formats, no_args_is_help=True, help="Convert other tools' traces, and raw captures, to a trace."
)
app.command("captured")(captured_command)
app.command("export")(export_command)


@app.callback()
def _callback() -> None:
    pass


class _Greedy(TyperCommand):
    """A command whose `--execution-trace` takes all names up to the next option, as a glob gives them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its file names."""
        spread: list[str] = []
        greedy = False
        for arg in args:
            if arg.startswith("-"):
                greedy = arg == _ET
                spread += [] if greedy else [arg]
            else:
                spread += [_ET, arg] if greedy else [arg]
        return super().parse_args(ctx, spread)


_Output = Annotated[Path, typer.Option("--output", "-o", help="Trace folder to write.")]
_Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Ranks read at once on this machine; default: a core each, where that pays."),
]
_Cluster = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Of a Dask scheduler, to read ranks on its workers.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.command()
def auto(
    paths: Annotated[list[Path], typer.Argument(help="Files of any known format, or folders of them.")],
    output: _Output,
    jobs: _Jobs = None,
    cluster: _Cluster = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Convert traces of any known format: say what each file was taken for, then convert them."""
    from ..convert import auto as convert_auto
    from .progress import progress

    def tell(found: "Recognised") -> None:
        if not (quiet or as_json):
            say("\n".join(found.lines()))

    with progress(enabled=not quiet) as show:
        report = convert_auto(
            paths, output, overwrite=overwrite, progress=show, tell=tell, jobs=jobs, cluster=cluster
        )
    _print(report, as_json, quiet)


@app.command(cls=_Greedy)
def kineto(
    traces: Annotated[
        list[Path], typer.Argument(help="Kineto files (*.json, *.json.gz), or folders of them.")
    ],
    output: _Output,
    execution_trace: Annotated[
        list[Path] | None,
        typer.Option(_ET, help="ExecutionTrace files, or a folder of them, after the traces."),
    ] = None,
    jobs: _Jobs = None,
    cluster: _Cluster = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Convert PyTorch profiler traces (Kineto JSON), one file a rank."""
    at = _Where(jobs, cluster)
    _convert("kineto", traces, output, execution_trace or [], at, overwrite, as_json, quiet)


def _register(to: typer.Typer, name: str, title: str) -> None:
    """Add the command of a format that needs no options of its own."""

    @to.command(name, help=f"Convert {title}.")
    def command(
        paths: Annotated[list[Path], typer.Argument(help="Files, or folders of them.")],
        output: _Output,
        jobs: _Jobs = None,
        cluster: _Cluster = None,
        overwrite: _Overwrite = False,
        as_json: _Json = False,
        quiet: _Quiet = False,
    ) -> None:
        _convert(name, paths, output, [], _Where(jobs, cluster), overwrite, as_json, quiet)


for _name, _title in TITLES.items():
    if _name != "kineto":
        _register(app, _name, _title)


def _convert(
    name: str,
    paths: list[Path],
    output: Path,
    companions: list[Path],
    where: _Where,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from ..convert import convert
    from .progress import progress

    kind = find_format(name)
    with progress(enabled=not quiet) as show:
        report = convert(
            kind,
            paths,
            output,
            companions=companions,
            overwrite=overwrite,
            progress=show,
            jobs=where.jobs,
            cluster=where.cluster,
        )
    _print(report, as_json, quiet)


def _print(report: "ConversionReport", as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    elif not quiet:
        say("\n".join([*report.lines(), f"look at it with `eidola inspect {report.path}`"]))


@app.command()
def check(
    trace: Annotated[Path, typer.Argument(help="Trace or run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the problems as JSON.")] = False,
    quiet: _Quiet = False,
) -> None:
    """Check a trace against the schema: a line a problem, exit code 3 where it breaks the schema."""
    from ..schemas import check as check_folder
    from .progress import working

    with working("checking", enabled=not quiet):
        problems = check_folder(trace)
    broken = any(problem.severity == "error" for problem in problems)
    if as_json:
        typer.echo(json.dumps({"ok": not broken, "problems": [asdict(p) for p in problems]}, indent=1))
    elif not quiet:
        say("\n".join([*map(str, problems), *([] if broken else ["ok"])]))
    if broken:
        raise typer.Exit(3)
