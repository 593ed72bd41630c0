"""What the files of a run were when it was planned: their content and pixel grids, kept so that it can be resumed."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from clay_publish import release as paths
from clay_publish.errors import ImageryError
from clay_publish.geoparquet import write_table
from clay_publish.manifest import UNITS
from clay_publish.producer.content import etags
from clay_publish.producer.items import RasterGrid, SourceItem
from clay_publish.producer.plan import Plan
from clay_publish.producer.raster import open_bands
from clay_publish.producer.selection import Considered
from clay_publish.producer.sensors import Sensor
from clay_publish.producer.strips import fine_grid
from clay_publish.release import Release

_ITEMS_AT_ONCE = 4


def files_path(plan: str) -> str:
    """Where the files of a plan, named by its hash, are listed: workers that plan at once never see each other's."""
    return f"{paths.RUN}/files-{plan[:16]}.parquet"


@dataclass(frozen=True)
class _Planned:
    etags: Mapping[str, str]
    grid: RasterGrid | None


def as_planned(release: Release, considered: Sequence[Considered], instrument: Sensor) -> list[Considered]:
    """The used items with what identifies the content of their files, and with their pixel grids.

    The first run asks the files themselves; a resumed one takes what was found then, so that a file that has changed
    since is seen where it is read.
    """
    known = _read(release)

    def look(each: Considered) -> Considered:
        if each.status != "used":
            return each
        item, planned = each.item, known.get(_key(each.item))
        item = replace(item, etags=etags(item) if planned is None else planned.etags)
        if item.grid is None:
            grid = planned.grid if planned is not None else None
            item = replace(item, grid=grid or _opened_grid(item, instrument))
        return replace(each, item=item)

    with ThreadPoolExecutor(_ITEMS_AT_ONCE) as pool:
        return list(pool.map(look, considered))


def keep_files(release: Release, plan: Plan, considered: Sequence[Considered]) -> None:
    """Keep what `as_planned` found for the runs that follow; before the plan itself is written, which refers to it."""
    path = files_path(plan.sha256)
    if not release.store.exists(path):
        _write(release, path, [each.item for each in considered if each.status == "used"])


def _opened_grid(item: SourceItem, instrument: Sensor) -> RasterGrid | None:
    try:
        with open_bands(item.bands, instrument.nodata) as bands:
            return fine_grid(bands, None)
    except ImageryError:
        return None  # its unit meets the same error, and records it


def _key(item: SourceItem) -> str:
    return f"{item.block}/{item.id}"


def _write(release: Release, path: str, items: Sequence[SourceItem]) -> None:
    columns = {
        "id": [_key(item) for item in items],
        "hrefs": [list(item.etags) for item in items],
        "etags": [list(item.etags.values()) for item in items],
        "grid": [None if item.grid is None else json.dumps(asdict(item.grid)) for item in items],
    }
    kinds = {"id": pa.string(), "hrefs": pa.list_(pa.string()), "etags": pa.list_(pa.string()), "grid": pa.string()}
    write_table(release.store, path, pa.table({name: pa.array(columns[name], kind) for name, kind in kinds.items()}))


def _read(release: Release) -> dict[str, _Planned]:
    if not release.store.exists(UNITS):
        return {}
    path = files_path(str(release.json(UNITS).get("sha256")))
    if not release.store.exists(path):
        return {}
    rows = release.parquet(path).read().to_pylist()
    return {
        row["id"]: _Planned(
            dict(zip(row["hrefs"], row["etags"], strict=True)),
            None if row["grid"] is None else _grid(json.loads(row["grid"])),
        )
        for row in rows
    }


def _grid(fields: dict[str, Any]) -> RasterGrid:
    a, b, c, d, e, f = fields["transform"]
    return RasterGrid(fields["crs"], fields["height"], fields["width"], (a, b, c, d, e, f))
