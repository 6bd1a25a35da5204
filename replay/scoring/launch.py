"""What a benchmark's time holds besides the kernel: how operations are started, one after another.

nccl-tests and rccl-tests enqueue all iterations and divide the time by their number. With a process a GPU,
launches run ahead of the kernels, and what is left is the gap from kernel to kernel. One process for all GPUs
launches them in turn: where that takes longer than the kernels, it is the time of an iteration. A framework adds
its own calls and events to every operation.
"""

from .case import Case

GAP_US = 3.9
"""From kernel to kernel of one stream on x86 hosts. Calibrated on VULTR_B200_8, H100_tritondist57, MOONCAKE_8."""
GRACE_GAP_US = 6.0
"""The same on Grace hosts. Calibrated on XLA_GB200 (64 KiB and more)."""
AMD_GAP_US = 8.0
"""The same on AMD's GPUs. Calibrated on QR_MI300X, MI355Xx16_aac14."""
SINGLE_US = 4.5
"""One launch after the other of one process for all GPUs. Calibrated on OCI_A100_8 (4.0), TOGETHER_B300_8 (5.4)."""
SKEW_US = 1.3
"""How much later one process starts each further GPU's kernel; all wait for the last. Calibrated on the same."""
FRAMEWORK_US = {"torch": 18.0, "xla": 15.0}
"""What a framework adds to each operation. Calibrated on STAS_H200x8, STAS_P6B200; XLA_H100, XLA_B200."""
ROCM_FRAMEWORK_US = {"torch": 18.0, "xla": 50.0}


def iteration_us(case: Case, kernel_us: float) -> float:
    """Return the time that a benchmark prints for an operation whose kernels take `kernel_us`."""
    box, harness = case.machine.preset, case.method.harness
    amd = box.startswith("mi")
    if case.method.library == "custom":
        return kernel_us + 4.5
    gap = AMD_GAP_US if amd else GRACE_GAP_US if box.startswith("gb") else GAP_US
    added = (ROCM_FRAMEWORK_US if amd else FRAMEWORK_US).get(harness, 0.0)
    floor = SINGLE_US * case.machine.gpus_a_box if harness == "single" else 0.0
    added += SKEW_US * case.machine.gpus_a_box if harness == "single" else 0.0
    return max(floor, kernel_us + gap + added)
