"""All that decides a vector. Two fingerprints never mix in one version."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import shown
from clay_publish.spec.models import Composite
from clay_publish.spec.sensors import BandStatistics, Sensor


class Fingerprint(BaseModel):
    """Everything that decides the value of a vector, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    """Key of the encoder: `random-features`, `clay`, `exported`."""
    encoder_version: str
    """Changes when the code of the encoder changes its vectors."""
    model_name: str
    model_link: str
    """Where a person reads about the model."""
    weights_sha256: str | None
    """Of the weights' file; of the generated weights where there is no file."""
    dimensions: int
    parameters: dict[str, Any]
    """What this encoder alone has: seed, size, mask of the loss."""
    sensor: str
    bands: tuple[BandStatistics, ...]
    layout: Literal["scene", "utm"]
    size: int
    """Chip side in pixels."""
    gsd: float | None
    """Meters a pixel in the `utm` layout; None where chips keep the image's own pixels."""
    scale: str
    """Rule by which digital numbers become those that `bands` are for; `sources.parquet` states what it gave."""
    mask: str
    """Rule by which pixels are cloud: asset, format, values; `none` where no mask is read."""
    composite: str
    """Rule by which the images of a chip are chosen, or combined."""
    resampling: str
    """How bands are brought to the chip's grid."""
    nodata: str
    """What the encoder sees where there is no data."""
    padding: str
    """What is added around a chip whose size the model cannot take."""
    metadata: Literal["tutorial", "zeros", "none"]
    """How time and place are passed to the model."""
    precision: Literal["float32", "bfloat16"]
    dtype: Literal["float32", "float16", "int8"]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()

    @property
    def combines(self) -> bool:
        """Whether chips are made of several acquisitions."""
        return self.composite != composite_rule(self.layout)

    def differences(self, other: "Fingerprint") -> list[str]:
        """`field: mine → other's` for each field that differs."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{key}: {shown(mine[key])} → {shown(theirs[key])}" for key in mine if mine[key] != theirs[key]]


SCALE_RULE = "scale-2: (value × scale + offset − sensor.offset) / sensor.scale, by band and item"
"""Changes when the same statements of an item come to mean another scale or offset."""


def mask_rule(sensor: Sensor, asked: str | None) -> str:
    """Identifier of the rule for clouds, for imagery of a sensor whose spec asks for this mask."""
    if asked == "none" or not sensor.masks:
        return "none"
    masks = [
        f"{'|'.join(mask.assets)} {mask.format} {_listed(mask.cloudy)} nodata {_listed(mask.nodata)}"
        f" bands {_listed(mask.bands)}" + (f" empty {mask.empty[0]}/{mask.empty[1]}" if mask.empty else "")
        for mask in sensor.masks
    ]
    return f"mask-1: {'found' if asked is None else asked} of {'; '.join(masks)}"


def composite_rule(layout: str, composite: Composite | None = None, steps: int | None = None) -> str:
    """Identifier of the rule by which the images of a chip are chosen, or combined."""
    if layout == "scene":
        return "none"
    if composite is None or composite.method == "best":
        rule = "best-2: one acquisition per cell and window: least cloud, nearest to the window's middle, then id"
        if steps is None:
            return rule
        if composite is not None and composite.images is not None:
            return f"{rule}; the {steps} best in the order of their time"
    else:
        rule = (
            f"{composite.method}-2: at most {composite.most} acquisitions per cell and window: least cloud and nodata,"
            f" nearest to the window's middle, then id; each under its own mask; pixels of {composite.min_valid} or"
            f" more clear observations; the window's middle as date"
        )
    return rule if steps is None else f"{rule}; in each of {steps} parts of the window"


def _listed(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values)) or "none"


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
