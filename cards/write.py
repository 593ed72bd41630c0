"""Write the documents of a release."""

from datetime import UTC, date, datetime

from clay_publish import release as paths
from clay_publish.cards import citation, licences
from clay_publish.cards.card import host_card, hub_card
from clay_publish.cards.facts import Facts, read_facts
from clay_publish.cards.gaps import read_gaps
from clay_publish.cards.ground import read_ground
from clay_publish.cards.pictures import components_map, coverage_map
from clay_publish.cards.sample import read_sample
from clay_publish.release import Release


def write_cards(release: Release) -> None:
    """Write `figures/`, `README.md`, `CITATION.cff`, `LICENSE`, `CHANGELOG.md` and the card of source.coop.

    All they say is read from the release: its spec, tables, footers and record of the run. Only the day of the first
    writing is today's, and stays when the documents are written again.

    Raises:
        ReleaseError: the release has no embeddings, or lacks what the documents tell about.
    """
    facts = read_facts(release)
    sample = read_sample(release)
    pictures = {
        "coverage.png": coverage_map(facts, read_ground(release), read_gaps(release)),
        "embeddings.png": components_map(facts, sample),
    }
    for name, picture in pictures.items():
        release.store.write(f"{paths.FIGURES}/{name}", picture)
    cited = citation.citation(facts, _released(release, facts))
    release.store.write(paths.CITATION, citation.dump(cited))
    release.store.write(paths.LICENSE, licences.text(facts.spec.license))
    release.store.write(paths.CARD, hub_card(facts, sample, cited))
    release.store.write(paths.HOST_CARD, host_card(facts, sample, cited))
    release.store.write(paths.CHANGELOG, f"# Changelog\n\n## {facts.spec.version}\n\nFirst release.\n")


def _released(release: Release, facts: Facts) -> date:
    """The day this version was first documented."""
    if release.store.exists(paths.CITATION):
        before = release.yaml(paths.CITATION)
        if before.get("version") == facts.spec.version:
            return date.fromisoformat(str(before["date-released"]))
    return datetime.now(UTC).date()
