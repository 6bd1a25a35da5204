"""`eidola capture kernel`: run a fused computation-collective kernel and keep its probe records."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Quiet

if TYPE_CHECKING:
    from ..capture.fused.spec import FusedKernel

app = typer.Typer(no_args_is_help=True, help="Run and capture a fused computation-collective kernel.")


class Backend(StrEnum):
    """What runs the kernel's ranks."""

    host = "host"
    virtual = "virtual"
    gpu = "gpu"


Output = Annotated[Path, typer.Option("--output", "-o", help="Raw capture to write.")]
On = Annotated[
    Backend,
    typer.Option(
        help="host: CPU threads; virtual: all ranks on one GPU; gpu: a GPU a rank. "
        "Only gpu is truth for rates and delays."
    ),
]
Gpus = Annotated[int, typer.Option(help="Ranks.")]
Workgroups = Annotated[int, typer.Option(help="Physical workgroups a rank.")]
Iterations = Annotated[int, typer.Option(help="Launches; the first is a warm-up.")]
Seed = Annotated[int, typer.Option(help="Seed of the inputs.")]
Deadline = Annotated[float, typer.Option(help="Longest wait for one flag, in seconds.")]
Buffer = Annotated[int, typer.Option(help="Probe records kept a workgroup.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Leave the host's name out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing raw capture.")]


@app.command("gemv-allreduce")
def gemv_allreduce(
    output: Output = Path("out"),
    backend: On = Backend.host,
    gpus: Gpus = 4,
    rows: Annotated[int, typer.Option("--rows", "-m", help="Rows; a multiple of --gpus.")] = 8192,
    columns: Annotated[int, typer.Option("--columns", "-k", help="Columns, split over the ranks.")] = 1024,
    tile_rows: Annotated[int, typer.Option(help="Rows of a logical workgroup's tile.")] = 64,
    workgroups: Workgroups = 8,
    iterations: Iterations = 3,
    seed: Seed = 0,
    deadline: Deadline = 10.0,
    buffer_records: Buffer = 16384,
    anonymous: Anonymous = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """GEMV + AllReduce, two-phase direct: ranks write slices straight into their peers and raise flags."""
    from ..capture.fused.gemv_allreduce import GemvAllReduce

    spec = GemvAllReduce(
        gpus=gpus,
        rows=rows,
        columns=columns,
        tile_rows=tile_rows,
        workgroups=workgroups,
        iterations=iterations,
        seed=seed,
        deadline_s=deadline,
        buffer_records=buffer_records,
    )
    kept = _capture(spec, output, backend, anonymous=anonymous, overwrite=overwrite, quiet=quiet)
    _tell(kept, output, as_json, quiet)


@app.command("embedding-alltoall")
def embedding_alltoall(
    output: Output = Path("out"),
    backend: On = Backend.host,
    gpus: Gpus = 4,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Samples over all ranks; a multiple.")] = 4096,
    tables: Annotated[int, typer.Option(help="Embedding tables a rank.")] = 4,
    entries: Annotated[int, typer.Option(help="Rows of a table.")] = 1000,
    dimension: Annotated[int, typer.Option(help="Elements of a row.")] = 32,
    pooling: Annotated[int, typer.Option(help="Rows that a sample pools in a table.")] = 8,
    tile_samples: Annotated[int, typer.Option(help="Samples of a logical workgroup's tile.")] = 32,
    workgroups: Workgroups = 8,
    iterations: Iterations = 3,
    seed: Seed = 0,
    deadline: Deadline = 10.0,
    buffer_records: Buffer = 16384,
    anonymous: Anonymous = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Embedding + All-to-All: ranks pool rows of their tables and write each owner's samples straight to it."""
    from ..capture.fused.embedding_alltoall import EmbeddingAllToAll

    spec = EmbeddingAllToAll(
        gpus=gpus,
        batch=batch,
        tables=tables,
        entries=entries,
        dimension=dimension,
        pooling=pooling,
        tile_samples=tile_samples,
        workgroups=workgroups,
        iterations=iterations,
        seed=seed,
        deadline_s=deadline,
        buffer_records=buffer_records,
    )
    kept = _capture(spec, output, backend, anonymous=anonymous, overwrite=overwrite, quiet=quiet)
    _tell(kept, output, as_json, quiet)


@app.command("gemm-alltoall")
def gemm_alltoall(
    output: Output = Path("out"),
    backend: On = Backend.host,
    gpus: Gpus = 4,
    rows: Annotated[int, typer.Option("--rows", "-m", help="Rows; a multiple of --gpus.")] = 1024,
    columns: Annotated[int, typer.Option("--columns", "-n", help="Columns of the product.")] = 256,
    inner: Annotated[int, typer.Option("--inner", "-k", help="Columns of the left factor.")] = 64,
    tile_rows: Annotated[int, typer.Option(help="Rows of a logical workgroup's tile.")] = 32,
    tile_columns: Annotated[int, typer.Option(help="Columns of that tile.")] = 32,
    workgroups: Workgroups = 8,
    iterations: Iterations = 3,
    seed: Seed = 0,
    deadline: Deadline = 10.0,
    buffer_records: Buffer = 16384,
    anonymous: Anonymous = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """GEMM + All-to-All: ranks write each tile of a product straight to the rank that its rows belong to."""
    from ..capture.fused.gemm_alltoall import GemmAllToAll

    spec = GemmAllToAll(
        gpus=gpus,
        rows=rows,
        columns=columns,
        inner=inner,
        tile_rows=tile_rows,
        tile_columns=tile_columns,
        workgroups=workgroups,
        iterations=iterations,
        seed=seed,
        deadline_s=deadline,
        buffer_records=buffer_records,
    )
    kept = _capture(spec, output, backend, anonymous=anonymous, overwrite=overwrite, quiet=quiet)
    _tell(kept, output, as_json, quiet)


def _capture(
    spec: "FusedKernel", output: Path, backend: Backend, *, anonymous: bool, overwrite: bool, quiet: bool
) -> dict[str, Any]:
    """Run and capture the kernel; return what there is to say of it."""
    from ..capture.fused.capture import capture_kernel
    from .progress import working

    with working("running the kernel", enabled=not quiet):
        run = capture_kernel(spec, output, backend=backend.value, overwrite=overwrite, anonymous=anonymous)
    return {
        "path": str(output),
        "backend": backend.value,
        "ranks": spec.gpus,
        "records": sum(len(records) for rank in run.records for records in rank),
        "emitted": int(run.emitted.sum()),
        "checked": True,  # a wrong result raises
    }


def _tell(kept: dict[str, Any], output: Path, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(json.dumps(kept, indent=1))
    elif not quiet:
        typer.echo(
            f"wrote {output}: {kept['records']} of {kept['emitted']} records of {kept['ranks']} ranks on backend "
            f"{kept['backend']}, result checked; next: eidola convert captured {output} -o {output.name}.eidola"
        )
