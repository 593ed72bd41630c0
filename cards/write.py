"""Write the documents of a release."""

from clay_publish.cards import licenses
from clay_publish.cards.card import agents_guide, host_card, hub_card
from clay_publish.cards.changelog import History, changelog
from clay_publish.cards.explorer.build import SUMMARY, write_explorer, write_page
from clay_publish.cards.figures.charts import (
    components_map,
    coverage_map,
    gaps_chart,
    loss_chart,
    loss_map,
    neighbors_picture,
    norms_chart,
)
from clay_publish.cards.figures.sample import Quality, Sample, quality, read_gaps, read_ground, read_sample
from clay_publish.cards.metadata.croissant import croissant
from clay_publish.cards.metadata.registries import citation, citation_bibtex, datacite, dump_citation, json_ld
from clay_publish.cards.release_facts import CardFacts, read_facts
from clay_publish.release import directory as paths
from clay_publish.release.directory import Release
from clay_publish.release.manifest import dump_json
from clay_publish.release.metadata import release_day


def write_cards(release: Release, previous: Release | None = None) -> None:
    """Write a release's pictures, cards, citation, license, changelog, machine-readable documents and explorer.

    All they say is read from the release: its spec, tables, footers and record of the run. With `previous`, the version
    before, the changelog tells what changed; without it, what the changelog says of this version stays.

    Raises:
        ReleaseError: the release has no embeddings, or lacks what the documents tell about.
        SpecError: the version number is too small for what changed since `previous`.
    """
    facts = read_facts(release)
    sample = read_sample(release)
    figures = _write_figures(release, facts, sample)
    history = changelog(release, facts.spec, release_day(facts.spec), previous)
    for path, text in _documents(facts, history, quality(sample), figures).items():
        release.store.write(path, text)
    write_explorer(release, facts, _bibtex(facts))


def card_documents(release: Release, previous: Release | None = None, *, small: bool) -> dict[str, str]:
    """Return the text documents of a release by path, as `write_cards` would write them.

    Its pictures and the explorer's page and summary are written; what the summary says of the overviews stays.

    Args:
        release: with its pictures.
        previous: as for `write_cards`.
        small: whether the vectors are read: without them, pictures and cards are left out.

    Raises:
        ReleaseError, SpecError: as `write_cards`.
    """
    facts = read_facts(release)
    history = changelog(release, facts.spec, release_day(facts.spec), previous)
    pictures = release.store.files(paths.FIGURES)
    figures = frozenset(path.rpartition("/")[2] for path in pictures)
    sample = read_sample(release) if small else None
    if sample is not None:
        _write_figures(release, facts, sample)
    if facts.spec.outputs.explorer:
        stated = release.json(SUMMARY) if release.store.exists(SUMMARY) else {}
        write_page(release, facts, _bibtex(facts), {key: stated.get(key) for key in ("tiles", "layers")})
    return _documents(facts, history, None if sample is None else quality(sample), figures)


def _bibtex(facts: CardFacts) -> str:
    return citation_bibtex(citation(facts, release_day(facts.spec)), f"{facts.spec.name}-{facts.spec.version}")


def _documents(facts: CardFacts, history: History, measured: Quality | None, figures: frozenset[str]) -> dict[str, str]:
    """Every text document; without measured vectors, all but the cards."""
    released = release_day(facts.spec)
    cited = citation(facts, released)
    bibtex = _bibtex(facts)
    cards = {}
    if measured is not None:
        cards = {
            paths.CARD: hub_card(facts, measured, figures, bibtex, history),
            paths.HOST_CARD: host_card(facts, measured, figures, bibtex, history),
        }
    return {
        paths.CITATION: dump_citation(cited),
        paths.LICENSE: licenses.text(facts.spec.license),
        **cards,
        paths.AGENTS: agents_guide(facts),
        paths.CROISSANT: dump_json(croissant(facts, released, bibtex)),
        paths.DATACITE: dump_json(datacite(facts, released)),
        paths.JSON_LD: dump_json(json_ld(facts, released)),
        paths.CHANGELOG: history.text,
    }


def _write_figures(release: Release, facts: CardFacts, sample: Sample) -> frozenset[str]:
    """Write the pictures this release has something to show for, and remove those it has not; their names."""
    pictures = {
        "coverage.png": coverage_map(facts, read_ground(release), read_gaps(release)),
        "embeddings.png": components_map(facts, sample),
        "gaps.png": gaps_chart(facts),
        "norms.png": norms_chart(sample),
        "loss.png": loss_chart(sample),
        "loss-map.png": loss_map(facts, sample),
        "neighbors.png": neighbors_picture(release),
    }
    for name, picture in pictures.items():
        path = f"{paths.FIGURES}/{name}"
        if picture is None:
            release.store.remove(path)
        else:
            release.store.write(path, picture)
    return frozenset(name for name, picture in pictures.items() if picture is not None)
