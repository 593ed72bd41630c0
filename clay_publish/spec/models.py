"""The release spec (`release.yaml`): one validated model, unknown keys refused."""

import difflib
import functools
import itertools
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from license_expression import get_spdx_licensing
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from clay_publish.errors import SpecError
from clay_publish.redaction import without_secrets
from clay_publish.spec.sensors import SENSORS, Sensor, parse_sensor, sensor
from clay_publish.storage.address import SEMVER
from clay_publish.storage.store import is_url
from clay_publish.windows import Window

_CHIP_BYTES = 1_000_000_000
"""Of the images of one chip, at most."""
_LICENSE_REF = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_ORCID = r"^(https://orcid\.org/)?\d{4}-\d{4}-\d{4}-\d{3}[\dX]$"
_METHOD = re.compile(r"median|mean|best|x-[a-z0-9-]{1,60}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,94}[a-z0-9])?")


def _check(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            msg = f"expected {expected}"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _check_window(text: str) -> str:
    try:
        return str(Window.parse(text))
    except ValueError as error:
        raise SpecError("window", str(error), fix="Write START/END as YYYY-MM-DD/YYYY-MM-DD.") from error


def _check_orcid(text: str) -> str:
    """An ORCID iD with a correct check digit (ISO 7064, MOD 11-2)."""
    digits = text.removeprefix("https://orcid.org/").replace("-", "")
    total = functools.reduce(lambda sum_so_far, digit: (sum_so_far + int(digit)) * 2, digits[:-1], 0)
    check = "0123456789X"[(12 - total % 11) % 11]
    if check != digits[-1]:
        fix = "Compare it with the page of its owner: a digit is mistyped."
        raise SpecError("orcid", f"found {text!r}, whose check digit is wrong", f"{check} at the end", fix)
    return text


@functools.cache
def spdx_identifiers() -> dict[str, str]:
    """Identifiers of the SPDX license list, by themselves in lower case."""
    names = get_spdx_licensing().known_symbols
    return {name.lower(): name for name in names if not name.startswith("LicenseRef-")}


def _check_license(text: str) -> str:
    """An identifier of the SPDX license list, or `LicenseRef-…` for own terms."""
    own = text.startswith("LicenseRef-")
    known = spdx_identifiers()
    if _LICENSE_REF.fullmatch(text) or known.get(text.lower()) == text:
        return text
    near = [] if own else difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.6)
    hint = f"Did you mean {known[near[0]]}?" if near else ""
    expected = "an identifier of the SPDX license list, or LicenseRef-NAME for own terms"
    raise SpecError("license", f"found {text!r}", expected, hint)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _SpecBlock(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Creator(_SpecBlock):
    """A person or organization that made the release."""

    name: str
    orcid: Annotated[str, Field(pattern=_ORCID), AfterValidator(_check_orcid)] | None = None
    affiliation: str | None = None
    email: str | None = None


class Composite(_SpecBlock):
    """How one chip is made of several acquisitions of its window."""

    method: Annotated[str, _check(_METHOD, "median, mean, best, or x-NAME for a reduction of your own")] = "median"
    images: Annotated[int | None, Field(ge=1, le=64)] = None
    """Acquisitions of a chip, at most; default: 16. `best` takes one; or, with `model.steps`, one per step."""
    min_valid: Annotated[int, Field(ge=1)] = 1
    """Clear observations that a pixel needs."""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.method == "best" and self.min_valid > 1:
            msg = "min_valid above 1 cannot be met: best takes whole images"
            raise ValueError(msg)
        if self.min_valid > self.most:
            msg = f"images is {self.most}; expected at least {self.min_valid}, as min_valid asks for"
            raise ValueError(msg)
        return self

    @property
    def most(self) -> int:
        """Acquisitions of a chip, at most."""
        return self.images or (1 if self.method == "best" else 16)


class Imagery(_SpecBlock):
    """Which images to use: one block of a release."""

    stac: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])] = []
    """API, catalog, collection, item, ItemCollection or stac-geoparquet; one or a list."""
    major_tom: str | None = None
    """Instead of `stac`: a copy of Major TOM Core, a folder or hf://datasets/OWNER/NAME, also with @REVISION."""
    sensor: str | dict[str, Any]
    """Key of a registered sensor; or a file or mapping that defines one."""
    bands: dict[str, Annotated[str, Field(min_length=1)]] = {}
    """Asset of each band, or `asset#band` with the name or 1-based number of a band in it; default: found in items."""
    scale: Annotated[float | None, Field(gt=0)] = None
    """Physical value = digital number × scale + offset, whatever items and files state."""
    offset: float | None = None
    mask: str | None = None
    """Asset of the cloud mask, or `none`; default: found in items."""
    composite: Composite | None = None
    """Chips of several acquisitions; default: of the best one."""
    accept_values: bool = False
    """Use images whose pixel values are implausible for the sensor."""
    collections: list[str] = []
    license: str | None = None
    """Terms of the source, where items and sensor do not say."""
    area: str | Annotated[list[float], Field(min_length=4, max_length=4)] | dict[str, Any] | None = None
    """`land`, a bbox (west, south, east, north), a GeoJSON file, or GeoJSON. Default: what the items cover."""
    windows: list[Annotated[str, AfterValidator(_check_window)]] = []
    query: dict[str, Any] = {}
    exclude: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])] = []
    """Ids of known bad items; or files that list them, one per line."""

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> Self:
        if bool(self.stac) == (self.major_tom is not None):
            found = "both" if self.stac else "neither"
            msg = f"expected `stac`, or `major_tom`; found {found}"
            raise ValueError(msg)
        return self

    @property
    def sources(self) -> list[str]:
        """Where its images are looked for."""
        return [*self.stac, *([self.major_tom] if self.major_tom is not None else [])]

    @model_validator(mode="after")
    def _windows_do_not_overlap(self) -> Self:
        ordered = sorted(self.parsed_windows())
        for earlier, later in itertools.pairwise(ordered):
            if earlier.overlaps(later):
                msg = f"windows {earlier} and {later} overlap; a moment may lie in one window only"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _sensor_is_defined(self) -> Self:
        try:
            known = {band.name for band in self.instrument.bands} if isinstance(self.sensor, dict) else set()
        except SpecError as error:
            raise ValueError(str(error)) from error
        if isinstance(self.sensor, str) and self.sensor in SENSORS:
            known = {band.name for band in SENSORS[self.sensor].bands}
        if known and (unknown := sorted(self.bands.keys() - known)):
            msg = f"imagery.bands names {unknown[0]!r}; the bands of the sensor are {', '.join(sorted(known))}"
            raise ValueError(msg)
        if isinstance(self.sensor, dict) and self.sensor.get("key") in SENSORS:
            msg = f"the key {self.sensor['key']!r} belongs to a sensor of the package; choose another for your own"
            raise ValueError(msg)
        return self

    @property
    def instrument(self) -> Sensor:
        """The sensor.

        Raises:
            SpecError: it is not registered.
        """
        if isinstance(self.sensor, dict):
            return parse_sensor(self.sensor, "imagery.sensor")
        return sensor(self.sensor)

    @field_validator("area")
    @classmethod
    def _bbox_is_in_order(cls, area: Any) -> Any:
        if isinstance(area, list):
            west, south, east, north = area
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
                swapped = -180 <= south < north <= 180 and -90 <= west < east <= 90
                expected = "west, south, east, north in degrees, west > east where it crosses the antimeridian"
                fix = f"Latitude and longitude look swapped: write {[south, west, north, east]}." if swapped else ""
                raise SpecError("area", f"found {area}", expected, fix)
        return area

    def parsed_windows(self) -> list[Window]:
        """The time steps asked for; empty means each image's own date or period."""
        return [Window.parse(text) for text in self.windows]


