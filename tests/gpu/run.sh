#!/usr/bin/env bash
# run.sh [OUT]: try everything that needs an NVIDIA GPU, offline, in under 8 minutes; a handful of files go to OUT.
# Wanted: NVIDIA's driver, Python 3.11 or newer with this package; as far as they are there, CuPy, PyTorch, pytest.
set -euo pipefail
out=${1:-gpu-results}
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    echo "tests/gpu/run.sh: no NVIDIA GPU here (nvidia-smi lists none); nothing was run" >&2
    exit 3
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" "$here/collect.py" "$out"
