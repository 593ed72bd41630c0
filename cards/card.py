"""The dataset card, for the Hub and for source.coop."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from markupsafe import Markup

from clay_publish.cards import licenses
from clay_publish.cards.changelog import History
from clay_publish.cards.figures.sample import Quality
from clay_publish.cards.filters import environment, one_line
from clay_publish.cards.release_facts import CardFacts, Table
from clay_publish.geo.utm_zones import utm_zones
from clay_publish.release import directory as paths
from clay_publish.release.array_store import zone_group
from clay_publish.release.benchmarks import METRICS
from clay_publish.release.metadata import preprocessing
from clay_publish.release.public_urls import source_coop_address
from clay_publish.release.tables import REASONS, hugging_face_features

_OWN_GROUND = "spatial context determined by embedding spatial type"
_OWN_TIME = "temporal context determined by embedding spatial type"
"""Phrases of the geo-embeddings data card, for vectors that depend on their own chip and window alone."""

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SIZES_BEYOND = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))


def front_matter(facts: CardFacts) -> str:
    """The YAML block with its fences."""
    text = yaml.safe_dump(fields(facts), sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{text}---\n"


def fields(facts: CardFacts) -> dict[str, Any]:
    """The keys of the front matter."""
    spec, fingerprint = facts.spec, facts.fingerprint
    made: dict[str, Any] = {"pretty_name": one_line(facts.title), **_license(spec.license)}
    made["tags"] = _tags(facts)
    made["size_categories"] = [_size(facts.embeddings.rows)]
    made["creator"] = [one_line(creator.name) for creator in spec.creators] or [spec.name]
    made["version"] = spec.version
    if spec.doi:
        made["doi"] = one_line(spec.doi)
    made |= {
        "embedding_spatial_types": ["patch"],
        "embedding_temporal_type": ["multi-date" if facts.multi_date else "single-date"],
        "embedding_spatial_context": _OWN_GROUND,
        "embedding_temporal_context": _OWN_TIME,
        "embedding_dimension": fingerprint.dimensions,
        "grid_spacing": [[_number(facts.ground)] * 2],
        "inference_datasets": [one_line(name) for name in facts.sources.collections[:20]] or [facts.spec.sensor],
        "model_name": one_line(fingerprint.model_name),
        "model_link": one_line(fingerprint.model_link),
    }
    if fingerprint.dtype != "float32":
        made["quantization"] = fingerprint.dtype
    made["configs"] = [_config(table, default=not place) for place, table in enumerate(facts.tables)]
    made["dataset_info"] = [_info(table) for table in facts.tables]
    return made


def _license(spdx: str) -> dict[str, str]:
    known = licenses.on_the_hub(spdx)
    if known:
        return {"license": known}
    return {"license": "other", "license_name": spdx.lower(), "license_link": "LICENSE"}


def _tags(facts: CardFacts) -> list[str]:
    fixed = ["embeddings", "earth-observation", "geospatial", "geoparquet", "stac", "remote-sensing"]
    own = [one_line(word, 60) for word in facts.spec.keywords]
    return list(dict.fromkeys([*fixed, facts.spec.sensor, *(word for word in own if word)]))


def _size(rows: int) -> str:
    for limit, name in (*_SIZES, *_SIZES_BEYOND):
        if rows < limit:
            return name
    return "10B<n<100B"


def _number(meters: float) -> float:
    """`640` rather than `640.0`, and ten digits at most."""
    rounded = float(f"{meters:.10g}")
    return int(rounded) if rounded.is_integer() else rounded


def _config(table: Table, *, default: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"config_name": table.config}
    if default:
        config["default"] = True
    return config | {"data_files": [{"split": "train", "path": table.pattern}]}


def _info(table: Table) -> dict[str, Any]:
    return {
        "config_name": table.config,
        "features": _features(table.schema),
        "splits": [{"name": "train", "num_bytes": table.memory, "num_examples": table.rows}],
        "download_size": table.size,
        "dataset_size": table.memory,
    }


def _features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The columns as `datasets` writes them in YAML."""
    described = hugging_face_features(schema)
    return [{"name": name, **_feature(feature)} for name, feature in described.items()]


