import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
from referencing import Registry, Resource

import clay_publish
from clay_publish.catalog.pystac_extension import Coverage, EmbeddingReleaseExtension, Loss
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.metadata import SCHEMA_URI, schema

EXTENSION = Path(__file__).resolve().parents[2] / "catalog" / "embedding-release"
EXAMPLES = EXTENSION / "examples"
INVALID = sorted((EXAMPLES / "invalid").glob("*.json"))


@pytest.fixture(scope="session")
def checker(validator: Any) -> jsonschema.Draft7Validator:
    """Our schema alone, with the core of STAC it refers to."""
    known = [(uri, Resource.from_contents(document)) for uri, document in validator.schema_cache.items()]
    return jsonschema.Draft7Validator(schema(), registry=Registry().with_resources(known))


@pytest.mark.parametrize("name", ["collection.json", "item.json"])
def test_examples_are_valid_with_all_they_declare(name: str, validator: Any, checker: Any) -> None:
    document = json.loads((EXAMPLES / name).read_text())
    assert SCHEMA_URI in document["stac_extensions"]
    assert list(checker.iter_errors(document)) == []
    pystac.validation.validate_dict(document, validator=validator)


REASONS = {
    "collection-of-stac-1.0": "1.1.0",
    "collection-with-emb-summary-of-chips": "emb:chip_layout",
    "collection-with-unknown-emb-field": "emb:dimension",
    "collection-without-coverage": "embrel:coverage",
    "collection-without-model-link": "emb:model",
    "item-with-emb-field-on-asset": "emb:dimensions",
    "item-with-negative-coverage": "-1",
    "item-with-quantization-without-method": "method",
    "item-with-short-fingerprint": "abc",
    "item-without-declaration": SCHEMA_URI,
    "item-without-embeddings-asset": "embeddings",
}


def test_every_invalid_example_has_its_reason() -> None:
    assert {path.stem for path in INVALID} == set(REASONS)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid_examples_are_invalid_for_one_reason(path: Path, checker: Any) -> None:
    def leaves(error: Any) -> list[Any]:
        return [leaf for child in error.context for leaf in leaves(child)] if error.context else [error]

    errors = list(checker.iter_errors(json.loads(path.read_text())))
    assert errors
    messages = " ".join(f"{leaf.message} {leaf.schema}" for error in errors for leaf in leaves(error))
    assert REASONS[path.stem] in messages


def test_the_specification_names_every_field_of_the_schema() -> None:
    text = (EXTENSION / "README.md").read_text()
    definitions = schema()["definitions"]
    places = [definitions["item"]["allOf"][1]["properties"]["properties"], definitions["collection"]["allOf"][1]]
    names = {name for place in places for name in place["properties"]} | set(definitions["energy"]["properties"])
    assert {name for name in names if f"`{name}`" not in text} == set()
    assert f"<{SCHEMA_URI}>" in text
    required = places[1]["required"]
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| `")}
    assert all("REQUIRED" in rows[f"`{name}`"] for name in required if name != "links")


def test_pystac_reads_the_fields_of_a_collection_and_an_item() -> None:
    collection = pystac.Collection.from_file(str(EXAMPLES / "collection.json"))
    release = EmbeddingReleaseExtension.ext(collection)
    assert release.decided_by is not None
    assert Fingerprint.model_validate(release.decided_by).digest == release.fingerprint
    assert release.coverage == Coverage(expected=13, embedded=12, missing={"cloud": 1})
    assert release.coverage.share == pytest.approx(12 / 13)
    assert (release.dimensions, release.loss) == (8, None)
    assert release.chip_layout is not None
    file = EmbeddingReleaseExtension.ext(pystac.Item.from_file(str(EXAMPLES / "item.json")))
    assert file.fingerprint == release.fingerprint
    assert file.quantization is not None
    assert file.pooling is None


def test_pystac_writes_fields_that_are_valid(validator: Any) -> None:
    collection = pystac.Collection.from_file(str(EXAMPLES / "collection.json"))
    for name in [name for name in collection.extra_fields if name.startswith("embrel:")]:
        del collection.extra_fields[name]
    EmbeddingReleaseExtension.remove_from(collection)
    with pytest.raises(pystac.ExtensionNotImplemented):
        EmbeddingReleaseExtension.ext(collection)
    release = EmbeddingReleaseExtension.ext(collection, add_if_missing=True)
    with pytest.raises(pystac.RequiredPropertyMissing):
        _ = release.fingerprint
    release.apply(
        "0" * 64,
        Coverage(2, 1, {"cloud": 1}),
        pooling="class token",
        decided_by={"encoder": "clay"},
        loss=Loss("loss", "mean absolute error"),
    )
    collection.validate(validator=validator)
    assert release.loss == Loss("loss", "mean absolute error")
    with pytest.raises(pystac.ExtensionTypeError):
        EmbeddingReleaseExtension.ext(pystac.Catalog("a", "b"))  # type: ignore[arg-type]


def test_quantized_vectors_are_undone_as_the_specification_says(make_release: Any) -> None:
    from clay_publish.catalog import write_items

    release = make_release(dtype="int8")
    write_items(release)
    rows = pq.read_table(release.store.path(release.data_files()[0]))
    stored = np.stack(rows["embedding"].to_pylist()).astype(np.float32)
    by_hand = stored * rows["scale"].to_numpy()[:, None]
    ours = clay_publish.open_release(release.store.where).vector(rows["id"][3].as_py())
    np.testing.assert_array_equal(by_hand[3], ours)
    assert pa.types.is_int8(rows.schema.field("embedding").type.value_type)
