import re
import subprocess

from eidola.capture import include_folder
from eidola.capture.records import COUNTS, FIELDS, KINDS, RECORD

HEADER = include_folder() / "eidola_probe.h"


def test_a_record_is_32_bytes_without_gaps():
    assert RECORD.itemsize == 32
    assert sum(RECORD[name].itemsize for name, _ in FIELDS) == 32


def test_the_c_header_lays_the_record_out_as_python_reads_it(c_compiler, tmp_path):
    fields = [name for name, _ in FIELDS]
    checks = "\n".join(
        f"_Static_assert(offsetof(eidola_record, {name}) == {RECORD.fields[name][1]}, {name!r});"
        f"_Static_assert(sizeof(((eidola_record *)0)->{name}) == {RECORD[name].itemsize}, {name!r});"
        for name in fields
    ).replace("'", '"')
    checks += f'\n_Static_assert(sizeof(eidola_count) == {COUNTS.itemsize}, "count");'
    source = tmp_path / "layout.c"
    source.write_text(f'#include <stddef.h>\n#include "{HEADER}"\n{checks}\n')
    done = subprocess.run(
        [c_compiler[0], "-std=gnu11", "-c", source, "-o", tmp_path / "layout.o"], check=False
    )
    assert done.returncode == 0


def test_kinds_are_the_headers():
    in_header = {k.lower(): int(v) for k, v in re.findall(r"EIDOLA_(\w+) = (\d+)", HEADER.read_text())}
    assert in_header == KINDS