def _feature(feature: dict[str, Any]) -> dict[str, Any]:
    if feature.get("_type") == "Image":
        return {"dtype": "image"}
    if feature.get("_type") == "Value":
        return {"dtype": feature["dtype"]}
    if feature.get("_type") == "List":
        inner = _feature(feature["feature"])
        plain = inner.get("dtype") or inner.get("struct")
        made: dict[str, Any] = {"list": plain or inner}
        return made | ({"length": feature["length"]} if feature.get("length", -1) > 0 else {})
    return {"struct": [{"name": name, **_feature(inner)} for name, inner in feature.items()]}


def hub_card(facts: CardFacts, quality: Quality, figures: frozenset[str], bibtex: str, history: History) -> str:
    """`README.md`: front matter and body."""
    return front_matter(facts) + "\n" + _body(facts, quality, figures, bibtex, history, pictures=f"{paths.FIGURES}/")


def host_card(facts: CardFacts, quality: Quality, figures: frozenset[str], bibtex: str, history: History) -> str:
    """The body alone, with the pictures' full addresses where they are known.

    source.coop shows front matter as text, and the card at addresses that relative names do not fit.
    """
    base = source_coop_address(facts.spec) or facts.address or "../.."
    return _body(facts, quality, figures, bibtex, history, pictures=f"{base}/{paths.FIGURES}/")


def agents_guide(facts: CardFacts) -> str:
    """Return `AGENTS.md`: how code loads the release, for coding assistants."""
    template = environment().get_template("agents.md.jinja")
    text: str = template.render(
        facts=facts, spec=facts.spec, fingerprint=facts.fingerprint, box=_box(facts), array_group=_array_group(facts)
    )
    return text


def _body(
    facts: CardFacts, quality: Quality, figures: frozenset[str], bibtex: str, history: History, *, pictures: str
) -> str:
    text: str = (
        environment()
        .get_template("card.md.jinja")
        .render(
            facts=facts,
            spec=facts.spec,
            fingerprint=facts.fingerprint,
            quality=quality,
            figures=figures,
            reasons=REASONS,
            metrics=METRICS,
            license_name=licenses.name(facts.spec.license),
            license_address=licenses.address(facts.spec.license),
            preprocessing=preprocessing(facts.fingerprint),
            box=_box(facts),
            array_group=_array_group(facts),
            period=_period(facts),
            sources=sorted({source for block in facts.spec.imagery for source in block.sources})[:10],
            changelog=Markup(history.entry),  # noqa: S704 - escaped when it was made
            pictures=Markup(pictures),  # noqa: S704 - a quoted address
            # Each of its lines opens with its own text, so none of them can close the block.
            bibtex=Markup(bibtex),  # noqa: S704
        )
    )
    return text


def _box(facts: CardFacts) -> tuple[float, float, float, float]:
    """West, south, east, north of the middle of the release; of its western part if it crosses the antimeridian."""
    west, south, east, north = facts.bbox
    east = east if west <= east else 180.0
    x, y = (east - west) / 3, (north - south) / 3
    digits = max(2, 1 - math.floor(math.log10(min(x, y))))
    return round(west + x, digits), round(south + y, digits), round(east - x, digits), round(north - y, digits)


def _array_group(facts: CardFacts) -> str | None:
    """Group of the arrays that holds the middle of the release, else the first one; None where there are no arrays."""
    west, _, east, _ = _box(facts)
    middle = zone_group(int(utm_zones(np.array([(west + east) / 2]))[0]))
    return middle if middle in facts.arrays else next(iter(facts.arrays), None)


def _period(facts: CardFacts) -> str:
    start, end = facts.start.date().isoformat(), facts.end.date().isoformat()
    return start if start == end else f"{start} to {end}"
