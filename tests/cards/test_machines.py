"""What machines read about a release: Croissant, DataCite, schema.org."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clay_publish.cards import write_cards
from clay_publish.release.directory import Release

from .specs import respecify

CREATORS = [
    {"name": "Ada Lovelace", "orcid": "https://orcid.org/0000-0002-1825-0097", "affiliation": "Analytical Engines"},
    {"name": "An Institute", "affiliation": "A University"},
]


@pytest.fixture
def told(release_copy: Path) -> Path:
    respecify(
        release_copy,
        creators=CREATORS,
        doi="10.5281/zenodo.1234567",
        keywords=["coast"],
        description="All of the shore.",
        publish={"base_url": "https://data.example.org/shore", "source_coop": "me/shore"},
    )
    write_cards(Release(str(release_copy)))
    return release_copy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated", "ignore:The inplace keyword")
def test_croissant_is_valid_and_its_records_load(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlcroissant

    monkeypatch.chdir(told)
    dataset = mlcroissant.Dataset("croissant.json")
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    assert dataset.metadata.version == "1.0.0"
    records = list(dataset.records("embeddings"))
    table = pq.read_table("embeddings", partitioning=None)
    assert len(records) == table.num_rows
    assert {name.removeprefix("embeddings/") for name in records[0]} == set(table.column_names)
    assert records[0]["embeddings/embedding"] == table["embedding"][0].as_py()
    assert set(records[0]["embeddings/bbox"]) == {
        f"embeddings/bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax")
    }


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated")
def test_croissant_has_the_terms_of_geocroissant(told: Path) -> None:
    import rdflib

    document = json.loads((told / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/geo/1.0" in document["conformsTo"]
    text = (told / "croissant.json").read_text()
    graph = rdflib.Graph().parse(data=text, format="json-ld")
    geo = rdflib.Namespace("http://mlcommons.org/croissant/geo/")
    (dataset,) = graph.subjects(rdflib.RDF.type, rdflib.URIRef("https://schema.org/Dataset"))
    assert str(graph.value(dataset, geo.coordinateReferenceSystem)) == "OGC:CRS84"
    resolution = graph.value(dataset, geo.spatialResolution)
    assert graph.value(resolution, rdflib.URIRef("https://schema.org/value")).toPython() == 10
    assert "64 × 64 pixels (640 m a side)" in str(graph.value(dataset, geo.samplingStrategy))
    series = list(graph.subject_objects(geo.timeSeriesIndex))
    assert [str(field).rpartition("embeddings/")[2] for _, field in series] == ["datetime"]
    place = document["spatialCoverage"]["geo"]["box"]
    assert place == json.loads((told / "dataset.jsonld").read_text())["spatialCoverage"]["geo"]["box"]


def test_datacite_is_valid(told: Path) -> None:
    from datacite import schema45

    document = json.loads((told / "datacite.json").read_text())
    schema45.validator.validate(document)
    assert document["publisher"] == {"name": "Source Cooperative"}
    assert document["doi"] == "10.5281/zenodo.1234567"
    assert [creator["nameType"] for creator in document["creators"]] == ["Personal", "Organizational"]


def test_datacite_is_valid_when_the_spec_says_little(sample_release: Path) -> None:
    from datacite import schema45

    schema45.validator.validate(json.loads((sample_release / "datacite.json").read_text()))


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated")
def test_every_term_of_the_json_ld_is_one_of_schema_org(told: Path) -> None:
    import rdflib

    document = json.loads((told / "dataset.jsonld").read_text())
    assert document["@context"] == "https://schema.org/"
    document["@context"] = {"@vocab": "https://schema.org/"}  # what that address says, without asking it
    graph = rdflib.Graph().parse(data=json.dumps(document), format="json-ld")
    prefix = str(rdflib.SDO)
    types = {str(kind) for kind in graph.objects(None, rdflib.RDF.type)}
    terms = {str(term) for term in graph.predicates()} - {str(rdflib.RDF.type)} | types
    assert all(term.startswith(prefix) for term in terms)
    assert all(rdflib.URIRef(term) in rdflib.SDO for term in terms)
    assert f"{prefix}Dataset" in types
    west, south, east, north = -75.69, 37.65, -75.57, 37.75
    s, w, n, e = (float(side) for side in document["spatialCoverage"]["geo"]["box"].split())
    assert west < w < e < east
    assert south < s < n < north
    assert 50 <= len(document["description"]) <= 5000
