#!/usr/bin/env bash
# amd.sh [OUT [WHEELS]]: try everything that needs an AMD GPU, offline, in under 8 minutes; five files go to OUT.
# Wanted: ROCm 7 with amdsmi, Python 3.11 or newer with this package's dependencies (or their wheels in the folder
# WHEELS); as far as they are there, CuPy, PyTorch, Triton, pytest. docs/gpus.md says how to carry wheels.
# This project has no AMD GPU: whoever runs this and sends OUT moves the labels in docs/support.md.
set -euo pipefail
out=${1:-gpu-results}
if [ ! -e /dev/kfd ]; then
    echo "tests/gpu/amd.sh: no AMD GPU here (there is no /dev/kfd); nothing was run" >&2
    exit 3
fi
if [ ! -r /dev/kfd ] || [ ! -w /dev/kfd ]; then
    echo "tests/gpu/amd.sh: /dev/kfd may not be opened: join the groups render and video, or run as root" >&2
    exit 3
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" "$here/collect.py" "$out" "${@:2:1}"
