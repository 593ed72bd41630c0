"""Situations in which an item is read: one line each. A maintainer adds a line for every new style of item."""

from dataclasses import dataclass, field
from typing import Any

S2 = "sentinel-2-l2a"
L1C = "sentinel-2-l1c"
SR = "landsat-c2l2-sr"
TEN = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
COMMON = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")


@dataclass(frozen=True)
class Situation:
    """An item style and what has to follow from it."""

    name: str
    sensor: str
    assets: dict[str, Any]
    properties: dict[str, Any] = field(default_factory=dict)
    item: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    """What the imagery block states."""
    mapping: str | None = None
    """Assets of the sensor's bands in order, `asset` or `asset#band`; None: not compared."""
    shift: float | None = None
    """Added to the digital numbers of every band."""
    mask: str | None = None
    """Asset of the mask; `-`: none."""
    refused: str | None = None
    """Words of the refusal."""
    collection: dict[str, Any] | None = None
    """Its Collection, as the catalog at hand gives it."""


def ten(key: str = "{}", **said: Any) -> dict[str, Any]:
    """One asset a band, with keys such as `{}_10m`, and what each says."""
    return {key.format(band): {"href": f"{band}.tif", **said} for band in TEN}


def ten_keys(key: str) -> dict[str, Any]:
    """One asset a band, with keys that hold the number alone: `band_02`."""
    return {key.format(band.removeprefix("B")): {"href": f"{band}.tif"} for band in TEN}


def described(names: str, *, key: str = "name", **said: Any) -> dict[str, Any]:
    """A multi-band asset whose bands have these names."""
    return {"href": "a.tif", "eo:bands": [{key: name} for name in names.split()], **said}


def _landsat_index(*names: str) -> dict[str, Any]:
    """STAC 0.7: bands of the assets are indexes into those of the item."""
    return {f"{name}.TIF": {"href": f"{name}.TIF", "eo:bands": [n]} for n, name in enumerate(names)}


def _common(names: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "common_name": common} for name, common in names.items()]


def _landsat(*numbers: int, key: str = "SR_B{}") -> dict[str, Any]:
    return {key.format(n): {"href": f"{n}.TIF"} for n in numbers or range(1, 8)}


L7 = {"SR_B1": "blue", "SR_B2": "green", "SR_B3": "red", "SR_B4": "nir08", "SR_B5": "swir16", "SR_B7": "swir22"}
LATE, EARLY = {"s2:processing_baseline": "05.09"}, {"s2:processing_baseline": "02.14"}
RASTER = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
NIR12 = "blue green red red_edge1 red_edge2 red_edge3 nir_1 nir_2 swir_1 swir_2"
PRODUCT = "S2B_MSIL2A_20230103T155629_N0509_R054_T18SVG_20230103T202345"
TEN_TEXT = " ".join(TEN)
RGBN = "red green blue nir"
RTC = {"vv": {"href": "vv.tif"}, "vh": {"href": "vh.tif"}}

