import pytest

from eidola.capture.gpus import find_backend


@pytest.fixture(scope="session")
def gpus():
    """The GPUs of this machine; skips where there is none."""
    backend = find_backend()
    try:
        if backend.missing:
            pytest.skip(f"needs a GPU: {backend.missing}")
        return backend.gpus()
    finally:
        backend.close()
