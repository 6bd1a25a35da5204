"""The first run of a process, imports included; prints JSON with its seconds, by the clock and of the processor."""

import json
import time

begin = time.perf_counter()

from one_run import ring  # noqa: E402

from eidola.replay.presets import preset  # noqa: E402
from eidola.replay.run import run  # noqa: E402

run(ring(4), preset("star", 4))
print(json.dumps({"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time()}))
