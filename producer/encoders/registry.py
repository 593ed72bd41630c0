"""Which encoders there are. To add one, see docs/encoders.md."""

import difflib
import importlib
import importlib.util

from clay_publish.errors import MissingExtraError, SpecError
from clay_publish.producer.encoders.base import Encoder
from clay_publish.producer.sensors import Sensor
from clay_publish.spec import Spec

ENCODERS = {
    "random-features": "random_features",
    "clay": "clay",
    "exported": "exported",
}
"""Key in the spec → module of this package with a function `load(spec, sensor) -> Encoder`."""


def load_encoder(spec: Spec, sensor: Sensor) -> Encoder:
    """The encoder that a spec names, ready to run on this sensor.

    Raises:
        SpecError: there is no such encoder; the nearest is named.
        MissingExtraError: torch is not installed.
        EncoderError: the model cannot be loaded, or cannot take this sensor, chip size or output.
    """
    key = spec.model.encoder
    if key not in ENCODERS:
        near = difflib.get_close_matches(key, ENCODERS, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise SpecError("model.encoder", f"{key!r} is unknown", fix=f"{hint}Known: {', '.join(ENCODERS)}.")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(
            f"encoder {key}", "needs torch, which is not installed", fix="pip install 'clay-publish[produce]'"
        )
    module = importlib.import_module(f"clay_publish.producer.encoders.{ENCODERS[key]}")
    encoder: Encoder = module.load(spec, sensor)
    return encoder
