"""Means and standard deviations of a sensor's bands, from sample imagery: a few windows of each image at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from clay_publish.errors import ImageryError, SourceError
from clay_publish.geo.raster_grid import RasterGrid
from clay_publish.producer.imagery.chips import to_input, under_cloud
from clay_publish.producer.imagery.pixel_evidence import examine
from clay_publish.producer.imagery.raster import open_bands
from clay_publish.producer.imagery.remote import known_masks
from clay_publish.producer.imagery.strips import Strip, check_axes, fine_grid, read_window
from clay_publish.producer.sources.item import SourceItem
from clay_publish.progress import Progress, Report, silent
from clay_publish.spec.sensors import Sensor, StatisticsSource

WINDOW = 512
"""Pixels per side of what is read in one go."""
_DIGITS = 6


@dataclass
class Moments:
    """Count, mean and sum of squared differences of the values seen so far (Chan, Golub and LeVeque 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Add values, of which none is kept."""
        if not values.size:
            return
        exact = values.astype(np.float64)
        count, mean = int(exact.size), float(exact.mean())
        squares = float(np.square(exact - mean).sum())
        total, apart = self.count + count, mean - self.mean
        self.squares += squares + apart * apart * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass
class Measured:
    """What sample imagery says about the bands of a sensor."""

    bands: dict[str, Moments]
    images: list[str] = field(default_factory=list)
    """Ids of the images that gave pixels."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Image → why none of its pixels count."""
    unchecked: int = 0
    """Images that were not checked for cloud, of a sensor that has masks."""
    cloudy: int = 0
    """Pixels left out as cloud or cloud shadow."""

    @property
    def pixels(self) -> int:
        """Pixels that count, the same of every band."""
        return min(moments.count for moments in self.bands.values())

    def sensor(self, base: Sensor, key: str, title: str | None, source: str) -> Sensor:
        """The definition of a sensor with these means and standard deviations.

        Raises:
            SourceError: no pixel was valid, or a band has one value everywhere.
        """
        for band in base.bands:
            found = self.bands[band.name]
            if not found.count or not found.std:
                what = "has one value everywhere" if found.count else "has no valid pixel in the sample"
                why = next(iter(self.left_out.values()), "Name more or other images.")
                raise SourceError(f"band {band.name}", what, "pixels of different values", why)
        bands = [
            band.model_copy(update={"mean": _rounded(found.mean), "std": _rounded(found.std)})
            for band in base.bands
            for found in [self.bands[band.name]]
        ]
        update = {"key": key, "title": title or base.title, "bands": tuple(bands)}
        return base.model_copy(update={**update, "statistics": StatisticsSource(source=source, computed=True)})


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def measure(items: Sequence[SourceItem], sensor: Sensor, *, windows: int, report: Report = silent) -> Measured:
    """Mean and standard deviation of each band over windows of each image, in the sensor's digital numbers.

    Pixels count where every band has data and the cloud mask, where there is one, says neither cloud nor shadow.

    Args:
        items: the images.
        sensor: whose bands to measure; its own means and standard deviations do not matter.
        windows: how many windows of 512 × 512 pixels to read of each image, spread evenly.
        report: called with the progress.
    """
    made = Measured({band.name: Moments() for band in sensor.bands})
    for number, item in enumerate(items):
        report(Progress("measure", number, len(items), item.id))
        try:
            _measure(item, sensor, windows, made)
        except (ImageryError, SourceError) as error:
            made.left_out[item.id] = str(error)
    report(Progress("measure", len(items), len(items), ""))
    return made


def _measure(item: SourceItem, sensor: Sensor, windows: int, made: Measured) -> None:
    """Add the pixels of an image; all of them or none."""
    tagged = examine(item, sensor, accept=True)  # the file's own scale and offset
    if tagged.evidence.status == "implausible":
        raise SourceError(f"item {item.id}", tagged.evidence.sentences[0])
    item, masks = tagged.item, item.mask.files if item.mask else ()
    before = {name: Moments(**vars(moments)) for name, moments in made.bands.items()}
    cloudy, seen = 0, 0
    try:
        files, external = [*item.bands, *masks], known_masks(item, sensor.nodata)
        with open_bands(files, sensor.nodata, external, zero_is_nodata=sensor.zero_is_nodata) as opened:
            bands, mask = opened[: len(item.bands)], opened[len(item.bands) :]
            fine = fine_grid(bands, item.grid)
            for band in mask:
                check_axes(band, fine.crs)
            for top, left, rows, columns in sample_windows(fine, windows):
                strip = read_window(opened, fine, top=top, left=left, rows=rows, columns=columns)
                good, cloud = _usable(strip, item, len(bands))
                cloudy += int(np.count_nonzero(cloud))
                seen += int(np.count_nonzero(good))
                for file, values in zip(item.bands, strip.values, strict=False):
                    linear = item.scaling(file.band).to_input(sensor)
                    made.bands[file.band].add(to_input(values[good], linear, decibels=sensor.decibels))
    except ImageryError:
        made.bands = before
        raise
    if not seen:
        made.left_out[item.id] = f"item {item.id}: none of its sampled pixels is valid and free of cloud"
        return
    made.images.append(item.id)
    made.cloudy += cloudy
    made.unchecked += bool(sensor.masks) and not masks


def _usable(strip: Strip, item: SourceItem, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Where all bands have data and no cloud, and where valid pixels are under cloud."""
    valid = np.logical_and.reduce(strip.valid[:count])
    if item.mask is None:
        return valid, np.zeros_like(valid)
    layers = list(zip(strip.values[count:], strip.valid[count:], strict=True))
    observed, cloud = under_cloud(layers, item.mask.values)
    return valid & observed & ~cloud, valid & cloud


def sample_windows(grid: RasterGrid, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, rows and columns of windows spread evenly over an image, none of which overlap."""
    rows, columns = min(WINDOW, grid.height), min(WINDOW, grid.width)
    down, right = grid.height // rows, grid.width // columns
    if down * right > count:
        side = math.sqrt(count / (down * right))
        down, right = max(1, min(down, round(down * side))), max(1, min(right, round(right * side)))
    for row in range(down):
        for column in range(right):
            top = round((row + 0.5) * grid.height / down - rows / 2)
            left = round((column + 0.5) * grid.width / right - columns / 2)
            yield min(max(top, 0), grid.height - rows), min(max(left, 0), grid.width - columns), rows, columns
