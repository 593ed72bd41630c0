"""What machines read about a release: Croissant, DataCite, schema.org."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from clay_publish.cards import write_cards
from clay_publish.release.directory import Release

from .specs import respecify

CREATORS = [
    {"name": "Ada Lovelace", "orcid": "https://orcid.org/0000-0002-1825-0097", "affiliation": "Analytical Engines"},
    {"name": "An Institute", "affiliation": "A University"},
]


@pytest.fixture
def described(release_copy: Path) -> Path:
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
def test_croissant_is_valid_and_its_records_load(described: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlcroissant

    monkeypatch.chdir(described)
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
def test_croissant_has_the_terms_of_geocroissant(described: Path) -> None:
    import rdflib

    document = json.loads((described / "croissant.json").read_text())
    assert "http://mlcommons.org/croissant/geo/1.0" in document["conformsTo"]
    text = (described / "croissant.json").read_text()
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
    assert place == json.loads((described / "dataset.jsonld").read_text())["spatialCoverage"]["geo"]["box"]


def test_datacite_is_valid(described: Path) -> None:
    from datacite import schema45

    document = json.loads((described / "datacite.json").read_text())
    schema45.validator.validate(document)
    assert document["publisher"] == {"name": "Source Cooperative"}
    assert document["doi"] == "10.5281/zenodo.1234567"
    assert [creator["nameType"] for creator in document["creators"]] == ["Personal", "Organizational"]


def test_datacite_is_valid_when_the_spec_says_little(sample_release: Path) -> None:
    from datacite import schema45

    schema45.validator.validate(json.loads((sample_release / "datacite.json").read_text()))


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated")
def test_every_term_of_the_json_ld_is_one_of_schema_org(described: Path) -> None:
    import rdflib

    document = json.loads((described / "dataset.jsonld").read_text())
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


def test_card_on_source_coop_links_to_the_explorer(described: Path) -> None:
    page = "https://data.source.coop/me/shore/1.0.0/explore/index.html"
    assert page in (described / "hosts/source.coop/README.md").read_text()
    assert page in (described / "README.md").read_text()


def test_space_shows_the_release_on_the_hub(release_copy: Path, tmp_path: Path) -> None:
    address = "https://huggingface.co/datasets/me/shore/resolve/v1.0.0"
    respecify(release_copy, publish={"hugging_face": "me/shore", "base_url": address.rpartition("/")[0]})
    write_cards(Release(str(release_copy)))
    assert "explore/index.html" not in (release_copy / "README.md").read_text(), "the Hub shows HTML as text"
    space = release_copy / "hosts/huggingface-space"
    front = yaml.safe_load((space / "README.md").read_text().strip("-\n"))
    assert (front["sdk"], front["datasets"]) == ("static", ["me/shore"])
    assert f'<meta name="release" content="{address}">' in (space / "index.html").read_text()
    hf = tmp_path / "hf"
    hf.write_text('#!/bin/sh\necho "$@" >> "$LOG"\n')
    hf.chmod(0o755)
    settings = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(tmp_path / "log")}
    subprocess.run(["/bin/sh", space / "upload.sh", "me/space"], cwd=release_copy, env=settings, check=True)
    create, *uploads = ((tmp_path / "log").read_text()).splitlines()
    assert create == "repo create me/space --repo-type space --space-sdk static --exist-ok"
    sent = {line.split()[3]: line.split()[2] for line in uploads}
    page = {
        path.name for path in (release_copy / "explore").iterdir() if path.suffix in {".js", ".css", ".bin", ".txt"}
    }
    assert sent.keys() == page | {"index.html", "README.md"}
    assert all((release_copy / path).is_file() for path in sent.values())
    assert sent["index.html"] == "hosts/huggingface-space/index.html"