class ChipSpec(_SpecBlock):
    """How the ground is cut."""

    layout: Literal["scene", "utm"] = "utm"
    size: Annotated[int, Field(ge=8, le=2048)] = 128
    """Pixels per side."""
    gsd: Annotated[float | None, Field(gt=0, le=10_000)] = None
    """Meters a pixel in the `utm` layout; default: the sensor's."""
    max_nodata: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_cloud: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _scene_has_no_gsd(self) -> Self:
        if self.layout == "scene" and self.gsd is not None:
            msg = "gsd belongs to the utm layout; scene keeps the pixels of the image"
            raise ValueError(msg)
        return self


class ModelSpec(_SpecBlock):
    """Which encoder, and how it is run."""

    encoder: str = "random-features"
    weights: str | None = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """What the weights' file must hash to."""
    heads: Annotated[int | None, Field(ge=1)] = None
    """Attention heads of a Clay checkpoint of unpublished width, which does not tell them."""
    steps: Annotated[int | None, Field(ge=2, le=64)] = None
    """Time steps that the encoder takes: parts of each window, or `imagery.composite.images` in the order of time."""
    metadata: Literal["tutorial", "zeros"] = "tutorial"
    precision: Literal["float32", "bfloat16", "auto"] = "auto"


class Patches(_SpecBlock):
    """Feature maps of single layers, and how they are stored."""

    layers: Annotated[list[Annotated[int, Field(ge=1)]] | None, Field(min_length=1)] = None
    """Default: the last one."""
    format: Literal["parquet", "zarr"] = "parquet"


class Arrays(_SpecBlock):
    """Embeddings as Zarr arrays."""

    dtype: Literal["int8", "float16"] = "int8"


