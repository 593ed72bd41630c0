"""What the page reads first: `release.json`, and `files.parquet`, the embeddings files by their boxes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clay_publish.cards import licenses
from clay_publish.cards.explorer.layers import STEPS, Layer, Periods, status_colors
from clay_publish.cards.explorer.pyramid import SIDE
from clay_publish.cards.release_facts import CardFacts
from clay_publish.release import directory as paths
from clay_publish.release.directory import DataFile, Release
from clay_publish.release.tables import REASONS, TIMESTAMP

if TYPE_CHECKING:
    from clay_publish.cards.explorer.build import Overviews

FORMAT = 1
"""Version of what the page reads."""

FILES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("start", TIMESTAMP, nullable=False),
        pa.field("end", TIMESTAMP, nullable=False),
        *(pa.field(side, pa.float64(), nullable=False) for side in ("xmin", "ymin", "xmax", "ymax")),
    ]
)
"""One row per embeddings file. `start` and `end` are its window; xmin > xmax where it crosses the antimeridian."""

_WINDOWS = 400
_STOPS = 16


def files_table(release: Release) -> pa.Table:
    """The index of files by box, in the order of their paths; files without rows are left out.

    Raises:
        ReleaseError: a footer cannot be read.
    """
    rows: list[tuple[Any, ...]] = []
    for path in release.data_files():
        number = release.parquet(path).metadata.num_rows
        if number:
            window = DataFile.parse(path).window
            box = release.footer(path)["geo"]["columns"]["geometry"]["bbox"]
            rows.append((path, number, release.store.size(path), window.start, window.end, *map(float, box)))
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [[] for _ in FILES_SCHEMA]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, FILES_SCHEMA, strict=True)], schema=FILES_SCHEMA)


def overviews(drawn: "Overviews") -> dict[str, Any]:
    """What `release.json` says of what was drawn."""
    return {
        "tiles": {"size": SIDE, "maxzoom": drawn.zoom},
        "layers": [
            {"id": layer.id, "title": layer.title, "kind": layer.kind, "periods": ids, "legend": _legend(layer, drawn)}
            for layer, ids in drawn.layers
        ],
    }


def summary(
    release: Release, facts: CardFacts, drawn: Mapping[str, Any], times: Periods, bibtex: str
) -> dict[str, Any]:
    """`release.json`.

    Args:
        release: where it lies.
        facts: what its documents say.
        drawn: its overviews, as `overviews` says.
        times: its periods.
        bibtex: how to cite it.
    """
    spec, coverage = facts.spec, facts.coverage
    return {
        "explorer": FORMAT,
        "name": spec.name,
        "version": spec.version,
        "title": facts.title,
        "description": spec.description or "",
        "license": {"id": spec.license, "name": licenses.name(spec.license), "href": licenses.address(spec.license)},
        "model": {
            "name": facts.fingerprint.model_name,
            "href": facts.fingerprint.model_link,
            "dimensions": facts.fingerprint.dimensions,
            "dtype": facts.fingerprint.dtype,
        },
        "chips": {
            "layout": facts.fingerprint.layout,
            "size": facts.fingerprint.size,
            "gsd": facts.gsd,
            "side": facts.ground,
            "count": facts.embeddings.rows,
            "files": facts.embeddings.files,
            "bytes": facts.embeddings.size,
            "thumbnails": "thumbnail" in facts.embeddings.schema.names,
        },
        "bbox": list(facts.bbox),
        "start": _stamp(facts.start),
        "end": _stamp(facts.end),
        "coverage": {"expected": coverage.expected, "embedded": coverage.embedded, "missing": coverage.missing},
        "windows": [
            {"start": _stamp(start), "end": _stamp(end), "expected": expected, "embedded": embedded}
            for (start, end), (expected, embedded) in list(coverage.windows.items())[:_WINDOWS]
        ],
        "more_windows": max(0, len(coverage.windows) - _WINDOWS),
        "reasons": REASONS,
        "periods": [{"id": p.id, "start": _stamp(p.start), "end": _stamp(p.end)} for p in times.each],
        **drawn,
        "coverage_files": [
            {"path": path, "size": release.store.size(path)} for path in release.data_files(paths.COVERAGE)
        ],
        "codes": release.store.exists(paths.CODES_MODEL),
        "items": bool(release.store.files(paths.JSON_ITEMS)),
        "address": facts.address,
        "citation": bibtex,
        "basemap": None if spec.outputs.basemap is None else spec.outputs.basemap.model_dump(),
    }


def _legend(layer: Layer, drawn: "Overviews") -> dict[str, Any]:
    if layer.id == "components":
        return {"explained": drawn.basis.explained.tolist()}
    if layer.id == "coverage":
        return {"colors": status_colors()}
    assert layer.palette is not None
    ends: dict[str, tuple[Any, Any]] = {
        "loss": drawn.basis.loss or (0.0, 1.0),
        "cloud": (0.0, 1.0),
        "date": (_stamp(drawn.dates[0]), _stamp(drawn.dates[1])),
    }
    low, high = ends[layer.id]
    stops = [_hex(layer.palette[step]) for step in np.linspace(1, STEPS, _STOPS).astype(int)]
    return {"stops": stops, "low": low, "high": high}


def _hex(color: Any) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in color[:3])


def _stamp(moment: Any) -> str:
    return str(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
