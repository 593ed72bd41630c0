"""Each way of breaking a good release is found by the rule that is meant to find it, and by nothing unrelated.

What documents state may differ from a table that is broken. Rules that compare them may say so, after the rule that
finds the fault itself; they are not asked to, since some faults change nothing that is stated.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mutations_anybody  # noqa: F401 - registers its mutations
import mutations_arrays  # noqa: F401
import mutations_beside  # noqa: F401
import mutations_codes  # noqa: F401
import mutations_coverage  # noqa: F401
import mutations_derived  # noqa: F401
import mutations_documents  # noqa: F401
import mutations_explorer  # noqa: F401
import mutations_files  # noqa: F401
import mutations_format  # noqa: F401
import mutations_places  # noqa: F401
import mutations_provenance  # noqa: F401
import mutations_readers  # noqa: F401
import mutations_sources  # noqa: F401
import mutations_statements  # noqa: F401
import mutations_tables  # noqa: F401
import mutations_vectors  # noqa: F401
import pytest
from breakage import DATA, IMAGERY, KINDS, MOROCCO, MUTATIONS, Broken, Mutation

from clay_publish.cli.rendering import render_documents
from clay_publish.producer.recompute import recompute
from clay_publish.release.directory import ITEMS, Release
from clay_publish.validate import SAMPLE, all_rules, validate
from clay_publish.validate.checks import check_release
from clay_publish.validate.context import Recompute
from clay_publish.validate.data import stac_schemas
from clay_publish.validate.registry import UNCHECKED
from clay_publish.validate.reports.grouping import STATEMENTS, by_kind
from clay_publish.validate.rules import stac

_UNCHECKED = {"VEC013", "VEC024", "VEC025", "DOC005", "DOC016", "STC001", "STC002", "STC003", "COV015"}
"""Rules that say of some good releases that they cannot be checked."""


@pytest.mark.parametrize("kind", sorted({*KINDS, "foreign"}))
def test_good_releases_have_no_finding(good: Callable[[str], Path], kind: str) -> None:
    check = validate if kind in {"small", "foreign"} else partial(check_release, sample=SAMPLE)
    report = check(Release(str(good(kind))), render=render_documents)
    assert report.findings == []
    unchecked = {code: state for code, state in report.checked.items() if not state.startswith("passed")}
    assert set(unchecked) <= _UNCHECKED, unchecked


@pytest.fixture(autouse=True, scope="module")
def asked_once() -> Iterator[None]:
    """Schemas are asked once about a document that mutations leave alone."""
    known: dict[str, list[str]] = {}

    def violations(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
        key = json.dumps([schema["$id"], document])
        if key not in known:
            known[key] = stac_schemas.violations(document, schema)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stac, "violations", violations)
        yield


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.apply.__name__)
def test_mutation_is_found(mutation: Mutation, broken: Callable[[str], Broken], golden_checkpoint: Path) -> None:
    """By its rule. What other rules say of it is left to the slow tests."""
    _find(mutation, broken, golden_checkpoint, only=_rules(mutation.code))


def _rules(code: str) -> list[str]:
    """The rule alone; all for what only a rule that cannot be checked finds."""
    return [] if code == UNCHECKED else [code]


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.apply.__name__)
def test_nothing_unrelated_is_found(
    mutation: Mutation, broken: Callable[[str], Broken], golden_checkpoint: Path
) -> None:
    _find(mutation, broken, golden_checkpoint)


def _find(mutation: Mutation, broken: Callable[[str], Broken], weights: Path, only: Sequence[str] = ()) -> None:
    release = broken(mutation.base)
    before = _tables(release.folder)
    mutation.apply(release)
    of_data = mutation.code not in STATEMENTS and _tables(release.folder) != before
    if mutation.settle:
        release.settle()
    render = render_documents if mutation.code in {"DOC021", "DOC022"} else None
    again = Recompute(8, partial(_again, release.release, weights)) if mutation.code == "VEC023" else None
    report = check_release(release.release, sample=SAMPLE, only=only, render=render, recompute=again)
    found = {finding.code for finding in report.findings}
    assert mutation.code in found, f"found only {found or 'nothing'}; {report.checked[mutation.code]}"
    assert report.checked[mutation.code] == "failed"
    others = {code for code in found - {mutation.code} if not {code, code[:3]} & mutation.also}
    follows = others & STATEMENTS if of_data else set()
    unrelated = others - follows
    assert not unrelated, "\n".join(f"{f.code} {f.where}: {f.found}" for f in report.findings if f.code in unrelated)
    shown = [each.code for kind in by_kind(report.findings) for each in (kind, *kind.follows)]
    assert all(shown.index(mutation.code) < shown.index(code) for code in follows), shown


def _tables(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of all tables that documents tell about."""
    files = [path.relative_to(folder) for path in folder.rglob("*.parquet") if path.name != ITEMS]
    return {file: ((folder / file).stat().st_size, (folder / file).stat().st_mtime_ns) for file in files}


