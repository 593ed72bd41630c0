"""The version before: which of its images stay, and which are new, mended, changed or gone."""

from typing import Any

from clay_publish import release as paths
from clay_publish.fingerprint import Fingerprint
from clay_publish.producer.estimate import Comparison
from clay_publish.producer.items import SourceItem
from clay_publish.producer.selection import Selection
from clay_publish.release import Release

_COLUMNS = ["id", "status", "offset", "datetime", "assets"]


def compare(selection: Selection, previous: Release, fingerprint: Fingerprint) -> tuple[Comparison, frozenset[str]]:
    """Images of this version against those of the one before.

    Returns:
        The comparison, and the ids of images whose chips will be taken over.

    Raises:
        ReleaseError: the version before cannot be read.
    """
    before = {row["id"]: row for row in previous.parquet(paths.SOURCES).read(columns=_COLUMNS).to_pylist()}
    unreadable = _unreadable(previous)
    used = {each.item.id: each.item for each in selection.considered if each.status == "used"}
    known = {name: row for name, row in before.items() if row["status"] == "used" and name not in unreadable}
    kept = used.keys() & known.keys()
    changed = {name for name in kept if _content(used[name]) != _content_before(known[name])}
    mended = {name for name in used.keys() - known.keys() if _was_bad(before.get(name), name in unreadable)}
    same_model = not previous.fingerprint().differences(fingerprint)
    comparison = Comparison(
        previous=previous.store.where,
        new=len(used.keys() - known.keys() - mended),
        mended=len(mended),
        stays=len(kept) - len(changed),
        changed=len(changed),
        gone=len(known.keys() - used.keys()),
        same_model=same_model,
    )
    return comparison, frozenset(kept - changed) if same_model else frozenset()


def _unreadable(previous: Release) -> set[str]:
    """Images that could not be read."""
    found: set[str] = set()
    for path in previous.data_files(paths.COVERAGE):
        table = previous.parquet(path).read(columns=["reason", "item_ids"]).to_pydict()
        for reason, ids in zip(table["reason"], table["item_ids"], strict=True):
            if reason in {"unreadable", "source_changed", "failed"}:
                found.update(ids)
    return found


def _was_bad(row: dict[str, Any] | None, unreadable: bool) -> bool:
    """Whether an image that is used now was excluded, unusable or unreadable before."""
    return unreadable or (row is not None and (row["status"] == "excluded" or not row["assets"]))


def _content(item: SourceItem) -> tuple[Any, ...]:
    return (item.acquired, item.offset)


def _content_before(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["datetime"], row["offset"])
