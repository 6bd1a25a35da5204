"""`eidola replay generate`: traffic made to order, written as traces."""

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..schemas.errors import UsageError
from .options import AsJson, Quiet

app = typer.Typer(
    no_args_is_help=True,
    help="Write made-to-order traffic as a trace: fused kernels, random patterns, or a TOML file of them.",
)

Flags = StrEnum("Flags", ["last", "each", "none"])

Gpus = Annotated[int, typer.Option(help="Ranks.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Trace to write; default: NAME.eidola.")]
Workgroups = Annotated[int, typer.Option(help="Physical workgroups a GPU, which share its rate.")]
Iterations = Annotated[int, typer.Option(help="Launches.")]
LaunchNs = Annotated[int, typer.Option(help="Time before each launch.")]
JitterNs = Annotated[int, typer.Option(help="Most by which a GPU starts late; drawn by the seed.")]
PollNs = Annotated[int, typer.Option(help="Period at which waits poll.")]
Seed = Annotated[int, typer.Option(help="Start of all random draws.")]
Targets = Annotated[int | None, typer.Option(help="Only traffic to or from the first so many GPUs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing trace.")]
ElementBytes = Annotated[int, typer.Option(help="Bytes of an element.")]
MemoryRate = Annotated[
    int, typer.Option("--memory-rate", help="A GPU's memory rate in MB/s; default: H100 SXM's data sheet.")
]
SizeBytes = Annotated[list[int] | None, typer.Option(help="Size of a message; repeated: draws one of them.")]
Messages = Annotated[int | None, typer.Option(help="Messages a sender.")]
DurationNs = Annotated[int | None, typer.Option(help="Or: until so long after the start.")]
RatePerS = Annotated[float | None, typer.Option(help="Messages a second and sender.")]
Load = Annotated[float | None, typer.Option(help="Or: the fraction of --link-rate that they fill.")]
LinkRate = Annotated[int | None, typer.Option(help="With --load: a link's rate in MB/s.")]
FlagsOption = Annotated[Flags, typer.Option(help="Raised after the last message to a peer, each, or none.")]


