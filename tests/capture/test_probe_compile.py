"""The probe header and the fused kernels compile for GPUs, without one, and read the timers that they claim to."""

import ctypes
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from eidola.capture import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce, include_folder
from eidola.capture.fused.gpu import source_text

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
KERNELS = [GemvAllReduce().source, EmbeddingAllToAll().source, GemmAllToAll().source]
NVIDIA_TIMERS = ("%clock64", "%globaltimer", "%smid")
NVIDIA_SYSTEM_SCOPE = ("st.release.sys.u64", "ld.acquire.sys.u64")
AMD_TIMERS = ("s_memtime", "s_memrealtime", "hwreg(HW_REG_HW_ID")
# A release at system scope writes the L2 back before the flag, an acquire invalidates (LLVM, AMDGPUUsage).
AMD_SYSTEM_SCOPE = {
    "gfx90a": ("buffer_wbl2", "buffer_invl2"),
    "gfx942": ("buffer_wbl2 sc0 sc1", "buffer_inv sc0 sc1"),
}

kernels = pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.stem)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def nvcc():
    return shutil.which("nvcc") or pytest.skip("no nvcc on PATH")


@pytest.fixture(scope="module")
def clangs():
    """(version, path) of every clang on PATH, the newest first."""
    names = ["clang", *(f"clang-{version}" for version in range(14, 30))]
    found = {path for name in names if (path := shutil.which(name))}
    told = {path: run(path, "--version") for path in found}
    versions = ((int(m[1]), path) for path, text in told.items() if (m := re.search(r"version (\d+)", text)))
    return sorted(versions, reverse=True)


@pytest.mark.parametrize(
    ("kernel", "target"),
    [(KERNELS[0], "sm_80"), *((kernel, "sm_90") for kernel in KERNELS)],
    ids=lambda value: getattr(value, "stem", value),
)
def test_kernels_compile_with_nvcc(kernel, target, nvcc, tmp_path):
    out = tmp_path / "kernel.ptx"
    run(nvcc, "-x", "cu", "-I", include_folder(), f"-arch={target}", "-ptx", "-o", out, kernel)
    text = out.read_text()
    for instruction in (*NVIDIA_TIMERS, *NVIDIA_SYSTEM_SCOPE, "st.v2.u64"):
        assert instruction in text
    assert ".entry eidola_fused" in text


def test_probes_off_leave_no_timer_of_theirs(nvcc, tmp_path):
    """Waits still read %globaltimer, for their deadlines."""
    for off in ([], ["-DEIDOLA_PROBES_OFF"]):
        out = tmp_path / "kernel.ptx"
        run(nvcc, "-x", "cu", "-I", include_folder(), *off, "-arch=sm_90", "-ptx", "-o", out, KERNELS[0])
        assert ("%clock64" in out.read_text()) == (not off)
        assert ("st.v2.u64" in out.read_text()) == (not off)


def test_what_nvcc_makes_assembles(nvcc, tmp_path):
    out = tmp_path / "k.cubin"
    run(nvcc, "-x", "cu", "-I", include_folder(), "-arch=sm_90", "-cubin", "-o", out, KERNELS[0])


def test_the_example_of_an_own_kernel_builds(nvcc, tmp_path):
    source = EXAMPLES / "probes_own_kernel.cu"
    run(nvcc, "-I", include_folder(), "-arch=sm_90", "-c", "-o", tmp_path / "own.o", source)


@pytest.fixture(scope="module")
def nvrtc():
    spec = find_spec("nvidia")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    places = [*folders, Path("/usr/local/cuda")]
    found = [file for place in places for file in sorted(place.glob("**/libnvrtc.so.1[23]"))]
    return ctypes.CDLL(str(found[0])) if found else pytest.skip("no NVRTC (pip install nvidia-cuda-nvrtc)")


