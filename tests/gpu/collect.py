"""What run.sh and amd.sh run: every step has its own limit, and none keeps the next from being tried.

`collect.py OUT [WHEELS]`: OUT gets `summary.json` (each step's command, exit status, seconds and last line),
`log.txt` (all that was printed), `doctor.json`, `telemetry.jsonl` and `captures.tar.gz` (raw captures). The package
need not be installed; of its dependencies, what is missing is taken from the folder WHEELS, without a network.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOTAL_S = 450
LARGEST_BYTES = 15 << 20  # of what goes into captures.tar.gz, compressed
KERNELS = ("gemv-allreduce", "embedding-alltoall", "gemm-alltoall")
TESTS = {"test_kernels.py": 120, "test_probes.py": 60, "test_telemetry.py": 30, "test_nccl_plugin.py": 120}
EIDOLA = (sys.executable, "-c", "from eidola.cli.main import main; main()")
NEEDS = """
import importlib, sys
needed = "numpy numba pandas platformdirs plotly google.protobuf pyarrow pydantic rich simpy typer".split()
needed.append("eidola.cli.main")
wanted = "torch cupy triton pynvml amdsmi pytest hypothesis".split()
def missing(names):
    for name in names:
        try:
            module = importlib.import_module(name)
            print(name, getattr(module, "__version__", "is there"))
        except Exception as error:  # a library of a vendor may fail in any way where its driver is not there
            yield f"{name} ({error})"
print("Python", sys.version)
needed, wanted = list(missing(needed)), list(missing(wanted))
print("tried without, where it is needed:", ", ".join(wanted) or "nothing")
print("missing:", ", ".join(needed) or "nothing")
sys.exit(bool(needed))
"""
SMALL = """
from eidola.capture import GemmAllToAll, run_kernel
run_kernel(GemmAllToAll(gpus=2, rows=20, columns=11, inner=6, workgroups=2, deadline_s=30), "virtual")
print("results are right")
"""
MEMORY_CHECK = (
    "if ! command -v compute-sanitizer; then echo no compute-sanitizer on PATH, nothing checked; "
    "else compute-sanitizer --error-exitcode 9 {}; fi"
)
SAMPLE = """
import sys, time
from pathlib import Path
from eidola.capture.telemetry import Sampler
with Sampler(Path(sys.argv[1]), 0.05) as sampler:
    time.sleep(3)
