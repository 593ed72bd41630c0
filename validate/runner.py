"""Judging a release by all rules."""

from collections.abc import Iterable

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Progress, Report, silent
from clay_publish.release.directory import EMBEDDINGS, MANIFEST, Release
from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.release.format_version import check_format
from clay_publish.validate.context import View
from clay_publish.validate.registry import GEOPARQUET, OURS, UNFORESEEN, Fault, NotChecked, Rule, Sampled, select
from clay_publish.validate.reports.measures import measure

# The rules register themselves when their files are read.
from clay_publish.validate.rules import (  # noqa: F401
    agreement,
    codes,
    coverage,
    documents,
    explorer,
    extra_tables,
    footers,
    gap_reasons,
    geometry,
    integrity,
    placement,
    provenance,
    readers,
    release_format,
    schema,
    sensors,
    stac,
    time,
    vector_distribution,
    vectors,
)

SAMPLE = 20_000
"""Chips that costly checks look at, at most, where the caller does not say."""

_LONGEST = 1000
"""Letters of a text that a finding quotes."""

MOST = 20
"""Findings of one rule that are told one by one."""


def validate(
    release: Release,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    sample: int = SAMPLE,
    quick: bool = False,
    previous: Release | None = None,
    report: Report = silent,
) -> ValidationReport:
    """Judge a release.

    Args:
        release: a release, made by anyone.
        only: codes (`COV001`) or groups (`COV`) of rules to judge by; none means all.
        skip: codes or groups to leave out.
        sample: chips that the costly checks look at, at most; `checked` says where that was fewer than all.
        quick: read metadata, footers and a sample of rows only; what needs more is not checked.
        previous: the version before, where it is not a neighbour of this one. A release that names another server
            is not followed there.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to judge, or a rule is unknown.
    """
    rules = select(only, skip)
    with release.store.remembering(), View(release, rules, sample, report, quick=quick, previous=previous) as view:
        if not view.files:
            raise ReleaseError(release.store.where, "holds no files", "a release directory")
        if not view.data_paths:
            raise ReleaseError(release.store.where, f"holds no Parquet file below {EMBEDDINGS}/", "a release directory")
        _check_format(view)
        _ = view.unreadable  # a server that cannot be read from at all is one error, not one a rule
        findings: list[Finding] = []
        checked: dict[str, str] = {}
        for done, rule in enumerate(rules):
            report(Progress("rules", done, len(rules), rule.code))
            found, checked[rule.code] = judge(rule, view)
            findings += found
        report(Progress("rules", len(rules), len(rules)))
        return ValidationReport(
            where=release.store.where,
            findings=findings,
            checked=checked,
            quick=quick,
            fetched=release.store.fetched,
            measures=measure(view),
        )


def _check_format(view: View) -> None:
    """Refuse a release of another format: what its documents promise is not what the rules ask for.

    Raises:
        ReleaseError: the manifest, where it is one of ours, states another format.
    """
    if MANIFEST not in view.files:
        return
    try:
        document = view.release.json(MANIFEST)
    except ReleaseError:
        return  # SCH014
    run = document.get("run")
    if isinstance(run, dict) and "fingerprint" in run:
        check_format(document.get("format", 1), view.release.store.path(MANIFEST))


def judge(rule: Rule, view: View) -> tuple[list[Finding], str]:
    """What one rule finds, and whether it could look."""
    faults: list[Fault] = []
    gaps: list[str] = []
    sampled: Sampled | None = None
    try:
        for outcome in rule.check(view):
            if isinstance(outcome, Fault):
                faults.append(outcome)
            elif isinstance(outcome, NotChecked):
                gaps.append(outcome.why)
            else:
                sampled = outcome
    except ClayPublishError as error:
        gaps.append(f"{_relative(error.where, view)} {error.found}")
    except UNFORESEEN as error:
        gaps.append(f"the release holds what this rule cannot read ({error!r})")
    findings = [_finding(rule, fault, view) for fault in faults[:MOST]]
    if len(faults) > MOST:
        findings.append(
            _finding(rule, Fault(view.release.store.where, f"{len(faults) - MOST:,} more like these"), view)
        )
    if faults:
        return findings, "failed"
    if gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        return [], f"not checked: {plain(gaps[0])}{more}"
    if sampled is not None and sampled.seen < sampled.total:
        return [], f"passed on {sampled.seen:,} of {sampled.total:,} {sampled.of}"
    return [], "passed"


def _finding(rule: Rule, fault: Fault, view: View) -> Finding:
    geo = any("geo" in footer for footer in view.footers.values())
    ours = view.foreign and (rule.code in OURS or (rule.code in GEOPARQUET and not geo))
    return Finding(
        code=rule.code,
        severity=Severity.INFO if ours else rule.severity,
        where=plain(fault.where),
        found=plain(fault.found),
        expected=plain(fault.expected),
        fix=fault.fix or rule.fix,
    )


def plain(text: str) -> str:
    """A text of a release that may be shown: nothing that moves a cursor, turns the writing, or goes on for ever."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_LONGEST])
    return shown + ("…" if len(text) > _LONGEST else "")


def _relative(where: str, view: View) -> str:
    return where.removeprefix(f"{view.release.store.where}/")
