"""How to cite a release: CITATION.cff, and BibTeX made from it.

Source: Citation File Format 1.2.0, https://citation-file-format.github.io.
"""

import re
from datetime import date
from typing import Any

import yaml

from clay_publish.cards import licenses
from clay_publish.cards.filters import TEXT, one_line
from clay_publish.cards.release_facts import CardFacts

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


def dump(fields: dict[str, Any]) -> str:
    """CITATION.cff as text."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110)


def bibtex(fields: dict[str, Any], key: str) -> str:
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
