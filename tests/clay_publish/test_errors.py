import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clay_publish import errors
from clay_publish.errors import ReleaseError
from clay_publish.release.directory import Release
from clay_publish.release.manifest import RUN_RECORD, UNITS, derive_run_record, read_manifest, run_record
from clay_publish.release.measurements import read_measurements


def test_an_error_says_where_what_and_the_way_out() -> None:
    error = errors.ImageryError("item a", "has no band red", "ten bands", "Choose another sensor.")
    assert str(error) == "item a: has no band red (expected ten bands). Choose another sensor."
    assert str(errors.StoreError("x", "does not exist")) == "x: does not exist."


KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_has_one_root_and_crosses_processes(kind: type[errors.ClayPublishError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a", "b", "c", "d")))  # noqa: S301 - our own bytes
    assert isinstance(error, errors.ClayPublishError)
    assert (error.where, error.found, error.expected, error.fix, error.exit_code) == ("a", "b", "c", "d", 2)


class Cell(BaseModel):
    model_config = ConfigDict(extra="forbid")

    row: int = Field(ge=0)
    why: str = ""


class Cells(BaseModel):
    cells: list[Cell]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"cells": [{"row": 1}, {"row": -1}]}', "cells.1.row: Input should be greater than or equal to 0, found -1"),
        ('{"cells": [{"row": null, "why": 5}]}', "cells.0.row: Input should be a valid integer, found None"),
        ('{"cells": [{"row": 1, "col": 2}]}', "cells.0.col: Extra inputs are not permitted, found 2"),
        ('{"cells": [{}]}', "cells.0.row: Field required"),
        ('{"cells": {}}', "cells: Input should be a valid array"),
        ("[]", "Input should be an object"),
        ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
    ],
)
def test_the_first_field_that_is_wrong_is_named(document: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Cells.model_validate_json(document)
    assert errors.first_fault(raised.value) == said


def test_keys_of_strangers_are_escaped_and_cut() -> None:
    hostile = "\x1b[2J\n" + "x" * 5_000
    with pytest.raises(ValidationError) as raised:
        Cells.model_validate({"cells": [{"row": 1, hostile: 2}]})
    said = errors.first_fault(raised.value)
    assert said.isprintable()
    assert len(said) < 700
    assert "not permitted, found 2" in said


def test_what_is_cut_is_redacted_before() -> None:
    with pytest.raises(ValidationError) as raised:
        Cell.model_validate({"row": f"https://user:{'s' * 90}@example.com/x"})
    assert "sss" not in errors.first_fault(raised.value)
    assert "sss" not in errors.shown(f"https://user:{'s' * 90}@example.com/x")


def test_numbers_that_python_does_not_write_are_named() -> None:
    assert errors.shown(1 << 20_000) == "a very large int"


@pytest.mark.parametrize(
    ("read", "path", "document", "said"),
    [
        (read_manifest, "manifest.json", {"format": 2, "name": 5}, "manifest.json: is not a manifest (name: "),
        (read_measurements, "run.json", {}, "run.json: is not a record of measurements ("),
        (run_record, RUN_RECORD, {"counts": []}, f"{RUN_RECORD}: is not the record of a run ("),
        (derive_run_record, UNITS, {"sha256": "0", "units": []}, f"{UNITS}: is not the plan of a run (fingerprint: Fi"),
        (Release.spec, "release.yaml", {"name": []}, "release.yaml: is not a release spec (name: "),
    ],
)
def test_a_document_of_a_release_that_cannot_be_read_is_refused_in_one_line(
    read: Callable[[Release], Any], path: str, document: dict[str, Any], said: str, tmp_path: Path
) -> None:
    release = Release(str(tmp_path))
    release.store.write(path, json.dumps(document))
    with pytest.raises(ReleaseError) as raised:
        read(release)
    assert f"{tmp_path}/{said}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "pydantic" not in str(raised.value)
