"""The sensor registry: what each instrument's bands mean, and how a model wants them.

Band statistics and wavelengths are those Clay v1.5 was trained with
(https://github.com/Clay-foundation/model, `configs/metadata.yaml`).

To add a sensor, add one `Sensor(...)` below: bands in the order the model takes them, each with the names that STAC
assets or their bands give it, and the terms of use of the imagery.
"""

import difflib
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from clay_publish.errors import SpecError


class BandStatistics(BaseModel):
    """How one band is normalised: (value − mean) / std."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Common name of the band."""
    mean: float
    std: float
    wavelength: float
    """Centre, in micrometres."""


COPERNICUS = "Contains modified Copernicus Sentinel data."


@dataclass(frozen=True)
class Band:
    """One band of a sensor."""

    name: str
    """Common name."""
    mean: float
    std: float
    wavelength: float
    """Micrometres."""
    aliases: tuple[str, ...] = ()
    """Other names of its asset, or of the band inside an asset, in catalogs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, the common one first."""
        return (self.name, *self.aliases)

    @property
    def statistics(self) -> BandStatistics:
        """What decides its normalisation."""
        return BandStatistics(name=self.name, mean=self.mean, std=self.std, wavelength=self.wavelength)


@dataclass(frozen=True)
class CloudMask:
    """Where an item says which pixels are cloud."""

    assets: tuple[str, ...]
    """Keys of the asset, in order of preference."""
    cloudy: frozenset[int]
    """Values that mean cloud or cloud shadow; for `bits`, the bits of which any is set."""
    bits: bool = False
    nodata: frozenset[int] = frozenset()
    """Values that mean no data."""


@dataclass(frozen=True)
class Sensor:
    """One kind of imagery."""

    key: str
    title: str
    gsd: float
    """Nominal ground size of a pixel, in metres."""
    bands: tuple[Band, ...]
    rgb: tuple[str, str, str]
    """Bands for red, green and blue; false colour where there are none."""
    license: str | None
    """SPDX identifier, `proprietary` or `public-domain`; None where it depends on the item."""
    attribution: str
    nodata: float | None = None
    """Raw value without data, where neither file nor item says."""
    masks: tuple[CloudMask, ...] = ()
    """Ways in which its items may mark cloud; the first whose asset is there is used."""
    images: tuple[str, ...] = ()
    """Keys of an asset that holds all bands in this order, where the item does not describe its bands."""
    decibels: bool = False
    """Linear power in the file: ≤ 0 becomes 1e-10, then 10·log10."""
    scale: float | None = None
    """What catalogs state as the factor from a digital number to reflectance; another one means other numbers."""
    offset_from_baseline: float | None = None
    """Sentinel-2's processing baseline from which +1000 is in the pixels."""
    missions: tuple[str, ...] = ()
    """How constellation, platform or instrument of its items begin, in small letters and digits alone; with none,
    items of every mission are taken."""
    level: tuple[str, str] | None = None
    """The property that tells its level of processing, and how its value begins."""

    def band(self, name: str) -> Band:
        """The band of this common name.

        Raises:
            SpecError: the sensor has no such band.
        """
        for band in self.bands:
            if band.name == name:
                return band
        known = ", ".join(b.name for b in self.bands)
        raise SpecError(f"sensor {self.key}", f"has no band {name!r}", f"one of {known}")


_SENTINEL_2_BANDS = (
    Band("blue", 1105, 1809, 0.493, ("B02",)),
    Band("green", 1355, 1757, 0.56, ("B03",)),
    Band("red", 1552, 1888, 0.665, ("B04",)),
    Band("rededge1", 1887, 1870, 0.704, ("B05",)),
    Band("rededge2", 2422, 1732, 0.74, ("B06",)),
    Band("rededge3", 2630, 1697, 0.783, ("B07",)),
    Band("nir", 2743, 1742, 0.842, ("B08",)),
    Band("nir08", 2785, 1648, 0.865, ("B8A",)),
    Band("swir16", 2388, 1470, 1.61, ("B11",)),
    Band("swir22", 1835, 1379, 2.19, ("B12",)),
)

_RGBNIR = ("red", "green", "blue", "nir")

