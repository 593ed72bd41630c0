"""Ways to break footprints and places."""

import numpy as np
import pyarrow as pa
import shapely
from breakage import Broken, changed, mutation

from clay_publish.geo.major_tom_grid import cells_at, name_of_cell, numbers_of_cell

# Vectors


@mutation("GEO001", "one footprint crosses itself", also="GEO002 GEO004 GEO005 GEO009 GEO012 RDR")
def a_bow_tie(broken: Broken) -> None:
    def tie(shapes: np.ndarray) -> np.ndarray:
        west, south, east, north = shapes[2].bounds
        ring = [(west, south), (east, north), (east, south), (west, north), (west, south)]
        return _set(shapes, 2, shapely.Polygon(ring))

    broken.footprints(tie, rest=False)


@mutation("GEO001", "one geometry is a point", also="GEO004 SCH011")
def a_point_for_a_footprint(broken: Broken) -> None:
    broken.footprints(lambda shapes: _set(shapes, 2, shapes[2].centroid), rest=False)


@mutation("GEO001", "one geometry is not a WKB", also="SCH011 RDR002 RDR003")
def garbage_for_a_geometry(broken: Broken) -> None:
    broken.value("geometry", 2, b"not a geometry")


@mutation("GEO002", "rings run clockwise", also="SCH011")
def clockwise_rings(broken: Broken) -> None:
    broken.footprints(shapely.reverse, rest=False)


@mutation("GEO003", "footprints in meters", also="GEO STC006 STC008 SCH011")
def footprints_in_meters(broken: Broken) -> None:
    broken.footprints(lambda shapes: shapely.transform(shapes, lambda xy: xy * 111_320), rest=False)


@mutation("GEO004", "a bbox that is not the bounds of its footprint", also="SCH011")
def a_wrong_bbox(broken: Broken) -> None:
    broken.column("bbox", lambda boxes: [{**boxes[0], "xmin": boxes[0]["xmin"] - 0.01}, *boxes[1:]])


@mutation("GEO005", "lon and lat are the upper left corner", also="GEO011 GEO013 GEO010")
def centers_at_the_corner(broken: Broken) -> None:
    boxes = broken.table(broken.data)["bbox"].to_pylist()
    broken.column("lon", lambda _: [box["xmin"] for box in boxes])
    broken.column("lat", lambda _: [box["ymax"] for box in boxes])


@mutation(
    "GEO006",
    "a footprint that goes round the Earth at the antimeridian",
    also="GEO001 GEO005 GEO008 GEO009 GEO012 GEO014 STC006 STC008",
)
def an_unsplit_antimeridian(broken: Broken) -> None:
    def spread(shapes: np.ndarray) -> np.ndarray:
        _, south, _, north = shapes[0].bounds
        return _set(shapes, 0, shapely.box(-179.99, south, 179.99, north))

    broken.footprints(spread)


@mutation("GEO007", "latitude comes first", also="GEO002 GEO005 GEO008 GEO009 GEO012 SCH011")
def swapped_axes(broken: Broken) -> None:
    broken.footprints(lambda shapes: shapely.transform(shapes, lambda xy: xy[:, ::-1]))


@mutation("GEO008", "all chips lie 2° east of their image", also="GEO011 GEO012 GEO013")
def chips_beside_their_image(broken: Broken) -> None:
    broken.footprints(lambda shapes: _moved(shapes, 2, 0))
    broken.column("lon", lambda values: [v + 2 for v in values])


@mutation("GEO009", "doubled footprints: the transform of the coarsest band", also="GEO012")
def doubled_footprints(broken: Broken) -> None:
    broken.footprints(lambda shapes: np.array([_scaled(s, 2) for s in shapes]))


@mutation("GEO009", "web mercator meters taken for meters on the ground", also="GEO012 GEO008")
def unscaled_web_mercator(broken: Broken) -> None:
    broken.footprints(lambda shapes: np.array([_scaled(s, 1 / np.cos(np.radians(s.centroid.y))) for s in shapes]))


@mutation(
    "GEO010",
    "the same ground and day twice, with another vector and id",
    also="COV012 COV014 COV016 DOC011 SCH017 STC005",
)
def ground_embedded_twice(broken: Broken) -> None:
    def again(table: pa.Table) -> pa.Table:
        row = table.slice(3, 1).to_pylist()[0]
        row |= {"id": "another-id", "embedding": changed(row["embedding"])}
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    broken.change(broken.data, again)
    broken.recount()


@mutation("GEO011", "rows are counted from the bottom", also="GEO012 SCH017")
def rows_upside_down(broken: Broken) -> None:
    broken.column("row", lambda rows: [max(rows) - r for r in rows])


@mutation(
    "GEO011",
    "a cell of the grid next to it",
    base="utm",
    also="GEO012 COV001 COV002 COV003 COV005 COV006 COV014 SCH017",
)
def a_column_off_by_one(broken: Broken) -> None:
    broken.column("col", lambda cols: [c + 1 for c in cols])


@mutation("GEO012", "footprints half a pixel away from their pixels")
def footprints_half_a_pixel_off(broken: Broken) -> None:
    broken.footprints(lambda shapes: _moved(shapes, 0.00003, 0.00003))


@mutation("GEO013", "chips in the file of another square", also="STC004 SCH RDR")
def a_file_of_another_square(broken: Broken) -> None:
    broken.rename(broken.data.replace("_04_41_", "_04_42_"))


@mutation("GEO018", "the Major TOM cell to the east", also="SCH STC DOC RDR")
def a_cell_to_the_east(broken: Broken) -> None:
    def add(table: pa.Table) -> pa.Table:
        names = cells_at(table["lon"].to_numpy(), table["lat"].to_numpy())
        row, column = numbers_of_cell(names[0])
        names[0] = name_of_cell(row, column + 1)
        return table.append_column(pa.field("grid_cell", pa.string(), nullable=False), pa.array(names, pa.string()))

    broken.change(broken.data, add)


@mutation("GEO014", "the footer's bbox leaves out half of the chips", also="SCH011")
def a_small_footer_bbox(broken: Broken) -> None:
    def shrink(geo: dict) -> None:
        west, south, east, north = geo["columns"]["geometry"]["bbox"]
        geo["columns"]["geometry"]["bbox"] = [west, south, (west + east) / 2, north]

    broken.footer(broken.data, "geo", shrink)


# Times


def _set(array: np.ndarray, place: object, value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def _moved(shapes: np.ndarray, east: float, north: float) -> np.ndarray:
    return shapely.transform(shapes, lambda xy: xy + np.array([east, north]))


def _scaled(shape: shapely.Geometry, factor: float) -> shapely.Geometry:
    middle = np.array(shape.centroid.coords[0])
    return shapely.transform(shape, lambda xy: middle + (xy - middle) * factor)
