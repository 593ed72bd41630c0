"""What pydantic finds wrong with a spec, in the words of this project and with the lines of the keys."""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from clay_publish.errors import SpecError, shown
from clay_publish.spec.document import Document, Place, key_text, together
from clay_publish.spec.models import Spec


def at_place(place: str, error: SpecError) -> SpecError:
    """The error of a value, with the place of the value."""
    return SpecError(place, error.found, error.expected, error.fix)


def explain(error: ValidationError, where: str, document: Document) -> SpecError:
    """One error that lists everything that is wrong, in the order of the lines."""
    # Of a union, the branch that the value has the type of says more than the others.
    errors = sorted(error.errors(include_url=False), key=lambda each: each["type"].endswith("_type"))
    unknown = [each for each in errors if each["type"] == "extra_forbidden"]
    meant = {(each["loc"][:-1], near) for each in unknown if (near := _nearest(each["loc"]))}
    messages: dict[tuple[int, str], SpecError] = {}
    for each in errors:
        place = as_written(each["loc"], document.values)
        if each["type"] == "missing" and (each["loc"][:-1], each["loc"][-1]) in meant:
            continue  # the misspelled key explains it
        made = _described(each, document.named(place, where))
        messages.setdefault((document.line(place) or 0, key_text(place)), made)
    return together(where, [messages[key] for key in sorted(messages)])


def _described(each: Mapping[str, Any], place: str) -> SpecError:
    if each["type"] == "extra_forbidden":
        near = _nearest(each["loc"])
        hint = f"Did you mean {near!r}?" if near else f"Known keys: {', '.join(_keys_beside(each['loc']))}."
        return SpecError(place, "is an unknown key", fix=hint)
    if each["type"] == "missing":
        return SpecError(place, "is missing", fix="Add it.")
    ours = each.get("ctx", {}).get("error")
    if isinstance(ours, SpecError):
        return at_place(place, ours)
    if each["type"] == "value_error" and not str(ours).startswith("expected "):
        return SpecError(place, str(ours))
    if each["type"] == "value_error":
        expected = str(ours).removeprefix("expected ")
    elif each["type"] in _EXPECTED:
        expected = _EXPECTED[each["type"]].format(**each.get("ctx", {}))
    else:
        expected = str(each["msg"]).removeprefix("Input should be ")
    if each["type"] == "string_pattern_mismatch":
        expected = _FORMS.get(each["loc"][-1], expected)
    number = each["type"] == "string_type" and isinstance(each["input"], int | float)
    return SpecError(place, f"found {shown(each['input'])}", expected, "Write it in quotes." if number else "")


_FORMS: Mapping[int | str, str] = {
    "base_url": "an http(s) address without ? and #",
    "doi": "a DOI such as 10.5281/zenodo.1234",
    "hugging_face": "OWNER/NAME",
    "license": "an identifier of the SPDX license list, or LicenseRef-NAME for own terms",
    "orcid": "an ORCID iD such as 0000-0002-1825-0097",
    "sha256": "64 of 0-9 and a-f",
    "source_coop": "ACCOUNT/PRODUCT",
    "tiles": "https://…/{z}/{x}/{y}, with an ending such as .png",
}
"""Key → what is valid, in words instead of its pattern."""


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    **dict.fromkeys(
        ("date_from_datetime_inexact", "date_from_datetime_parsing", "date_parsing", "date_type"),
        "a day that exists, as YYYY-MM-DD: 2026-11-28",
    ),
    "dict_type": "keys and values",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of ordinary size",
    "int_type": "a whole number",
    "less_than_equal": "a number of at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length:,} characters",
    "string_type": "text",
    "string_unicode": "text in Unicode",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
}
"""Kind of pydantic's error → what is valid; our own validators say it themselves."""


def _nearest(loc: Place) -> str | None:
    near = difflib.get_close_matches(str(loc[-1]), _keys_beside(loc), n=1, cutoff=0.5)
    return near[0] if near else None


def as_written(loc: Place, values: Mapping[str, Any]) -> Place:
    """The place of an error in the document, without the branches of unions and lists that pydantic made."""
    place = tuple(part for part in loc if not _is_branch(part))
    if place[:2] == ("imagery", 0) and isinstance(values.get("imagery"), dict):
        place = ("imagery", *place[2:])
    return place


def _is_branch(part: int | str) -> bool:
    """Pydantic names the branch of a union it tried; the reader did not write that."""
    return isinstance(part, str) and (part in {"str", "bool", "Arrays", "Patches"} or "[" in part)


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
