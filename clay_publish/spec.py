"""The release spec (`release.yaml`): one validated model, unknown keys refused."""

import difflib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import shapely
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clay_publish.errors import SpecError
from clay_publish.store import is_url
from clay_publish.windows import Window

_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,94}[a-z0-9])?")
_MAX_SPEC = 10_000_000
"""Bytes; an area inlined as GeoJSON may be large, a bomb is larger."""


def _check(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            msg = f"expected {expected}"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _check_window(text: str) -> str:
    return str(Window.parse(text))


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Creator(_Model):
    """A person or organisation that made the release."""

    name: str
    orcid: Annotated[str | None, Field(pattern=r"^(https://orcid\.org/)?\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")] = None
    affiliation: str | None = None
    email: str | None = None


class Imagery(_Model):
    """Which images to use: one block of a release."""

    stac: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    """API, catalog, collection, item, ItemCollection or stac-geoparquet; one or a list."""
    sensor: str
    collections: list[str] = []
    license: str | None = None
    """Terms of the source, where items and sensor do not say."""
    area: str | Annotated[list[float], Field(min_length=4, max_length=4)] | dict[str, Any] | None = None
    """`land`, a bbox (west, south, east, north), a GeoJSON file, or GeoJSON. Default: what the items cover."""
    windows: list[Annotated[str, AfterValidator(_check_window)]] = []
    query: dict[str, Any] = {}
    exclude: Annotated[list[str], BeforeValidator(_as_list)] = []
    """Ids of known bad items; or files that list them, one a line."""

    @model_validator(mode="after")
    def _windows_do_not_overlap(self) -> Self:
        ordered = sorted(self.parsed_windows())
        for earlier, later in itertools.pairwise(ordered):
            if earlier.overlaps(later):
                msg = f"windows {earlier} and {later} overlap; a moment may lie in one window only"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _bbox_is_in_order(self) -> Self:
        if isinstance(self.area, list):
            west, south, east, north = self.area
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                msg = (
                    f"area {self.area} is no bbox; expected west, south, east, north in degrees"
                    " (west > east where it crosses the antimeridian)"
                )
                raise ValueError(msg)
        return self

    def parsed_windows(self) -> list[Window]:
        """The time steps asked for; empty means each image's own date or period."""
        return [Window.parse(text) for text in self.windows]


class Chips(_Model):
    """How the ground is cut."""

    layout: Literal["scene", "utm"] = "utm"
    size: Annotated[int, Field(ge=8, le=2048)] = 128
    """Pixels a side."""
    gsd: Annotated[float | None, Field(gt=0, le=10_000)] = None
    """Metres a pixel in the `utm` layout; default: the sensor's."""
    max_nodata: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_cloud: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _scene_has_no_gsd(self) -> Self:
        if self.layout == "scene" and self.gsd is not None:
            msg = "gsd belongs to the utm layout; scene keeps the pixels of the image"
            raise ValueError(msg)
        return self


class Model(_Model):
    """Which encoder, and how it is run."""

    encoder: str = "random-features"
    weights: str | None = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """What the weights' file must hash to."""
    metadata: Literal["tutorial", "zeros"] = "tutorial"
    precision: Literal["float32", "bfloat16", "auto"] = "auto"


class Patches(_Model):
    """Feature maps of single layers."""

    layers: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class Outputs(_Model):
    """What is stored of each chip."""

    dtype: Literal["float32", "float16", "int8"] = "float32"
    loss: bool = False
    patches: bool | Patches = False
    thumbnails: Annotated[int, Field(ge=0, le=512)] = 0
    """Pixels a side; 0 is none."""
    aggregate: list[Annotated[int, Field(ge=2, le=64)]] = []


class Cost(_Model):
    """What a run costs and may cost."""

    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    chips_per_hour: Annotated[float, Field(gt=0)] | None = None
    budget_usd: Annotated[float, Field(gt=0)] | None = None


class Publish(_Model):
    """Where the release will be found."""

    base_url: Annotated[str | None, Field(pattern=r"^https?://[^\s?#]+$")] = None
    source_coop: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = None
    hugging_face: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = None


class Spec(_Model):
    """A release: what to make, of what, with which model, and where it goes."""

    name: Annotated[
        str,
        _check(_NAME, "1 to 96 of a-z, 0-9, dot, dash and underscore, starting and ending with a letter or digit"),
    ]
    """The collection's id."""
    version: Annotated[str, _check(_SEMVER, "a semantic version such as 1.0.0")] = "1.0.0"
    previous: str | None = None
    """Directory or address of the version before."""
    title: Annotated[str | None, Field(max_length=200)] = None
    description: Annotated[str | None, Field(max_length=100_000)] = None
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{2,64}$")] = "CC-BY-4.0"
    """SPDX identifier."""
    doi: Annotated[str | None, Field(pattern=r"^10\.\d{4,9}/\S+$")] = None
    creators: list[Creator] = []
    keywords: Annotated[list[str], Field(max_length=20)] = []
    imagery: Annotated[list[Imagery], BeforeValidator(_as_list), Field(min_length=1)]
    chips: Chips = Chips()
    model: Model = Model()
    outputs: Outputs = Outputs()
    cost: Cost = Cost()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _one_sensor(self) -> Self:
        sensors = sorted({block.sensor for block in self.imagery})
        if len(sensors) > 1:
            msg = f"imagery blocks name the sensors {', '.join(sensors)}; a release has one"
            raise ValueError(msg)
        return self

    @property
    def sensor(self) -> str:
        """Key of the sensor registry."""
        return self.imagery[0].sensor

    def published(self) -> dict[str, Any]:
        """The resolved spec as it is published: no path of this machine, no credentials."""
        document = self.model_dump(mode="json", exclude_none=True)
        for block in document["imagery"]:
            block["stac"] = [_public(source) for source in block["stac"]]
            block["exclude"] = [_public(entry) for entry in block["exclude"]]
        for holder, key in ((document, "previous"), (document["model"], "weights")):
            if key in holder:
                holder[key] = _public(holder[key])
        return document


def _public(source: str) -> str:
    """An address without credentials or signature; of a local path, the name alone."""
    if not is_url(source):
        return Path(source.removeprefix("file://")).name if "/" in source or "\\" in source else source
    scheme, _, rest = source.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def load_spec(path: str | Path) -> Spec:
    """Read and check a spec. Relative paths in it are resolved against its folder, an area file is inlined.

    Raises:
        SpecError: missing, no YAML, an unknown key (the nearest known one is named), a wrong value, a missing file.
    """
    path = Path(path)
    document = read_yaml(path)
    return resolve_spec(document, where=str(path), folder=path.resolve().parent)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        SpecError: missing, too large, no YAML, or not a mapping.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_SPEC:
            raise SpecError(str(path), f"has {size} bytes", f"at most {_MAX_SPEC}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(
            str(path),
            f"cannot be read ({error.strerror})",
            "a release spec",
            "`clay-publish init` writes one.",
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 (byte {error.start})", "a YAML text") from error
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(str(path), f"is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise SpecError(str(path), f"holds {type(document).__name__}", "keys and values such as `name: my-release`")
    return document


def resolve_spec(document: Mapping[str, Any], *, where: str, folder: Path) -> Spec:
    """Check a spec that was read already.

    Raises:
        SpecError: as `load_spec`.
    """
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        raise _explain(error, where) from error
    blocks = [_resolve_imagery(block, f"{where}: imagery", folder) for block in spec.imagery]
    model = spec.model.model_copy(update={"weights": _local(spec.model.weights, folder)})
    resolved = {"imagery": blocks, "model": model, "previous": _local(spec.previous, folder)}
    return spec.model_copy(update=resolved)


def _resolve_imagery(block: Imagery, where: str, folder: Path) -> Imagery:
    sources = []
    for source in block.stac:
        resolved = _local(source, folder) or source
        if not is_url(resolved) and not Path(resolved).exists():
            raise SpecError(f"{where}.stac", f"{resolved} does not exist", "a file or address of STAC items")
        sources.append(resolved)
    return block.model_copy(
        update={
            "stac": sources,
            "area": _inline_area(block.area, f"{where}.area", folder),
            "exclude": [i for entry in block.exclude for i in _excluded(entry, f"{where}.exclude", folder)],
        }
    )


def _local(source: str | None, folder: Path) -> str | None:
    if source is None or is_url(source):
        return source
    return str((folder / source.removeprefix("file://")).resolve())


def _excluded(entry: str, where: str, folder: Path) -> list[str]:
    """An id as it is, a file as the ids in it: one a line, `#` starts a comment."""
    if "/" not in entry and not entry.endswith((".txt", ".csv")):
        return [entry]
    path = folder / entry
    if not path.is_file():
        raise SpecError(where, f"{path} does not exist", "item ids, or a file with one a line")
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _inline_area(area: Any, where: str, folder: Path) -> Any:
    if area is None or isinstance(area, list) or area == "land":
        return area
    if isinstance(area, str):
        path = folder / area
        if not path.is_file():
            raise SpecError(where, f"{path} does not exist", "`land`, a bbox, a GeoJSON file, or GeoJSON")
        try:
            area = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise SpecError(where, f"{path} is no GeoJSON ({error})") from error
    return json.loads(shapely.to_geojson(parse_area(area, where)))


def parse_area(area: Any, where: str = "area") -> shapely.Geometry:
    """The polygons of a GeoJSON geometry, Feature or FeatureCollection, OGC:CRS84.

    Raises:
        SpecError: not GeoJSON, not polygons, not valid, or outside the degrees of the Earth.
    """
    if not isinstance(area, dict):
        raise SpecError(where, f"is {type(area).__name__}", "a GeoJSON object")
    if area.get("type") == "FeatureCollection":
        parts = [f.get("geometry") for f in area.get("features", []) if isinstance(f, dict)]
    else:
        parts = [area.get("geometry") if area.get("type") == "Feature" else area]
    try:
        geometry = shapely.union_all([_valid_polygon(json.dumps(p), where) for p in parts])
    except shapely.errors.GEOSException as error:
        raise SpecError(where, f"is no GeoJSON geometry ({error})") from error
    if geometry.is_empty:
        raise SpecError(where, "is empty", "at least one polygon")
    west, south, east, north = geometry.bounds
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise SpecError(
            where,
            f"reaches from {west}, {south} to {east}, {north}",
            "longitude and latitude in degrees (OGC:CRS84)",
        )
    return geometry


def _valid_polygon(text: str, where: str) -> shapely.Geometry:
    geometry = shapely.from_geojson(text)
    if geometry.geom_type not in {"Polygon", "MultiPolygon"}:
        raise SpecError(where, f"holds a {geometry.geom_type}", "polygons")
    if not geometry.is_valid:
        reason = shapely.is_valid_reason(geometry)
        raise SpecError(where, f"is not valid ({reason})", "polygons that do not cross themselves")
    return geometry


def dump_spec(document: Mapping[str, Any]) -> str:
    """The spec as YAML text."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


def _explain(error: ValidationError, where: str) -> SpecError:
    """Say the first thing that is wrong; a second run says the next."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if not _is_branch(part)) or "the spec"
    place = f"{where}: {key}"
    more = f" ({error.error_count() - 1} more after this one.)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_beside(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return SpecError(place, "is an unknown key", fix=hint + more)
    if first["type"] == "missing":
        return SpecError(place, "is missing", fix="Add it." + more)
    message = str(first["msg"]).removeprefix("Value error, ")
    return SpecError(place, f"found {_short(first['input'])}", _lower(message).removeprefix("expected "), more.strip())


def _is_branch(part: int | str) -> bool:
    """Pydantic names the branch of a union it tried; the reader did not write that."""
    return isinstance(part, str) and (part in {"str", "bool", "Patches"} or "[" in part)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Spec
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
