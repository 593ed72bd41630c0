"""The statistics Clay v1.5 was trained with: (mean, standard deviation, wavelength in µm) by sensor and band.

Written down here a second time on purpose: a judge that reads them from where the producer does would find nothing.
Source: https://github.com/Clay-foundation/model, `configs/metadata.yaml`.
"""

Statistics = dict[str, tuple[float, float, float]]

_OPTICAL = ("red", "green", "blue", "nir08", "swir16", "swir22")
_LANDSAT_WAVES = (0.65, 0.56, 0.48, 0.86, 1.6, 2.2)
_LANDSAT_L1 = ((10678, 6025), (10563, 5411), (11083, 5468), (14792, 6746), (12276, 5897), (10114, 4850))
_LANDSAT_L2 = ((13705, 9578), (13310, 9408), (12474, 10144), (17801, 8277), (14615, 5300), (12701, 4522))


def _landsat(values: tuple[tuple[float, float], ...]) -> Statistics:
    rows = zip(_OPTICAL, values, _LANDSAT_WAVES, strict=True)
    return {name: (mean, std, wave) for name, (mean, std), wave in rows}


CLAY_STATISTICS: dict[str, Statistics] = {
    "sentinel-2-l2a": {
        "blue": (1105, 1809, 0.493),
        "green": (1355, 1757, 0.56),
        "red": (1552, 1888, 0.665),
        "rededge1": (1887, 1870, 0.704),
        "rededge2": (2422, 1732, 0.74),
        "rededge3": (2630, 1697, 0.783),
        "nir": (2743, 1742, 0.842),
        "nir08": (2785, 1648, 0.865),
        "swir16": (2388, 1470, 1.61),
        "swir22": (1835, 1379, 2.19),
    },
    "landsat-c2l1": _landsat(_LANDSAT_L1),
    "landsat-c2l2-sr": _landsat(_LANDSAT_L2),
    "naip": {
        "red": (110.16, 47.23, 0.65),
        "green": (115.41, 39.82, 0.56),
        "blue": (98.15, 35.43, 0.48),
        "nir": (139.04, 49.86, 0.842),
    },
    "linz": {"red": (89.96, 41.83, 0.635), "green": (99.46, 36.96, 0.555), "blue": (89.51, 31.45, 0.465)},
    "sentinel-1-rtc": {"vv": (-12.113, 8.314, 3.5), "vh": (-18.673, 8.017, 4.0)},
    "modis": {
        "sur_refl_b01": (1072, 1643, 0.645),
        "sur_refl_b02": (1624, 1878, 0.858),
        "sur_refl_b03": (931, 1449, 0.469),
        "sur_refl_b04": (1023, 1538, 0.555),
        "sur_refl_b05": (1599, 1763, 1.24),
        "sur_refl_b06": (1404, 1618, 1.64),
        "sur_refl_b07": (1051, 1396, 2.13),
    },
}
