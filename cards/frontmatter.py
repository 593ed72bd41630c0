"""The front matter of the dataset card: what the Hub, `datasets` and the geo-embeddings data card read.

Written by a YAML library from values, never by a template.
Sources: https://huggingface.co/docs/hub/datasets-cards, the data card of https://github.com/geo-embeddings.
"""

from typing import Any

import pyarrow as pa
import yaml

from clay_publish.cards import licences
from clay_publish.cards.escape import one_line
from clay_publish.cards.facts import Facts, Table
from clay_publish.tables import hugging_face_features

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_SIZES_BEYOND = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))


def front_matter(facts: Facts) -> str:
    """The YAML block with its fences."""
    text = yaml.safe_dump(fields(facts), sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{text}---\n"


def fields(facts: Facts) -> dict[str, Any]:
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
        "embedding_temporal_type": "multi-date" if facts.sources.composite else "single-date",
        "embedding_spatial_context": f"{fingerprint.size} x {fingerprint.size} pixels, {facts.ground:.10g} m a side",
        "embedding_temporal_context": _period(facts),
        "embedding_dimension": fingerprint.dimensions,
        "grid_spacing": f"{facts.ground:.10g} m",
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
    known = licences.on_the_hub(spdx)
    if known:
        return {"license": known}
    return {"license": "other", "license_name": spdx.lower(), "license_link": "LICENSE"}


def _tags(facts: Facts) -> list[str]:
    fixed = ["embeddings", "earth-observation", "geospatial", "geoparquet", "stac", "remote-sensing"]
    own = [one_line(word, 60) for word in facts.spec.keywords]
    return list(dict.fromkeys([*fixed, facts.spec.sensor, *(word for word in own if word)]))


def _size(rows: int) -> str:
    for limit, name in (*_SIZES, *_SIZES_BEYOND):
        if rows < limit:
            return name
    return "10B<n<100B"


def _period(facts: Facts) -> str:
    return f"{facts.start.date().isoformat()} to {facts.end.date().isoformat()}"


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