BANDS = [
    Situation("keys", S2, ten(), mapping=TEN_TEXT),
    Situation("Earth Engine names", S2, {b.replace("B0", "B"): {"href": f"{b}.tif"} for b in TEN}, mapping=TEN_TEXT.replace("B0", "B")),
    Situation("lower case", S2, {b.lower(): {"href": f"{b}.tif"} for b in TEN}, mapping=TEN_TEXT.lower()),
    Situation("CDSE suffixes", S2, ten("{}_10m"), mapping=" ".join(f"{b}_10m" for b in TEN)),
    Situation("titles only", S2, {f"x{n}": {"href": f"x{n}.tif", "title": f"Band {b[1:]}"} for n, b in enumerate(TEN)}, mapping=" ".join(f"x{n}" for n in range(10))),
    Situation("description before key", "aerial-rgb", {"red": described("a", eo=1) | {"eo:bands": [{"name": "x", "common_name": "blue"}]}, "green": {"href": "g.tif"}, "blue": {"href": "b.tif", "eo:bands": [{"name": "y", "common_name": "red"}]}}, mapping="blue green red"),
    Situation("one file in the sensor's order", "naip", {"image": {"href": "a.tif"}}, mapping="image#1 image#2 image#3 image#4"),
    Situation("one file, another order", "naip", {"image": described("Blue Green Red NIR")}, mapping="image#3 image#2 image#1 image#4"),
    Situation("one file, order in descriptions", "naip", {"image": {"href": "a.tif", "eo:bands": [{"name": f"b{n}", "description": d} for n, d in enumerate(("blue", "green", "red", "nir"), 1)]}}, mapping="image#3 image#2 image#1 image#4"),
    Situation("one file, last band undefined", "naip", {"image": {"href": "a.tif", "eo:bands": [{"name": f"b{n}", "description": d} for n, d in enumerate(("red", "green", "blue", "undefined"), 1)]}}, mapping="image#1 image#2 image#3 image#4"),
    Situation("one file, b06 is not a near infrared", "sentinel-2-rgbnir", {"data": {"href": "a.tif", "eo:bands": [{"name": f"b{n}", "description": d} for n, d in enumerate(("b02", "b03", "b04", "b06"), 1)]}}, refused="has no band"),
    Situation("one file, too few bands", "naip", {"image": {"href": "a.tif", "raster:bands": [{}, {}, {}]}}, refused="has no band"),
    Situation("one file, count in the title", "planetscope-4b-sr", {"analytic_sr": {"href": "a.tif", "title": "PSScene 8-band"}}, refused="has no band"),
    Situation("wavelengths only", "aerial-rgbn", {"cog": {"href": "a.tif", "bands": [{"eo:center_wavelength": w} for w in (0.48, 0.56, 0.65, 0.84)]}}, mapping="cog#3 cog#2 cog#1 cog#4"),
    Situation("nanometers", "aerial-rgb", {"cog": {"href": "a.tif", "bands": [{"eo:center_wavelength": w} for w in (465, 555, 635)]}}, mapping="cog#3 cog#2 cog#1"),
    Situation("name against common name", S2, {**ten(), "B04": {"href": "a.tif", "eo:bands": [{"name": "B04", "common_name": "green"}]}}, refused="contradictory"),
    Situation("several resolutions", S2, {**ten(), "B04_20m": {"href": "a.tif"}, "B04_60m": {"href": "b.tif"}}, mapping=TEN_TEXT, refused=None),
    Situation("nearest to the sensor's size", S2, {**{f"{b}_60m": {"href": "c.tif"} for b in TEN}, **{f"{b}_20m": {"href": f"{b}_20m.tif"} for b in TEN}}, mapping=" ".join(f"{b}_20m" for b in TEN)),
    Situation("not unique", "aerial-rgb", {"a": described("red green blue"), "b": described("red green blue")}, refused="does not say which asset is"),
    Situation("a picture beside the bands", S2, {**ten(), "visual": described("B04 B03 B02")}, mapping=TEN_TEXT),
    Situation("stated in the spec", S2, {**ten(), "other": {"href": "o.tif"}}, asked={"bands": {"nir": "other"}}, mapping=TEN_TEXT.replace("B08", "other")),
    Situation("stated with a band", "aerial-rgb", {"x": {"href": "x.tif"}}, asked={"bands": {"red": "x#3", "green": "x#2", "blue": "x#1"}}, mapping="x#3 x#2 x#1"),
    Situation("stated, not there", S2, ten(), asked={"bands": {"nir": "B99"}}, refused="no asset 'B99'"),
    Situation("only rededge as common name", S2, {b: {"href": f"{b}.tif", "eo:bands": [{"common_name": c}]} for b, c in zip([f"x{n}" for n in range(10)], ("blue", "green", "red", "rededge", "rededge", "rededge", "nir", "nir08", "swir16", "swir22"), strict=True)}, refused="does not say which asset is"),
    Situation("Landsat 8 by number", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, mapping="SR_B4 SR_B3 SR_B2 SR_B5 SR_B6 SR_B7"),
    Situation("Landsat 7 by number", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in (1, 2, 3, 4, 5, 7)}, {"platform": "LANDSAT_7"}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("Landsat 5 by number", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in (1, 2, 3, 4, 5, 7)}, {"platform": "landsat-5", "instruments": ["tm"]}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("Landsat of no platform by number", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, refused="does not say which asset is"),
    Situation("Landsat 5 of another spelling", SR, _landsat(1, 2, 3, 4, 5, 7), {"platform": "Landsat05"}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("Landsat 5 of short name", "landsat-c2l1", _landsat(key="B{}"), {"platform": "L5"}, mapping="B3 B2 B1 B4 B5 B7"),
    Situation("Landsat 9 of short name", SR, _landsat(), {"platform": "LC09"}, mapping="SR_B4 SR_B3 SR_B2 SR_B5 SR_B6 SR_B7"),
    Situation("Landsat of any number", SR, _landsat(), {"platform": "Landsat"}, refused="does not say which asset is"),
    Situation("Landsat 5 by Earth Engine's collection", SR, _landsat(1, 2, 3, 4, 5, 7), item={"collection": "LANDSAT/LT05/C02/T1_L2"}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("Landsat 5 with the instrument of Landsat 8", SR, _landsat(), {"platform": "landsat-5", "instruments": ["oli"]}, refused="does not say which asset is"),
    Situation("Landsat 5 MSS", "landsat-c2l1", _landsat(key="B{}"), {"platform": "landsat-5", "instruments": ["mss"]}, refused="has no band"),
    Situation("Landsat 7 of STAC 0.7", SR, _landsat_index(*L7), {"eo:platform": "LANDSAT_7", "eo:bands": _common(L7)}, mapping="SR_B3.TIF SR_B2.TIF SR_B1.TIF SR_B4.TIF SR_B5.TIF SR_B7.TIF"),
    Situation("keys with `band`", S2, ten_keys("band_{}"), mapping=" ".join(ten_keys("band_{}"))),
    Situation("keys with the product's name", S2, ten("T18SVG_20230103T155221_{}_10m"), mapping=" ".join(ten("T18SVG_20230103T155221_{}_10m"))),
    Situation("keys of an HLS product", "hls-s30", ten("HLS.S30.T19LDD.2022166T144741.v2.0.{}"), mapping=" ".join(ten("HLS.S30.T19LDD.2022166T144741.v2.0.{}"))),
    Situation("keys below a resolution", S2, ten("R10m/{}"), mapping=" ".join(ten("R10m/{}"))),
    Situation("masks of single bands are no bands", S2, {**ten(), **ten("MSK_DETFOO_{}"), **ten("{}_std")}, mapping=TEN_TEXT),
    Situation("nir 1 and nir 2", S2, {k: {"href": f"{k}.tif"} for k in NIR12.split()}, mapping=NIR12),
    Situation("count in the key", "planetscope-4b-sr", {"ortho_analytic_8b_sr": {"href": "a.tif"}}, refused="has no band"),
    Situation("analysis ready data of another scale", SR, {k: {"href": f"{k}.tif"} for k in ("nbart_red", "nbart_green", "nbart_blue", "nbart_nir", "nbart_swir_1", "nbart_swir_2")}, {"platform": "landsat-8"}, refused="has no band"),
    Situation("letters", "naip", {"image": described("B G R N")}, mapping="image#3 image#2 image#1 image#4"),
    Situation("initials with numbers that count", "naip", {"image": described("IR_1 R_2 G_3 B_4")}, refused="IR_1"),
    Situation("an order with numbers that count", "naip", {"image": described("NRGB_1 NRGB_2 NRGB_3 NRGB_4")}, refused="NRGB_1"),
    Situation("names that count, described in another list", "naip", {"image": {"href": "a.tif", "bands": [{"name": f"b{n}"} for n in range(1, 5)], "raster:bands": [{"description": d} for d in ("NIR", "Red", "Green", "Blue")]}}, mapping="image#2 image#3 image#4 image#1"),
    Situation("names that count, wavelengths in another list", "naip", {"image": {"href": "a.tif", "bands": [{"name": f"b{n}"} for n in range(1, 5)], "eo:bands": [{"center_wavelength": w} for w in (0.83, 0.65, 0.56, 0.48)]}}, mapping="image#2 image#3 image#4 image#1"),
    Situation("lists of several lengths", "naip", {"image": {"href": "a.tif", "bands": [{"name": f"b{n}"} for n in range(1, 5)], "eo:bands": [{"name": n} for n in ("NIR", "Red", "Green")]}}, refused="lists of 3 and 4 bands"),
    Situation("letters in the sensor's order", "naip", {"image": described("r g b n")}, mapping="image#1 image#2 image#3 image#4"),
    Situation("letters of false color", "aerial-rgb", {"image": described("N R G")}, refused="has no band blue"),
    Situation("names in words", "aerial-rgb", {"x": {"href": "a.tif", "eo:bands": [{"name": f"{c} band"} for c in ("Blue", "Green", "Red")]}}, mapping="x#3 x#2 x#1"),
    Situation("names without a mapping", "aerial-rgb", {"x": {"href": "a.tif", "bands": ["blue", "green", "red"]}}, mapping="x#3 x#2 x#1"),
    Situation("names in raster:bands", "aerial-rgb", {"x": {"href": "a.tif", "raster:bands": [{"name": c} for c in ("blue", "green", "red")]}}, mapping="x#3 x#2 x#1"),
    Situation("names of bands beside eo:bands", "aerial-rgb", {"x": described("red green blue", key="common_name", bands=[{"name": c} for c in ("blue", "green", "red")])}, refused="contradictory"),
    Situation("names of another language", "aerial-rgb", {"x": described("rouge vert bleu")}, refused="band 1 is named 'rouge'"),
    Situation("numbers that count down", "aerial-rgb", {"x": described("Band_3 Band_2 Band_1")}, refused="band 1 is named 'Band_3'"),
    Situation("numbers that count from 0", "aerial-rgb", {"x": described("b0 b1 b2")}, mapping="x#1 x#2 x#3"),
    Situation("colors of GDAL", "naip", {"x": described("gray undefined undefined alpha", key="description")}, mapping="x#1 x#2 x#3 x#4"),
    Situation("false color by its title", "aerial-rgb", {"image": {"href": "a.tif", "title": "False color (NIR, red, green)"}}, refused="not in the sensor's order"),
    Situation("infrared by its key", "aerial-rgb", {"cir": {"href": "a.tif"}}, refused="not in the sensor's order"),
    Situation("infrared by its collection", "aerial-rgb", {"image": {"href": "a.tif"}}, item={"collection": "dop20_cir"}, refused="dop20_cir"),
    Situation("initials in the key", "aerial-rgb", {"irg": {"href": "a.tif"}}, refused="not in the sensor's order"),
    Situation("initials in the sensor's order", "naip", {"image": {"href": "a.tif", "title": "RGBIR COG tile"}}, mapping="image#1 image#2 image#3 image#4"),
    Situation("colors in a title", "aerial-rgbn", {"image": {"href": "a.tif", "title": "4 bands (NIR, R, G, B)"}}, refused="not in the sensor's order"),
    Situation("colors in a description", "aerial-rgb", {"image": {"href": "a.tif", "description": "Bands: blue, green, red"}}, refused="not in the sensor's order"),
    Situation("polarizations of an asset", "sentinel-1-rtc", {"data": {"href": "a.tif", "sar:polarizations": ["VH", "VV"]}}, mapping="data#2 data#1"),
    Situation("polarizations by a key", "sentinel-1-rtc", {"vh_vv": {"href": "a.tif"}}, refused="key 'vh_vv'"),
    Situation("polarizations by a title", "sentinel-1-rtc", {"data": {"href": "a.tif", "title": "VH and VV gamma0"}}, refused="title 'VH and VV gamma0'"),
    Situation("other polarizations", "sentinel-1-rtc", {"data": {"href": "a.tif"}}, {"sar:polarizations": ["HH", "HV"]}, refused="sar:polarizations ['HH', 'HV']"),
    Situation("wavelength against the name", S2, {**ten(), "B04": {"href": "a.tif", "bands": [{"name": "B04", "eo:center_wavelength": 0.842}]}}, refused="contradictory"),
    Situation("rededge of a wavelength", S2, {k: {"href": f"{k}.tif", "eo:bands": [{"common_name": c[:7] if "edge" in c else c, "center_wavelength": w}]} for k, c, w in zip("abcdefghij", COMMON, (0.49, 0.56, 0.665, 0.704, 0.74, 0.783, 0.842, 0.865, 1.61, 2.19), strict=True)}, mapping=" ".join("abcdefghij")),
    Situation("item_assets", "aerial-rgb", {"x": {"href": "a.tif"}}, collection={"item_assets": {"x": {"eo:bands": _common({"1": "blue", "2": "green", "3": "red"})}}}, mapping="x#3 x#2 x#1"),
    Situation("item_assets of STAC 1.1", "aerial-rgb", {"x": {"href": "a.tif"}}, collection={"item_assets": {"x": {"bands": [{"eo:common_name": c} for c in ("blue", "green", "red")]}}}, mapping="x#3 x#2 x#1"),
    Situation("item_assets, one band each", SR, {k: {"href": f"{k}.tif"} for k in L7}, collection={"item_assets": {k: {"eo:bands": [{"common_name": c}]} for k, c in L7.items()}}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("item before item_assets", "naip", {"image": described("Blue Green Red NIR")}, collection={"item_assets": {"image": described("Red Green Blue NIR")}}, mapping="image#3 image#2 image#1 image#4"),
    Situation("item_assets of another count", "naip", {"image": {"href": "a.tif", "raster:bands": [{}, {}, {}, {}]}}, collection={"item_assets": {"image": described("Blue Green Red")}}, mapping="image#1 image#2 image#3 image#4"),
    Situation("title in item_assets", S2, {f"x{n}": {"href": f"x{n}.tif"} for n in range(10)}, collection={"item_assets": {f"x{n}": {"title": f"Band {b[1:]}"} for n, b in enumerate(TEN)}}, mapping=" ".join(f"x{n}" for n in range(10))),
    Situation("summaries by name", SR, {k: {"href": f"{k}.tif"} for k in L7}, collection={"summaries": {"eo:bands": _common(L7)}}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("summaries of the only image", "naip", {"image": {"href": "a.tif"}}, collection={"summaries": {"eo:bands": _common({"1": "nir", "2": "red", "3": "green", "4": "blue"})}}, mapping="image#2 image#3 image#4 image#1"),
    Situation("bands of the Collection", SR, {k: {"href": f"{k}.tif"} for k in L7}, collection={"bands": [{"name": k, "eo:common_name": c} for k, c in L7.items()]}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("bands of the item", SR, {k: {"href": f"{k}.tif"} for k in L7}, {"bands": [{"name": k, "eo:common_name": c} for k, c in L7.items()]}, mapping="SR_B3 SR_B2 SR_B1 SR_B4 SR_B5 SR_B7"),
    Situation("bands of the item for its only image", "naip", {"image": {"href": "a.tif"}}, {"bands": [{"eo:common_name": c} for c in ("blue", "green", "red", "nir")]}, mapping="image#3 image#2 image#1 image#4"),
    Situation("item_assets that are no mapping", "naip", {"image": {"href": "a.tif"}}, collection={"item_assets": ["image"], "summaries": None}, mapping="image#1 image#2 image#3 image#4"),
    Situation("a mask beside the only image", "aerial-rgb", {"a": {"href": "a.tif"}, "m": {"href": "a.tif.msk"}}, mapping="a#1 a#2 a#3"),
    Situation("one file for two bands", S2, {**ten(), "B03": {"href": "B02.tif"}}, refused="for both blue and green"),
    Situation("one asset stated for two bands", S2, ten(), asked={"bands": {"nir": "B04"}}, refused="B04"),
    Situation("HLS names", "hls-l30", {f"B0{n}": {"href": f"B0{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "HLSL30.v2.0"}, mapping="B04 B03 B02 B05 B06 B07"),
]  # fmt: skip

VALUES = [
    Situation("nothing", S2, ten(), shift=0),
    Situation("late baseline", S2, ten(), LATE, shift=-1000),
    Situation("early baseline", S2, ten(), EARLY, shift=0),
    Situation("CDSE version", S2, ten(**{"raster:scale": 0.0001, "raster:offset": -0.1}), {"processing:version": "05.11"}, shift=-1000),
    Situation("CDSE version alone", S2, ten(), {"processing:version": "05.11"}, shift=-1000),
    Situation("version of another processor", S2, ten(), {"processing:version": "2.11", "processing:software": {"sen2cor": "2.11"}}, shift=0),
    Situation("version of another processor, padded", S2, ten(), {"processing:version": "05.10", "processing:software": {"FORCE": "v05.10"}}, shift=0),
    Situation("version that is a number", S2, ten(), {"processing:version": 5.1}, shift=0),
    Situation("version of a Landsat processor", S2, ten(), {"processing:version": "LPGS_16.2.0"}, shift=0),
    Situation("version of a year", S2, ten(), {"processing:version": "2023"}, shift=0),
    Situation("software beside the baseline", S2, ten(), {"processing:version": "05.11", "processing:software": {"eometadatatool": "251016"}}, shift=-1000),
    Situation("version of a processor beside a baseline", S2, ten(), {"processing:version": "2.11", **LATE}, shift=-1000),
    Situation("product name", S2, ten(), {"s2:product_uri": "S2A_MSIL2A_20230103T155000_N0509_R054_T18SVG_20230103T200000.SAFE"}, shift=-1000),
    Situation("flag of Earth Search v1", S2, ten(**RASTER), {"earthsearch:boa_offset_applied": True, **LATE}, shift=0),
    Situation("flag of Earth Search v0", S2, ten(), {"sentinel:boa_offset_applied": True, "sentinel:processing_baseline": "05.09"}, shift=0),
    Situation("flag of another prefix", S2, ten(), {"s2:boa_offset_applied": True, **LATE}, shift=0),
    Situation("flag false", S2, ten(**RASTER), {"earthsearch:boa_offset_applied": False, **LATE}, shift=-1000),
    Situation("raster:bands", S2, ten(**RASTER), shift=-1000),
    Situation("bands of STAC 1.1", S2, {b: {"href": f"{b}.tif", "bands": [{"name": b, "raster:scale": 0.0001, "raster:offset": -0.1}]} for b in TEN}, shift=-1000),
    Situation("GDAL's default", S2, ten(**{"raster:bands": [{"scale": 1.0, "offset": 0.0}]}), LATE, shift=-1000),
    Situation("offset -0.7", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": -0.7}]}), LATE, refused="imagery.offset"),
    Situation("reflectance × 1000", S2, ten(**{"raster:bands": [{"scale": 0.001}]}), refused="imagery.scale"),
    Situation("offset 0 against a late baseline", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": 0}]}), LATE, refused="statements that agree"),
    Situation("offset against an early baseline", S2, ten(**RASTER), EARLY, refused="statements that agree"),
    Situation("offset that is not a number", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": "-0.1e"}]}), LATE, refused="offset '-0.1e'"),
    Situation("scale that is a list", S2, ten(**{"raster:scale": [0.0001]}), LATE, refused="raster:scale"),
    Situation("offset of an item that is NaN", S2, ten(), {**LATE, "raster:offset": "nan"}, refused="raster:offset 'nan'"),
    Situation("scale of an aerial photograph", S2, ten(scale="1:10000"), LATE, shift=-1000),
    Situation("two flags", S2, ten(), {"a:boa_offset_applied": True, "b:boa_offset_applied": False}, refused="statements that agree"),
    Situation("a baseline of each asset", S2, ten(**LATE), EARLY, shift=-1000),
    Situation("a flag of each asset", S2, ten(**{"earthsearch:boa_offset_applied": True}), {**LATE, "earthsearch:boa_offset_applied": False}, shift=0),
    Situation("a product in the item's title", S2, ten(title="A band"), {"title": "S2A_MSIL2A_20230103T155641_N0509_R054_T18SVG_20230103T193453"}, shift=-1000),
    Situation("offset against add_offset", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": 0, "add_offset": -0.1}]}), refused="statements that agree"),
    Situation("two baselines", S2, ten(), {**LATE, "sentinel:processing_baseline": "02.14"}, refused="baselines that agree"),
    Situation("contradiction, stated in the spec", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": -0.7}]}), LATE, asked={"offset": -0.1}, shift=-1000),
    Situation("scale in the spec", S2, ten(), asked={"scale": 0.001}, shift=0),
    Situation("baseline N0509", S2, ten(), {"s2:processing_baseline": "N0509"}, shift=-1000),
    Situation("baseline 0214", S2, ten(), {"s2:processing_baseline": "0214"}, shift=0),
    Situation("baseline as a number", S2, ten(), {"sentinel2:processing_baseline": 5.09}, shift=-1000),
    Situation("baseline of no number", S2, ten(), {"s2:processing_baseline": "latest"}, refused="imagery.offset"),
    Situation("product name as id", S2, ten(), item={"id": PRODUCT}, shift=-1000),
    Situation("product name as title", S2, ten(), {"title": f"{PRODUCT}.SAFE"}, shift=-1000),
    Situation("product name in hrefs", S2, {b: {"href": f"{PRODUCT}.SAFE/{b}.jp2"} for b in TEN}, shift=-1000),
    Situation("granule id", S2, ten(), {"s2:granule_id": "S2B_OPER_MSI_L2A_TL_2BPS_20230103T202345_A030448_T18SVG_N05.09"}, shift=-1000),
    Situation("flag as text", S2, ten(), {"earthsearch:boa_offset_applied": "True", **LATE}, shift=0),
    Situation("flag as a number", S2, ten(), {"earthsearch:boa_offset_applied": 0, **LATE}, shift=-1000),
    Situation("flag null", S2, ten(), {"earthsearch:boa_offset_applied": None, **LATE}, shift=-1000),
    Situation("flag of no meaning", S2, ten(), {"earthsearch:boa_offset_applied": "partly", **LATE}, refused="true or false"),
    Situation("numbers as text", S2, ten(**{"raster:bands": [{"scale": "0.0001", "offset": "-0.1"}]}), shift=-1000),
    Situation("offset in digital numbers", S2, ten(**{"raster:bands": [{"scale": 0.0001, "offset": -1000}]}), refused="imagery.offset"),
    Situation("scale 10,000", S2, ten(**{"raster:bands": [{"scale": 10_000}]}), refused="imagery.scale"),
    Situation("scale not a number", S2, ten(**{"raster:bands": [{"scale": "NaN", "offset": "NaN"}]}), refused="imagery.scale"),
    Situation("offset of all bands of the item", S2, ten(), {"raster:bands": [{"scale": 0.0001, "offset": -0.1}] * 10}, shift=-1000),
    Situation("offset of the item", S2, ten(), {"raster:scale": 0.0001, "raster:offset": -0.1}, shift=-1000),
    Situation("band before asset", S2, {b: {"href": f"{b}.tif", "raster:offset": 0, "bands": [{"name": b, "raster:scale": 0.0001, "raster:offset": -0.1}]} for b in TEN}, shift=-1000),
    Situation("raster:bands against bands", S2, {b: {"href": f"{b}.tif", "raster:bands": [{"scale": 0.0001, "offset": 0}], "bands": [{"name": b, "raster:scale": 0.0001, "raster:offset": -0.1}]} for b in TEN}, refused="statements that agree"),
    Situation("HLS, another scale", "hls-s30", ten(**{"raster:bands": [{"scale": 0.001}]}), refused="has the scale 0.001"),
    Situation("Landsat as published", SR, {k: {"href": f"{k}.tif", "eo:bands": [{"common_name": c}], "raster:bands": [{"scale": 2.75e-05, "offset": -0.2}]} for k, c in L7.items()}, {"platform": "landsat-7"}, shift=0),
    Situation("Landsat, another scale", SR, {k: {"href": f"{k}.tif", "raster:bands": [{"scale": 0.0001}]} for k in L7}, {"platform": "landsat-7"}, refused="has the scale 0.0001"),
    Situation("offset in item_assets", S2, ten(), collection={"item_assets": ten(**RASTER)}, shift=-1000),
    Situation("offset in item_assets against a baseline", S2, ten(), EARLY, collection={"item_assets": ten(**RASTER)}, shift=0),
    Situation("scale of another product in item_assets", SR, {k: {"href": f"{k}.tif"} for k in L7}, {"platform": "landsat-7"}, collection={"item_assets": {k: {"raster:bands": [{"scale": 0.0001}]} for k in L7}}, refused="has the scale 0.0001"),
    Situation("offset of the item before item_assets", S2, ten(**RASTER), collection={"item_assets": ten(**{"raster:bands": [{"scale": 0.0001, "offset": -0.7}]})}, shift=-1000),
    Situation("flag on the asset", S2, ten(**{"earthsearch:boa_offset_applied": True}), LATE, shift=0),
    Situation("names of CF", S2, ten(**{"raster:bands": [{"scale_factor": 0.0001, "add_offset": -0.1}]}), shift=-1000),
    Situation("offset of CF", S2, ten(**{"raster:bands": [{"scale": 0.0001, "add_offset": -0.7}]}), EARLY, refused="has the offset -0.7"),
    Situation("scale of CF", S2, ten(**{"raster:bands": [{"scale_factor": 0.001}]}), LATE, refused="has the scale 0.001"),
    Situation("eopf:baseline", S2, ten(), {"eopf:baseline": "05.10"}, shift=-1000),
    Situation("processingBaseline", S2, ten(), {"processingBaseline": 5.09}, shift=-1000),
    Situation("flag in camel case", S2, ten(), {"boaOffsetApplied": True, **LATE}, shift=0),
    Situation("flag of harmonized values", S2, ten(), {"s2:harmonized": True, **LATE}, shift=0),
    Situation("harmonized collection", S2, ten(), LATE, {"collection": "sentinel-2-l2a-harmonized"}, shift=0),
    Situation("collection that is not harmonized", S2, ten(), LATE, {"collection": "sentinel-2-l2a-unharmonized"}, shift=-1000),
    Situation("collection before harmonizing", S2, ten(), LATE, {"collection": "sentinel-2-l2a-non-harmonized"}, shift=-1000),
    Situation("harmonized collection, and an offset", S2, ten(**RASTER), LATE, {"collection": "sentinel-2-l2a-harmonized"}, refused="statements that agree"),
    Situation("offset of the product's metadata", S2, ten(), {"s2:boa_add_offset": [-1000] * 13}, shift=-1000),
    Situation("offset 0 of the product's metadata against a late baseline", S2, ten(), {"BOA_ADD_OFFSET": 0, **LATE}, refused="baselines that agree"),
    Situation("offset of the product's metadata, one band without", S2, ten(), {"BOA_ADD_OFFSET": [-1000, 0]}, refused="0 or -1000"),
    Situation("offset of some bands alone", S2, {**ten(), "B02": {"href": "B02.tif", **RASTER}}, refused="one for every band"),
    Situation("offset of some bands and a baseline", S2, {**ten(), "B02": {"href": "B02.tif", **RASTER}}, LATE, shift=-1000),
    Situation("product name in any property", S2, ten(), {"productURI": PRODUCT}, shift=-1000),
    Situation("an offset of power", "sentinel-1-rtc", RTC, asked={"offset": -83}, refused="takes linear power"),
    Situation("harmonized by Earth Engine", S2, ten(), LATE, {"collection": "COPERNICUS/S2_SR_HARMONIZED"}, shift=0),
    Situation("NAIP with a scale", "naip", {"image": described(RGBN, **{"raster:bands": [{"scale": 0.1}] * 4})}, refused="has the scale 0.1"),
]  # fmt: skip

MASKS = [
    Situation("SCL", S2, {**ten(), "SCL": {"href": "s.tif"}}, mask="SCL"),
    Situation("scl", S2, {**ten(), "scl": {"href": "s.tif"}}, mask="scl"),
    Situation("SCL_20m before SCL_60m", S2, {**ten(), "SCL_60m": {"href": "s.tif"}, "SCL_20m": {"href": "t.tif"}}, mask="SCL_20m"),
    Situation("scl-jp2 after scl", S2, {**ten(), "scl-jp2": {"href": "s.jp2"}, "scl": {"href": "t.tif"}}, mask="scl"),
    Situation("by its title", S2, {**ten(), "classes": {"href": "s.tif", "title": "Scene Classification Map (SCL)"}}, mask="classes"),
    Situation("cloud probability", S2, {**ten(), "cloud": {"href": "s.tif"}}, mask="cloud"),
    Situation("none", S2, ten(), mask="-"),
    Situation("none wanted", S2, {**ten(), "SCL": {"href": "s.tif"}}, asked={"mask": "none"}, mask="-"),
    Situation("stated", S2, {**ten(), "SCL": {"href": "s.tif"}, "my": {"href": "m.tif"}}, asked={"mask": "my"}, mask="my"),
    Situation("stated, not there", S2, ten(), asked={"mask": "my"}, refused="no asset 'my'"),
    Situation("QA_PIXEL.TIF", SR, {**{f"SR_B{n}.TIF": {"href": f"SR_B{n}.TIF.tif"} for n in range(1, 8)}, "QA_PIXEL.TIF": {"href": "q.tif"}}, {"platform": "landsat-8"}, mask="QA_PIXEL.TIF"),
    Situation("qa_pixel", SR, {**{f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, "qa_pixel": {"href": "q.tif"}}, {"platform": "landsat-8"}, mask="qa_pixel"),
    Situation("Fmask", "hls-s30", {**ten(), "Fmask": {"href": "f.tif"}}, {"platform": "sentinel-2a"}, {"collection": "HLSS30.v2.0"}, mask="Fmask"),
    Situation("SCL with the product's name", S2, {**ten(), "T18SVG_20230103T155221_SCL_20m": {"href": "s.tif"}}, mask="T18SVG_20230103T155221_SCL_20m"),
    Situation("scene_classification_map", S2, {**ten(), "scene_classification_map": {"href": "s.tif"}}, mask="scene_classification_map"),
    Situation("MSK_CLDPRB_20m", S2, {**ten(), "MSK_CLDPRB_20m": {"href": "s.jp2"}}, mask="MSK_CLDPRB_20m"),
    Situation("CLDPRB", S2, {**ten(), "CLDPRB_20m": {"href": "s.tif"}}, mask="CLDPRB_20m"),
    Situation("pixel_quality", SR, {**{f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, "pixel_quality": {"href": "q.tif"}}, {"platform": "landsat-8"}, mask="pixel_quality"),
    Situation("pixel_qa of Collection 1 has other bits", SR, {**{f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, "pixel_qa": {"href": "q.tif"}}, {"platform": "landsat-8"}, mask="-"),
    Situation("HLS.….Fmask", "hls-s30", {**ten(), "HLS.S30.T19LDD.2022166T144741.v2.0.Fmask": {"href": "f.tif"}}, {"platform": "sentinel-2a"}, {"collection": "HLSS30.v2.0"}, mask="HLS.S30.T19LDD.2022166T144741.v2.0.Fmask"),
    Situation("MSK_CLASSI of Level-1C", L1C, {**ten(), "MSK_CLASSI_B00": {"href": "c.jp2"}}, mask="MSK_CLASSI_B00"),
    Situation("MSK_CLOUDS of Level-1C is GML", L1C, {**ten(), "MSK_CLOUDS_B00": {"href": "c.gml", "type": "application/gml+xml"}}, mask="-"),
    Situation("MSK_CLOUDS stated", L1C, {**ten(), "MSK_CLOUDS_B00": {"href": "c.gml", "type": "application/gml+xml"}}, asked={"mask": "MSK_CLOUDS_B00"}, refused="mask: none"),
    Situation("udm2 of PlanetScope", "planetscope-4b-sr", {"ortho_analytic_4b_sr": {"href": "a.tif"}, "ortho_udm2": {"href": "u.tif"}}, {"constellation": "planetscope"}, mask="ortho_udm2"),
    Situation("udm of PlanetScope", "planetscope-4b-sr", {"analytic_sr": described("blue green red nir"), "udm": {"href": "u.tif"}}, {"constellation": "planetscope"}, mask="udm"),
    Situation("QA60", S2, {**ten(), "QA60": {"href": "q.tif"}}, {"datetime": "2021-06-01T10:00:00Z"}, mask="QA60"),
    Situation("QA60 after SCL", S2, {**ten(), "QA60": {"href": "q.tif"}, "SCL": {"href": "s.tif"}}, {"datetime": "2021-06-01T10:00:00Z"}, mask="SCL"),
    Situation("QA60 while it was empty", S2, {**ten(), "QA60": {"href": "q.tif"}}, mask="-"),
    Situation("QA60 stated while it was empty", S2, {**ten(), "QA60": {"href": "q.tif"}}, asked={"mask": "QA60"}, refused="are empty from 2022-01-25 to 2024-02-28"),
    Situation("a sensor without masks", "naip", {"image": described(RGBN), "cloud": {"href": "c.tif"}}, mask="-"),
]  # fmt: skip

LEVELS = [
    Situation("L1C as L2A", S2, ten(), {"s2:product_type": "S2MSI1C"}, refused="sentinel-2-l1c"),
    Situation("Landsat at the top of the atmosphere", SR, {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "LANDSAT/LC08/C02/T1_TOA"}, refused="Level-1"),
    Situation("L1C by Earth Engine's collection", S2, ten(), item={"collection": "COPERNICUS/S2_HARMONIZED"}, refused="Level-1C"),
    Situation("L2A as L1C by Earth Engine's collection", L1C, ten(), item={"collection": "COPERNICUS/S2_SR"}, refused="sentinel-2-l2a"),
    Situation("Landsat L1 by Earth Engine's collection", SR, {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "LANDSAT/LC08/C02/T1"}, refused="landsat-c2l1"),
    Situation("Landsat L2 by Earth Engine's collection", "landsat-c2l1", {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "LANDSAT/LC08/C02/T1_L2"}, refused="landsat-c2l2-sr"),
    Situation("Landsat of Collection 1 by Earth Engine's collection", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "LANDSAT/LC08/C01/T1_SR"}, refused="Collection 1"),
    Situation("Landsat at the top of the atmosphere as digital numbers", "landsat-c2l1", {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"collection": "LANDSAT/LC08/C02/T1_TOA"}, refused="top of the atmosphere"),
    Situation("a scene as composite by Earth Engine's collection", "sentinel-2-rgbnir", {"data": {"href": "a.tif"}}, item={"collection": "COPERNICUS/S2_SR_HARMONIZED"}, refused="Level-2A scene"),
    Situation("L1C by its files", S2, {b: {"href": f"s3://x/S2A_MSIL1C_20210103T155629_N0209_R054_T18SVG_20210103T202345.SAFE/{b}.jp2"} for b in TEN}, refused="sentinel-2-l1c"),
    Situation("Landsat L2 by its files", "landsat-c2l1", {f"B{n}": {"href": f"LC08_L2SP_001062_20201031_20201106_02_T2_SR_B{n}.TIF"} for n in range(1, 8)}, {"platform": "landsat-8"}, refused="landsat-c2l2-sr"),
    Situation("HLS by its files", S2, {b: {"href": f"HLS.S30.T19LDD.2022166T144741.v2.0.{b}.tif"} for b in TEN}, refused="hls-s30"),
    Situation("L1C by collection", S2, ten(), item={"collection": "sentinel-2-l1c"}, refused="sentinel-2-l1c"),
    Situation("L1C by its level in words", S2, ten(), {"processing:level": "Level-1C"}, refused="sentinel-2-l1c"),
    Situation("L1C by level L1", S2, ten(), {"processing:level": "L1"}, refused="Level-1C"),
    Situation("L1C by productType", S2, ten(), {"productType": "S2MSI1C"}, refused="sentinel-2-l1c"),
    Situation("L1C by its title", S2, ten(), {"title": PRODUCT.replace("L2A", "L1C")}, refused="sentinel-2-l1c"),
    Situation("L2A as L1C", L1C, ten(), {"processing:level": "L2A"}, refused="sentinel-2-l2a"),
    Situation("L1C as composite", "sentinel-2-rgbnir", {"data": {"href": "a.tif"}}, {"s2:product_type": "S2MSI1C"}, refused="sentinel-2-l1c"),
    Situation("HLS as L2A", S2, ten(), {"platform": "sentinel-2a"}, {"collection": "hls", "id": "HLS.S30.T19LDD.2022166T144741.v2.0"}, refused="hls-s30"),
    Situation("HLS as Landsat", SR, {f"B0{n}": {"href": f"B0{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-9"}, {"id": "HLS.L30.T19LDD.2022165T144027.v2.0"}, refused="hls-l30"),
    Situation("L30 as S30", "hls-s30", ten(), item={"id": "HLS.L30.T19LDD.2022165T144027.v2.0"}, refused="HLS L30"),
    Situation("Landsat L1 as L2", SR, {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"landsat:correction": "L1TP", "platform": "landsat-8"}, refused="landsat-c2l1"),
    Situation("Landsat L2 as L1 by assets", "landsat-c2l1", {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, refused="landsat-c2l2-sr"),
    Situation("Landsat L2 as L1 by id", "landsat-c2l1", {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"id": "LC08_L2SP_001062_20201031_20201106_02_T2"}, refused="landsat-c2l2-sr"),
    Situation("Landsat L1 by level L1", SR, {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"processing:level": "L1", "platform": "landsat-8"}, refused="Level-1"),
    Situation("Landsat of Collection 1", "landsat-c2l1", {f"B{n}": {"href": f"B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8"}, {"id": "LC08_L1TP_047027_20201204_20201210_01_T1"}, refused="Collection 1"),
    Situation("Landsat of Collection 1 by number", SR, {f"SR_B{n}": {"href": f"SR_B{n}.tif"} for n in range(1, 8)}, {"platform": "landsat-8", "landsat:collection_number": "01"}, refused="Collection 1"),
    Situation("VIIRS as MODIS", "modis", {f"sur_refl_b0{n}": {"href": f"sur_refl_b0{n}.tif"} for n in range(1, 8)}, {"platform": "SNPP"}, refused="snpp"),
    Situation("RapidEye as PlanetScope", "planetscope-4b-sr", {"analytic_sr": described("blue green red nir")}, {"constellation": "RapidEye"}, refused="rapideye"),
    Situation("Pleiades as NAIP", "naip", {"data": described(RGBN)}, {"platform": "PNEO3"}, refused="pneo"),
    Situation("GRD by product:type", "sentinel-1-rtc", RTC, {"product:type": "IW_GRDH_1S"}, refused="GRD"),
    Situation("geocoded Sentinel-1 without terrain", "sentinel-1-rtc", RTC, {"sar:product_type": "GTC"}, refused="'gtc'"),
    Situation("GRD by its files", "sentinel-1-rtc", {"vv": {"href": "S1A_IW_GRDH_1SDV_20230103T155641/iw-vv.tiff"}, "vh": {"href": "vh.tif"}}, refused="GRD"),
    Situation("sigma nought by the item's title", "sentinel-1-rtc", RTC, {"title": "Sentinel-1 sigma0, linear"}, refused="sigma nought"),
    Situation("sigma nought beside gamma nought", "sentinel-1-rtc", {**RTC, "vv": {"href": "vv.tif", "description": "gamma0, from sigma0"}}, {"sar:product_type": "RTC"}, refused="`clay-publish sensors sentinel-1-rtc` prints one"),
    Situation("ALOS as Sentinel-1", "sentinel-1-rtc", RTC, {"platform": "ALOS-2"}, refused="alos"),
    Situation("top of the atmosphere by titles", S2, ten(title="TOA reflectance"), refused="top of the atmosphere"),
    Situation("top of the atmosphere by the title of a band that is not read", S2, ten() | {"lwir": {"href": "t.tif", "title": "Top of Atmosphere Brightness Temperature"}}),
    Situation("Landsat at the top of the atmosphere by descriptions", SR, {k: {"href": f"{k}.tif", "description": "Top of Atmosphere reflectance"} for k in L7}, {"platform": "landsat-7"}, refused="top of the atmosphere"),
    Situation("L2A as L1C by its classes", L1C, {**ten(), "SCL": {"href": "s.tif"}}, refused="sentinel-2-l2a"),
    Situation("PlanetScope radiance by its file", "planetscope-4b-sr", {"data": {"href": "20230101_101010_00_2414_3B_AnalyticMS_clip.tif"}}, {"constellation": "planetscope"}, refused="radiance"),
    Situation("PlanetScope reflectance by its file", "planetscope-4b-sr", {"data": {"href": "20230101_101010_00_2414_3B_AnalyticMS_SR_clip.tif"}}, {"constellation": "planetscope"}, mapping="data#1 data#2 data#3 data#4"),
    Situation("PlanetScope radiance by its type", "planetscope-4b-sr", {"data": {"href": "a.tif"}}, {"constellation": "planetscope", "pl:asset_type": "ortho_analytic_4b"}, refused="radiance"),
    Situation("GRD by id", "sentinel-1-rtc", RTC, item={"id": "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13"}, refused="GRD"),
    Situation("sigma nought as RTC", "sentinel-1-rtc", {"sigma0_vv": {"href": "a.tif"}, "sigma0_vh": {"href": "b.tif"}}, {"platform": "sentinel-1a"}, refused="sigma nought"),
    Situation("GRD as RTC", "sentinel-1-rtc", RTC, {"sar:product_type": "GRD"}, refused="GRD"),
    Situation("SLC as RTC", "sentinel-1-rtc", RTC, {"sar:product_type": "SLC"}, refused="SLC"),
    Situation("GRD by collection", "sentinel-1-rtc", RTC, item={"collection": "sentinel-1-grd"}, refused="GRD"),
    Situation("sigma nought by a title", "sentinel-1-rtc", {"vv": {"href": "vv.tif", "title": "Sigma0 VV, linear power"}, "vh": {"href": "vh.tif"}}, refused="sigma nought"),
    Situation("sigma nought by a file", "sentinel-1-rtc", {"vv": {"href": "a/S1A_20230103_Sigma0_VV.tif"}, "vh": {"href": "vh.tif"}}, {"platform": "sentinel-1a"}, refused="sigma nought"),
    Situation("sigma nought by a band", "sentinel-1-rtc", {**RTC, "vh": {"href": "vh.tif", "bands": [{"name": "vh", "description": "sigma naught"}]}}, refused="sigma nought"),
    Situation("sigma nought of CARD4L", "sentinel-1-rtc", RTC, {"card4l:measurement_type": "sigma-0", "sar:product_type": "RTC"}, refused="sigma nought"),
    Situation("gamma nought of CARD4L", "sentinel-1-rtc", RTC, {"card4l:measurement_type": "gamma-0"}, mapping="vv vh"),
    Situation("a sentence on gamma nought from GRD", "sentinel-1-rtc", {**RTC, "vv": {"href": "iw-vv.rtc.tiff", "description": "Terrain-corrected gamma naught values"}}, {"sar:product_type": "GRD"}, mapping="vv vh"),
    Situation("beta nought", "sentinel-1-rtc", RTC, {"sarx:calibration": "BETA_0"}, refused="beta nought"),
    Situation("gamma nought of the ellipsoid", "sentinel-1-rtc", {**RTC, "vv": {"href": "iw-vv.tiff", "title": "Gamma0 ellipsoid VV"}}, {"sar:product_type": "GRD"}, refused="ellipsoid"),
    Situation("GAMMA0_ELLIPSOID", "sentinel-1-rtc", {**RTC, "vv": {"href": "iw-vv.tiff", "title": "GAMMA0_ELLIPSOID"}}, {"sar:product_type": "GRD"}, refused="ellipsoid"),
    Situation("RTC from GRD", "sentinel-1-rtc", RTC, {"sar:product_type": "GRD"}, {"collection": "sentinel-1-rtc"}, mapping="vv vh"),
    Situation("Maxar as LINZ", "linz", {"visual": described("red green blue")}, item={"collection": "MAXAR_BayofBengal_Cyclone_Mocha_May_23"}, refused="linz"),
    Situation("anything as LINZ", "linz", {"visual": described("red green blue")}, refused="aerial-rgb"),
    Situation("LINZ by its grid", "linz", {"visual": described("red green blue")}, {"proj:epsg": 2193}, mapping="visual#1 visual#2 visual#3"),
    Situation("Maxar as NAIP", "naip", {"data": described(RGBN)}, {"providers": [{"name": "Maxar"}]}, refused="maxar"),
    Situation("PlanetScope radiance", "planetscope-4b-sr", {"analytic": {"href": "a.tif", "title": "PSScene4Band Analytic GeoTIFF"}, "udm": {"href": "u.tif"}}, {"constellation": "planetscope"}, refused="has no band"),
    Situation("Sentinel-2 as Landsat", SR, ten(), {"constellation": "sentinel-2"}, refused="sentinel-2-l2a"),
]  # fmt: skip
