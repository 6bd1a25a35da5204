"""Two GPUs with one xGMI link between them, as the real amdsmi package tells them over a library of stubs.

Run with the folder of the stubs' library on LD_LIBRARY_PATH; prints what the backend makes of it, as JSON. Every
function of the library says «not supported» but those below; the values that a driver would fill in are filled in
at the package's ctypes border.
"""

import ctypes
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

ANSWERS = {
    "amdsmi_init": "(unsigned long f) { return 0; }",
    "amdsmi_shut_down": "(void) { return 0; }",
    "amdsmi_get_socket_handles": "(unsigned *n, void **h) { *n = 1; if (h) h[0] = (void *)1; return 0; }",
    "amdsmi_get_processor_handles": (
        "(void *s, unsigned *n, void **h) { *n = 2; if (h) h[0] = (void *)11, h[1] = (void *)12; return 0; }"
    ),
    "amdsmi_is_P2P_accessible": "(void *a, void *b, _Bool *y) { *y = a == (void *)11; return 0; }",
    "amdsmi_topo_get_link_type": "(void *a, void *b, unsigned long *h, unsigned *t) { *h = 1; *t = 2; return 0; }",
}
NOT_SUPPORTED = "() { return 2; }"


def stubs(wrapper):
    """Return the C source of the library that the package's wrapper binds."""
    names = sorted(set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper)))
    return "\n".join(f"int {name}{ANSWERS.get(name, NOT_SUPPORTED)}" for name in names)


def fill(wrapper, kinds):
    def bdf(handle, into):
        into._obj.as_uint = (0x10 if handle.value == 11 else 0x20) << 8
        return 0

    def links(handle, into):
        into._obj.num_links = 1
        link = into._obj.links[0]
        bdf(ctypes.c_void_p(12 if handle.value == 11 else 11), ctypes.byref(link.bdf))
        link.bit_rate, link.max_bandwidth, link.link_type = 32, 512, 2
        link.read, link.write = 1000, 2000
        return 0

    def power(handle, into):
        into._obj.current_socket_power, into._obj.average_socket_power = 0xFFFF, 140
        return 0

    def clock(handle, kind, into):
        into._obj.clk = 2100 if int(kind) == int(kinds.GFX) else 1300
        return 0

    wrapper.amdsmi_get_gpu_device_bdf = bdf
    wrapper.amdsmi_get_link_metrics = links
    wrapper.amdsmi_get_power_info = power
    wrapper.amdsmi_get_clock_info = clock


if __name__ == "__main__":
    if sys.argv[1:]:
        print(stubs(Path(sys.argv[1]).read_text()))
    else:
        import amdsmi
        from amdsmi import amdsmi_wrapper

        from eidola.capture.gpus.amdsmi import AmdSmi

        fill(amdsmi_wrapper, amdsmi.AmdSmiClkType)
        backend = AmdSmi()
        rows = (backend.gpus(), backend.links(), backend.readings())
        print(json.dumps([[list(asdict(row).values()) for row in found] for found in rows]))
        backend.close()