@app.command("gemv-allreduce")
def gemv_allreduce(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    rows: Annotated[int, typer.Option("--rows", "-m", help="Rows; a multiple of --gpus.")] = 8192,
    columns: Annotated[int, typer.Option("--columns", "-k", help="Columns; a multiple of --gpus.")] = 8192,
    tile_rows: Annotated[
        int | None, typer.Option(help="Rows of a tile; default: a tile a workgroup, at most 64.")
    ] = None,
    element_bytes: ElementBytes = 4,
    memory_mb_per_s: MemoryRate = 3_350_000,
    workgroups: Workgroups = 8,
    iterations: Iterations = 1,
    launch_ns: LaunchNs = 0,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """GEMV + AllReduce, two-phase direct, as `eidola capture kernel gemv-allreduce` runs it."""
    _write("gemv-allreduce", ctx.params)


@app.command("embedding-alltoall")
def embedding_alltoall(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    batch: Annotated[int, typer.Option(help="Samples of all GPUs; a multiple of --gpus.")] = 65536,
    tables: Annotated[int, typer.Option(help="Embedding tables a GPU.")] = 8,
    dimension: Annotated[int, typer.Option(help="Elements of an embedding.")] = 128,
    pooling: Annotated[int, typer.Option(help="Embeddings that a sample pools of a table.")] = 32,
    tile_samples: Annotated[
        int | None, typer.Option(help="Samples of a tile; default: a tile a workgroup, at most 64.")
    ] = None,
    element_bytes: ElementBytes = 4,
    memory_mb_per_s: MemoryRate = 3_350_000,
    workgroups: Workgroups = 8,
    iterations: Iterations = 1,
    launch_ns: LaunchNs = 0,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Embedding + All-to-All: every GPU pools its tables for all samples, and writes each peer its slice."""
    _write("embedding-alltoall", ctx.params)


@app.command("gemm-alltoall")
def gemm_alltoall(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    rows: Annotated[int, typer.Option("--rows", "-m", help="Rows; a multiple of --gpus.")] = 8192,
    columns: Annotated[int, typer.Option("--columns", "-n", help="Columns of the product.")] = 4096,
    inner: Annotated[int, typer.Option("--inner", "-k", help="Inner dimension.")] = 4096,
    tile_rows: Annotated[int, typer.Option(help="Rows of a tile.")] = 128,
    tile_columns: Annotated[int, typer.Option(help="Columns of a tile.")] = 128,
    element_bytes: ElementBytes = 2,
    gflop_per_s: Annotated[
        int,
        typer.Option(
            "--flop-rate", help="A GPU's rate in GFLOP/s; default: H100 SXM's data sheet, BF16, dense."
        ),
    ] = 989_400,
    workgroups: Workgroups = 8,
    iterations: Iterations = 1,
    launch_ns: LaunchNs = 0,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """GEMM + All-to-All: every GPU computes output tiles, and writes each to the peer whose rows they are."""
    _write("gemm-alltoall", ctx.params)


@app.command("uniform")
def uniform(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    size_bytes: SizeBytes = None,
    messages: Messages = None,
    duration_ns: DurationNs = None,
    rate_per_s: RatePerS = None,
    load: Load = None,
    link_rate: LinkRate = None,
    flags: FlagsOption = Flags.last,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Messages from every GPU to random peers, at equal distances; without a rate all at once."""
    _write("uniform", _rated(ctx.params))


@app.command("poisson")
def poisson(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    size_bytes: SizeBytes = None,
    messages: Messages = None,
    duration_ns: DurationNs = None,
    rate_per_s: RatePerS = None,
    load: Load = None,
    link_rate: LinkRate = None,
    flags: FlagsOption = Flags.last,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Messages from every GPU to random peers, as a Poisson process each."""
    _write("poisson", _rated(ctx.params))


@app.command("incast")
def incast(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    hot: Annotated[str, typer.Option(help="The GPUs that all write to, such as 0-3,8.")] = "0",
    size_bytes: SizeBytes = None,
    messages: Messages = None,
    duration_ns: DurationNs = None,
    rate_per_s: RatePerS = None,
    load: Load = None,
    link_rate: LinkRate = None,
    flags: FlagsOption = Flags.last,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Messages from every GPU to the hot ones; without a rate, one each and all at once."""
    from ..replay.generate.pattern_file import gpu_list

    options = _rated(ctx.params)
    _write("incast", options | {"peers": gpu_list("command line", "--hot", options.pop("hot"))})


@app.command("permutation")
def permutation(
    ctx: typer.Context,
    output: Output = None,
    gpus: Gpus = 8,
    shift: Annotated[
        int | None, typer.Option(help="Distance to the peer; default: a random cycle through all GPUs.")
    ] = None,
    size_bytes: SizeBytes = None,
    messages: Messages = None,
    duration_ns: DurationNs = None,
    rate_per_s: RatePerS = None,
    load: Load = None,
    link_rate: LinkRate = None,
    flags: FlagsOption = Flags.last,
    jitter_ns: JitterNs = 0,
    poll_ns: PollNs = 100,
    seed: Seed = 0,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Messages from every GPU to one other; without a rate, one each and all at once."""
    _write("permutation", _rated(ctx.params))


@app.command("patterns")
def patterns(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML file of patterns; see docs/generate.md.")],
    output: Output = None,
    gpus: Annotated[int | None, typer.Option(help="Ranks, in place of the file's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the file's.")] = None,
    targets: Targets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Patterns side by side, each on the GPUs that the file gives it."""
    options = {name: value for name, value in ctx.params.items() if value is not None}
    _write(options.pop("file").stem, {**options, "path": file}, "patterns")


def _rated(params: dict[str, Any]) -> dict[str, Any]:
    """Return a pattern's options, a load as a rate."""
    from ..replay.generate.patterns import Pattern, rate_per_s

    options = dict(params)
    load, link_rate, rate = options.pop("load"), options.pop("link_rate"), options["rate_per_s"]
    sizes = tuple(options["size_bytes"] or Pattern().size_bytes)
    if (load is None) != (link_rate is None) or (rate is not None and load is not None):
        raise UsageError("give --load and --link-rate together, and then no --rate-per-s")
    if load is not None:
        rate = rate_per_s(load, link_rate, sizes)
    return options | {"size_bytes": sizes, "rate_per_s": rate or 0, "flags": options["flags"].value}


def _write(stem: str, params: dict[str, Any], name: str | None = None) -> None:
    """Make generator `name` (by default `stem`) from a command's options, write its trace, say what is in it."""
    from ..replay.generate import GENERATORS, generate
    from .progress import progress

    options = dict(params)
    quiet, as_json, overwrite = (options.pop(name) for name in ("quiet", "as_json", "overwrite"))
    path, targets = options.pop("output", None) or Path(f"{stem}.eidola"), options.pop("targets", None)
    traffic = GENERATORS[name or stem](**options)
    with progress(enabled=not quiet) as show:
        trace = generate(
            traffic,
            path,
            targets=targets,
            overwrite=overwrite,
            command=shlex.join(["eidola", *sys.argv[1:]]),
            progress=lambda done, total: show("generating", done, total),
        )
    if quiet and not as_json:
        return
    sizes = trace.read("writes", ["size_bytes"])["size_bytes"].to_numpy()
    ends = trace.read("spans", ["end_ns"])["end_ns"].to_numpy()
    made = {
        "path": str(path), "ranks": traffic.gpus, "writes": len(sizes), "bytes": int(sizes.sum()),
        "waits": trace.read("waits", ["flag"]).num_rows, "duration_ns": int(ends.max(initial=0)),
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(made, indent=1))
        return
    typer.echo(
        f"wrote {path}: {traffic.gpus} ranks, {made['writes']:,} writes of {made['bytes']:,} bytes, "
        f"{made['waits']:,} waits, {made['duration_ns'] / 1000:,.3f} us; next: eidola replay run {path} -o run/"
    )
