"""What the pass saw in one file, as bytes: packed where the file was read, unpacked where the report is made."""

import io
import json
import zipfile
from threading import Lock
from typing import Any

import numpy as np

from clay_publish.errors import ReleaseError
from clay_publish.validate.data.chip_facts import RowFacts
from clay_publish.validate.data.scan import FileScan, SeenFile
from clay_publish.validate.outcomes import Broken, NotChecked

_HEAD = "head"
_SOME = "some"
_ONE_AT_A_TIME = Lock()
"""NumPy parses headers of arrays with `ast`, which fails in Python 3.11 where threads do so at once (gh-106905)."""


def pack(seen_file: SeenFile, among: tuple[int, int]) -> bytes:
    """Return what was seen as an archive of arrays, without objects of Python."""
    sha256, seen = seen_file
    arrays: dict[str, Any] = {}
    missing = []
    for number, facts in enumerate(seen.facts):
        arrays |= {f"{number}.{name}": array for name, array in facts.arrays.items()}
        if facts.some is not None:
            arrays[f"{number}.{_SOME}"] = facts.some
        missing.append({name: [e.where, e.found, e.expected, e.fix] for name, e in facts.missing.items()})
    head = {
        "sha256": sha256,
        "path": seen.path,
        "among": among,
        "rows": seen.rows,
        "damage": seen.damage,
        "bad": seen.bad,
        "counts": seen.counts,
        "gaps": {code: [getattr(gap, "where", None), gap.why] for code, gap in seen.gaps.items()},
        "bare": seen.bare,
        "missing": missing,
    }
    arrays[_HEAD] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def unpack(data: bytes, among: tuple[int, int]) -> SeenFile | None:
    """Return what was seen in a file; None where it has to be read again.

    The bytes may be damaged, or the file was read among others than now, so that other rows are in a sample.
    """
    try:
        with _ONE_AT_A_TIME, np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        head = json.loads(arrays.pop(_HEAD).tobytes())
    except (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile):
        return None
    if head["among"] != list(among):
        return None
    seen = FileScan(head["path"], head["rows"], head["damage"], bare=head["bare"])
    seen.bad = {code: (row, name, bad, expected) for code, (row, name, bad, expected) in head["bad"].items()}
    seen.counts.update(head["counts"])
    seen.gaps = {
        code: NotChecked(why) if place is None else Broken(place, why) for code, (place, why) in head["gaps"].items()
    }
    seen.facts = [
        RowFacts({}, {name: ReleaseError(*parts) for name, parts in missing.items()}) for missing in head["missing"]
    ]
    for key, array in arrays.items():
        number, _, name = key.partition(".")
        facts = seen.facts[int(number)]
        if name == _SOME:
            facts.some = array
        else:
            facts.arrays[name] = array
    return head["sha256"], seen
