"""What was tried on which vendor's hardware: `support.toml`, as the doctor, README and docs/support.md print it.

`python -m eidola.capture.support docs/support.md README.md` writes both again (`make docs`).
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("support.toml")
VENDORS = {"nvidia": "NVIDIA", "amd": "AMD", "cpu": "CPU"}
DETAILS: dict[str, tuple[str, ...]] = {
    "run": ("on", "date"),
    "compiled": ("targets",),
    "compiled, emulated on a CPU": ("targets",),
    "parsed": ("file",),
    "driver-tested": ("by",),
    "written": (),
    "none": (),
    "-": (),
}
"""Each label, and what it must come with."""

BEGIN, END = "<!-- support: made by `make docs` -->", "<!-- end of support -->"
_PAGE = """# What was tried on what

{table}

- **run**: it ran on the machine named, on that day.
- **compiled**: it compiled for these targets; nothing ran.
- **emulated on a CPU**: the same source ran on a CPU, CUDA and HIP with threads in a GPU's place under race and
  memory checkers, Triton in its interpreter: results, protocol and records are right there. No GPU ran it, and no
  time of it means anything.
- **parsed**: a real file from such a machine was read.
- **driver-tested**: a driver of ours played the other side's part; the real one has not yet.
- **written**: written from the vendor's documentation, and no more.
- **none**: not there. **-**: makes no sense there.

No figure of a vendor's hardware is given without `run`. `eidola capture doctor` prints this table too. To move a
label on NVIDIA or AMD, run `tests/gpu/run.sh OUT` or `tests/gpu/amd.sh OUT` and send the folder.
"""


def labels() -> list[dict[str, Any]]:
    """Return a row a feature: `feature`, and `vendors`, the text of the label by the vendor's name."""
    with DATA.open("rb") as file:
        features = tomllib.load(file)["feature"]
    return [
        {"feature": f["name"], "vendors": {name: _text(f[key]) for key, name in VENDORS.items()}}
        for f in features
    ]


def table() -> str:
    """Return the rows as a Markdown table."""
    head = f"| | {' | '.join(VENDORS.values())} |\n|---|{'---|' * len(VENDORS)}\n"
    return head + "\n".join(
        f"| {row['feature']} | {' | '.join(row['vendors'].values())} |" for row in labels()
    )


def page() -> str:
    """Return docs/support.md."""
    return _PAGE.format(table=table())


def with_table(readme: str) -> str:
    """Return the README with the table between its two markers."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _text(entry: dict[str, str]) -> str:
    details = ", ".join(entry[name] for name in DETAILS[entry["label"]])
    return f"{entry['label']} ({details})" if details else entry["label"]


if __name__ == "__main__":
    docs, readme = map(Path, sys.argv[1:])
    docs.write_text(page(), encoding="utf-8")
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
