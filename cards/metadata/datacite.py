"""DataCite 4.5: what a repository needs to mint a DOI for a release.

Source: https://schema.datacite.org/meta/kernel-4.5/.
"""

from datetime import date
from typing import Any

from clay_publish.cards import licenses
from clay_publish.cards.filters import one_line
from clay_publish.cards.metadata.jsonld import described
from clay_publish.cards.release_facts import CardFacts
from clay_publish.spec.models import Creator


def datacite(facts: CardFacts, released: date) -> dict[str, Any]:
    """The document; without `doi` and `prefix` where the release has none yet."""
    spec = facts.spec
    west, south, east, north = facts.bbox
    made: dict[str, Any] = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Embeddings of satellite images"},
        "titles": [{"title": one_line(facts.title)}],
        "creators": [_creator(creator) for creator in spec.creators]
        or [{"name": f"The creators of {spec.name}", "nameType": "Organizational"}],
        "publisher": {"name": _publisher(facts)},
        "publicationYear": str(released.year),
        "version": spec.version,
        "descriptions": [{"description": described(facts), "descriptionType": "Abstract"}],
        "subjects": [{"subject": one_line(word, 60)} for word in ("embeddings", "earth observation", *spec.keywords)],
        "dates": [
            {"date": released.isoformat(), "dateType": "Issued"},
            {
                "date": f"{facts.start.date().isoformat()}/{facts.end.date().isoformat()}",
                "dateType": "Collected",
                "dateInformation": "Acquisition of the imagery",
            },
        ],
        "formats": ["application/vnd.apache.parquet"],
        "sizes": [f"{facts.embeddings.rows} embeddings", f"{sum(table.size for table in facts.tables)} bytes"],
        "rightsList": [_rights(spec.license)],
        "geoLocations": [
            {
                "geoLocationBox": {
                    "westBoundLongitude": west,
                    "eastBoundLongitude": east,
                    "southBoundLatitude": south,
                    "northBoundLatitude": north,
                }
            }
        ],
    }
    if spec.doi:
        made["doi"] = one_line(spec.doi)
    if facts.fingerprint.model_link.startswith("https://doi.org/"):
        made["relatedIdentifiers"] = [
            {
                "relatedIdentifier": facts.fingerprint.model_link.removeprefix("https://doi.org/"),
                "relatedIdentifierType": "DOI",
                "relationType": "IsDerivedFrom",
            }
        ]
    return made


def _creator(creator: Creator) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": one_line(creator.name),
        "nameType": "Personal" if creator.orcid else "Organizational",
    }
    if creator.affiliation:
        made["affiliation"] = [{"name": one_line(creator.affiliation)}]
    if creator.orcid:
        made["nameIdentifiers"] = [
            {
                "nameIdentifier": f"https://orcid.org/{creator.orcid[-19:]}",
                "nameIdentifierScheme": "ORCID",
                "schemeUri": "https://orcid.org/",
            }
        ]
    return made


def _publisher(facts: CardFacts) -> str:
    """The host that will show the release; without one, its creators."""
    publish = facts.spec.publish
    if publish.source_coop:
        return "Source Cooperative"
    if publish.hugging_face:
        return "Hugging Face"
    return one_line(facts.spec.creators[0].name) if facts.spec.creators else f"The creators of {facts.spec.name}"


def _rights(spdx: str) -> dict[str, str]:
    where = licenses.address(spdx)
    made = {"rights": licenses.name(spdx)}
    if where:
        made |= {
            "rightsUri": where,
            "rightsIdentifier": spdx,
            "rightsIdentifierScheme": "SPDX",
            "schemeUri": "https://spdx.org/licenses/",
        }
    return made
