"""The missing ground, as `gaps.geojson` draws it."""

import json
from dataclasses import dataclass

import shapely

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.release import Release


@dataclass(frozen=True)
class Gap:
    """Ground without an embedding."""

    reason: str
    geometry: shapely.Geometry


def read_gaps(release: Release) -> list[Gap]:
    """The gaps; none where the release has no such file.

    Raises:
        ReleaseError: the file holds no polygons with reasons.
    """
    if not release.store.exists(paths.GAPS):
        return []
    try:
        return [
            Gap(str(feature["properties"]["reason"]), shapely.from_geojson(json.dumps(feature["geometry"])))
            for feature in release.json(paths.GAPS)["features"]
            if feature["geometry"] is not None
        ]
    except (KeyError, TypeError, shapely.errors.GEOSException) as error:
        raise ReleaseError(
            release.store.path(paths.GAPS), f"is no collection of gaps ({error!r})", "polygons with a reason"
        ) from error
