"""Croissant 1.1 and GeoCroissant 1.0: the release as machine learning tools read it.

Sources: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html,
https://docs.mlcommons.org/croissant/docs/croissant-geo-spec.html.
"""

from datetime import date
from typing import Any

import pyarrow as pa

from clay_publish.cards import licenses
from clay_publish.cards.filters import one_line
from clay_publish.cards.metadata.registries import creators, described, extent
from clay_publish.cards.release_facts import CardFacts, Table

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "geocr": "http://mlcommons.org/croissant/geo/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
} | {
    term: f"cr:{term}"
    for term in (
        "arrayShape",
        "citeAs",
        "column",
        "containedIn",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
        "fileProperty",
        "fileSet",
        "format",
        "includes",
        "isArray",
        "isLiveDataset",
        "jsonPath",
        "key",
        "md5",
        "parentField",
        "path",
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "samplingRate",
        "separator",
        "source",
        "subField",
        "transform",
    )
}

_TYPES = {
    "string": "sc:Text",
    "binary": "sc:Text",
    "float": "cr:Float32",
    "halffloat": "cr:Float16",
    "double": "cr:Float64",
    "int8": "cr:Int8",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "bool": "sc:Boolean",
}


def croissant(facts: CardFacts, released: date, bibtex: str) -> dict[str, Any]:
    """The document; its files are named relative to where it lies."""
    spec = facts.spec
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/geo/1.0"],
        "name": spec.name,
        "alternateName": one_line(facts.title),
        "description": described(facts),
        "version": spec.version,
        "datePublished": released.isoformat(),
        "license": licenses.address(spec.license) or spec.license,
        **({"url": facts.home} if facts.home else {}),
        "creator": creators(facts),
        "keywords": ["embeddings", "earth observation", *(one_line(word, 60) for word in spec.keywords)],
        "citeAs": bibtex,
        "isLiveDataset": False,
        **extent(facts),
        "geocr:coordinateReferenceSystem": "OGC:CRS84",
        "geocr:spatialResolution": {"@type": "QuantitativeValue", "value": facts.gsd, "unitText": "m"},
        "geocr:samplingStrategy": _sampling(facts),
        "distribution": [_files(table) for table in facts.tables],
        "recordSet": [_records(table) for table in facts.tables],
    }


def _sampling(facts: CardFacts) -> str:
    """How the chips were chosen. The release holds no rasters, so the terms of GeoCroissant for bands say nothing."""
    cut = "cells of a fixed UTM grid" if facts.fingerprint.layout == "utm" else "whole chips of each image"
    size = facts.fingerprint.size
    return (
        f"Every chip of {size} × {size} pixels ({facts.ground:.10g} m a side) in the area and windows of release.yaml: "
        f"{cut}. Chips without an embedding are listed in coverage/, each with the reason."
    )


def _files(table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{table.config}-files",
        "name": f"{table.config}-files",
        "description": f"The {table.format} files of the table {table.config}.",
        "encodingFormat": "application/x-parquet",
        "includes": table.pattern,
    }


def _records(table: Table) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": table.config,
        "name": table.config,
        "description": f"{table.rows} rows, one per {table.noun}.",
        "key": [{"@id": f"{table.config}/{column}"} for column in table.key],
        **({"geocr:timeSeriesIndex": {"@id": f"{table.config}/datetime"}} if "datetime" in table.schema.names else {}),
        "field": [_field(table, column) for column in table.schema],
    }


def _field(table: Table, column: pa.Field) -> dict[str, Any]:
    made: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table.config}/{column.name}",
        "name": f"{table.config}/{column.name}",
        "description": table.meaning(column.name) or column.name,
    }
    kind, source = column.type, _source(table, column.name)
    if column.name == "thumbnail":
        source["transform"] = {"jsonPath": "bytes"}
        return made | {"dataType": "sc:ImageObject", "source": source}
    if pa.types.is_struct(kind):
        return made | {"subField": [_part(table, column.name, kind.field(i)) for i in range(kind.num_fields)]}
    shape = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size if pa.types.is_fixed_size_list(kind) else -1)
        kind = kind.value_type
    if shape:
        made |= {"isArray": True, "arrayShape": ",".join(str(side) for side in shape)}
    return made | {"dataType": _type(kind), "source": source}


def _part(table: Table, column: str, part: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table.config}/{column}/{part.name}",
        "name": f"{table.config}/{column}/{part.name}",
        "dataType": _type(part.type),
        "source": _source(table, column) | {"transform": {"jsonPath": part.name}},
    }


def _source(table: Table, column: str) -> dict[str, Any]:
    return {"fileSet": {"@id": f"{table.config}-files"}, "extract": {"column": column}}


def _type(kind: pa.DataType) -> str:
    return "sc:DateTime" if pa.types.is_timestamp(kind) else _TYPES[str(kind)]
