"""Checking a release by all rules, in this process."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clay_publish.errors import ClayPublishError, ReleaseError
from clay_publish.progress import Progress, Report, silent
from clay_publish.release.directory import EMBEDDINGS, MANIFEST, Release
from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.release.format_version import check_format
from clay_publish.release.versions import refuse_root
from clay_publish.storage.store import OneFile
from clay_publish.validate.context import Recompute, ReleaseContext, Render
from clay_publish.validate.data.zarr_groups import STORES
from clay_publish.validate.kept_scan import pack
from clay_publish.validate.outcomes import UNFORESEEN, Broken, Fault, NotChecked, Outcome, Sampled, unchecked
from clay_publish.validate.registry import ANYBODY, OTHERS, RECOMPUTED, UNCHECKED, Rule, select
from clay_publish.validate.reports.measures import measure

# The rules register themselves when their files are read.
from clay_publish.validate.rules import (  # noqa: F401
    agreement,
    anybody,
    coverage,
    derived_columns,
    documents,
    gap_reasons,
    geometry,
    integrity,
    provenance,
    readers,
    release_format,
    schema,
    seams,
    stac,
    time,
    vector_distribution,
    vectors,
)
from clay_publish.validate.rules.imagery import sensors, sources, statuses  # noqa: F401
from clay_publish.validate.rules.outputs import (  # noqa: F401
    array_attributes,
    array_values,
    arrays,
    codes,
    explorer,
    extra_tables,
    made_again,
    pages,
    pictures,
)
from clay_publish.validate.sandbox.marks import marked

OF_STORES = {"ARR002", "ARR003", "ARR006"}
"""Rules for an input that is a Zarr store and nothing else, whatever program wrote it."""

_LONGEST = 1000
"""Letters of a text that a finding quotes."""

MOST = 20
"""Findings of one rule that are listed one by one."""


def check_release(
    release: Release,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    sample: int,
    quick: bool = False,
    refused: Mapping[str, str] = {},
    threads: int | None = None,
    previous: Release | None = None,
    verified: Mapping[str, str] = {},
    scans: Mapping[str, str] = {},
    open_previous: Callable[[str], Release] | None = None,
    render: Render | None = None,
    recompute: Recompute | None = None,
    report: Report = silent,
) -> ValidationReport:
    """Check a release, as `runner.validate` does in a child process.

    Args:
        release: a release, made by anyone.
        only: codes or groups of rules to check; none means all.
        skip: codes or groups to leave out.
        sample: chips that the costly checks look at, at most.
        quick: read metadata, footers and a sample of rows only.
        refused: files, and rules after a colon, that ended an earlier child, and how.
        threads: files that are read at a time, at most.
        previous: the version before, where it is not a neighbor of this one.
        verified: SHA-256 of embeddings files in which the rules that depend on rows alone are known to hold.
        scans: by embeddings file, the file in the release that keeps what `scan_files` saw in it.
        open_previous: opens the version before by the name that the release gives it.
        render: renders the documents again; without it they are not compared.
        recompute: makes chips again; without it they are not.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to validate, or a rule is unknown.
    """
    rules = select(only, skip)
    context = _context(
        release,
        rules,
        sample=sample,
        quick=quick,
        threads=threads,
        previous=previous,
        verified=verified,
        scans=scans,
        alone=frozenset(rule.code for rule in rules if rule.alone),
        open_previous=open_previous,
        render=render,
        recompute=recompute,
        report=report,
    )
    context.broken += [Broken(name, f"{name} {why}") for name, why in refused.items() if not name.startswith(":")]
    with _opened(context):
        rules = [rule for rule in rules if _applies(rule, context)]
        findings: list[Finding] = []
        checked: dict[str, str] = {}
        for done, rule in enumerate(rules):
            if rule.code == UNCHECKED:
                continue
            report(Progress("rules", done, len(rules), rule.title, unit="rules"))
            with marked("rule", rule.code):
                found, checked[rule.code] = run_rule(rule, context, refused.get(f":{rule.code}"))
            findings += found
        paths = context.files.paths
        context.broken = [broken for broken in context.broken if not _is_reported(broken, findings, paths)]
        for rule in select((UNCHECKED,), skip):
            found, state = run_rule(rule, context)
            findings += found
            if found or rule in rules:
                checked[rule.code] = state
        report(Progress("rules", len(rules), len(rules), unit="rules"))
        return ValidationReport(
            where=release.store.path(release.store.name) if isinstance(release.store, OneFile) else release.store.where,
            kind=context.input.kind,
            findings=findings,
            checked=checked,
            quick=quick,
            fetched=release.store.fetched,
            measures=measure(context, findings),
        )


def scan_files(
    release: Release,
    *,
    only: Iterable[str] = (),
    skip: Iterable[str] = (),
    sample: int,
    share: tuple[int, int],
    done: Collection[str] = (),
    threads: int | None = None,
    keep: Callable[[str, bytes], None],
    report: Report = silent,
) -> None:
    """Read a share of the embeddings files of a release, as `check_release` reads all.

    Args:
        release: as for `check_release`.
        only: as for `check_release`.
        skip: as for `check_release`.
        sample: as for `check_release`.
        share: which share, from 1, and of how many.
        done: files that need not be read again.
        threads: files that are read at a time, at most.
        keep: receives each file's path, and what `check_release` needs of it.
        report: hears of the progress.

    Raises:
        ReleaseError: there is nothing to validate, or a rule is unknown.
    """
    rules = select(only, skip)
    context = _context(release, rules, sample=sample, threads=threads, report=report)
    number, of = share
    with _opened(context):
        # Of all files, so that one that ends a process does not move the others to another share.
        chosen = set(context.rows_pass.chosen) - set(done)
        mine = [path for path in context.files.data[number - 1 :: of] if path in chosen]
        for path, seen in context.rows_pass.read(mine):
            keep(path, pack(seen, context.among))


def _context(release: Release, rules: Iterable[Rule], **more: Any) -> ReleaseContext:
    rules = list(rules)
    return ReleaseContext(
        release,
        checks={rule.code: rule.rows for rule in rules if rule.rows is not None},
        sampled=frozenset(rule.code for rule in rules if rule.sampled),
        **more,
    )


@contextmanager
def _opened(context: ReleaseContext) -> Iterator[None]:
    """Read the release inside the block.

    Raises:
        ReleaseError: there is nothing to validate, or it has another format.
        AccessError: its server cannot be read from.
    """
    store = context.files.store
    with store.remembering(), context.files, context:
        if not isinstance(store, OneFile):
            refuse_root(context.files.release)
        if not context.files.paths:
            if store.local or isinstance(store, OneFile):
                raise ReleaseError(store.where, "holds no files", "a release directory, or files of embeddings")
            expected = "a release, a collection.json, catalog.json or zarr.json, or the address of a Parquet file"
            raise ReleaseError(store.where, "holds none of the files that a server is asked for", expected)
        _check_format(context)
        _ = context.tables.unreadable  # a server that cannot be read from at all is one error, not one per rule
        yield


def _applies(rule: Rule, context: ReleaseContext) -> bool:
    """Whether a rule says anything about the input: about anybody's embeddings only some do."""
    if rule.code == RECOMPUTED and context.recompute is None:
        return False
    if not context.tables.foreign:
        return rule.code not in OTHERS
    if STORES & set(context.files.paths) and not context.files.parquet:
        return rule.code in OF_STORES
    if rule.code == "SCH011" and not any("geo" in footer for footer in context.tables.keys.values()):
        return False  # ANY003
    there = [context.tables.names(path) for path in context.input.vectors]
    return rule.code in ANYBODY and (
        not ANYBODY[rule.code] or bool(there and ANYBODY[rule.code] <= set.intersection(*there))
    )