ELSEWHERE = {
    "small": ("utm8", "utm", "int8"),
    "int8": ("utm", "utm8", "small"),
    "utm": ("int8", "small", "utm8"),
    "utm8": ("small", "int8", "utm"),
}
"""Base → the one of the other layout and the other type of vectors, and those that differ in one of these."""
_INTEGERS, _FLOATS, _UTM = ("int8", "utm8"), ("small", "utm"), ("utm", "utm8")
MEANINGLESS = {
    **dict.fromkeys(("nan_in_a_vector", "infinity_in_a_vector"), _INTEGERS),  # integers are finite
    "vectors_slightly_off": _INTEGERS,  # less than half a quantization step
    **dict.fromkeys(("a_scale_of_zero", "inverted_scales", "clipped_integers"), _FLOATS),  # no integers, no scales
    **dict.fromkeys(("other_quantization_of_items", "a_json_item_of_another_quantization"), _FLOATS),  # not quantized
    # Cells are those of the zone, whatever the images' shape.
    **dict.fromkeys(("an_image_of_too_many_chips", "an_image_that_is_not_counted"), _UTM),
    "unreadable_in_a_read_image": _UTM,  # may be true: superblocks of an image are read apart
}
"""Mutations that break nothing on some bases."""
OTHERWISE = {"a_file_of_two_days": (_UTM, "COV001"), "coverage_in_the_next_zone": (_UTM, "COV005")}
"""Mutations that another rule finds on some bases: here cells that the spec does not ask."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation", [each for each in MUTATIONS if each.base in ELSEWHERE], ids=lambda mutation: mutation.apply.__name__
)
def test_mutation_is_found_on_another_base(
    mutation: Mutation, broken: Callable[[str], Broken], golden_checkpoint: Path
) -> None:
    """Of the other layout and the other type of vectors, where it breaks something there."""
    name = mutation.apply.__name__
    kind = next(kind for kind in ELSEWHERE[mutation.base] if kind not in MEANINGLESS.get(name, ()))
    kinds, code = OTHERWISE.get(name, ((), ""))
    code = code if kind in kinds else mutation.code
    _find(replace(mutation, base=kind, code=code), broken, golden_checkpoint, only=_rules(code))


def _again(release: Release, weights: Path, ids: Sequence[str]) -> dict[str, Any]:
    known = str(weights) if release.spec().model.encoder == "clay" else None
    imagery = DATA / Path(MOROCCO).parent if release.spec().sensor == "sentinel-2-l2a" else IMAGERY
    return recompute(release.spec(), release.fingerprint(), ids, imagery=str(imagery), weights=known)


def test_every_rule_has_a_mutation_that_it_is_meant_to_find() -> None:
    assert {rule.code for rule in all_rules()} == {mutation.code for mutation in MUTATIONS}


def test_mutations_are_many_and_named() -> None:
    names = [mutation.apply.__name__ for mutation in MUTATIONS]
    assert len(names) == len(set(names)) >= 220
