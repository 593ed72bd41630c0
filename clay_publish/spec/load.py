"""Reading `release.yaml`: paths resolved, an area file inlined, and what is wrong said in one sentence."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import shapely
import yaml
from pydantic import BaseModel, ValidationError

from clay_publish.errors import SpecError, shown
from clay_publish.geo.area import parse_area
from clay_publish.spec.models import Imagery, Spec
from clay_publish.storage.store import is_url

_MAX_SPEC = 10_000_000
"""Bytes; an area inlined as GeoJSON may be large, a bomb is larger."""


def load_spec(path: str | Path) -> Spec:
    """Read and check a spec. Relative paths in it are resolved against its folder, an area file is inlined.

    Raises:
        SpecError: missing, no YAML, an unknown key (the nearest known one is named), a wrong value, a missing file.
    """
    path = Path(path)
    document = read_yaml(path)
    return resolve_spec(document, where=str(path), folder=path.resolve().parent)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        SpecError: missing, too large, no YAML, or not a mapping.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_SPEC:
            raise SpecError(str(path), f"has {size} bytes", f"at most {_MAX_SPEC}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(
            str(path),
            f"cannot be read ({error.strerror})",
            "a release spec",
            "`clay-publish init` writes one.",
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 (byte {error.start})", "a YAML text") from error
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpecError(str(path), f"is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise SpecError(str(path), f"holds {type(document).__name__}", "keys and values such as `name: my-release`")
    return document


def resolve_spec(document: Mapping[str, Any], *, where: str, folder: Path) -> Spec:
    """Check a spec that was read already.

    Raises:
        SpecError: as `load_spec`.
    """
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        raise _explain(error, where) from error
    blocks = [_resolve_imagery(block, f"{where}: imagery", folder) for block in spec.imagery]
    model = spec.model.model_copy(update={"weights": _local(spec.model.weights, folder)})
    resolved = {"imagery": blocks, "model": model, "previous": _local(spec.previous, folder)}
    return spec.model_copy(update=resolved)


def _resolve_imagery(block: Imagery, where: str, folder: Path) -> Imagery:
    sources = []
    for source in block.stac:
        resolved = _local(source, folder) or source
        if not is_url(resolved) and not Path(resolved).exists():
            raise SpecError(f"{where}.stac", f"{resolved} does not exist", "a file or address of STAC items")
        sources.append(resolved)
    return block.model_copy(
        update={
            "stac": sources,
            "area": _inline_area(block.area, f"{where}.area", folder),
            "exclude": [i for entry in block.exclude for i in _excluded(entry, f"{where}.exclude", folder)],
        }
    )


def _local(source: str | None, folder: Path) -> str | None:
    if source is None or is_url(source):
        return source
    return str((folder / source.removeprefix("file://")).resolve())


def _excluded(entry: str, where: str, folder: Path) -> list[str]:
    """An id as it is, a file as the ids in it: one a line, `#` starts a comment."""
    if "/" not in entry and not entry.endswith((".txt", ".csv")):
        return [entry]
    path = folder / entry
    if not path.is_file():
        raise SpecError(where, f"{path} does not exist", "item ids, or a file with one a line")
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _inline_area(area: Any, where: str, folder: Path) -> Any:
    if area is None or isinstance(area, list) or area == "land":
        return area
    if isinstance(area, str):
        path = folder / area
        if not path.is_file():
            raise SpecError(where, f"{path} does not exist", "`land`, a bbox, a GeoJSON file, or GeoJSON")
        try:
            area = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise SpecError(where, f"{path} is no GeoJSON ({error})") from error
    return json.loads(shapely.to_geojson(parse_area(area, where)))


def dump_spec(document: Mapping[str, Any]) -> str:
    """The spec as YAML text."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=110)


def _explain(error: ValidationError, where: str) -> SpecError:
    """Say one thing that is wrong, a misspelt key first: it explains a missing one. A second run says the next."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"] if not _is_branch(part)) or "the spec"
    place = f"{where}: {key}"
    more = f" ({error.error_count() - 1} more after this one.)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_beside(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return SpecError(place, "is an unknown key", fix=hint + more)
    if first["type"] == "missing":
        return SpecError(place, "is missing", fix="Add it." + more)
    message = str(first["msg"]).removeprefix("Value error, ")
    return SpecError(place, f"found {shown(first['input'])}", _lower(message).removeprefix("expected "), more.strip())


def _is_branch(part: int | str) -> bool:
    """Pydantic names the branch of a union it tried; the reader did not write that."""
    return isinstance(part, str) and (part in {"str", "bool", "Patches"} or "[" in part)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Spec
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
