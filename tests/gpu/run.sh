#!/usr/bin/env bash
# run.sh [OUT [WHEELS]]: try everything that needs an NVIDIA GPU, offline, in under 8 minutes; five files go to OUT.
# Wanted: NVIDIA's driver, Python 3.11 or newer with this package's dependencies (or their wheels in the folder WHEELS);
# as far as they are there, CuPy, PyTorch, Triton, nvcc, pytest. docs/gpus.md says how to carry wheels.
set -euo pipefail
out=${1:-gpu-results}
gpus=$(nvidia-smi -L 2>/dev/null || true)
if [[ $gpus != GPU* ]]; then
    echo "tests/gpu/run.sh: no NVIDIA GPU here (nvidia-smi lists none); nothing was run" >&2
    exit 3
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" "$here/collect.py" "$out" "${@:2:1}"
