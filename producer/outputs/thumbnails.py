"""Small pictures of chips, stretched the same way for every chip of a release."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from clay_publish.errors import SpecError
from clay_publish.spec.sensors import BandStatistics, Sensor

_QUALITY = 85
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Thumbnails:
    """How normalized pixels become a picture: picture = pixels × gain + bias, 0 black and 1 white."""

    size: int
    """Pixels per side."""
    places: tuple[int, ...]
    """Which of the encoder's bands are red, green and blue."""
    gain: tuple[float, ...]
    bias: tuple[float, ...]

    @classmethod
    def of(cls, size: int, sensor: Sensor, bands: tuple[BandStatistics, ...]) -> "Thumbnails":
        """The stretch of a sensor: from one standard deviation below the mean to one above.

        The three bands of optical imagery share the widest of their ranges, which starts at 0 at the lowest, so that
        colors are true to each other; radar's bands, in decibels, are stretched each by itself to false colors.

        Raises:
            SpecError: the encoder does not take the bands that the picture needs.
        """
        names = [band.name for band in bands]
        missing = [name for name in sensor.rgb if name not in names]
        if missing:
            raise SpecError(
                "outputs.thumbnails",
                f"need the bands {', '.join(sensor.rgb)}, and the encoder does not take {missing[0]}",
                fix="Leave them out, or use an encoder that takes these bands.",
            )
        wanted = [sensor.band(name) for name in sensor.rgb]
        ranges = [(band.mean - band.std, band.mean + band.std) for band in wanted]
        if not sensor.decibels:
            ranges = [(max(0.0, min(low for low, _ in ranges)), max(high for _, high in ranges))] * 3
        places = [names.index(name) for name in sensor.rgb]
        gain = [bands[p].std / (high - low) for p, (low, high) in zip(places, ranges, strict=True)]
        bias = [(bands[p].mean - low) / (high - low) for p, (low, high) in zip(places, ranges, strict=True)]
        return cls(size, tuple(places), tuple(gain), tuple(bias))

    def draw(self, pixels: Floats) -> list[bytes]:
        """WebP pictures of chips [n, bands, side, side], normalized; black where there is no data."""
        return [self._draw(chip) for chip in pixels]

    def _draw(self, chip: Floats) -> bytes:
        colors = chip[list(self.places)].transpose(1, 2, 0)
        shown = np.clip(colors * np.array(self.gain, np.float32) + np.array(self.bias, np.float32), 0, 1)
        # What has no data is exactly 0 in every band.
        shown[~chip.any(axis=0)] = 0
        picture = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
        file = io.BytesIO()
        picture.resize((self.size, self.size), Image.Resampling.BOX).save(file, "WEBP", quality=_QUALITY, method=4)
        return file.getvalue()
