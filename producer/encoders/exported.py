"""Any encoder exported to a file: a new model needs no code.

Beside `model.onnx` (or `.pt2`) lies `model.yaml`:

```yaml
name: My encoder
link: https://example.org/my-encoder
dimensions: 384
size: 128                              # pixels per side; left out where it takes any
bands:                                 # in this order; mean and std default to the sensor's
  - {name: red, mean: 123.7, std: 58.4}
  - {name: green, mean: 116.3, std: 57.1}
  - {name: blue, mean: 103.5, std: 57.4}
batch: 1                               # chips at a time
steps: 12                              # of time; left out where it takes one image
```

The file takes one tensor [batch, bands, size, size] of float32 and gives [batch, dimensions] first. With steps it takes
three: pixels [batch, steps, bands, size, size] of float32; dates [batch, steps, 3] of int64, year, month and day; and
which steps are there, [batch, steps] of bool.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.export.passes import move_to_device_pass

from clay_publish.errors import EncoderError, MissingExtraError, SpecError, first_fault
from clay_publish.producer.encoders.base import ChipBatch, Encoded, Floats
from clay_publish.producer.encoders.weights import Precision, Weights, find_weights, local_file, resolve_device
from clay_publish.spec.document import read_yaml
from clay_publish.spec.models import Spec
from clay_publish.spec.sensors import BandStatistics, Sensor

Run = Callable[..., Floats]
"""The inputs, [B, C, S, S] first → the first output."""


def open_exported(weights: Weights, *, pinned: bool) -> tuple[Run, str]:
    """A function that runs the model, and the device it runs on.

    `pinned` says that the spec names the file's hash: without it a `.pt2` is not opened, as opening it runs what it
    says.

    Raises:
        EncoderError: neither `.onnx` nor `.pt2`, damaged, or not whole in this one file.
        MissingExtraError: onnxruntime is needed and not installed.
    """
    if weights.path.suffix == ".onnx":
        return _open_onnx(weights)
    if weights.path.suffix != ".pt2":
        raise EncoderError(str(weights.path), f"ends in {weights.path.suffix or 'nothing'}", ".onnx or .pt2")
    if not pinned:
        raise EncoderError(
            str(weights.path),
            "is a program, not just numbers, and the spec does not pin it",
            f"model.sha256: {weights.sha256}",
            "Add it if you trust the file; or use ONNX.",
        )
    return _open_pt2(weights)


def _open_onnx(weights: Weights) -> tuple[Run, str]:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            str(weights.path), "needs onnxruntime, which is not installed", fix="pip install 'clay-publish[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several chips are embedded at a time, each by one thread
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    # Weights in other files are not covered by the hash: let them be looked for where there are none.
    with tempfile.TemporaryDirectory() as nothing:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nothing)
        try:
            session = onnxruntime.InferenceSession(weights.path.read_bytes(), options, providers=providers)
        except Exception as error:  # onnxruntime's errors share no other root
            reason = str(error).strip().partition("\n")[0]
            raise EncoderError(
                str(weights.path), f"cannot be opened ({reason})", "a model whose weights lie in this one file"
            ) from error
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: npt.NDArray[Any]) -> Floats:
        if len(names) != len(inputs):
            msg = f"the file takes {len(names)} inputs, {', '.join(names)}; it would get {len(inputs)}"
            raise ValueError(msg)
        given = dict(zip(names, inputs, strict=True))
        vectors: Floats = np.asarray(session.run(None, given)[0], dtype=np.float32)
        return vectors

    return run, "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"


def _open_pt2(weights: Weights) -> tuple[Run, str]:
    device = resolve_device()
    try:
        program = torch.export.load(weights.path)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:  # a damaged file makes torch stumble over anything
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(str(weights.path), f"cannot be opened ({reason})", "a file of torch.export.save") from error

    def run(*inputs: npt.NDArray[Any]) -> Floats:
        with torch.inference_mode():
            given = module(*(torch.from_numpy(each).to(device) for each in inputs))
        first = given if isinstance(given, torch.Tensor) else next(iter(given))
        vectors: Floats = first.float().cpu().numpy()
        return vectors

    return run, str(device)


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
    steps: Annotated[int | None, Field(ge=2)] = None


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
    if settings.steps != spec.model.steps:
        found = "is missing" if spec.model.steps is None else f"is {spec.model.steps}"
        expected = "no steps" if settings.steps is None else str(settings.steps)
        raise EncoderError("model.steps", found, f"{expected}, as the YAML of {settings.name} says")
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
        """How many chips go through at a time, and how many steps each has."""
        steps = {} if self.settings.steps is None else {"steps": self.settings.steps}
        return {"batch": self.settings.batch, **steps}

    def encode(self, chips: ChipBatch) -> Encoded:
        """Embed a batch. The last chips are filled up with empty ones, so that the model always sees one shape."""
        size = self.settings.batch
        vectors = []
        for start in range(0, len(chips.pixels), size):
            mine = slice(start, start + size)
            inputs: list[npt.NDArray[Any]] = [chips.pixels[mine]]
            if chips.steps is not None:
                inputs += [chips.steps.dates[mine], chips.steps.there[mine]]
            vectors.append(self.run(*(_filled(each, size) for each in inputs))[: len(inputs[0])])
        return Encoded(np.concatenate(vectors))

    def try_once(self, side: int, where: str) -> None:
        """Run on an empty batch.

        Raises:
            EncoderError: the model refuses these chips, or gives anything but what its YAML says.
        """
        expected = (self.settings.batch, self.settings.dimensions)
        count, steps = self.settings.batch, self.settings.steps
        pixels = np.zeros((count, *((steps,) if steps else ()), len(self.bands), side, side), np.float32)
        inputs: list[npt.NDArray[Any]] = [pixels]
        if steps:
            inputs += [np.full((count, steps, 3), (2000, 1, 1), np.int64), np.zeros((count, steps), bool)]
        try:
            shape = self.run(*inputs).shape
        except Exception as error:  # whatever the runtime of the file raises
            reason = str(error).strip().partition("\n")[0]
            raise EncoderError(where, f"does not run on chips of shape {pixels.shape} ({reason})") from error
        if shape != expected:
            raise EncoderError(where, f"gives vectors of shape {shape}", f"{expected}, as its YAML says")


def _filled(some: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """A batch of this size: filled up with empty chips, of the last date."""
    last = some[-1:] if some.dtype == np.int64 else np.zeros_like(some[-1:])
    return np.ascontiguousarray(np.concatenate([some, *[last] * (size - len(some))]))


def read_settings(weights: str) -> ExportedModel:
    """Read the YAML beside an exported model.

    Raises:
        EncoderError: missing, no YAML, or a key that is missing, unknown or wrong.
    """
    address = f"{weights.rpartition('.')[0]}.yaml"
    try:
        return ExportedModel.model_validate(read_yaml(local_file(address)).values)
    except SpecError as error:
        raise EncoderError(
            address, error.found, "bands, size and dimensions of the model", "See docs/encoders.md."
        ) from error
    except ValidationError as error:
        raise EncoderError(address, f"is wrong ({first_fault(error)})", fix="See docs/encoders.md.") from error


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
