"""`sample` and `init`: where a maintainer begins."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from clay_publish.commands.options import Json
from clay_publish.commands.screen import Screen
from clay_publish.errors import StoreError


def sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it.")] = Path("my-first-release"),
    json: Json = False,
) -> None:
    """Write a spec of a few lines and the real scene it uses."""
    with as_file(files("clay_publish") / "sample") as bundled:
        for source in sorted(p for p in bundled.rglob("*") if p.is_file()):
            _put(directory / source.relative_to(bundled), source.read_bytes())
    spec = directory / "release.yaml"
    Screen(quiet=False, as_json=json).result(f"{spec}: now `clay-publish run {spec}`", {"spec": str(spec)})


def init(
    path: Annotated[Path, typer.Argument(metavar="SPEC", help="The file to write.")] = Path("release.yaml"),
    json: Json = False,
) -> None:
    """Write a spec with every key and what it means."""
    _put(path, (files("clay_publish") / "templates" / "release.yaml").read_bytes())
    Screen(quiet=False, as_json=json).result(f"{path}: fill it in, then `clay-publish run {path}`", {"spec": str(path)})


def _put(path: Path, data: bytes) -> None:
    """Write a file that is not there; one that is there must be the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        if not path.is_file() or path.read_bytes() != data:
            raise StoreError(str(path), "is there already, with other content", fix="Move it away first.") from error
    except OSError as error:
        raise StoreError(str(path), f"cannot be written ({error.strerror})") from error