def _check_format(context: ReleaseContext) -> None:
    """Refuse a release of another format: what its documents promise is not what the rules ask for.

    Raises:
        ReleaseError: the manifest, where it is one of ours, states another format.
    """
    if MANIFEST not in context.files.paths:
        return
    try:
        document = context.documents.json(MANIFEST)
    except ReleaseError:
        return  # SCH014
    run = document.get("run")
    if isinstance(run, dict) and "fingerprint" in run:
        check_format(document.get("format", 1), context.files.store.path(MANIFEST))


def run_rule(rule: Rule, context: ReleaseContext, refused: str | None = None) -> tuple[list[Finding], str]:
    """Return a rule's findings, and whether it passed, failed or was not checked."""
    outcomes = list(_outcomes(rule, context)) if refused is None else [Broken("", f"checking {rule.code} {refused}")]
    faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
    gaps = [outcome.why for outcome in outcomes if isinstance(outcome, NotChecked | Broken)]
    sampled = next((outcome for outcome in reversed(outcomes) if isinstance(outcome, Sampled)), None)
    where = context.files.store.where
    context.broken += [outcome for outcome in outcomes if isinstance(outcome, Broken)]
    if len(faults) > MOST:
        faults[MOST:] = [Fault(where, f"{len(faults) - MOST:,} more like these")]
    if faults:
        return [_finding(rule, fault, context) for fault in faults], "failed"
    if gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        return [], f"not checked: {plain(gaps[0])}{more}"
    if sampled is not None and sampled.seen < sampled.total:
        return [], f"passed on {sampled.seen:,} of {sampled.total:,} {sampled.of}"
    return [], "passed"


def _outcomes(rule: Rule, context: ReleaseContext) -> Iterator[Outcome]:
    try:
        yield from rule.check(context)
    except ClayPublishError as error:
        yield unchecked(error, context.files.store)
    except UNFORESEEN as error:
        yield Broken("", f"the release holds what {rule.code} cannot read ({error!r})")


def _is_reported(broken: Broken, findings: list[Finding], paths: Collection[str]) -> bool:
    """Whether an error was found in the same file; where the file is unknown, in any."""
    file = broken.where.partition(": ")[0].partition(" ")[0]
    file = file if any(path.startswith(file) for path in paths) else ""
    return any(finding.severity is Severity.ERROR and finding.where.startswith(file) for finding in findings)


def _finding(rule: Rule, fault: Fault, context: ReleaseContext) -> Finding:
    # Others have no such folder: what concerns all embeddings concerns the input.
    whole = context.tables.foreign and fault.where == EMBEDDINGS
    where = context.files.store.where if whole else fault.where
    return Finding(
        code=rule.code,
        severity=rule.severity,
        where=plain(where),
        found=plain(fault.found),
        expected=plain(fault.expected),
        fix=fault.fix or (rule.advice if context.tables.foreign else rule.fix),
    )


def plain(text: str) -> str:
    """A text of a release that may be shown: nothing that moves a cursor, turns the writing, or goes on for ever."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_LONGEST])
    return shown + ("…" if len(text) > _LONGEST else "")