_LANDSAT = {
    "red": (0.65, ("B4", "SR_B4", "SR_B4.TIF", "B4.TIF")),
    "green": (0.56, ("B3", "SR_B3", "SR_B3.TIF", "B3.TIF")),
    "blue": (0.48, ("B2", "SR_B2", "SR_B2.TIF", "B2.TIF")),
    "nir08": (0.86, ("B5", "SR_B5", "SR_B5.TIF", "B5.TIF")),
    "swir16": (1.6, ("B6", "SR_B6", "SR_B6.TIF", "B6.TIF")),
    "swir22": (2.2, ("B7", "SR_B7", "SR_B7.TIF", "B7.TIF")),
}


def _landsat(*statistics: tuple[float, float]) -> tuple[Band, ...]:
    rows = zip(_LANDSAT.items(), statistics, strict=True)
    return tuple(Band(name, mean, std, wave, names) for (name, (wave, names)), (mean, std) in rows)


# Cirrus, cloud, dilated cloud and cloud shadow: bits 1 to 4 of QA_PIXEL (USGS LSDS-1619).
_QA_PIXEL = CloudMask(("qa_pixel", "QA_PIXEL", "pixel_qa", "QA_PIXEL.TIF"), frozenset({1, 2, 3, 4}), bits=True)
# Cloud shadow, medium and high probability cloud, thin cirrus (Sentinel-2 L2A scene classification).
_SCL = CloudMask(("scl", "SCL"), frozenset({3, 8, 9, 10}), nodata=frozenset({0}))
# Thick cloud, thin cloud, cloud shadow (OmniCloudMask).
_OMNICLOUDMASK = CloudMask(
    ("omnicloudmask", "ocm", "cloud_mask", "cloudmask"), frozenset({1, 2, 3}), nodata=frozenset({255})
)

_LANDSAT_MISSIONS = ("landsat", "oli", "etm", "tirs")
_USGS = "Landsat Level-1 and Level-2 data courtesy of the U.S. Geological Survey."
_COPERNICUS_TERMS = "LicenseRef-Copernicus"