print(sampler.samples, "samples,", sampler.cpu_ns / 3e7, "% of a core")
"""


def main(out, wheels):
    out.mkdir(parents=True, exist_ok=True)
    captures = out / "captures"
    captures.mkdir(exist_ok=True)
    began = time.monotonic()
    done = []
    with (out / "log.txt").open("w") as log:
        for name, command, limit_s in steps(out, captures, wheels):
            left = TOTAL_S - (time.monotonic() - began)
            done.append(step(name, command, min(limit_s, left), log) if left > 5 else skipped(name))
            print(f"{name}: {done[-1]['status']} in {done[-1]['seconds']} s", flush=True)
            # After each step: what ran is told even where this is stopped before its end.
            (out / "summary.json").write_text(json.dumps({"steps": done}, indent=1) + "\n")
    left_out = pack(captures, out / "captures.tar.gz")
    shutil.rmtree(captures)
    (out / "summary.json").write_text(json.dumps({"steps": done, "left_out": left_out}, indent=1) + "\n")
    failed = [entry["step"] for entry in done if entry["status"] != 0]
    print(f"{len(done) - len(failed)} of {len(done)} steps passed; send the folder {out}")
    return 1 if failed else 0


def steps(out, captures, wheels):
    """Yield name, command and limit in seconds of every step, the cheapest first."""
    if wheels:
        options = "-q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check"
        target = ["--target", os.environ["EIDOLA_SITE"]]
        command = [sys.executable, "-m", "pip", "install", *options.split(), *target]
        yield "wheels", f"{shlex.join(command)} {shlex.quote(str(wheels))}/*.whl", 60
    yield "dependencies", shlex.join([sys.executable, "-c", NEEDS]), 60
    doctor = shlex.quote(str(out / "doctor.json"))
    yield "doctor", f"{shlex.join(EIDOLA)} capture doctor --json > {doctor}", 60
    yield "telemetry", shlex.join([sys.executable, "-c", SAMPLE, str(out / "telemetry.jsonl")]), 30
    gpus = 1 << (count_gpus().bit_length() - 1)  # a power of two: sizes divide by it
    backends = [("virtual", 4), *([("gpu", gpus)] if gpus > 1 else [])]
    for backend, ranks in backends:
        for kernel in KERNELS:
            to = captures / f"{kernel}-{backend}"
            options = ["--backend", backend, "--gpus", str(ranks), "--anonymous", "-o", str(to)]
            yield f"{kernel} {backend}", shlex.join([*EIDOLA, "capture", "kernel", kernel, *options]), 40
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    for name, more in (("light", []), ("windows", ["--detail", "all"])):
        raw = str(captures / f"training-{name}")
        options = ["--nccl-plugin", "--telemetry", "0.1", "--anonymous", *more, "-o", raw]
        training = [*EIDOLA, "capture", "run", *options, "--", *torchrun, str(HERE / "train.py")]
        yield f"training {name}", shlex.join(training), 70
        yield f"convert {name}", shlex.join([*EIDOLA, "convert", "captured", raw, "-o", f"{raw}.eidola"]), 30
    for name, limit_s in TESTS.items():
        tests = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(HERE / name)]
        yield name, f"EIDOLA_GPU_CAPTURES={shlex.quote(str(captures))} {shlex.join(tests)}", limit_s
    yield "memory check", MEMORY_CHECK.format(shlex.join([sys.executable, "-c", SMALL])), 60
    for backend, _ in backends:
        probes = shlex.join([sys.executable, str(ROOT / "benchmarks/probes.py"), backend])
        to = shlex.quote(str(captures / f"probes-{backend}.jsonl"))
        yield f"cost of probes {backend}", f"{probes} | tee {to}", 90


def count_gpus():
    """Ask in another process: this one must not hold a GPU."""
    code = "from eidola.capture.gpus import find_backend; print(len(find_backend().gpus()))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT, check=True
        )
        return max(1, int(done.stdout))
    except (subprocess.SubprocessError, ValueError):
        return 1


def step(name, command, limit_s, log):
    log.write(f"\n=== {name}: {command}\n")
    log.flush()
    start = log.tell()
    began = time.monotonic()
    running = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command],
        stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    try:
        status = running.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, 9)  # the step's own session, nothing else
        status = "stopped at its limit"
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            status = "stopped at its limit, and does not end: the driver holds it"
    seconds = round(time.monotonic() - began, 1)
    return {"step": name, "command": command, "status": status, "seconds": seconds, "last": last(log, start)}


def last(log, start):
    """Return the last line that a step printed, which says why it failed."""
    with Path(log.name).open(errors="replace") as read:
        read.seek(start)
        lines = [line.strip() for line in read if line.strip()]
    return lines[-1][:500] if lines else ""


def skipped(name):
    return {"step": name, "command": None, "status": "no time left", "seconds": 0, "last": ""}


def pack(folder, archive):
    """Put the folder into an archive that is no larger than may be sent; return the captures that did not fit."""
    left_out = []
    with tarfile.open(archive, "w:gz") as packed:
        for entry in sorted(folder.iterdir()):
            with tempfile.TemporaryFile() as alone:
                with tarfile.open(fileobj=alone, mode="w:gz") as trial:
                    trial.add(entry, entry.name)
                size_bytes = alone.tell()
            if archive.stat().st_size + size_bytes > LARGEST_BYTES:
                left_out.append(entry.name)
            else:
                packed.add(entry, f"captures/{entry.name}")
    return left_out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        package, site = Path(folder) / "package", Path(folder) / "site"
        package.mkdir()
        (package / "eidola").symlink_to(ROOT)  # this checkout is the package that is tried
        paths = (str(package), str(site), os.environ.get("PYTHONPATH"))
        os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "EIDOLA_SITE": str(site)}
        wheels = Path(sys.argv[2]).resolve() if sys.argv[2:] else None
        sys.exit(main(Path(sys.argv[1]).resolve(), wheels))
