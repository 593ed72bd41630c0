"""Any encoder exported to a file: a new model needs no code.

Beside `model.onnx` (or `.pt2`) lies `model.yaml`:

```yaml
name: My encoder
link: https://example.org/my-encoder
dimensions: 384
size: 128                              # pixels a side; left out where it takes any
bands:                                 # in this order; mean and std default to the sensor's
  - {name: red, mean: 123.7, std: 58.4}
  - {name: green, mean: 116.3, std: 57.1}
  - {name: blue, mean: 103.5, std: 57.4}
batch: 1                               # chips at a time
```

The file takes one tensor [batch, bands, size, size] of float32 and gives [batch, dimensions] first.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clay_publish.errors import EncoderError, SpecError
from clay_publish.fingerprint import BandStatistics
from clay_publish.producer.encoders.base import Chips, Encoded
from clay_publish.producer.encoders.device import Precision
from clay_publish.producer.encoders.exported_file import Run, open_exported
from clay_publish.producer.encoders.weights import find_weights, local_file
from clay_publish.producer.sensors import Sensor
from clay_publish.spec import Spec
from clay_publish.spec_file import read_yaml


class ExportedBand(BaseModel):
    """One band the model takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Common name, as the sensor has it."""
    mean: float | None = None
    std: Annotated[float | None, Field(gt=0)] = None


class ExportedModel(BaseModel):
    """What the YAML beside an exported model says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    link: str
    dimensions: Annotated[int, Field(ge=1)]
    bands: Annotated[list[ExportedBand], Field(min_length=1)]
    size: Annotated[int | None, Field(ge=1)] = None
    batch: Annotated[int, Field(ge=1)] = 1


def load(spec: Spec, sensor: Sensor) -> "Exported":
    """An exported model and what its YAML says, tried once on an empty batch.

    Raises:
        EncoderError: file or YAML cannot be used, or not for this sensor, chip size or output.
        MissingExtraError: the file is ONNX, and onnxruntime is not installed.
    """
    asked = {
        "model.precision: bfloat16": spec.model.precision == "bfloat16",
        "outputs.loss": spec.outputs.loss,
        "outputs.patches": spec.outputs.patches is not False,
    }
    for key, present in asked.items():
        if present:
            raise EncoderError(key, "is not something that an exported encoder has", fix="Leave it out.")
    weights = find_weights(spec.model)
    settings = read_settings(str(spec.model.weights))
    if settings.size not in {None, spec.chips.size}:
        raise EncoderError("chips.size", f"is {spec.chips.size}", f"{settings.size}, which {settings.name} takes")
    bands = _bands(settings, sensor)
    run, device = open_exported(weights, pinned=spec.model.sha256 is not None)
    encoder = Exported(settings, bands, run, weights.sha256, device)
    encoder.try_once(spec.chips.size, str(weights.path))
    return encoder


@dataclass
class Exported:
    """An exported model, run in batches of one fixed size."""

    settings: ExportedModel
    bands: tuple[BandStatistics, ...]
    run: Run
    weights_sha256: str | None
    device: str

    key: str = "exported"
    version: str = "1"
    padding: str = "none"
    metadata: Literal["tutorial", "zeros", "none"] = "none"
    precision: Precision = "float32"
    patch_layers: tuple[int, ...] = ()
    patches: int = 0

    @property
    def model_name(self) -> str:
        """As the YAML says."""
        return self.settings.name

    @property
    def model_link(self) -> str:
        """As the YAML says."""
        return self.settings.link

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.settings.dimensions

    @property
    def parameters(self) -> dict[str, Any]:
        """How many chips go through at a time."""
        return {"batch": self.settings.batch}

    def encode(self, chips: Chips) -> Encoded:
        """Embed a batch. The last chips are filled up with empty ones, so that the model always sees one shape."""
        size = self.settings.batch
        vectors = []
        for start in range(0, len(chips.pixels), size):
            some = chips.pixels[start : start + size]
            whole = np.concatenate([some, np.zeros((size - len(some), *some.shape[1:]), np.float32)])
            vectors.append(self.run(np.ascontiguousarray(whole))[: len(some)])
        return Encoded(np.concatenate(vectors))

    def try_once(self, side: int, where: str) -> None:
        """Run on an empty batch.

        Raises:
            EncoderError: the model refuses these chips, or gives anything but what its YAML says.
        """
        expected = (self.settings.batch, self.settings.dimensions)
        pixels = np.zeros((self.settings.batch, len(self.bands), side, side), np.float32)
        try:
            shape = self.run(pixels).shape
        except Exception as error:  # whatever the runtime of the file raises
            reason = str(error).strip().partition("\n")[0]
            raise EncoderError(where, f"does not run on chips of shape {pixels.shape} ({reason})") from error
        if shape != expected:
            raise EncoderError(where, f"gives vectors of shape {shape}", f"{expected}, as its YAML says")


def read_settings(weights: str) -> ExportedModel:
    """Read the YAML beside an exported model.

    Raises:
        EncoderError: missing, no YAML, or a key that is missing, unknown or wrong.
    """
    address = f"{weights.rpartition('.')[0]}.yaml"
    try:
        return ExportedModel.model_validate(read_yaml(local_file(address)))
    except SpecError as error:
        raise EncoderError(
            address, error.found, "bands, size and dimensions of the model", "See docs/encoders.md."
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise EncoderError(f"{address}: {key}", f"is wrong ({first['msg']})", fix="See docs/encoders.md.") from error


def _bands(settings: ExportedModel, sensor: Sensor) -> tuple[BandStatistics, ...]:
    known = {band.name: band.statistics for band in sensor.bands}
    bands = []
    for band in settings.bands:
        if band.name not in known:
            raise EncoderError(
                f"encoder {settings.name}",
                f"takes band {band.name!r}",
                f"one of {', '.join(known)}, which {sensor.key} has",
            )
        given = {key: value for key, value in (("mean", band.mean), ("std", band.std)) if value is not None}
        bands.append(known[band.name].model_copy(update=given))
    return tuple(bands)
