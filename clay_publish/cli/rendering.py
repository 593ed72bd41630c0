"""Render the documents of a release again, in memory: `validate` is handed this and compares; it imports no stage."""

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from clay_publish.release.directory import Release
from clay_publish.storage.store import Store

_VECTORS = 128 << 20
"""Bytes of embeddings, at most, that are read again for the table of Items, the figures and the cards."""


class _Captured:
    """What makes a store keep what is written to it in memory."""

    written: dict[str, bytes]

    def write(self, path: str, data: bytes | str) -> None:
        """Keep a file."""
        self.written[path] = data.encode() if isinstance(data, str) else data

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file that is kept."""
        file = io.BytesIO()
        yield file
        self.written[path] = file.getvalue()

    def remove(self, path: str) -> None:
        """Nothing is removed."""


def _captured(store: Store) -> Any:
    """A store that reads as another one does, and writes nowhere."""
    made: Any = copy.copy(store)
    made.__class__ = type("CapturedStore", (_Captured, type(store)), {})
    made.written = {}
    return made


def render_documents(release: Release, previous: Release | None) -> dict[str, bytes]:
    """Return the documents that follow from a release's data, by path, as this version writes them.

    Each is rendered from the tables and from the other documents as they are; the explorer's overviews are left out. Of
    a large release, what needs all chips is left out, too: the table of Items, the figures and the cards.

    Raises:
        ClayPublishError: the release lacks what they tell about.
    """
    from clay_publish.cards import card_documents
    from clay_publish.catalog import write_collection, write_items, write_json_items
    from clay_publish.release.public_urls import release_address

    store = _captured(release.store)
    captured = Release(store)
    write_collection(captured)
    wanted = bool(release.store.files("items"))
    write_json_items(captured, release_address(captured.spec()), wanted=wanted)
    small = sum(map(release.store.size, release.data_files())) <= _VECTORS
    if small:
        write_items(captured, json_items=False)
    cards = card_documents(captured, previous, small=small)
    return {**store.written, **{path: text.encode() for path, text in cards.items()}}
