"""The Embedding Release extension: where its schema is published, and the copy in this package."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from clay_publish.release.metadata import EXTENSION

VERSION = "1.0.0"
SCHEMA_URI = f"{EXTENSION}/schema.json"
SCHEMA_FILE = f"embedding-release-v{VERSION}.json"
"""Name of the schema in this package and in the `schemas/` folder of a release."""


def schema_text() -> str:
    """The JSON Schema as it is published."""
    return (files("clay_publish.release") / "schemas" / SCHEMA_FILE).read_text(encoding="utf-8")


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema, parsed."""
    parsed: dict[str, Any] = json.loads(schema_text())
    return parsed
