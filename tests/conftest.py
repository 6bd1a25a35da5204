"""What all tests share."""

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the golden files of the current schema version again, from their JSON",
    )


@pytest.fixture
def refresh_golden(request):
    """Whether the golden files are to be written again."""
    return request.config.getoption("--refresh-golden")
