import geopandas
import numpy as np
import shapely

from clay_publish.release.geoparquet import hilbert_distance


def test_it_is_the_curve_that_geopandas_draws_however_many_points() -> None:
    rng = np.random.default_rng(3)
    lon, lat = rng.uniform(-180, 180, 70_000), rng.uniform(-90, 90, 70_000)  # more than are made at once
    lon[:4], lat[:4] = (-180, 180, 180, -180), (-90, 90, -90, 90)
    whole = geopandas.GeoSeries(shapely.points(lon, lat)).hilbert_distance((-180, -90, 180, 90), level=16)
    np.testing.assert_array_equal(hilbert_distance(lon, lat), whole.to_numpy())


def test_neighbors_on_the_ground_are_neighbors_in_the_order() -> None:
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.arange(-8, 8) + 0.5, np.arange(-8, 8) + 0.5))
    order = np.argsort(hilbert_distance(lon, lat), kind="stable")
    steps = np.hypot(np.diff(lon[order]), np.diff(lat[order]))
    assert np.median(steps) == 1
    assert hilbert_distance(lon[:0], lat[:0]).shape == (0,)
