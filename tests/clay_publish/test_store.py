import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clay_publish.errors import ClayPublishError, StoreError
from clay_publish.redaction import without_secrets
from clay_publish.storage import local
from clay_publish.storage.store import Store


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/", "a\\b", "c:/x", "a\x00b", "a\nb"]
)
def test_a_path_that_could_lead_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="is not a safe path"):
        Store(tmp_path).read(path)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "inside").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match="leads out of the release"):
        Store(tmp_path / "release").read("inside")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a/b", "old")

    def half() -> None:
        with store.writer("a/b") as file:
            file.write(b"new")
            file.flush()
            assert store.read("a/b") == b"old"
            assert store.files() == ["a/b"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert store.read("a/b") == b"old"
    assert store.files() == ["a/b"]


def test_only_the_first_creates(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"


def test_files_can_be_had_as_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(folder: str) -> Iterator[str]:
        yield f"{folder}/.tmp-1"
        yield f"{folder}/b"
        raise PermissionError("secret")

    monkeypatch.setattr(local, "_walk", listed)
    found = Store(tmp_path).each_file("a")
    assert next(found) == "a/b"
    with pytest.raises(StoreError, match=r"/a: cannot be used to list it \(secret\)"):
        next(found)


def test_what_killed_writers_left_is_not_listed_and_can_be_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a/kept", b"")
    (tmp_path / "a" / ".tmp-123").write_text("half")
    assert store.files() == ["a/kept"]
    assert store.remove_orphans("b") == []
    assert store.remove_orphans() == ["a/.tmp-123"]
    assert sorted(os.listdir(tmp_path / "a")) == ["kept"]  # noqa: PTH208


def test_a_file_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    with Store(tmp_path).writer("a/b") as file:
        file.write(b"new")
        file.flush()
        assert Store(tmp_path).remove_orphans() == []
    assert Store(tmp_path).read("a/b") == b"new"


def test_writers_and_their_removal_side_by_side(tmp_path: Path) -> None:
    store, names = Store(tmp_path), [f"folder/{number}" for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(store.write, name, name) for name in names]
        while not all(each.done() for each in writing):
            store.remove_orphans()  # may meet a file that is not locked yet: its writer then takes another
    assert [each.result() for each in writing] == [None] * len(names)
    assert all(store.read(name) == name.encode() for name in names)


@pytest.mark.parametrize("where", ["s3://user:planted@bucket/x", "https://user:planted@127.0.0.1:9/x"])
def test_credentials_in_an_address_are_refused_and_not_repeated(where: str) -> None:
    with pytest.raises(ClayPublishError, match=r"has credentials in its address") as caught:
        Store(where).read("a")
    assert "planted" not in str(caught.value) + repr(caught.value.args)


def test_a_document_of_unusual_size_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("a", b"12345")
    assert store.read("a", 5) == b"12345"
    with pytest.raises(StoreError, match="is larger than 4 bytes"):
        store.read("a", 4)


def test_missing_files_and_unknown_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing: does not exist\.$"):
        Store(tmp_path).read("nothing")


@pytest.mark.parametrize("scheme", ["gs", "az", "abfs", "gopher", "memory", "blockcache::http", "simplecache::file"])
def test_places_that_are_not_supported_are_named(scheme: str) -> None:
    said = rf"is a {scheme}:// address, which is not supported \(expected a directory, http\(s\)://, s3:// or hf://\)"
    with pytest.raises(StoreError, match=said):
        Store(f"{scheme}://host/release")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://user:secret@example.com/a/b.tif", "https://example.com/a/b.tif"),
        ("https://example.com/b.tif?sig=secret&se=1", "https://example.com/b.tif"),
        ("s3://bucket/b.tif#secret", "s3://bucket/b.tif"),
    ],
)
def test_no_secret_of_an_address_is_published(address: str, public: str) -> None:
    assert without_secrets(address) == public
