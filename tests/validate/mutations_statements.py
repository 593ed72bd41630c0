"""Ways to break single facts in documents, as another version of the software might have written them."""

import re
from collections.abc import Callable
from typing import Any

import shapely
import shapely.affinity
from breakage import Broken, mutation

CARD, HOST, AGENTS = "README.md", "hosts/source.coop/README.md", "AGENTS.md"
DATACITE, JSON_LD, CROISSANT, MODEL = "datacite.json", "dataset.jsonld", "croissant.json", "model.json"
_DESCRIBED = {"datacite": DATACITE, "json_ld": JSON_LD, "croissant": CROISSANT}
_CARDS = {"card": CARD, "host_card": HOST}


def _register(name: str, code: str, what: str, apply: Callable[[Broken], None], base: str = "small") -> None:
    apply.__name__ = name
    mutation(code, what, base=base)(apply)


def _words(name: str, code: str, path: str, pattern: str, new: str, what: str, base: str = "small") -> None:
    """Another wording in the body of a document."""

    def apply(broken: Broken) -> None:
        text = (broken.folder / path).read_text()
        matter, fence, body = text.partition("\n---\n") if text.startswith("---") else ("", "", text)
        changed, count = re.subn(pattern, new, body, flags=re.MULTILINE)
        assert count, f"{path} does not hold {pattern!r}"
        (broken.folder / path).write_text(matter + fence + changed)

    _register(name, code, what, apply, base)


def _keys(
    name: str, code: str, path: str, edit: Callable[[dict[str, Any]], Any], what: str, base: str = "small"
) -> None:
    """Another value under a key of a JSON document."""
    _register(name, code, what, lambda broken: broken.json(path, edit), base)


def _items(name: str, code: str, edit: Callable[[dict[str, Any]], Any], what: str, base: str = "small") -> None:
    """Another value in the table of Items, which JSON Items follow."""
    _register(name, code, what, lambda broken: broken.items(edit), base)


def _moved(outline: bytes) -> bytes:
    return shapely.to_wkb(shapely.affinity.translate(shapely.from_wkb(outline), 1, 1))


def _shrunk(outline: bytes) -> bytes:
    """Without its northeastern half, bounds as they were."""
    shape = shapely.from_wkb(outline)
    west, south, east, north = shape.bounds
    half = shapely.Polygon([(west, south), (east, south), (west, north)])
    return shapely.to_wkb(shapely.intersection(shape, half))


# Sentences

for _name, _path in _DESCRIBED.items():
    for _topic, _code, _pattern, _new in (
        ("count", "DOC011", r"\d+ embeddings of", "9 embeddings of"),
        ("dimension", "DOC007", r"of \d+ dimensions", "of 999 dimensions"),
        ("model", "DOC012", r"made by .*? from", "made by Prithvi from"),
        ("sensor", "DOC008", r"from \S+ imagery", "from modis imagery"),
        ("period", "TIM007", r"imagery of \S+ to", "imagery of 1999-01-01 to"),
        ("ground", "DOC008", r"one for each \S+ m", "one for each 9 m"),
    ):
        _words(f"another_{_topic}_in_{_name}", _code, _path, _pattern, _new, f"{_path} describes another {_topic}")

for _name, _path in _CARDS.items():
    for _topic, _code, _pattern, _new in (
        ("count", "DOC011", r"^\*\*[\d,]+ embeddings", "**9 embeddings"),
        ("dimension", "DOC007", r"embeddings of \d+ dimensions", "embeddings of 999 dimensions"),
        ("model", "DOC012", r"made by \[[^\]]*\]", "made by [Prithvi]"),
        ("sensor", "DOC008", r"from `\S+` imagery", "from `modis` imagery"),
        ("period", "TIM007", r"imagery of \d\S+\d", "imagery of 1999-01-01"),
        ("ground", "DOC008", r"one for each \S+ k?m ×", "one for each 9 m ×"),
        ("version", "DOC010", r"Version \S+,", "Version 9.9.9,"),
        ("license", "DOC009", r"licenses/[\w.-]+\.html", "licenses/MIT.html"),
        ("expected_count", "DOC011", r"^[\d,]+ chips were expected", "99 chips were expected"),
        ("fingerprint", "DOC008", r"fingerprint \| `\w+`", "fingerprint | `0000`"),
        ("weights", "DOC012", r"SHA-256 \| `\w+`", "SHA-256 | `0000`"),
        ("layout", "DOC008", r"layout `\w+`", "layout `hexagons`"),
    ):
        _words(f"the_{_name}_says_another_{_topic}", _code, _path, _pattern, _new, f"{_path} states another {_topic}")