SENSORS: dict[str, Sensor] = {
    sensor.key: sensor
    for sensor in (
        Sensor(
            "sentinel-2-l2a",
            "Sentinel-2 Level-2A surface reflectance",
            10,
            _SENTINEL_2_BANDS,
            ("red", "green", "blue"),
            _COPERNICUS_TERMS,
            COPERNICUS,
            nodata=0,
            masks=(_SCL, _OMNICLOUDMASK),
            scale=0.0001,
            offset_from_baseline=4.0,
            missions=("sentinel2",),
        ),
        Sensor(
            "sentinel-2-rgbnir",
            "Sentinel-2 annual composites of ESA WorldCover: red, green, blue and near infrared in one image",
            10,
            tuple(band for name in _RGBNIR for band in _SENTINEL_2_BANDS if band.name == name),
            ("red", "green", "blue"),
            "CC-BY-4.0",
            "© ESA WorldCover project. Contains modified Copernicus Sentinel data processed by the ESA WorldCover"
            " consortium.",
            nodata=0,
            images=("rgbnir", "s2_rgbnir", "RGBNIR", "data"),
            missions=("sentinel2",),
        ),
        Sensor(
            "landsat-c2l1",
            "Landsat Collection 2 Level-1",
            30,
            _landsat((10678, 6025), (10563, 5411), (11083, 5468), (14792, 6746), (12276, 5897), (10114, 4850)),
            ("red", "green", "blue"),
            "public-domain",
            _USGS,
            nodata=0,
            masks=(_QA_PIXEL, _OMNICLOUDMASK),
            missions=_LANDSAT_MISSIONS,
            level=("landsat:correction", "L1"),
        ),
        Sensor(
            "landsat-c2l2-sr",
            "Landsat Collection 2 Level-2 surface reflectance",
            30,
            _landsat((13705, 9578), (13310, 9408), (12474, 10144), (17801, 8277), (14615, 5300), (12701, 4522)),
            ("red", "green", "blue"),
            "public-domain",
            _USGS,
            nodata=0,
            scale=0.0000275,
            masks=(_QA_PIXEL, _OMNICLOUDMASK),
            missions=_LANDSAT_MISSIONS,
            level=("landsat:correction", "L2"),
        ),
        Sensor(
            "naip",
            "USDA National Agriculture Imagery Program",
            1,
            (
                Band("red", 110.16, 47.23, 0.65, ("Red",)),
                Band("green", 115.41, 39.82, 0.56, ("Green",)),
                Band("blue", 98.15, 35.43, 0.48, ("Blue",)),
                Band("nir", 139.04, 49.86, 0.842, ("NIR",)),
            ),
            ("red", "green", "blue"),
            "public-domain",
            "USDA Farm Production and Conservation, National Agriculture Imagery Program.",
            images=("image", "asset"),
            missions=("naip",),
        ),
        Sensor(
            "linz",
            "Land Information New Zealand aerial imagery",
            0.5,
            (
                Band("red", 89.96, 41.83, 0.635),
                Band("green", 99.46, 36.96, 0.555),
                Band("blue", 89.51, 31.45, 0.465),
            ),
            ("red", "green", "blue"),
            "CC-BY-4.0",
            "Sourced from the LINZ Data Service and licensed for reuse under CC BY 4.0.",
            images=("visual",),
            missions=("linz",),
        ),
        Sensor(
            "sentinel-1-rtc",
            "Sentinel-1 radiometrically terrain corrected",
            10,
            (
                Band("vv", -12.113, 8.314, 3.5, ("VV", "gamma0_vv")),
                Band("vh", -18.673, 8.017, 4.0, ("VH", "gamma0_vh")),
            ),
            ("vv", "vh", "vv"),
            _COPERNICUS_TERMS,
            COPERNICUS,
            nodata=-32768,
            decibels=True,
            missions=("sentinel1",),
        ),
        Sensor(
            "modis",
            "MODIS surface reflectance",
            500,
            tuple(
                Band(f"sur_refl_b{number:02d}", mean, std, wave, (f"B{number:02d}", f"Nadir_Reflectance_Band{number}"))
                for number, (mean, std, wave) in enumerate(
                    (
                        (1072, 1643, 0.645),
                        (1624, 1878, 0.858),
                        (931, 1449, 0.469),
                        (1023, 1538, 0.555),
                        (1599, 1763, 1.24),
                        (1404, 1618, 1.64),
                        (1051, 1396, 2.13),
                    ),
                    start=1,
                )
            ),
            ("sur_refl_b01", "sur_refl_b04", "sur_refl_b03"),
            "public-domain",
            "MODIS data courtesy of NASA's Land Processes DAAC and the U.S. Geological Survey.",
            nodata=-28672,
            missions=("modis", "terra", "aqua"),
        ),
        Sensor(
            "planetscope-sr",
            "PlanetScope surface reflectance",
            5,
            (
                Band("coastal_blue", 1720, 747, 0.443),
                Band("blue", 1715, 698, 0.49),
                Band("green_i", 1913, 739, 0.531),
                Band("green", 2088, 768, 0.565),
                Band("yellow", 2274, 849, 0.61),
                Band("red", 2290, 868, 0.665),
                Band("rededge", 2613, 849, 0.705),
                Band("nir", 3970, 914, 0.865),
            ),
            ("red", "green", "blue"),
            None,
            "Includes material © Planet Labs PBC.",
            nodata=0,
            masks=(_OMNICLOUDMASK,),
            images=("ortho_analytic_8b_sr", "analytic_8b_sr", "analytic"),
            missions=("planetscope",),
        ),
        Sensor(
            "satellogic-MSI-L1D",
            "Satellogic NewSat multispectral L1D",
            1,
            (
                Band("red", 1451.54, 995.48, 0.64),
                Band("green", 1456.54, 771.29, 0.545),
                Band("blue", 1543.22, 708.86, 0.48),
                Band("nir", 2132.68, 1236.71, 0.825),
            ),
            ("red", "green", "blue"),
            "CC-BY-4.0",
            "Satellogic EarthView, © Satellogic.",
            nodata=0,
            masks=(_OMNICLOUDMASK,),
            images=("analytic",),
            missions=("satellogic", "newsat"),
        ),
    )
}


def sensor(key: str) -> Sensor:
    """The registered sensor of this key.

    Raises:
        SpecError: there is none; the nearest is named.
    """
    if key in SENSORS:
        return SENSORS[key]
    near = difflib.get_close_matches(key, SENSORS, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise SpecError("imagery.sensor", f"{key!r} is unknown", fix=f"{hint}Known: {', '.join(SENSORS)}.")
