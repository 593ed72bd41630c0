"""`publish`, `versions`, `yank` and `mirror`: a release and its readers."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Quiet, Screen, Where, release_at
from clay_publish.cli.validate import run_validation
from clay_publish.errors import PublishError
from clay_publish.formats import counted

if TYPE_CHECKING:
    from clay_publish.release.directory import Release
    from clay_publish.release.versions import Versions


class Verify(StrEnum):
    """How what arrived is compared."""

    checksums = "checksums"
    full = "full"


To = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PLACE",
        help="source.coop, huggingface (both also with /OWNER/NAME), s3://BUCKET/PREFIX, a directory or file://"
        " address; may be given again. Default: what the spec says.",
    ),
]
Place = Annotated[str, typer.Argument(metavar="PLACE", help="Where versions are published; as for `publish --to`.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and how much; send nothing.")]
Full = Annotated[Verify, typer.Option("--verify", help="Trust the place's checksums, or read every byte back.")]
Force = Annotated[
    str | None,
    typer.Option(metavar="REASON", help="Publish although the terms of a source are not known; published too."),
]
AllowUnchecked = Annotated[
    bool,
    typer.Option(
        "--allow-unchecked", help="Publish although rules of integrity, coverage or license were not checked."
    ),
]
Create = Annotated[bool, typer.Option("--create", help="Create the repository on the Hub where there is none.")]


def publish(
    where: Where,
    to: To = None,
    dry_run: DryRun = False,
    verify: Full = Verify.checksums,
    force: Force = None,
    allow_unchecked: AllowUnchecked = False,
    create: Create = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Publish a version atomically. A published version is immutable."""
    before = _before(release_at(where))
    _send(
        where,
        to,
        before,
        dry_run=dry_run,
        verify=verify,
        force=force,
        allow_unchecked=allow_unchecked,
        create=create,
        json=json,
        quiet=quiet,
    )


def _send(
    where: str,
    to: list[str] | None,
    before: str | None,
    *,
    dry_run: bool,
    verify: Verify,
    force: str | None,
    allow_unchecked: bool,
    create: bool,
    json: bool,
    quiet: bool,
) -> None:
    from clay_publish.publish import publish_release, record_hub
    from clay_publish.publish.targets import check_target
    from clay_publish.release.lease import lease_if_run
    from clay_publish.release.versions import Mirror

    screen, release = Screen(quiet=quiet, as_json=json), release_at(where)
    targets = to or _of_spec(release)
    for target in targets:
        check_target(target, release)  # validation takes long
    full = verify is Verify.full
    with screen.progress() as report, lease_if_run(release):
        validation = run_validation(release, report, previous=before)
        receipts = [
            publish_release(
                release,
                place,
                validation,
                dry_run=dry_run,
                full=full,
                force=force,
                allow_unchecked=allow_unchecked,
                create=create,
                report=report,
            )
            for place in targets
        ]
    on_hub = next((r for r in receipts if r.commit), None)
    if on_hub is not None and on_hub.commit is not None and not dry_run:
        mirror = Mirror(repository=on_hub.where, commit=on_hub.commit)
        for target in (r.target for r in receipts if r.commit is None):
            record_hub(_named(target, release), on_hub.version, mirror)
    if release.store.local and not dry_run:
        _remember(release, [r.where for r in receipts])
    document = {"receipts": [r.model_dump(mode="json") for r in receipts]}
    screen.result("\n".join(r.line for r in receipts), document)


def mirror(
    source: Annotated[str, typer.Argument(metavar="RELEASE", help="Address of the published version to copy.")],
    to: To = None,
    dry_run: DryRun = False,
    verify: Full = Verify.checksums,
    create: Create = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a published version to another host, validated and verified like any other."""
    _send(
        source,
        to,
        None,
        dry_run=dry_run,
        verify=verify,
        force=None,
        allow_unchecked=False,
        create=create,
        json=json,
        quiet=quiet,
    )


def versions(place: Place, json: Json = False) -> None:
    """List published versions."""
    from clay_publish.publish import versions as ask

    _show(ask(place), json)


def yank(
    place: Place,
    version: Annotated[str, typer.Argument(help="The version.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="What readers should know.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier yank back.")] = False,
    json: Json = False,
) -> None:
    """Mark a version as one that should not be used any more. Nothing is deleted."""
    from clay_publish.publish import yank as mark

    if undo == (reason is not None):
        raise PublishError("yank", "needs either --reason TEXT or --undo", "one of them")
    found = mark(place, version, reason)
    marked = found.find(version)
    if reason is not None and marked is not None and marked.yanked != reason:
        typer.echo(f"{version} was yanked before: the first reason stays (--undo takes it back)", err=True)
    _show(found, json)


def audit(
    place: Place,
    quick: Annotated[bool, typer.Option("--quick", help="Compare names and sizes only, not checksums.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every published version with what the host holds. Exit code 1: something is missing or changed."""
    from clay_publish.publish.audit import audit as compare

    screen = Screen(quiet=quiet, as_json=json)
    with screen.progress() as report:
        found = compare(place, quick=quick, report=report)
    lines = [
        f"{fault.fault:<12} {fault.place}" + (f": {fault.detail}" if fault.detail else "") for fault in found.faults
    ]
    count = counted(len(found.faults), "difference") if found.faults else "no differences"
    lines.append(f"{place}: {counted(len(found.versions), 'version')}, {counted(found.files, 'file')}, {count}")
    screen.result("\n".join(lines), found.model_dump(mode="json"))
    if found.faults:
        raise typer.Exit(1)


def _show(found: "Versions", as_json: bool) -> None:
    document = {**found.model_dump(mode="json", exclude_none=True), "latest": found.latest}
    Screen(quiet=False, as_json=as_json).result("\n".join(found.lines()) or "no versions", document)


def _remember(release: "Release", places: list[str]) -> None:
    """Keep where a release was published, since a published version must not change any more.

    A copy without the records of its run is a published version itself, and nothing is added to it.
    """
    from clay_publish.release.directory import PUBLISHED
    from clay_publish.release.manifest import RUN_RECORD, dump_json

    if not release.store.exists(RUN_RECORD):
        return
    known = release.json(PUBLISHED)["places"] if release.store.exists(PUBLISHED) else []
    if os.access(release.store.where, os.W_OK):
        release.store.write(PUBLISHED, dump_json({"places": sorted({*known, *places})}))


def _of_spec(release: "Release") -> list[str]:
    wanted = release.spec().publish
    places = [
        name for name, place in (("huggingface", wanted.hugging_face), ("source.coop", wanted.source_coop)) if place
    ]
    if not places:
        raise PublishError(
            release.store.where,
            "names no place to publish to",
            "`publish.source_coop` or `publish.hugging_face` in the spec",
            "Or name one with --to.",
        )
    return places


def _before(release: "Release") -> str | None:
    """The version before, where one's own spec gives its address; that of a copy is not followed."""
    from clay_publish.release.directory import SPEC
    from clay_publish.storage.store import is_url

    previous = release.spec().previous if release.store.local and release.store.exists(SPEC) else None
    return previous if previous is not None and is_url(previous) else None


def _named(target: str, release: "Release") -> str:
    """A target that needs no spec to be understood."""
    return f"{target}/{release.spec().publish.source_coop}" if target == "source.coop" else target
