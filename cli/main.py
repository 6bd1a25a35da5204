"""The `eidola` command: one sub-command a stage. Heavy imports happen inside the commands that need them."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..schemas.errors import EidolaError
from . import capture, convert, examples, inspect, replay, report
from .tables import say

INTERRUPTED = "eidola: interrupted; nothing that looks complete was left behind"


class Commands(TyperGroup):
    """The commands; Ctrl-C ends each with a line, which typer alone would leave out."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which one uses them."""
        return sorted(super().list_commands(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo(INTERRUPTED, err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    name="eidola",
    help="Capture peer-to-peer GPU traffic, normalise it, and replay it at GPU counts nobody captured.",
    epilog=examples.text(examples.START),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(capture.app, name="capture")
app.add_typer(convert.app, name="convert")
app.add_typer(replay.app, name="replay")
app.command("report")(report.report)
app.command("inspect")(inspect.inspect)
examples.attach(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # takes as long as all else here, and is seldom needed

        from ..schemas.tables import TRACE_VERSION

        typer.echo(f"eidola {version('eidola-sim')}, schema {TRACE_VERSION}")
        raise typer.Exit


@app.callback()
def _eidola(
    _: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every EidolaError becomes one paragraph on stderr and its exit code."""
    # Arrow's own allocator keeps what one thread gives back of another's; large tables then count twice.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        app()
    except EidolaError as error:
        say(f"eidola: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo(INTERRUPTED, err=True)
        sys.exit(130)
