#!/usr/bin/env bash
# The demonstration that `make demo` runs: capture a fused GEMV + AllReduce on this machine's CPU, replay it at 8 and
# 256 GPUs, spinning against a monitor, and write a report. Everything lands in demo/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=demo

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

rm -rf "$out" && mkdir "$out"
trace=$out/gemv.eidola

say "1. Capture the fused kernel's protocol: 2 ranks as threads, peer writes, flags, polls"
if show eidola capture kernel gemv-allreduce --backend host --gpus 2 -m 8192 -o "$out/raw"; then
    show eidola convert captured "$out/raw" -o "$trace"
elif [ $? -eq 6 ]; then
    echo "This machine has no C compiler: the demonstration goes on with the capture in sample_traces/."
    trace=sample_traces/gemv_allreduce_host_2/trace.eidola
else
    exit 5
fi

say "2. What the capture holds"
show eidola inspect "$trace"

say "3. The same size again: flag reads that replay predicts (a) beside those that the capture counted (b)"
show eidola replay run "$trace" --mode target --wait spin -q -o "$out/same"
show eidola replay compare "$out/same" "$trace"
echo "Here a rank's workgroups share one CPU thread and poll only when their siblings yield; on a GPU they do not."

for gpus in 8 256; do
    say "4. GPU 0 in detail, $((gpus - 1)) others as eidolons, HGX H100 boxes: spin, then monitor"
    options=(--gpus "$gpus" --fabric hgx-h100 --mode target)
    show eidola replay run "$trace" "${options[@]}" --wait spin -o "$out/spin-$gpus"
    show eidola replay run "$trace" "${options[@]}" --wait monitor -q -o "$out/monitor-$gpus"
    show eidola replay compare "$out/spin-$gpus" "$out/monitor-$gpus"
done

say "5. The same at 256 GPUs, all of them in detail"
show eidola replay run "$trace" --gpus 256 --fabric hgx-h100 --wait spin -o "$out/all-256"

say "6. The report"
show eidola report "$out/all-256" -o "$out/report.html"
echo
echo "Open $out/report.html in a browser; 'eidola replay explain $out/all-256' says more in the terminal."
