#!/usr/bin/env bash
# The demonstration that `make demo` runs.
set -euo pipefail
eidola --help