_words(
    "other_gaps_in_the_card",
    "DOC011",
    CARD,
    r"\(`cloud`\) \| \d+",
    "(`cloud`) | 1",
    "the card counts other gaps",
    "clouds",
)
_words(
    "a_host_card_without_credit", "PRV010", HOST, r"Copernicus", "", "the card for a host does not credit the imagery"
)
_words(
    "another_count_for_agents", "DOC011", AGENTS, r"^[\d,]+ embeddings", "9 embeddings", "AGENTS.md counts other chips"
)
_words("another_dtype_for_agents", "DOC008", AGENTS, r"(× )\w+\.", r"\1int16.", "AGENTS.md states another dtype")
_words(
    "another_version_for_agents",
    "DOC010",
    AGENTS,
    r"version \S+: notes",
    "version 9: notes",
    "AGENTS.md is of another version",
)
_words("another_fingerprint_for_agents", "DOC008", AGENTS, r"`\w{64}`", "`0000`", "AGENTS.md names another fingerprint")
_words(
    "another_license_for_agents",
    "DOC009",
    AGENTS,
    r"License: `\S+`",
    "License: `MIT`",
    "AGENTS.md states another license",
)

# Keys

for _name, _path in {"json_ld": JSON_LD, "croissant": CROISSANT}.items():
    _keys(
        f"another_license_in_{_name}",
        "DOC009",
        _path,
        lambda d: d.update(license="MIT"),
        f"{_path} states another license",
    )
    _keys(
        f"another_interval_in_{_name}",
        "TIM007",
        _path,
        lambda d: d.update(temporalCoverage="1999-01-01/1999-02-01"),
        f"{_path} states another period",
    )
    _keys(
        f"another_place_in_{_name}",
        "STC008",
        _path,
        lambda d: d["spatialCoverage"]["geo"].update(box="1 2 3 4"),
        f"{_path} states another place",
    )
for _name, _path in _DESCRIBED.items():
    _keys(
        f"another_version_in_{_name}",
        "DOC010",
        _path,
        lambda d: d.update(version="9.9.9"),
        f"{_path} is of another version",
    )
_keys(
    "another_place_in_datacite",
    "STC008",
    DATACITE,
    lambda d: d["geoLocations"][0]["geoLocationBox"].update(westBoundLongitude=-179.0),
    "datacite.json states another place",
)
_keys(
    "another_title_in_datacite",
    "DOC013",
    DATACITE,
    lambda d: d.update(titles=[{"title": "Clouds"}]),
    "datacite.json has another title",
)
_keys(
    "other_rights_in_datacite",
    "DOC009",
    DATACITE,
    lambda d: d["rightsList"][0].update(rightsIdentifier="MIT"),
    "datacite.json states another license",
)
_keys(
    "another_name_in_croissant",
    "DOC013",
    CROISSANT,
    lambda d: d.update(name="clouds"),
    "croissant.json has another name",
)
_keys(
    "another_gsd_in_croissant",
    "DOC008",
    CROISSANT,
    lambda d: d["geocr:spatialResolution"].update(value=99),
    "croissant.json states another ground size",
)
_keys(
    "a_model_elsewhere",
    "STC008",
    MODEL,
    lambda m: m.update(bbox=[-180, -90, 180, 90]),
    "model.json was used all over the Earth",
)
_keys(
    "a_model_of_another_period",
    "TIM007",
    MODEL,
    lambda m: m["properties"].update(start_datetime="1999-01-01T00:00:00Z"),
    "model.json was used in another period",
)
_keys(
    "a_model_of_other_bands",
    "DOC008",
    MODEL,
    lambda m: m["properties"]["mlm:input"][0].update(bands=["hh", "hv"]),
    "model.json states other bands",
)
_keys(
    "a_model_of_other_statistics",
    "DOC008",
    MODEL,
    lambda m: m["properties"]["mlm:input"][0]["value_scaling"][0].update(mean=-1.0),
    "model.json states another mean",
)
_keys(
    "a_model_of_another_size",
    "DOC008",
    MODEL,
    lambda m: m["properties"]["mlm:input"][0]["input"].update(shape=[-1, 3, 7, 7]),
    "model.json takes chips of another size",
)
_keys(
    "a_model_of_other_dimensions",
    "DOC007",
    MODEL,
    lambda m: m["properties"]["mlm:output"][0]["result"].update(shape=[-1, 9]),
    "model.json gives vectors of another length",
)

