"""One source for what a release says about its embeddings: the footer, the Items, the Collection and the card.

Field names and places are those of the community's Embedding extension (prefix `emb:`) and of our Embedding Release
extension (prefix `embrel:`).
"""

import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from clay_publish.errors import ReleaseError
from clay_publish.release.directory import SPEC
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.spec.models import Spec

EXTENSION = "https://clay-foundation.github.io/clay-publish/embedding-release/v1.0.0"
"""Where the Embedding Release extension is published: its page, and `schema.json` below it."""
SCHEMA_URI = f"{EXTENSION}/schema.json"
SCHEMA_FILE = "embedding-release-v1.0.0.json"
"""Name of the schema in this package and in the `schemas/` folder of a release."""

QUANTIZATION_LINK = {
    "rel": "about",
    "href": f"{EXTENSION}/#quantization",
    "type": "text/html",
    "title": "How stored values become embeddings again",
}

GRID_LINK = {
    "rel": "about",
    "href": f"{EXTENSION}/#chip-layout",
    "type": "text/html",
    "title": "Where the cells of the grids lie",
}

CITATIONS = {
    "10.1038/s41467-021-24638-z": (
        "Rolf, E., Proctor, J., Carleton, T., Bolliger, I., Shankar, V., Ishihara, M., Recht, B., Hsiang, S. (2021)."
        " A generalizable and accessible approach to machine learning with global satellite imagery."
        " Nature Communications 12, 4392."
    ),
}
"""DOI of a model's paper → how to cite it."""

QUANTIZATION = {
    "float32": None,
    "float16": {
        "method": "cast",
        "original_dtype": "float32",
        "quantized_dtype": "float16",
        "link": QUANTIZATION_LINK,
    },
    "int8": {
        "method": "symmetric scale per row",
        "original_dtype": "float32",
        "quantized_dtype": "int8",
        "link": QUANTIZATION_LINK,
    },
}

POOLING = {
    "random-features": "mean of each filter's response over the pixels of the chip",
    "clay": "class token",
    "exported": "as the exported program does",
}
"""Encoder → how a chip becomes one vector."""

ARCHITECTURE = {"random-features": "Random convolutional features", "clay": "Vision Transformer"}

LOSS = "mean absolute error of the reconstructed masked patches, in normalized units; the same patches of every chip"


