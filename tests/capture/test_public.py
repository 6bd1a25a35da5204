"""What `import eidola.capture` gives on a machine with nothing but the core dependencies."""

import subprocess
import sys

import eidola.capture


def test_capture_imports_no_gpu_library_and_no_torch():
    code = (
        "import sys, eidola.capture as c; c.GemvAllReduce; c.run; c.session;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'cupy', 'pynvml', 'amdsmi', 'triton')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    for name in eidola.capture.__all__:
        assert callable(getattr(eidola.capture, name))


def test_a_session_without_torch_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import eidola.capture\nfrom eidola.schemas import MissingError\n"
        "try:\n    eidola.capture.session('out').__enter__()\n"
        "except MissingError as error: sys.exit(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "torch is not installed" in done.stderr
    assert "pip install 'eidola-sim[capture]'" in done.stderr
    assert not list(tmp_path.iterdir())
