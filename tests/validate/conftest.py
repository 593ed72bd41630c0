"""Good releases of several kinds, made by the program once, and copies of them to break."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from breakage import KINDS, PLACED, SHORE, Broken
from mutations_anybody import write_foreign
from placed import ground, placed_item

from clay_publish import __version__, windows
from clay_publish.cards import write_cards
from clay_publish.catalog import write_collection, write_items
from clay_publish.errors import ClayPublishError
from clay_publish.producer.produce import produce
from clay_publish.release.directory import Release
from clay_publish.release.findings import ValidationReport
from clay_publish.release.manifest import write_manifest
from clay_publish.spec.load import load_spec
from clay_publish.validate import all_rules, reports, validate

SAMPLE = Path(windows.__file__).parent / "sample"
_NOT_OF_SPECS = {"sensor", "days", "composite", "imagery", "placed", "boxes"}


def complete(spec: Path, where: Path) -> Path:
    """Run every stage."""
    release, resolved = Release(str(where)), load_spec(spec)
    produce(resolved, release)
    write_items(release)
    write_cards(release, Release(resolved.previous) if resolved.previous else None)
    write_collection(release)
    write_manifest(release, f"clay-publish {__version__}")
    shutil.rmtree(where / ".run")
    return where


@pytest.fixture(scope="session")
def good(once: Callable[..., Path], request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A good release of a kind. Read only."""

    def get(kind: str) -> Path:
        if kind == "foreign":
            return once("good-foreign", lambda home: write_foreign(home / kind / "others")) / kind / "others"
        item, more = KINDS[kind]
        folder = SAMPLE if item in {SHORE, PLACED} else request.getfixturevalue("shared_data")
        imagery = {
            "stac": str(folder / item),
            "sensor": more.get("sensor", "sentinel-2-l1c"),
            **more.get("imagery", {}),
        }
        spec = {"name": "shore", "version": "1.0.0", "imagery": imagery}
        spec |= {key: value for key, value in more.items() if key not in _NOT_OF_SPECS}
        if "model" in spec:
            spec["model"] = {**spec["model"], "weights": str(request.getfixturevalue("golden_checkpoint"))}

        def build(home: Path) -> None:
            if "previous" in spec:
                shutil.copytree(get("small"), home / spec["previous"])
            if "days" in more:
                days = [_dated(folder / item, home, day) for day in more["days"]]
                imagery.update(stac=days, windows=["2020-01-01/2021-01-01"], composite=more["composite"])
            if "placed" in more:
                where = more["placed"]
                imagery.update(stac=str(placed_item(home, *where)), area=ground(where[0], *more["boxes"]))
            file = home / f"{kind}.yaml"
            file.write_text(yaml.safe_dump(spec))
            complete(file, home / kind / spec["version"])

        return once(f"good-{kind}", build) / kind / spec["version"]

    return get


def _dated(source: Path, folder: Path, day: str) -> str:
    """A copy of an item as another acquisition."""
    item = json.loads(source.read_text())
    for asset in item["assets"].values():
        asset["href"] = str((source.parent / asset["href"]).resolve())
    item["id"] = f"{item['id']}-{day}"
    for name in ("datetime", "start_datetime", "end_datetime"):
        item["properties"][name] = f"{day}T11:00:00Z"
    item["properties"]["s2:datatake_id"] = day
    target = folder / f"{day}.json"
    target.write_text(json.dumps(item))
    return str(target)


@pytest.fixture
def broken(good: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Broken]:
    """A copy of a good release, with its neighbors, to be broken."""

    def copy(kind: str = "small") -> Broken:
        source = good(kind)
        shutil.copytree(source.parent, tmp_path / kind)
        return Broken(tmp_path / kind / source.name)

    return copy


@pytest.fixture(scope="session")
def verdict() -> Callable[..., ValidationReport | str]:
    """Validate, and write all reports; the message of the error that says why there is no verdict."""

    def validated(where: Path, **options: Any) -> ValidationReport | str:
        try:
            report = validate(Release(str(where)), **options)
        except ClayPublishError as error:
            if "exit code" in error.found:  # a child ended with a traceback
                raise
            return str(error)
        for write in (reports.html, reports.junit, reports.sarif):
            write(report, all_rules()).encode()
        return report

    return validated
