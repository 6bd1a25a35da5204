import pytest

from eidola.capture.host.build import compiler
from eidola.schemas import MissingError


@pytest.fixture(scope="session")
def c_compiler():
    """Skip where this machine cannot build the host backend."""
    try:
        return compiler()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def user_cache(tmp_path_factory):
    """A cache of this session's own, so that the build at first use is tested too."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="package", autouse=True)
def _own_cache(user_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(user_cache))
        yield