COLLECTION = "collection.json"
_keys(
    "another_dimension_in_summaries",
    "DOC007",
    COLLECTION,
    lambda c: c["summaries"].update({"emb:dimensions": [9]}),
    "summaries state another dimension",
)
_keys(
    "another_projection_in_summaries",
    "DOC008",
    COLLECTION,
    lambda c: c["summaries"].update({"proj:code": ["EPSG:32701"]}),
    "summaries state another projection",
)
_keys(
    "another_gsd_in_summaries",
    "DOC008",
    COLLECTION,
    lambda c: c["summaries"].update(gsd=[99]),
    "summaries state another ground size",
)
_keys(
    "a_column_less_in_the_collection",
    "DOC008",
    COLLECTION,
    lambda c: c["table:columns"].pop(),
    "the Collection lists a column less",
)
_keys(
    "other_decisions_in_the_collection",
    "DOC008",
    COLLECTION,
    lambda c: c["embrel:decided_by"].update(sensor="modis"),
    "the Collection states another sensor",
)
_keys(
    "other_gaps_in_the_collection",
    "DOC011",
    COLLECTION,
    lambda c: c["embrel:coverage"].update(missing={"cloud": 5}),
    "the Collection counts other gaps",
)
_keys(
    "a_longer_interval",
    "TIM007",
    COLLECTION,
    lambda c: c["extent"]["temporal"].update(interval=[["1999-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]]),
    "the Collection's interval begins years before the chips",
)
_keys(
    "a_part_outside_of_the_extent",
    "STC008",
    COLLECTION,
    lambda c: c["extent"]["spatial"]["bbox"].extend([c["extent"]["spatial"]["bbox"][0], [0, 0, 1, 1]]),
    "a part of the extent lies elsewhere",
)
_keys(
    "another_title_in_the_collection",
    "DOC013",
    COLLECTION,
    lambda c: c.update(title="Clouds"),
    "the Collection has another title",
)
_keys(
    "a_doi_that_was_not_minted",
    "DOC013",
    COLLECTION,
    lambda c: c.update({"sci:doi": "10.5281/zenodo.1"}),
    "the Collection states a DOI that release.yaml does not",
)
_keys(
    "providers_of_another_release",
    "DOC013",
    COLLECTION,
    lambda c: c.update(providers=[{"name": "Others"}]),
    "the Collection names other providers",
)
_keys(
    "a_link_to_another_license",
    "STC012",
    COLLECTION,
    lambda c: [x.update(href="./README.md") for x in c["links"] if x["rel"] == "license"],
    "the link to the license leads to the card",
)
_keys(
    "a_link_to_another_model",
    "STC012",
    COLLECTION,
    lambda c: [x.update(href="https://example.org/model.json") for x in c["links"] if x["rel"] == "emb:model"],
    "the link to the model leads elsewhere",
)

# The table of Items

_items(
    "outlines_elsewhere",
    "STC006",
    lambda i: i.update(geometry=_moved(i["geometry"])),
    "outlines of Items a degree away, their bbox right",
)
_items(
    "outlines_too_small",
    "STC006",
    lambda i: i.update(geometry=_shrunk(i["geometry"])),
    "outlines of Items leave chips out",
)
_items(
    "another_projection_of_items",
    "STC006",
    lambda i: i.update({"proj:code": "EPSG:32701"}),
    "Items state another projection",
)
_items(
    "another_square_of_items", "STC006", lambda i: i.update({"grid:code": "MGRS-01CCC"}), "Items state another square"
)
_items(
    "another_count_of_embedded",
    "STC005",
    lambda i: i["embrel:coverage"].update(embedded=1),
    "Items say that one chip is embedded",
)
_items(
    "items_that_begin_earlier",
    "STC007",
    lambda i: i.update(start_datetime=i["start_datetime"].replace(year=1999)),
    "Items begin years before their chips",
)
_items(
    "other_preprocessing_of_items",
    "DOC008",
    lambda i: i["emb:preprocessing"].update(expression="none"),
    "Items state another preprocessing",
)
_items(
    "other_quantization_of_items",
    "DOC008",
    lambda i: i["emb:quantization"].update(method="none"),
    "Items state another quantization",
    "int8",
)
_items(
    "other_parameters_of_items",
    "DOC012",
    lambda i: i["emb:runtime_parameters"].update(precision="bfloat16"),
    "Items state another precision",
)
_items(
    "another_type_of_assets",
    "STC009",
    lambda i: i["assets"]["embeddings"].update(type="text/csv"),
    "Items call their files CSV",
)
_items(
    "patches_of_no_file",
    "STC009",
    lambda i: i["assets"]["patches"].update(href="patches/zone=01/none.parquet"),
    "Items lead to patches that are not there",
    "beside",
)
_items(
    "aggregates_that_are_patches",
    "STC009",
    lambda i: i["assets"]["aggregates-2x2"].update(href=i["assets"]["patches"]["href"]),
    "Items lead to patches where they promise aggregates",
    "beside",
)
_items(
    "items_with_arrays_of_another_zone",
    "STC009",
    lambda i: i["assets"]["arrays"].update(href="arrays/arrays.zarr/utm01"),
    "Items lead to arrays of another zone",
    "arrays",
)
_items(
    "titles_of_other_items",
    "DOC021",
    lambda i: i.update(title="18SVG, 1999-01-01/1999-02-01"),
    "Items have the title of another window",
)
_items(
    "sources_of_other_items",
    "DOC021",
    lambda i: [x.update(href="other.parquet") for x in i["links"] if x["rel"] == "emb:source-data"],
    "Items name other sources",
)