class Basemap(_SpecBlock):
    """Raster tiles of another server that the explorer offers below the data. Nothing is loaded until chosen."""

    tiles: Annotated[str, Field(pattern=r"^https://[^\s{}]+/\{z\}/\{x\}/\{y\}[^\s{}]*$")]
    """Address of a tile in web mercator: `https://…/{z}/{x}/{y}.png`."""
    attribution: str
    """The attribution."""


class Outputs(_SpecBlock):
    """What is stored of each chip."""

    dtype: Literal["float32", "float16", "int8"] = "float32"
    loss: bool = False
    patches: bool | Patches = False
    arrays: bool | Arrays = False
    """Chips, and patches of the format `zarr`, as Zarr arrays beside the tables."""
    thumbnails: Annotated[int, Field(ge=0, le=512)] = 0
    """Pixels per side; 0 is none."""
    major_tom_cell: bool = False
    """A column `grid_cell`: the cell of the Major TOM grid that holds the center of the chip."""
    aggregate: list[Annotated[int, Field(ge=2, le=64)]] = []
    explorer: bool = True
    """Whether the release has a page to look at it, `explore/`."""
    basemap: Basemap | None = None
    codes: bool = True
    """Compact codes for similarity search."""
    square_km: Literal[100, 200, 400] = 100
    """Side of the ground of one file."""

    @property
    def across(self) -> int:
        """100 km squares along a side of the ground of one file."""
        return self.square_km // 100

    @property
    def patch_layers(self) -> list[int] | None:
        """Layers whose patches are asked for by number."""
        return self.patches.layers if isinstance(self.patches, Patches) else None

    @property
    def patch_format(self) -> Literal["parquet", "zarr"] | None:
        """How patches are stored; None: there are none."""
        if isinstance(self.patches, Patches):
            return self.patches.format
        return "parquet" if self.patches else None

    @property
    def array_dtype(self) -> Literal["int8", "float16"] | None:
        """Type of the arrays; None: there are none."""
        if isinstance(self.arrays, Arrays):
            return self.arrays.dtype
        return "int8" if self.arrays else None

    @model_validator(mode="after")
    def _zarr_patches_have_arrays(self) -> Self:
        if self.patch_format == "zarr" and not self.arrays:
            msg = "patches.format is zarr, which needs `arrays: true`"
            raise ValueError(msg)
        return self


class CostSpec(_SpecBlock):
    """What a run costs and may cost."""

    usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    chips_per_hour: Annotated[float, Field(gt=0)] | None = None
    budget_usd: Annotated[float, Field(gt=0)] | None = None


