"""What run.sh and amd.sh run: every step has its own limit, and none keeps the next from being tried.

OUT gets `summary.json` (each step's command, exit status and seconds), `log.txt` (all that was printed),
`doctor.json`, `telemetry.jsonl` and `captures.tar.gz` (raw captures). The package need not be installed, but its
dependencies must be.
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
EIDOLA = (sys.executable, "-c", "from eidola.cli.main import main; main()")
SAMPLE = """
import sys, time
from pathlib import Path
from eidola.capture.telemetry import Sampler
with Sampler(Path(sys.argv[1]), 0.05) as sampler:
    time.sleep(3)
print(sampler.samples, "samples,", sampler.cpu_ns / 3e7, "% of a core")
"""


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    captures = out / "captures"
    captures.mkdir(exist_ok=True)
    began = time.monotonic()
    done = []
    with (out / "log.txt").open("w") as log:
        for name, command, limit_s in steps(out, captures):
            left = TOTAL_S - (time.monotonic() - began)
            done.append(step(name, command, min(limit_s, left), log) if left > 5 else skipped(name))
            print(f"{name}: {done[-1]['status']} in {done[-1]['seconds']} s", flush=True)
    with tarfile.open(out / "captures.tar.gz", "w:gz") as archive:
        archive.add(captures, "captures")
    shutil.rmtree(captures)
    (out / "summary.json").write_text(json.dumps({"steps": done}, indent=1) + "\n")
    failed = [entry["step"] for entry in done if entry["status"] != 0]
    print(f"{len(done) - len(failed)} of {len(done)} steps passed; send the folder {out}")
    return 1 if failed else 0


def steps(out, captures):
    """Yield name, command and limit in seconds of every step, the cheapest first."""
    yield (
        "doctor",
        f"{shlex.join(EIDOLA)} capture doctor --json > {shlex.quote(str(out / 'doctor.json'))}",
        60,
    )
    yield "telemetry", shlex.join([sys.executable, "-c", SAMPLE, str(out / "telemetry.jsonl")]), 30
    gpus = 1 << (count_gpus().bit_length() - 1)  # a power of two: sizes divide by it
    backends = [("virtual", 4), *([("gpu", gpus)] if gpus > 1 else [])]
    for backend, ranks in backends:
        for kernel in ("gemv-allreduce", "embedding-alltoall", "gemm-alltoall"):
            to = captures / f"{kernel}-{backend}"
            options = ["--backend", backend, "--gpus", str(ranks), "--anonymous", "-o", str(to)]
            yield f"{kernel} {backend}", shlex.join([*EIDOLA, "capture", "kernel", kernel, *options]), 40
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    options = ["--nccl-plugin", "--telemetry", "0.1", "--anonymous", "-o", str(captures / "training")]
    training = [*EIDOLA, "capture", "run", *options, "--", *torchrun, str(HERE / "train.py")]
    yield "training", shlex.join(training), 90
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)]
    yield "tests", f"EIDOLA_GPU_CAPTURES={shlex.quote(str(captures))} {shlex.join(tests)}", 240


def count_gpus():
    """Ask in another process: this one must not hold a GPU."""
    code = "from eidola.capture.gpus import find_backend; print(len(find_backend().gpus()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    return max(1, int(done.stdout)) if done.returncode == 0 else 1


def step(name, command, limit_s, log):
    log.write(f"\n=== {name}: {command}\n")
    log.flush()
    began = time.monotonic()
    running = subprocess.Popen(
        command, shell=True, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
    )
    try:
        status = running.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, 9)  # the step's own session, nothing else
        running.wait()
        status = "stopped at its limit"
    return {
        "step": name,
        "command": command,
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
    }


def skipped(name):
    return {"step": name, "command": None, "status": "no time left", "seconds": 0}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "eidola").symlink_to(ROOT)  # this checkout is the package that is tried
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        sys.exit(main(Path(sys.argv[1]).resolve()))
