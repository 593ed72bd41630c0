"""The dataset card, for the Hub and for source.coop."""

import math

from markupsafe import Markup

from clay_publish import release as paths
from clay_publish.addresses import source_coop_address
from clay_publish.cards import licences
from clay_publish.cards.changelog import History
from clay_publish.cards.escape import environment
from clay_publish.cards.facts import Facts
from clay_publish.cards.frontmatter import front_matter
from clay_publish.cards.quality import Quality
from clay_publish.metadata import preprocessing
from clay_publish.tables import REASONS


def hub_card(facts: Facts, quality: Quality, figures: frozenset[str], bibtex: str, history: History) -> str:
    """`README.md`: front matter and body."""
    return front_matter(facts) + "\n" + _body(facts, quality, figures, bibtex, history, pictures=f"{paths.FIGURES}/")


def host_card(facts: Facts, quality: Quality, figures: frozenset[str], bibtex: str, history: History) -> str:
    """The body alone, with the pictures' full addresses where they are known.

    source.coop shows front matter as text, and the card at addresses that relative names do not fit.
    """
    base = source_coop_address(facts.spec) or facts.address or "../.."
    return _body(facts, quality, figures, bibtex, history, pictures=f"{base}/{paths.FIGURES}/")


def _body(
    facts: Facts, quality: Quality, figures: frozenset[str], bibtex: str, history: History, *, pictures: str
) -> str:
    text: str = (
        environment()
        .get_template("card.md.jinja")
        .render(
            facts=facts,
            spec=facts.spec,
            fingerprint=facts.fingerprint,
            quality=quality,
            figures=figures,
            reasons=REASONS,
            license_name=licences.name(facts.spec.license),
            license_address=licences.address(facts.spec.license),
            preprocessing=preprocessing(facts.fingerprint),
            box=_box(facts),
            period=_period(facts),
            sources=sorted({source for block in facts.spec.imagery for source in block.stac})[:10],
            changelog=Markup(history.entry),  # noqa: S704 - escaped when it was made
            pictures=Markup(pictures),  # noqa: S704 - a quoted address
            # Each of its lines opens with its own text, so none of them can close the block.
            bibtex=Markup(bibtex),  # noqa: S704
        )
    )
    return text


def _box(facts: Facts) -> tuple[float, float, float, float]:
    """West, south, east, north of the middle of the release; of its western part if it crosses the antimeridian."""
    west, south, east, north = facts.bbox
    east = east if west <= east else 180.0
    x, y = (east - west) / 3, (north - south) / 3
    digits = max(2, 1 - math.floor(math.log10(min(x, y))))
    return round(west + x, digits), round(south + y, digits), round(east - x, digits), round(north - y, digits)


def _period(facts: Facts) -> str:
    start, end = facts.start.date().isoformat(), facts.end.date().isoformat()
    return start if start == end else f"{start} to {end}"