class Running(_SpecBlock):
    """On what a run runs. It decides no byte of a release, and is not published."""

    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int | None, Field(ge=1)] = None
    """Of Ray; default: as many as the cluster has room for."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    gpus_per_worker: Annotated[float | None, Field(ge=0)] = None
    """A share of a GPU, such as 0.5, or whole ones; default: one where the cluster has any."""
    stall_seconds: Annotated[float, Field(gt=0)] = 60
    """Without progress, after which a request to a server of imagery or items is given up."""
    item_seconds: Annotated[float, Field(gt=0)] = 600
    """In all that the requests for the files of one item may take."""
    stop_after_findings: Annotated[int, Field(ge=0)] = 1
    """Embeddings files with errors, found as they are made, after which the run stops; 0: never."""


class Publish(_SpecBlock):
    """Where the release will be found."""

    base_url: Annotated[str | None, Field(pattern=r"^https?://[^\s?#]+$")] = None
    source_coop: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = None
    hugging_face: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = None


class Spec(_SpecBlock):
    """A release: what to make, of what, with which model, and where it goes."""

    name: Annotated[
        str,
        _check(_NAME, "1 to 96 of a-z, 0-9, dot, dash and underscore, starting and ending with a letter or digit"),
    ]
    """The collection's id."""
    version: Annotated[str, _check(SEMVER, "a semantic version such as 1.0.0")] = "1.0.0"
    previous: str | None = None
    """Directory or address of the version before."""
    title: Annotated[str | None, Field(max_length=200)] = None
    description: Annotated[str | None, Field(max_length=100_000)] = None
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{2,64}$"), AfterValidator(_check_license)] = "CC-BY-4.0"
    """SPDX identifier, or `LicenseRef-NAME` for own terms."""
    released: date | None = None
    """Day in all documents; default: the day of the first run, or SOURCE_DATE_EPOCH."""
    notes: Annotated[str | None, Field(max_length=100_000)] = None
    """The maintainer's words for this version's entry in CHANGELOG.md."""
    doi: Annotated[str | None, Field(pattern=r"^10\.\d{4,9}/\S+$")] = None
    creators: list[Creator] = []
    keywords: Annotated[list[str], Field(max_length=20)] = []
    imagery: Annotated[
        list[Imagery], Field(min_length=1), BeforeValidator(_as_list, json_schema_input_type=Imagery | list[Imagery])
    ]
    chips: ChipSpec = ChipSpec()
    model: ModelSpec = ModelSpec()
    outputs: Outputs = Outputs()
    cost: CostSpec = CostSpec()
    run: Running = Running()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _one_sensor(self) -> Self:
        first = self.imagery[0]
        for block in self.imagery[1:]:
            if block.sensor != first.sensor:
                names = ", ".join(sorted({_sensor_key(first.sensor), _sensor_key(block.sensor)}))
                msg = f"imagery blocks name the sensors {names}; a release has one"
                raise ValueError(msg)
            if block.composite != first.composite:
                msg = "imagery blocks ask for different composites; a release has one"
                raise ValueError(msg)
            if block.mask != first.mask:
                msg = f"imagery blocks name the masks {first.mask!r} and {block.mask!r}; a release has one"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _several_images_fit(self) -> Self:
        composite, steps = self.imagery[0].composite, self.model.steps
        asked = "imagery.composite" if composite is not None else "model.steps"
        if composite is None and steps is None:
            return self
        if self.chips.layout != "utm":
            msg = f"{asked} needs chips.layout utm; scene cuts every image on its own"
            raise ValueError(msg)
        if self.combines and not all(block.windows for block in self.imagery):
            msg = f"{asked} needs imagery.windows; without them the window of an image is its own day"
            raise ValueError(msg)
        if steps is not None and self.model.encoder != "exported":
            msg = f"model.steps needs encoder exported; {self.model.encoder} takes one image"
            raise ValueError(msg)
        if composite is not None and composite.method == "best" and composite.images not in {None, steps or 1}:
            few = f"{steps}, one per step" if steps else "1; use median or mean, or model.steps"
            msg = f"imagery.composite.images is {composite.images} with method best; expected {few}"
            raise ValueError(msg)
        held = ((composite.most if composite else 1) + (steps or 1)) * len(self.instrument.bands) * self.chips.size**2
        if held * 4 > _CHIP_BYTES:
            msg = f"one chip of {self.chips.size} px would hold {held * 4 / 1e9:.1f} GB of pixels; expected at most 1"
            raise ValueError(msg)
        return self

    @property
    def combines(self) -> bool:
        """Whether a chip is made of several acquisitions."""
        composite = self.imagery[0].composite
        return self.model.steps is not None or (composite is not None and composite.method != "best")

    @property
    def images_in_order(self) -> bool:
        """Whether steps of time are single images in their order, rather than parts of the window."""
        composite = self.imagery[0].composite
        return composite is not None and composite.method == "best" and composite.images is not None

    @model_validator(mode="after")
    def _arrays_have_a_grid(self) -> Self:
        if not self.outputs.arrays:
            return self
        if self.chips.layout != "utm":
            msg = f"outputs.arrays needs chips.layout utm, whose cells are pixels of an array; not {self.chips.layout}"
            raise ValueError(msg)
        if not all(block.windows for block in self.imagery):
            msg = "outputs.arrays needs imagery.windows, the time steps of the arrays; found a block without windows"
            raise ValueError(msg)
        return self

    @property
    def sensor(self) -> str:
        """Key of the sensor."""
        return _sensor_key(self.imagery[0].sensor)

    @property
    def instrument(self) -> Sensor:
        """The sensor.

        Raises:
            SpecError: it is not registered.
        """
        return self.imagery[0].instrument

    def published(self) -> dict[str, Any]:
        """The resolved spec as it is published: no path of this machine, no credentials."""
        document = self.model_dump(mode="json", exclude_none=True, exclude={"run"})
        if self.released is not None:
            document["released"] = self.released
        if "max_cloud" not in self.chips.model_fields_set:
            del document["chips"]["max_cloud"]  # stated, it would ask for masks that the images need not have
        for block in document["imagery"]:
            if block["stac"]:
                block["stac"] = [_public(source) for source in block["stac"]]
            else:
                del block["stac"]
                block["major_tom"] = _public(block["major_tom"])
            block["exclude"] = [_public(entry) for entry in block["exclude"]]
        for holder, key in ((document, "previous"), (document["model"], "weights")):
            if key in holder:
                holder[key] = _public(holder[key])
        return document


def _sensor_key(stated: str | dict[str, Any]) -> str:
    return stated if isinstance(stated, str) else str(stated.get("key"))


def _public(source: str) -> str:
    """An address without credentials or signature; of a local path, the name alone."""
    if not is_url(source):
        return Path(source.removeprefix("file://")).name if "/" in source or "\\" in source else source
    return without_secrets(source)