# What CuPy 14 adds to our own options (cupy/cuda/compiler.py, v14.2.0): real code is made, not only PTX.
CUPY_OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")


@kernels
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_kernels_compile_with_nvrtc_as_cupy_hands_them_over(kernel, target, nvrtc):
    ptx = compiled(nvrtc, kernel, *CUPY_OPTIONS, f"-arch={target}")
    for instruction in (*NVIDIA_TIMERS, *NVIDIA_SYSTEM_SCOPE, "st.v2.u64"):
        assert instruction in ptx
    for entry in (".entry eidola_fused", ".entry eidola_ping_pong"):
        assert entry in ptx
    off = compiled(nvrtc, kernel, *CUPY_OPTIONS, f"-arch={target}", "-DEIDOLA_PROBES_OFF")
    assert "%clock64" not in off


def compiled(nvrtc, kernel, *options):
    """The kernel's PTX, once its machine code is there too."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = source_text(kernel).encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 0
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    assert nvrtc.nvrtcDestroyProgram(ctypes.byref(program)) == 0
    return ptx.value.decode()


@kernels
@pytest.mark.parametrize(("target", "oldest"), [("gfx90a", 13), ("gfx942", 17)])
def test_kernels_compile_with_clang_for_amd(kernel, target, oldest, clangs, tmp_path):
    able = [path for version, path in clangs if version >= oldest]
    if not able:
        pytest.skip(f"no clang {oldest} or newer on PATH, for {target}")
    text = hip_assembly(able[0], kernel, target, tmp_path)
    for instruction in (*AMD_TIMERS, *AMD_SYSTEM_SCOPE[target]):
        assert instruction in text
    assert ("hwreg(HW_REG_XCC_ID" in text) == (target == "gfx942")
    assert "eidola_fused" in text


def hip_assembly(clang, source, target, tmp_path):
    out = tmp_path / "kernel.s"
    run(
        *(clang, "-x", "hip", "-std=c++17", "-O2", f"--offload-arch={target}", "--cuda-device-only", "-S"),
        *("-nogpulib", "-nogpuinc", "-include", Path(__file__).with_name("hip_minimal.h")),
        *("-I", include_folder(), "-o", out, source),
    )  # fmt: skip
    return out.read_text()


@pytest.mark.parametrize("target", ["gfx90a", "gfx942"])
def test_a_kernel_compiles_with_rocms_own_headers(target, clangs, tmp_path):
    """Triton's wheel carries them; they need a newer clang than their own declarations do."""
    spec = find_spec("triton")
    headers = Path(spec.origin).parent / "backends/amd/include" if spec and spec.origin else None
    able = [path for version, path in clangs if version >= 19]
    if not headers or not headers.is_dir() or not able:
        pytest.skip("no ROCm headers (pip install triton), or no clang 19 or newer on PATH")
    out = tmp_path / "kernel.s"
    run(
        *(able[0], "-x", "hip", "-std=c++17", "-O2", f"--offload-arch={target}", "--cuda-device-only", "-S"),
        *("-nogpulib", "-nogpuinc", "-include", "__clang_hip_runtime_wrapper.h", "-I", headers),
        *("-include", "hip/hip_runtime.h", "-I", include_folder(), "-o", out, KERNELS[0]),
    )  # fmt: skip
    for instruction in (*AMD_TIMERS, *AMD_SYSTEM_SCOPE[target]):
        assert instruction in out.read_text()


def test_triton_probes_compile_for_both_vendors(tmp_path, monkeypatch):
    if not find_spec("triton"):
        pytest.skip("no triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    told = run(sys.executable, EXAMPLES / "probes_triton.py")
    # Eight events and two anchors read the counter; the anchors also read the real time and the unit.
    assert "90 {'%clock64': 10, '%globaltimer': 2, '%smid': 2}" in told
    assert "gfx942 {'s_memtime': 10, 's_memrealtime': 2, 's_getreg_b32': 2}" in told
