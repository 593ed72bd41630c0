"""What registries of data read: CITATION.cff, DataCite to mint a DOI, and schema.org for search engines.

Sources: https://schema.datacite.org/meta/kernel-4.5/, https://schema.org/Dataset,
https://developers.google.com/search/docs/appearance/structured-data/dataset.

Source of CITATION.cff: Citation File Format 1.2.0, https://citation-file-format.github.io.
"""

import re
from datetime import date
from typing import Any

import yaml

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
    """The creators as schema.org's persons and organizations."""
    made: list[dict[str, Any]] = []
    for creator in facts.spec.creators:
        one: dict[str, Any] = {"@type": "Person" if creator.orcid else "Organization", "name": one_line(creator.name)}
        if creator.orcid:
            one["sameAs"] = f"https://orcid.org/{creator.orcid[-19:]}"
        if creator.orcid and creator.affiliation:
            one["affiliation"] = {"@type": "Organization", "name": one_line(creator.affiliation)}
        made.append(one)
    return made or [{"@type": "Organization", "name": f"The creators of {facts.spec.name}"}]


def extent(facts: CardFacts) -> dict[str, Any]:
    """Place and period of the chips, as schema.org states them."""
    west, south, east, north = facts.bbox
    return {
        "temporalCoverage": f"{facts.start.date().isoformat()}/{facts.end.date().isoformat()}",
        "spatialCoverage": {
            "@type": "Place",
            "geo": {"@type": "GeoShape", "box": f"{south:.6f} {west:.6f} {north:.6f} {east:.6f}"},
        },
    }


def json_ld(facts: CardFacts, released: date) -> dict[str, Any]:
    """A `Dataset` to put into a web page."""
    spec = facts.spec
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
        **extent(facts),
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


_ORCID = re.compile(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")
_DOI = re.compile(r"10\.\d{4,9}(\.\d+)?/[A-Za-z0-9:/_;\-.()\[\]\\]{1,200}")
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%-]{1,1000}")


def citation(facts: CardFacts, released: date) -> dict[str, Any]:
    """The fields of CITATION.cff."""
    spec = facts.spec
    made: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, please cite it as below.",
        "type": "dataset",
        "title": one_line(facts.title),
        "version": spec.version,
        "date-released": released.isoformat(),
        "authors": [_author(c.name, c.orcid, c.affiliation, c.email) for c in spec.creators]
        or [{"name": f"The creators of {spec.name}"}],
    }
    if spec.description and one_line(spec.description, TEXT):
        made["abstract"] = one_line(spec.description, TEXT)
    keywords = list(dict.fromkeys(one_line(word, 60) for word in spec.keywords))
    if any(keywords):
        made["keywords"] = [word for word in keywords if word]
    if licenses.name(spec.license) != spec.license:
        made["license"] = spec.license  # the format knows SPDX's own identifiers alone
    elif (where := licenses.address(spec.license)) is not None:
        made["license-url"] = where
    if spec.doi and _DOI.fullmatch(spec.doi):
        made["doi"] = spec.doi
    if facts.home and _URL.fullmatch(facts.home):
        made["url"] = facts.home
    return made | {"references": _references(facts)}


def dump_citation(fields: dict[str, Any]) -> str:
    """CITATION.cff as text."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110)


def citation_bibtex(fields: dict[str, Any], key: str) -> str:
    """The same citation for BibTeX."""
    authors = " and ".join(_bibtex_name(author) for author in fields["authors"])
    rows = {
        "author": authors,
        "title": f"{{{_bibtex(fields['title'])}}}",
        "year": fields["date-released"][:4],
        "version": fields["version"],
        "doi": fields.get("doi"),
        "url": fields.get("url"),
    }
    lines = [f"  {name:<7} = {{{value}}}," for name, value in rows.items() if value]
    return "\n".join([f"@misc{{{re.sub(r'[^A-Za-z0-9-]', '-', key)},", *lines, "}"])


def _author(name: str, orcid: str | None, affiliation: str | None, email: str | None) -> dict[str, str]:
    """A person where there is an ORCID or a comma tells the family name; else a name as it is."""
    shown = one_line(name) or "Anonymous"
    family, comma, given = (part.strip() for part in shown.partition(","))
    words = shown.split()
    made: dict[str, str] = {}
    if comma and family and given:
        made = {"family-names": family, "given-names": given}
    elif orcid and len(words) > 1:
        made = {"family-names": words[-1], "given-names": " ".join(words[:-1])}
    elif orcid:
        made = {"alias": shown}
    else:
        made = {"name": shown}
    if affiliation and one_line(affiliation) and "name" not in made:
        made["affiliation"] = one_line(affiliation)
    if email and _EMAIL.fullmatch(email):
        made["email"] = email
    if orcid and (found := _ORCID.search(orcid)):
        made["orcid"] = f"https://orcid.org/{found[0]}"
    return made


def _references(facts: CardFacts) -> list[dict[str, Any]]:
    """The model and the imagery."""
    fingerprint = facts.fingerprint
    model: dict[str, Any] = {
        "type": "software",
        "title": one_line(fingerprint.model_name) or fingerprint.encoder,
        "authors": [{"name": f"The authors of {one_line(fingerprint.model_name) or fingerprint.encoder}"}],
        "version": one_line(fingerprint.encoder_version),
    }
    if _URL.fullmatch(fingerprint.model_link):
        model["url"] = fingerprint.model_link
    found = [model]
    for term in facts.sources.terms[:10]:
        attribution = one_line(term.attribution or "")
        title = ", ".join(facts.sources.collections[:10]) or facts.spec.sensor
        found.append(
            {
                "type": "data",
                "title": one_line(f"Imagery: {title}"),
                "authors": [{"name": f"The providers of {title}"}],
                **({"notes": attribution} if attribution else {}),
            }
        )
    return found


def _bibtex_name(author: dict[str, str]) -> str:
    if "family-names" in author:
        return f"{_bibtex(author['family-names'])}, {_bibtex(author['given-names'])}"
    return f"{{{_bibtex(author.get('name') or author['alias'])}}}"


_BIBTEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", **{c: f"\\{c}" for c in "#$%&_"}}


def _bibtex(text: str) -> str:
    special = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | _BIBTEX
    return "".join(special.get(character, character) for character in text)
