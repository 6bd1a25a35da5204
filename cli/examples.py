"""An example for every command, which its `--help` ends with."""

import typer

_TRACE = "job.eidola"

START = [
    f"eidola convert auto traces/*.json.gz -o {_TRACE}",
    f"eidola inspect {_TRACE}",
    f"eidola replay run {_TRACE} --gpus 64 --fabric hgx-h100 -o run/",
    "eidola report run/ -o report.html",
]
GROUPS: dict[str, list[str]] = {
    "capture": ["eidola capture doctor", "eidola capture run -o out -- torchrun --nproc-per-node 4 train.py"],
    "capture kernel": ["eidola capture kernel gemv-allreduce --backend host --gpus 4 -m 8192 -o raw"],
    "convert": [f"eidola convert auto traces/ -o {_TRACE}", f"eidola convert check {_TRACE}"],
    "replay": [
        f"eidola replay run {_TRACE} --gpus 64 --fabric hgx-h100 -o run/",
        "eidola replay explain run/",
        "eidola replay compare run/",
    ],
    "replay generate": ["eidola replay generate gemv-allreduce --gpus 256 -m 8192 -o gemv.eidola"],
}

EXAMPLES: dict[str, list[str]] = {
    "inspect": [f"eidola inspect {_TRACE}", "eidola inspect run/ --json"],
    "report": [
        "eidola report run/ -o report.html",
        "eidola report spin/ monitor/ -o difference.html",
        f"eidola report {_TRACE}",
    ],
    "capture run": [
        "eidola capture run -o out -- torchrun --nproc-per-node 4 train.py",
        "eidola capture run -o out --detail spaced --telemetry 0.1 -- python train.py",
    ],
    "capture recover": ["eidola capture recover out"],
    "capture doctor": ["eidola capture doctor", "eidola capture doctor --json -o /scratch"],
    "capture kernel gemv-allreduce": [
        "eidola capture kernel gemv-allreduce --backend host --gpus 4 -m 8192 -o raw"
    ],
    "capture kernel embedding-alltoall": ["eidola capture kernel embedding-alltoall --gpus 2 -o raw"],
    "capture kernel gemm-alltoall": ["eidola capture kernel gemm-alltoall --gpus 2 -o raw"],
    "convert auto": [f"eidola convert auto traces/ -o {_TRACE}"],
    "convert kineto": [
        f"eidola convert kineto rank0.json.gz rank1.json.gz -o {_TRACE}",
        f"eidola convert kineto kineto/ --execution-trace et/ -o {_TRACE}",
    ],
    "convert captured": [f"eidola convert captured out -o {_TRACE}"],
    "convert check": [f"eidola convert check {_TRACE}"],
    "convert export": ["eidola convert export perfetto run/ -o run.pftrace"],
    "replay verify": ["eidola replay verify run/"],
    "replay explain": ["eidola replay explain run/", "eidola replay explain run/ --confirm"],
    "replay compare": [
        "eidola replay compare run/",
        "eidola replay compare spin/ monitor/",
        f"eidola replay compare run/ {_TRACE} --json",
    ],
    "replay fabric": [
        "eidola replay fabric hgx-h100 --gpus 32 -o fabric.svg",
        "eidola replay fabric hgx-h100 --gpus 1024 --setting scale_out=fat-tree",
    ],
    "replay generate gemv-allreduce": [
        "eidola replay generate gemv-allreduce --gpus 256 -m 8192 -o gemv.eidola"
    ],
    "replay generate embedding-alltoall": ["eidola replay generate embedding-alltoall --gpus 64"],
    "replay generate gemm-alltoall": ["eidola replay generate gemm-alltoall --gpus 64"],
    "replay generate uniform": [
        "eidola replay generate uniform --gpus 16 --messages 100 --size-bytes 4096 --rate-per-s 1000000"
    ],
    "replay generate poisson": [
        "eidola replay generate poisson --gpus 16 --duration-ns 400000 --load 0.5 --link-rate 50000"
    ],
    "replay generate incast": ["eidola replay generate incast --gpus 16 --messages 10"],
    "replay generate permutation": ["eidola replay generate permutation --gpus 16 --messages 10"],
    "replay generate patterns": ["eidola replay generate patterns traffic.toml -o traffic.eidola"],
}


def attach(app: typer.Typer, *path: str) -> None:
    """End the help of every command of `app` that has no examples of its own with those of EXAMPLES."""
    for command in app.registered_commands:
        called = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        name = " ".join((*path, called))
        lines = EXAMPLES.get(name, [])
        if not lines and path == ("convert",):
            lines = [f"eidola {name} FILES... -o {_TRACE}".replace("FILES...", "traces/")]
        if lines and not command.epilog:
            command.epilog = text(lines)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            name = " ".join((*path, str(group.name)))
            group.typer_instance.info.epilog = text(GROUPS[name])
            attach(group.typer_instance, *path, str(group.name))


def text(lines: list[str]) -> str:
    """Return example commands as the end of a help text."""
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines])
