"""The pictures of a card."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clay_publish.cards import write_cards
from clay_publish.cards.figures.charts import coverage_map
from clay_publish.cards.figures.maps import EMBEDDED, component_colors
from clay_publish.cards.figures.maps import REASONS as FILLS
from clay_publish.cards.figures.sample import ChipPositions
from clay_publish.cards.release_facts import read_facts
from clay_publish.geo.maps import MAX_BYTES, Frame, whole_box
from clay_publish.release.directory import Release
from clay_publish.release.tables import REASONS

from .copies import ids_of, lose


def picture(data: bytes) -> Image.Image:
    assert len(data) < MAX_BYTES
    with Image.open(io.BytesIO(data)) as opened:
        return opened.convert("RGB")


def test_the_pictures_are_readable_and_small(sample_release: Path) -> None:
    figures = sorted((sample_release / "figures").iterdir())
    assert [figure.name for figure in figures] == ["coverage.png", "embeddings.png", "norms.png"]
    for figure in figures:
        assert picture(figure.read_bytes()).width >= 900


def test_both_cards_show_the_pictures_there_are(sample_release: Path) -> None:
    text = (sample_release / "README.md").read_text()
    host = (sample_release / "hosts/source.coop/README.md").read_text()
    assert host.startswith("# ")
    for figure in (sample_release / "figures").iterdir():
        assert f"](figures/{figure.name})" in text
        assert f"](../../figures/{figure.name})" in host


def test_pictures_appear_and_vanish_with_what_they_show(release_copy: Path) -> None:
    release = Release(str(release_copy))
    lose(release_copy, ids_of(release_copy)[:30], "cloud")
    write_cards(release)
    assert (release_copy / "figures/gaps.png").is_file()
    assert "](figures/gaps.png)" in (release_copy / "README.md").read_text()
    assert "| too much cloud (`cloud`) | 30 |" in (release_copy / "README.md").read_text()


def test_the_same_release_gives_the_same_pictures(release_copy: Path) -> None:
    before = {path.name: path.read_bytes() for path in (release_copy / "figures").iterdir()}
    write_cards(Release(str(release_copy)))
    assert {path.name: path.read_bytes() for path in (release_copy / "figures").iterdir()} == before


def test_missing_ground_is_painted(release_copy: Path) -> None:
    """A quarter of the chips gone: less of the map is blue."""

    def blue(path: Path) -> float:
        pixels = np.asarray(picture(path.read_bytes())).astype(int)
        return float((np.abs(pixels - (0, 0x72, 0xB2)).sum(axis=2) < 12).mean())

    whole = blue(release_copy / "figures/coverage.png")
    lose(release_copy, ids_of(release_copy)[:36], "nodata")
    write_cards(Release(str(release_copy)))
    assert blue(release_copy / "figures/coverage.png") < 0.85 * whole


def test_many_chips_across_the_antimeridian(sample_release: Path) -> None:
    """60,000 chips on both sides of 180° are one map, not a band around the Earth."""
    facts = replace(read_facts(Release(str(sample_release))), bbox=(175.0, -20.0, -175.0, -12.0))
    random = np.random.default_rng(1)
    lon = np.where(random.random(60_000) < 0.5, random.uniform(175, 180, 60_000), random.uniform(-180, -175, 60_000))
    ground = ChipPositions(np.array([], dtype=object), lon, random.uniform(-20, -12, 60_000))
    pixels = np.asarray(picture(coverage_map(facts, ground, [])))
    blue = (np.abs(pixels.astype(int) - (0, 0x72, 0xB2)).sum(axis=2) < 60).any(axis=0)
    assert blue.mean() > 0.5


@pytest.mark.parametrize("lon", [-179.0, 179.0, 181.0, -181.0])
def test_a_frame_across_the_antimeridian_holds_both_sides(lon: float) -> None:
    frame = Frame.around((178.0, -1.0, -178.0, 1.0))
    assert frame.west < frame.unwrapped(np.array([lon]))[0] < frame.east


@pytest.mark.parametrize(
    ("west", "east", "box"),
    [
        ([10.0, 12.0], [11.0, 13.0], (10, 13)),
        ([-100.0], [110.0], (-100, 110)),
        ([170.0, -180.0], [180.0, -175.0], (170, -175)),
        ([-180.0, 0.0], [180.0, 1.0], (-180, 180)),
        ([-180.0, -60.0, 100.0], [-50.0, 120.0, 180.0], (-180, 180)),
    ],
)
def test_a_box_holds_shapes_not_only_their_corners(
    west: list[float], east: list[float], box: tuple[float, float]
) -> None:
    lat = np.zeros(2 * len(west))
    found = whole_box(np.array(west), lat, np.array(east))
    assert (found[0], found[2]) == box


def test_every_reason_has_a_look_of_its_own() -> None:
    assert FILLS.keys() == REASONS.keys()
    assert len({EMBEDDED, *(fill.color for fill in FILLS.values())}) == len(REASONS) + 1


def test_the_first_component_is_shown_by_lightness_alone() -> None:
    """Whoever sees no colors at all still sees the strongest component."""
    shares = np.full((64, 3), 0.5)
    shares[:, 0] = np.linspace(0, 1, 64)
    luminance = component_colors(shares) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()
    assert luminance[-1] - luminance[0] > 0.5
