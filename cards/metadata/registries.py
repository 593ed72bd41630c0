"""What registries of data read: DataCite, to mint a DOI, and schema.org, for search engines.

Sources: https://schema.datacite.org/meta/kernel-4.5/, https://schema.org/Dataset,
https://developers.google.com/search/docs/appearance/structured-data/dataset.
"""

from datetime import date
from typing import Any

from clay_publish.cards import licenses
from clay_publish.cards.filters import TEXT, one_line
from clay_publish.cards.release_facts import CardFacts
from clay_publish.spec.models import Creator


def described(facts: CardFacts) -> str:
    """One or two sentences on what the release is, for machines that show them to people."""
    made = (
        f"{facts.embeddings.rows} embeddings of {facts.fingerprint.dimensions} dimensions, made by "
        f"{one_line(facts.fingerprint.model_name)} from {facts.spec.sensor} imagery of "
        f"{facts.start.date().isoformat()} to {facts.end.date().isoformat()}, one for each "
        f"{facts.ground:.10g} m of ground."
    )
    own = one_line(facts.spec.description or "", TEXT - len(made) - 1)
    return f"{own} {made}".strip()


def creators(facts: CardFacts) -> list[dict[str, Any]]:
    """The creators as schema.org's persons and organisations."""
    made: list[dict[str, Any]] = []
    for creator in facts.spec.creators:
        one: dict[str, Any] = {"@type": "Person" if creator.orcid else "Organization", "name": one_line(creator.name)}
        if creator.orcid:
            one["sameAs"] = f"https://orcid.org/{creator.orcid[-19:]}"
        if creator.orcid and creator.affiliation:
            one["affiliation"] = {"@type": "Organization", "name": one_line(creator.affiliation)}
        made.append(one)
    return made or [{"@type": "Organization", "name": f"The creators of {facts.spec.name}"}]


def json_ld(facts: CardFacts, released: date) -> dict[str, Any]:
    """A `Dataset` to put into a web page."""
    spec = facts.spec
    west, south, east, north = facts.bbox
    made: dict[str, Any] = {
        "@context": "https://schema.org/",
        "@type": "Dataset",
        "name": one_line(facts.title),
        "alternateName": spec.name,
        "description": described(facts),
        "version": spec.version,
        "datePublished": released.isoformat(),
        "license": licenses.address(spec.license) or spec.license,
        "isAccessibleForFree": True,
        "creator": creators(facts),
        "keywords": ["embeddings", "earth observation", *(one_line(word, 60) for word in spec.keywords)],
        "temporalCoverage": f"{facts.start.date().isoformat()}/{facts.end.date().isoformat()}",
        "spatialCoverage": {
            "@type": "Place",
            "geo": {"@type": "GeoShape", "box": f"{south:.6f} {west:.6f} {north:.6f} {east:.6f}"},
        },
        "measurementTechnique": one_line(facts.fingerprint.model_name),
        "variableMeasured": {
            "@type": "PropertyValue",
            "name": "embedding",
            "description": f"A vector of {facts.fingerprint.dimensions} numbers that describes a chip of imagery.",
        },
        "isBasedOn": [
            {"@type": "Dataset", "name": one_line(name), "description": _based_on(facts, name)}
            for name in facts.sources.collections[:20] or (spec.sensor,)
        ],
    }
    if spec.doi:
        made["identifier"] = f"https://doi.org/{one_line(spec.doi)}"
    if facts.home:
        made["url"] = facts.home
    if facts.address:
        made["distribution"] = [
            {
                "@type": "DataDownload",
                "name": "The table of its files",
                "encodingFormat": "application/vnd.apache.parquet",
                "contentUrl": f"{facts.address}/items.parquet",
            },
            {
                "@type": "DataDownload",
                "name": "STAC Collection",
                "encodingFormat": "application/json",
                "contentUrl": f"{facts.address}/collection.json",
            },
        ]
    return made


def _based_on(facts: CardFacts, name: str) -> str:
    terms = "; ".join(one_line(term.attribution) for term in facts.sources.terms[:5] if term.attribution)
    return f"Imagery of the collection {one_line(name)}, sensor {facts.spec.sensor}. {terms}".strip()


def datacite(facts: CardFacts, released: date) -> dict[str, Any]:
    """The document; without `doi` and `prefix` where the release has none yet."""
    spec = facts.spec
    west, south, east, north = facts.bbox
    made: dict[str, Any] = {
        "schemaVersion": "http://datacite.org/schema/kernel-4",
        "types": {"resourceTypeGeneral": "Dataset", "resourceType": "Embeddings of satellite images"},
        "titles": [{"title": one_line(facts.title)}],
        "creators": [_datacite_creator(creator) for creator in spec.creators]
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


def _datacite_creator(creator: Creator) -> dict[str, Any]:
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
