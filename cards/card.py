"""The dataset card, for the Hub and for source.coop."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from clay_publish import release as paths
from clay_publish.cards import citation, licences
from clay_publish.cards.escape import environment
from clay_publish.cards.facts import Facts
from clay_publish.cards.frontmatter import front_matter
from clay_publish.cards.sample import Sample
from clay_publish.metadata import preprocessing
from clay_publish.tables import COLUMNS, REASONS


@dataclass(frozen=True)
class Quality:
    """Figures about the vectors that need no labels."""

    vectors: int
    """How many were looked at."""
    norm: tuple[float, float, float]
    """Smallest, median, largest."""
    explained: float
    """Share of the variance in the first three principal components."""
    effective: float
    """Effective number of dimensions."""


def hub_card(facts: Facts, sample: Sample, cited: dict[str, Any]) -> str:
    """`README.md`: front matter and body."""
    return front_matter(facts) + "\n" + _body(facts, sample, cited, pictures=f"{paths.FIGURES}/")


def host_card(facts: Facts, sample: Sample, cited: dict[str, Any]) -> str:
    """The body alone; where the release's address is known, its pictures are named by it.

    source.coop shows front matter as text, and the card at addresses that relative names do not fit.
    """
    base = f"{facts.address}/" if facts.address else "../../"
    return _body(facts, sample, cited, pictures=f"{base}{paths.FIGURES}/")


def _body(facts: Facts, sample: Sample, cited: dict[str, Any], *, pictures: str) -> str:
    template = environment().get_template("card.md.jinja")
    text: str = template.render(
        facts=facts,
        spec=facts.spec,
        fingerprint=facts.fingerprint,
        quality=_quality(sample),
        columns=COLUMNS,
        reasons=REASONS,
        license_name=licences.name(facts.spec.license),
        license_address=licences.address(facts.spec.license),
        preprocessing=preprocessing(facts.fingerprint),
        box=_box(facts),
        window=_window(facts),
        pictures=Markup(pictures),  # noqa: S704 - a quoted address
        # Each of its lines opens with its own text, so none of them can close the block.
        bibtex=Markup(citation.bibtex(cited, f"{facts.spec.name}-{facts.spec.version}")),  # noqa: S704
    )
    return text


def _quality(sample: Sample) -> Quality:
    low, median, high = np.percentile(sample.norms, [0, 50, 100])
    return Quality(
        vectors=len(sample.norms),
        norm=(float(low), float(median), float(high)),
        explained=float(sample.components.explained.sum()),
        effective=sample.components.effective,
    )


def _box(facts: Facts) -> tuple[float, float, float, float]:
    """West, south, east, north of the middle of the release; of its western part if it crosses the antimeridian."""
    west, south, east, north = facts.bbox
    east = east if west <= east else 180.0
    x, y = (east - west) / 3, (north - south) / 3
    return round(west + x, 3), round(south + y, 3), round(east - x, 3), round(north - y, 3)


def _window(facts: Facts) -> str:
    start, end = facts.start.date().isoformat(), facts.end.date().isoformat()
    return start if start == end else f"{start} to {end}"
