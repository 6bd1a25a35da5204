"""What an Nsight Systems database says of its session: when its times begin, and on which host and GPU it was."""

from typing import Any

from .database import Database
from .profile import Place

_ABSOLUTE_NS = 10**18


def environment(database: Database) -> dict[str, str]:
    """Return what nsys noted of the host that says who and where a process is."""
    table = database.find("TARGET_INFO_SYSTEM_ENV")
    if table is None or not {"name", "value"} <= table.columns:
        return {}
    wanted = ("Hostname", "CudaDriverVersion", "NvDriverVersion", "DeviceEnvironment")
    marks = ", ".join("?" * len(wanted))
    rows = database.rows(f'SELECT name, value FROM "{table.name}" WHERE name IN ({marks})', wanted)
    return {name: str(value) for name, value in rows if value is not None}


def base_ns(database: Database, first: int | None) -> int:
    """Return what times, of which `first` is the earliest, are to be added to, to count from 1970.

    They are nanoseconds of the host's clock, or of the session, or already moved to 1970 (`--ts-normalize`).
    ANALYSIS_DETAILS says which: its startTime is the clock's at the session's start, or 0.
    """
    session = database.find("TARGET_INFO_SESSION_START_TIME")
    if session is None or "utcEpochNs" not in session.columns or first is None or first >= _ABSOLUTE_NS:
        return 0
    clock = "systemClockNs" if "systemClockNs" in session.columns else "NULL"
    row = next(iter(database.rows(f'SELECT utcEpochNs, {clock} FROM "{session.name}" LIMIT 1')), (None, None))
    utc, system = (n if isinstance(n, int) and 0 <= n < 1 << 62 else None for n in row)
    if utc is None:
        return 0
    details = database.find("ANALYSIS_DETAILS")
    start: Any = None
    if details is not None and "startTime" in details.columns:
        start = next(iter(database.rows(f'SELECT startTime FROM "{details.name}" LIMIT 1')), (None,))[0]
    if not isinstance(start, int):
        start = system if system is not None and first >= system else 0
    return utc - start if 0 <= start <= utc else utc


def metadata(database: Database, place: Place) -> dict[str, Any]:
    """Return what the database says of the host and the GPU, as Kineto would."""
    noted = environment(database)
    told: dict[str, Any] = {"host_name": place.host}
    for key, name in (("cuda_driver_version", "CudaDriverVersion"), ("driver_version", "NvDriverVersion")):
        if name in noted:
            told[key] = noted[name]
    gpus = database.find("TARGET_INFO_GPU")
    own = place.device if place.gpu is None else place.gpu
    if gpus is not None and {"id", "name"} <= gpus.columns:
        columns = [c if c in gpus.columns else "NULL" for c in ("name", "smCount", "totalMemory", "uuid")]
        rows = database.rows(f'SELECT {", ".join(columns)} FROM "{gpus.name}" WHERE id = {own} LIMIT 1')
        for name, units, memory, uuid in rows:
            told["deviceProperties"] = [
                {"id": place.device, "name": name, "numSms": units, "totalGlobalMem": memory}
            ]
            told["uuid"] = uuid
    return told
