"""What all tests share."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # machines are shared, and first calls compile
settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the golden files of the current schema version again, from their JSON",
    )
    parser.addoption(
        "--refresh-pictures",
        action="store_true",
        help="write the pictures in docs/ again, from a report in a browser",
    )
