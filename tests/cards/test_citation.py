"""The citation and the license of a release."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from clay_publish.cards import write_cards
from clay_publish.release.directory import Release

from .specs import respecify

SCHEMA = json.loads((Path(__file__).parent / "cff-1.2.0.json").read_text())


def test_the_citation_is_valid(release_copy: Path) -> None:
    respecify(
        release_copy,
        creators=[
            {"name": "Ada Lovelace", "orcid": "0000-0002-1825-0097", "affiliation": "Analytical Engines"},
            {"name": "Hopper, Grace", "email": "grace@example.org"},
            {"name": "An Institute"},
        ],
        doi="10.5281/zenodo.1234567",
        keywords=["coast", "coast", "wetland"],
        publish={"base_url": "https://data.example.org/shore"},
    )
    write_cards(Release(str(release_copy)))
    cited = yaml.safe_load((release_copy / "CITATION.cff").read_text())
    jsonschema.validate(cited, SCHEMA)
    assert cited["type"] == "dataset"
    assert cited["license"] == "CC-BY-4.0"
    assert cited["doi"] == "10.5281/zenodo.1234567"
    assert cited["keywords"] == ["coast", "wetland"]
    assert cited["authors"][0] == {
        "family-names": "Lovelace",
        "given-names": "Ada",
        "affiliation": "Analytical Engines",
        "orcid": "https://orcid.org/0000-0002-1825-0097",
    }
    assert cited["authors"][2] == {"name": "An Institute"}
    assert [reference["type"] for reference in cited["references"]] == ["software", "data"]


def test_a_citation_without_creators_is_valid(sample_release: Path) -> None:
    jsonschema.validate(yaml.safe_load((sample_release / "CITATION.cff").read_text()), SCHEMA)


@pytest.mark.skipif(
    shutil.which("cffconvert") is None, reason="cffconvert wants an environment of its own; none is on the PATH"
)
def test_cffconvert_agrees(sample_release: Path) -> None:
    subprocess.run(["cffconvert", "--validate"], cwd=sample_release, check=True, timeout=60)  # noqa: S607


def test_the_license_is_there_in_full(release_copy: Path) -> None:
    assert "Section 8 – Interpretation." in (release_copy / "LICENSE").read_text()
    respecify(release_copy, license="CC0-1.0")
    write_cards(Release(str(release_copy)))
    assert "Affirmer understands and acknowledges" in (release_copy / "LICENSE").read_text()


def test_a_license_that_is_not_known_is_named(release_copy: Path) -> None:
    respecify(release_copy, license="LicenseRef-Own-Terms")
    write_cards(Release(str(release_copy)))
    assert "LicenseRef-Own-Terms" in (release_copy / "LICENSE").read_text()
    card = (release_copy / "README.md").read_text()
    assert "license: other" in card
    jsonschema.validate(yaml.safe_load((release_copy / "CITATION.cff").read_text()), SCHEMA)


def test_the_day_of_release_is_the_specs(release_copy: Path) -> None:
    respecify(release_copy, released="2020-02-29")
    write_cards(Release(str(release_copy)))
    assert yaml.safe_load((release_copy / "CITATION.cff").read_text())["date-released"] == "2020-02-29"
