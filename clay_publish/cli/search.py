"""`search` and `sample-points`: what is in a release, and where."""

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clay_publish.cli.console import Json, Screen, Where
from clay_publish.formats import crossing, meters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from clay_publish.search.reader import ReleaseReader


HOST = "127.0.0.1"


def serve(
    where: Where,
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any that is free.")] = 8000,
) -> None:
    """Answer STAC searches over a release, on this machine only, until interrupted."""
    from clay_publish.errors import ClayPublishError, require_extra

    require_extra("serve", "clay-publish serve")
    logging.getLogger("stac_fastapi.types.config").setLevel(logging.ERROR)  # it warns of defaults we don't use
    import uvicorn

    from clay_publish.search.reader import open_release
    from clay_publish.stac_api.app import stac_api

    app = stac_api(open_release(where))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise ClayPublishError(
                f"port {port}", f"cannot be used ({error.strerror})", fix="Choose another."
            ) from error
        listening.listen()  # the address is printed once clients can connect
        typer.echo(f"http://{HOST}:{listening.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


Datetime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="A year, month, date or time, or an interval: 2023-01/2023-03, ../2023-06-30."),
]
MaxDistance = Annotated[
    float | None,
    typer.Option(metavar="METERS", min=0, help="Largest distance to the center of a chip; default: three chip sides."),
]


