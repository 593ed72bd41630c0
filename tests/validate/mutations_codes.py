"""Ways to break the compact codes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from breakage import Broken, mutation


def _file(broken: Broken) -> Path:
    return next((broken.folder / "codes").glob("*/*.arrow"))


def _change(broken: Broken, name: str, edit: Any) -> None:
    """Edit the values of one column of a file of codes."""
    broken.codes_follow = False
    path = _file(broken)
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    place = table.schema.get_field_index(name)
    values = pa.array(edit(table[name].to_pylist()), table.schema.field(name).type)
    table = table.set_column(place, table.schema.field(name), values)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@mutation("SCH016", "codes that the spec asks for and that are missing", base="coded", also="EXP001")
def no_codes(broken: Broken) -> None:
    broken.codes_follow = False
    for path in sorted((broken.folder / "codes").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@mutation("SCH016", "codes that the spec does not ask for", base="coded")
def codes_not_in_the_spec(broken: Broken) -> None:
    broken.codes_follow = False
    broken.yaml("release.yaml", lambda spec: spec["outputs"].update(codes=False))


@mutation("SCH016", "codes/model.json describes another rotation", base="coded")
def another_rotation(broken: Broken) -> None:
    broken.codes_follow = False
    broken.json("codes/model.json", lambda m: m["signs"].reverse())


@mutation("SCH016", "codes of another fingerprint", base="coded")
def codes_of_another_fingerprint(broken: Broken) -> None:
    broken.codes_follow = False
    broken.json("codes/model.json", lambda m: m.update(fingerprint="0" * 64))


@mutation("SCH016", "a file of codes named for another window", base="coded")
def codes_of_another_window(broken: Broken) -> None:
    broken.codes_follow = False
    path = _file(broken)
    path.rename(path.with_name("1999-01-01_1999-01-02.arrow"))


@mutation("SCH016", "a file of codes that is not an Arrow file", base="coded")
def codes_that_are_text(broken: Broken) -> None:
    broken.codes_follow = False
    _file(broken).write_text(json.dumps({"codes": []}))


@mutation("INT014", "a chip without a code", base="coded")
def a_chip_without_code(broken: Broken) -> None:
    broken.codes_follow = False
    path = _file(broken)
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.slice(0, table.num_rows - 1))


@mutation("INT014", "two codes that name each other's rows", base="coded")
def codes_of_swapped_rows(broken: Broken) -> None:
    _change(broken, "row", lambda rows: [rows[1], rows[0], *rows[2:]])


@mutation("VEC018", "codes of the next chip's vector", base="coded")
def codes_of_the_next_chip(broken: Broken) -> None:
    _change(broken, "plane_3", lambda planes: [*planes[1:], planes[0]])


@mutation("VEC018", "one bit of a code is another", base="coded")
def a_bit_of_a_code(broken: Broken) -> None:
    _change(broken, "plane_0", lambda planes: [bytes([planes[0][0] ^ 1]) + planes[0][1:], *planes[1:]])


@mutation("VEC018", "factors of codes ten percent too long", base="coded")
def factors_too_long(broken: Broken) -> None:
    _change(broken, "factor", lambda factors: [1.1 * factor for factor in factors])


@mutation("VEC018", "codes that lie a degree farther east", base="coded")
def codes_elsewhere(broken: Broken) -> None:
    _change(broken, "lon", lambda lon: (np.array(lon) + 1).tolist())
