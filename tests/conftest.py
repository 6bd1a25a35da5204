"""What all tests share."""


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
