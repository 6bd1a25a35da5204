"""A file of a capture, by the name that the capture gives it; a name that leads elsewhere is refused."""

from pathlib import Path
from typing import Any

from ..schemas.errors import InputError

_LONGEST = 255


def member(folder: Path, name: Any) -> Path:
    """Return the file `name` in `folder`. Raises InputError where that is no plain file name."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or name != Path(name).name or "\0" in name:
        raise InputError(
            f"{folder} names the file {repr(name)[:80]}, which is no name of a file in it: the capture is damaged; "
            "copy the whole folder again"
        )
    return folder / name
