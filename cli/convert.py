"""`eidola convert`."""

import typer

app = typer.Typer(no_args_is_help=True, help="...")


@app.callback()
def _callback() -> None:
    pass