def schema_text() -> str:
    """The JSON Schema of the extension, as it is published."""
    return (files("clay_publish.release") / "schemas" / SCHEMA_FILE).read_text(encoding="utf-8")


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of the extension, parsed."""
    parsed: dict[str, Any] = json.loads(schema_text())
    return parsed


def release_day(spec: Spec) -> date:
    """The day that all documents of a release carry.

    Raises:
        ReleaseError: the spec is not one of a release.
    """
    if spec.released is None:
        raise ReleaseError(
            f"{SPEC}: released", "is missing", "the day of the release", "Run `clay-publish produce` again."
        )
    return spec.released


def grid_id(fingerprint: Fingerprint) -> str:
    """Name of the grid the chips lie in: `scene-128px`, or `utm-1280m` by the side of its cells."""
    if fingerprint.layout == "scene" or fingerprint.gsd is None:
        return f"scene-{fingerprint.size}px"
    return f"utm-{fingerprint.size * fingerprint.gsd:.10g}m"


def chip_layout(fingerprint: Fingerprint) -> dict[str, Any]:
    """`emb:chip_layout`."""
    side = [fingerprint.size, fingerprint.size]
    kind = "regular_grid" if fingerprint.layout == "scene" else "named_grid"
    return {
        "layout_type": kind,
        "chip_size": side,
        "stride": side,
        "grid_id": grid_id(fingerprint),
        "grid_definition": GRID_LINK,
    }


def publications(fingerprint: Fingerprint) -> list[dict[str, str]]:
    """`sci:publications`: what was published about the model, where its address is a DOI."""
    _, found, doi = fingerprint.model_link.partition("://doi.org/")
    if not found:
        return []
    citation = CITATIONS.get(doi)
    return [{"doi": doi} | ({"citation": citation} if citation else {})]


def collection_fields(fingerprint: Fingerprint, gsd: float) -> dict[str, Any]:
    """The fields of the Collection; `gsd` in meters."""
    return {
        "emb:type": "chip",
        "emb:dimensions": fingerprint.dimensions,
        "data_type": fingerprint.dtype,
        "gsd": gsd,
        "emb:chip_layout": chip_layout(fingerprint),
    }


def release_fields(fingerprint: Fingerprint, *, loss: bool) -> dict[str, Any]:
    """What our extension adds to the Collection about the vectors; `loss`: whether the table has one."""
    fields: dict[str, Any] = {
        "embrel:fingerprint": fingerprint.digest,
        "embrel:decided_by": fingerprint.model_dump(mode="json"),
        "embrel:pooling": POOLING.get(fingerprint.encoder, fingerprint.encoder),
    }
    if loss:
        fields["embrel:loss"] = {"column": "loss", "description": LOSS}
    return fields


def temporal_resolution(spec: Spec) -> str:
    """`emb:temporal_resolution`."""
    windows = {str(window) for block in spec.imagery for window in block.parsed_windows()}
    if not windows:
        return "one embedding per image and chip, at the date of the image"
    listed = ", ".join(sorted(windows)) if len(windows) <= 12 else f"{len(windows)} windows"
    return f"one embedding per chip and window{_of_several(spec)}: {listed}"


def _of_several(spec: Spec) -> str:
    """Of which acquisitions an embedding is made, where these are several."""
    composite, steps = spec.imagery[0].composite, spec.model.steps
    several = composite if composite is not None and composite.method != "best" else None
    made = "" if several is None else f", from the {several.method} of at most {several.most} acquisitions"
    if steps is None:
        return made
    if spec.images_in_order:
        return f", from the {steps} best acquisitions in the order of their time"
    return f"{made or ', from the best acquisition'} in each of {steps} parts of the window"


def coverage_fields(counts: Mapping[str, int], unchecked: int) -> dict[str, Any]:
    """`embrel:coverage`: chips expected and embedded, those not cloud-checked, and the missing ones by reason."""
    missing = {key: count for key, count in counts.items() if key not in {"expected", "embedded"} and count}
    fields = {"expected": counts["expected"], "embedded": counts["embedded"], "missing": missing}
    return {**fields, "not_cloud_checked": unchecked} if unchecked else fields


def item_fields(fingerprint: Fingerprint) -> dict[str, Any]:
    """The deterministic fields of an Item's properties."""
    parameters = {
        "encoder": fingerprint.encoder,
        "encoder_version": fingerprint.encoder_version,
        "weights_sha256": fingerprint.weights_sha256,
        "metadata": fingerprint.metadata,
        "precision": fingerprint.precision,
        "composite": fingerprint.composite if fingerprint.combines else None,
        **fingerprint.parameters,
    }
    fields: dict[str, Any] = {
        "emb:runtime_parameters": {key: value for key, value in parameters.items() if value is not None},
        "emb:preprocessing": {"format": "text", "expression": preprocessing(fingerprint)},
        "embrel:fingerprint": fingerprint.digest,
    }
    quantization = QUANTIZATION[fingerprint.dtype]
    if quantization is not None:
        fields["emb:quantization"] = quantization
    return fields


def preprocessing(fingerprint: Fingerprint) -> str:
    """What happens to the pixels before the model, in one sentence."""
    bands = ", ".join(f"{b.name} ({b.mean:g}, {b.std:g})" for b in fingerprint.bands)
    return (
        f"(value - mean) / std for {bands}; {fingerprint.resampling}; {fingerprint.nodata}; "
        f"padding: {fingerprint.padding}"
    )


def footer_emb(fingerprint: Fingerprint, gsd: float) -> dict[str, Any]:
    """The `emb` key of an embeddings file's footer: the deterministic part, no durations, no energy."""
    return {
        **collection_fields(fingerprint, gsd),
        **item_fields(fingerprint),
        "embrel:model": {"name": fingerprint.model_name, "href": fingerprint.model_link},
        "embrel:decided_by": fingerprint.model_dump(mode="json"),
    }