def search(
    where: Where,
    *,
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="Degrees; W > E across the antimeridian.")] = None,
    datetime: Datetime = None,
    near: Annotated[str | None, typer.Option(metavar="LON,LAT", help="The chips nearest to a place.")] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(metavar="CHIP|LON,LAT", help="The chips most similar to these, by cosine. Can be repeated."),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(metavar="CHIP|LON,LAT", help="With --like: what they are not to be like.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="With --like: compare every vector.")] = False,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="How many chips, with --near or --like.")] = 10,
    max_distance: MaxDistance = None,
    chips: Annotated[bool, typer.Option("--chips", help="Chips instead of items.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to FILE.parquet or FILE.geojson.")] = None,
    view: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="PRODUCT", help="With --chips and --out: columns of major-tom or earth-index embeddings."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Find items or chips of a release, wherever it lies. Chips written as Parquet bring their embeddings."""
    from clay_publish.search.output import check_output
    from clay_publish.search.reader import open_release

    if out is not None:
        check_output(out)
    reader = open_release(where)
    box = box_of(bbox) if bbox is not None else None
    screen = Screen(quiet=True, as_json=json)
    if view is not None:
        _refuse(
            near is not None or like or not chips or out is None,
            "--as, without --chips and --out,",
            "--chips --out FILE",
        )
        found = _view(reader, view, out or Path(), screen, box, datetime)
    elif near is not None or like:
        _refuse(near is not None and like, "--near and --like", "one of them")
        _refuse(near is not None and box, "--near and --bbox", "one of them")
        columns = _columns(reader, out)
        if near is not None:
            lon, lat = numbers(near, "--near", 2)
            table = reader.near_enough((lon, lat), reader.nearest(lon, lat, top, datetime, columns), max_distance)
        else:
            likes, others = [_like(one) for one in like or ()], [_like(one) for one in unlike or ()]
            _say_distances(reader, [*likes, *others])
            table = reader.similar(
                likes, top, box, datetime, columns, unlike=others, exact=exact, max_distance=max_distance
            )
        found = _chips(table.to_reader(), out, screen)
    elif chips:
        found = _chips(reader.chips(box, datetime, _columns(reader, out)), out, screen)
    else:
        found = _items(reader.items(box, datetime), out, screen)
    if not found:
        typer.echo(f"nothing found: {_extent(reader)}{_swapped(reader, box)}", err=True)


def _say_distances(reader: "ReleaseReader", likes: "Sequence[str | tuple[float, float]]") -> None:
    """The chips nearest to places, and their distances."""
    for place in likes:
        if not isinstance(place, str):
            row = reader.nearest(*place, columns=["id"]).to_pylist()
            said = [f"{each['id']}, {meters(each['distance'])} away" for each in row]
            typer.echo(f"{place[0]:g},{place[1]:g}: {''.join(said) or 'no chip'}", err=True)


def _extent(reader: "ReleaseReader") -> str:
    """Where and when a release has chips."""
    from clay_publish.search.query import Extent

    boxes, windows = reader.shelf(Extent()).boxes, reader.windows
    if not len(boxes):
        return "the release has no chips"
    crossing = " across the antimeridian" if (boxes[:, 0] > boxes[:, 2]).any() else ""
    sides = [boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max()]
    ground = "" if crossing else " " + ", ".join(f"{side:.2f}" for side in sides)
    return f"the release has chips in{crossing or ground}, {windows[0].start:%Y-%m-%d} to {windows[-1].end:%Y-%m-%d}"


def _swapped(reader: "ReleaseReader", box: "Sequence[float] | None") -> str:
    """What to say where a box holds nothing, and something once latitude and longitude are swapped."""
    from clay_publish.search.query import Extent

    if box is None or max(abs(box[0]), abs(box[2])) > 90 or box[0] > box[2]:
        return ""
    turned = [box[1], box[0], box[3], box[2]]
    if not reader.shelf(Extent.of(turned, None)).paths:
        return ""
    return f". Latitude and longitude look swapped: --bbox {','.join(f'{side:g}' for side in turned)} meets chips"


def sample_points(
    where: Where,
    points: Annotated[Path, typer.Argument(metavar="POINTS", help="CSV or Parquet with columns lon and lat.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where the joined table goes.")],
    datetime: Datetime = None,
    max_distance: MaxDistance = None,
    json: Json = False,
) -> None:
    """Join the embedding of the nearest chip, and its distance, to each row of a table of places."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from clay_publish.search.points import coordinates, read_points
    from clay_publish.search.query import SWAPPED, QueryError
    from clay_publish.search.reader import open_release
    from clay_publish.storage.store import Store

    if out.suffix != ".parquet":
        raise QueryError(str(out), f"ends with {out.suffix or 'nothing'}", ".parquet, which keeps vectors whole")
    reader, table = open_release(where), read_points(str(points))
    limit = 3 * reader.chip_side if max_distance is None else max_distance
    joined = reader.sample(table, datetime, max_distance=limit)
    beyond = joined["distance"].null_count
    if beyond and beyond == joined.num_rows:
        first = reader.sample(table.slice(0, 1), datetime)["distance"][0].as_py()
        nearest = "no chip" if first is None else f"the nearest chip of the first is {meters(first)} away"
        lon, lat = coordinates(table)
        swapped = reader.is_swapped(float(lon[0]), float(lat[0]), limit)
        fix = SWAPPED if swapped else "Sample another release, or pass --max-distance METERS."
        raise QueryError(str(points), f"has no place near a chip ({nearest})", f"at most {meters(limit)}", fix)
    with Store(out.resolve().parent).writer(out.name) as file:
        pq.write_table(joined, file, compression="zstd")
    farthest = pc.max(joined["distance"]).as_py()
    line = f"{out}: {joined.num_rows:,} places, the farthest {meters(farthest or 0)} from the center of its chip"
    if beyond:
        line += f"; {beyond:,} without an embedding, since no chip is within {meters(limit)}"
    document = {"out": str(out), "rows": joined.num_rows, "farthest_m": farthest, "beyond": beyond}
    Screen(quiet=True, as_json=json).result(line, document)


def aggregate(
    where: Where,
    polygons: Annotated[Path, typer.Argument(metavar="POLYGONS", help="GeoJSON, GeoParquet, or what GDAL reads.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="GeoParquet file to write.")],
    datetime: Datetime = None,
    json: Json = False,
) -> None:
    """Compute the mean embedding of the ground of each polygon and window, weighted by shared ground."""
    from clay_publish.search.output import write_zonal
    from clay_publish.search.reader import open_release

    rows = write_zonal(out, open_release(where), polygons, datetime)
    line = f"{out}: {rows:,} {'row' if rows == 1 else 'rows'}, one per polygon and window"
    Screen(quiet=True, as_json=json).result(line, {"out": str(out), "rows": rows})


def change(
    where: Where,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="A window: START/END, or its start: 2023-01.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another window.")],
    bbox: Annotated[str | None, typer.Option(metavar="W,S,E,N", help="Degrees; W > E across the antimeridian.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to FILE.parquet or FILE.geojson.")] = None,
    drawn: Annotated[Path | None, typer.Option("--map", metavar="FILE.png", help="Write a map.")] = None,
    json: Json = False,
) -> None:
    """Compute the cosine distance between the embeddings that each chip has in two windows."""
    from clay_publish.search.change import change_map
    from clay_publish.search.output import check_output, write_chips
    from clay_publish.search.query import QueryError
    from clay_publish.search.reader import open_release
    from clay_publish.storage.store import Store

    if out is not None:
        check_output(out)
    if drawn is not None and drawn.suffix != ".png":
        raise QueryError(str(drawn), f"ends with {drawn.suffix or 'nothing'}", ".png")
    reader = open_release(where)
    table = reader.change(before, after, box_of(bbox) if bbox is not None else None).read_all()
    if not table.num_rows:
        raise QueryError("change", "no chip is in both windows", "windows and a box that share ground")
    if drawn is not None:
        with Store(drawn.resolve().parent).writer(drawn.name) as file:
            file.write(change_map(table, f"{before} to {after}"))
    if out is not None:
        write_chips(out, table.schema, table.to_reader())
    values = table["distance"].to_numpy()
    line = f"{len(values):,} chips, cosine distance {values.mean():.4f} on average, {values.max():.4f} at most"
    facts = {"chips": len(values), "mean": float(values.mean()), "max": float(values.max())}
    Screen(quiet=True, as_json=json).result(line, facts)


def box_of(text: str) -> list[float]:
    """West, south, east, north; says where it crosses the antimeridian, since that may not be meant.

    Raises:
        QueryError: other than four numbers.
    """
    box = numbers(text, "--bbox", 4)
    if crosses := crossing(box):
        typer.echo(f"--bbox {text} {crosses}", err=True)
    return box


def numbers(text: str, option: str, count: int) -> list[float]:
    """Numbers with commas between.

    Raises:
        QueryError: other than `count` numbers.
    """
    from clay_publish.search.query import QueryError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise QueryError(option, repr(text), f"{count} numbers with commas between")
    return values


def _refuse(both: Any, what: str, expected: str) -> None:
    from clay_publish.search.query import QueryError

    if both:
        raise QueryError(what, "exclude each other", expected)


def _like(text: str) -> str | tuple[float, float]:
    """A place, or a chip's id."""
    from clay_publish.search.query import QueryError

    try:
        lon, lat = numbers(text, "--like", 2)
    except QueryError:
        return text
    return lon, lat


def _columns(reader: "ReleaseReader", out: Path | None) -> list[str]:
    """All columns for a table; for a map or the screen, all but the heavy ones."""
    from clay_publish.search.finder import LIGHT

    return reader.schema().names if out is not None and out.suffix == ".parquet" else list(LIGHT)


def _chips(found: "pa.RecordBatchReader", out: Path | None, screen: Screen) -> int:
    """Write or print chips; how many there are."""
    from clay_publish.search.output import chip_features, write_chips

    if out is not None:
        rows = write_chips(out, found.schema, found)
        screen.result(f"{out}: {rows:,} chips", {"out": str(out), "chips": rows})
    elif screen.as_json:
        features = [feature for batch in found for feature in chip_features(batch)]
        _print({"type": "FeatureCollection", "features": features})
        rows = len(features)
    else:
        rows = 0
        for batch in found:
            rows += batch.num_rows
            for row in batch.to_pylist():
                score = [meters(row["distance"])] if "distance" in row else []
                score += [f"{row['similarity']:.4f}"] if "similarity" in row else []
                typer.echo("  ".join([row["id"], f"{row['lon']:.5f},{row['lat']:.5f}", *score]))
    return rows


def _view(
    reader: "ReleaseReader", name: str, out: Path, screen: Screen, box: "Sequence[float] | None", datetime: str | None
) -> int:
    """Write chips with the columns of another product; how many there are."""
    from clay_publish.search.query import QueryError
    from clay_publish.search.views import COLUMNS, VIEWS, write_view

    view = next((known for known in VIEWS if known == name), None)
    if view is None:
        raise QueryError("--as", f"found {name!r}", " or ".join(VIEWS))
    rows = write_view(out, view, reader.chips(box, datetime, COLUMNS))
    screen.result(f"{out}: {rows:,} chips, columns of {view}", {"out": str(out), "chips": rows, "as": view})
    return rows


def _items(found: "pa.Table", out: Path | None, screen: Screen) -> int:
    """Write or print items; how many there are."""
    import pyarrow.compute as pc

    from clay_publish.search.output import write_items

    if out is not None:
        write_items(out, found)
        screen.result(f"{out}: {found.num_rows} items", {"out": str(out), "items": found.num_rows})
    elif screen.as_json:
        from stac_geoparquet.arrow import stac_table_to_items

        _print({"type": "FeatureCollection", "features": list(stac_table_to_items(found))})
    else:
        hrefs = pc.struct_field(found["assets"], ["embeddings", "href"]).to_pylist()
        rows = found["table:row_count"].to_pylist()
        for name, number, href in zip(found["id"].to_pylist(), rows, hrefs, strict=True):
            typer.echo(f"{name}  {number:,} chips  {href}")
    return int(found.num_rows)


def _print(document: dict[str, Any]) -> None:
    import json

    from clay_publish.search.output import plain

    typer.echo(json.dumps(document, ensure_ascii=False, default=plain))
