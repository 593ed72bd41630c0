"""A release from the internet cannot fill the memory, read elsewhere, or write what a terminal obeys."""

import io
import json
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from breakage import Broken
from image_server import Fault, ImageServer
from PIL import Image

from clay_publish.errors import AccessError, ReleaseError
from clay_publish.release.directory import Release
from clay_publish.release.findings import Severity, ValidationReport
from clay_publish.release.tables import embeddings_schema, hugging_face_features
from clay_publish.storage.safe_parse import parse_json, parse_yaml
from clay_publish.validate import validate
from clay_publish.validate.checks import check_release
from clay_publish.validate.data.documents import LETTERS

Verdict = Callable[..., ValidationReport | str]


def replace_data(release: Broken, table: pa.Table, **options: Any) -> None:
    pq.write_table(table, release.folder / release.data, **options)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_page_that_decompresses_to_gigabytes(broken: Callable[..., Broken], codec: str) -> None:
    release = broken("small")
    replace_data(release, pa.table({"id": [b"\0" * 400_000_000]}), compression=codec, use_dictionary=False)
    assert (release.folder / release.data).stat().st_size < 1_000_000
    report = validate(Release(str(release.folder)))
    (finding,) = [f for f in report.findings if f.code == "INT006"]
    assert finding.where == release.data
    assert finding.found.startswith("takes more than 53")
    assert report.checked["RDR001"].startswith("not checked")


@pytest.mark.slow  # reads until the memory of a child is used up
def test_a_long_text_that_every_row_repeats(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    word = "x" * 30_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array([word]))
    replace_data(release, pa.table({"id": column}), compression="zstd", store_schema=False)
    report = validate(Release(str(release.folder)), skip=("RDR",))
    assert any(f.where == release.data and "MB of memory" in f.found for f in report.findings)


@pytest.mark.slow  # 16 million of them are read
def test_a_billion_rows_in_a_few_bytes(broken: Callable[..., Broken], verdict: Verdict) -> None:
    release = broken("small")
    path = release.folder / release.data
    replace_data(release, pa.table({"id": pa.nulls(1 << 24, pa.int8())}), row_group_size=1 << 24)
    assert path.stat().st_size < 1_000_000
    report = verdict(release.folder, skip=("RDR",))
    assert isinstance(report, ValidationReport)
    assert report.worst() is Severity.ERROR


def test_a_footer_that_claims_to_be_huge(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    path = release.folder / release.data
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
        file.seek(-8, os.SEEK_END)
        file.write((2_300_000_000).to_bytes(4, "little") + b"PAR1")
    report = validate(Release(str(release.folder)), only=("INT006",))
    assert any(f.where == release.data for f in report.findings)


MANY = 990_000
"""Values: about as many as a document may hold."""
REPEATING = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [" + f"*{chr(97 + n)}, " * 9 + "1]\n" for n in range(12)
)
TOGETHER = {
    **dict.fromkeys(
        ("collection.json", "manifest.json"),
        '{"files": {' + ",".join(f'"{n:07x}":[]' for n in range(MANY // 2)) + "}}",
    ),
    "release.yaml": "x:\n" + "- {}\n" * 490_000,
}
"""Each as large as it may be."""
LATER = partial(pytest.param, marks=pytest.mark.slow)
"""Tens of MB, parsed; a smaller one of the kind is among the others."""


@pytest.mark.parametrize(
    "documents",
    [
        {"collection.json": "[" * 1_000_000},
        {"collection.json": '{"a":' * 100_000 + "1" + "}" * 100_000},
        {"collection.json": '{"links": ' + "[" * 900 + "]" * 900 + "}"},
        {"collection.json": '{"title": "\\ud800", "links": [{"href": "\\udfff"}]}'},
        LATER({"manifest.json": '{"files": [' + "{},[]," * 5_000_000 + "1]}"}),
        {"gaps.geojson": '{"features": [' + "{}," * 3_000_000 + "1]}"},
        {"croissant.json": json.dumps({"distribution": [{"@id": f"x{n}"} for n in range(100_000)]})},
        {"release.yaml": REPEATING},
        {"release.yaml": "a: &a [*a]\n"},
        {"release.yaml": "- " * 50_000 + "1"},
        {"release.yaml": "x: !!python/object/apply:os.system [touch hacked]\n"},
        {"CITATION.cff": "x: !!python/name:os.system\n"},
        {"README.md": "---\na: &a [*a]\n---\n" + "[" * 300_000},
        {"LICENSE": "![" * 300_000},
        LATER(TOGETHER),
    ],
    ids="+".join,
)
def test_documents_that_are_bombs(broken: Callable[..., Broken], documents: dict[str, str], verdict: Verdict) -> None:
    release = broken("small")
    for name, text in documents.items():
        (release.folder / name).write_text(text)
    report = verdict(release.folder, skip=["RDR"])
    assert isinstance(report, ValidationReport)
    assert report.worst() is not None
    assert not Path("hacked").exists()


def test_documents_are_counted_before_they_are_parsed() -> None:
    with pytest.raises(ReleaseError, match="holds about 5,000,0"):
        parse_json(b"[" + b"1," * 5_000_000 + b"1]", "x")
    with pytest.raises(ReleaseError, match="its aliases written out"):
        parse_yaml(
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"k%d: &k%d [%s]\n" % (n, n, b"*k%d, " % (n - 1) * 9 if n else b"*a, " * 9) for n in range(7)),
            "x",
        )
    assert parse_yaml(b"a: &a [1, 2]\nb: *a\n", "x") == {"a": [1, 2], "b": [1, 2]}


def test_paths_in_the_manifest_read_nothing_outside(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    (release.folder.parent / "secret.json").write_text('{"secret": 1}')
    manifest = json.loads((release.folder / "manifest.json").read_text())
    manifest["files"] += [
        {"path": p, "size": 1, "sha256": "0" * 64} for p in ("../secret.json", "/etc/passwd", "a\x1b[2J")
    ]
    (release.folder / "manifest.json").write_text(json.dumps(manifest))
    with ImageServer(release.folder.parent) as server:
        remote = validate(Release(f"{server.url}/{release.folder.name}"), skip=("RDR",))
        names = {request.name for request in server.requests}
    assert not any("secret" in name or "passwd" in name or ".." in name for name in names)
    assert [f.code for f in remote.findings if f.code == "INT011"] == ["INT011"] * 3


def test_links_out_of_the_release_and_in_circles_are_not_followed(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    secret = release.folder.parent / "secret.parquet"
    secret.write_bytes((release.folder / release.data).read_bytes())
    (release.folder / "embeddings" / "zone=18" / "stolen.parquet").symlink_to(secret)
    (release.folder / "embeddings" / "again").symlink_to(release.folder / "embeddings")
    (release.folder / "embeddings" / "more").symlink_to(release.folder)
    os.mkfifo(release.folder / "embeddings" / "pipe.parquet")
    report = validate(Release(str(release.folder)))
    (finding,) = [f for f in report.findings if f.code == "INT006"]
    assert "leads out of the release" in finding.found
    assert report.checked["RDR004"].startswith("not checked")


def test_nothing_in_a_release_makes_it_fetch(broken: Callable[..., Broken], tmp_path: Path) -> None:
    release = broken("next")
    with ImageServer(tmp_path) as elsewhere:
        spec = (release.folder / "release.yaml").read_text()
        (release.folder / "release.yaml").write_text(
            spec.replace("previous: 1.0.0", f"previous: {elsewhere.url}/1.0.0")
        )
        assert elsewhere.url in (release.folder / "release.yaml").read_text()
        for name in ("collection.json", "model.json", "croissant.json"):
            document = json.loads((release.folder / name).read_text())
            document["stac_extensions"] = [f"{elsewhere.url}/schema.json"]
            document["@context"] = f"{elsewhere.url}/context.jsonld"
            document["links"] = [{"rel": "self", "href": f"{elsewhere.url}/x.json"}]
            (release.folder / name).write_text(json.dumps(document))
        report = validate(Release(str(release.folder)))
        assert elsewhere.requests == []
    assert "which lies elsewhere" in report.checked["VEC015"]
    assert "DOC005" in {f.code for f in report.findings}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
def test_a_server_cannot_send_its_reader_to_a_private_address(
    broken: Callable[..., Broken], tmp_path: Path, host: str
) -> None:
    release = broken("small")
    with ImageServer(tmp_path) as inner, ImageServer(release.folder.parent) as server:
        target = inner.url.replace("127.0.0.1", host) + "/secret"
        for method in ("GET", "HEAD"):
            server.faults.append(Fault(f"redirect:{target}", name="gaps.geojson", method=method))
        with pytest.raises(AccessError, match=r"gaps\.geojson: redirects to http://.* private address"):
            validate(Release(f"{server.url}/{release.folder.name}"), only=("COV013",))
        assert inner.requests == []


def test_a_server_may_send_its_reader_to_another_path_of_its_own(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    (release.folder / "elsewhere.json").write_bytes((release.folder / "gaps.geojson").read_bytes())
    with ImageServer(release.folder.parent) as server:
        for method in ("GET", "HEAD"):
            server.faults.append(Fault(f"redirect:{server.url}/1.0.0/elsewhere.json", "gaps.geojson", method))
        report = validate(Release(f"{server.url}/{release.folder.name}"), only=("COV013",))
    assert report.checked["COV013"] == "passed"


def test_a_server_that_sends_more_than_it_was_asked_for(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    with ImageServer(release.folder.parent, faults=[Fault("endless", name="gaps.geojson")]) as server:
        report = validate(Release(f"{server.url}/{release.folder.name}"), only=("COV013",))
        sent = sum(request.sent for request in server.of("gaps.geojson"))
    assert report.checked["COV013"] == "not checked: gaps.geojson is larger than 32000000 bytes"
    assert sent < 64_000_000


def test_a_spec_that_asks_for_a_trillion_chips(broken: Callable[..., Broken], verdict: Verdict) -> None:
    release = broken("small")
    release.sources(lambda row: row.update(proj_shape=[2_000_000_000, 2_000_000_000]))
    report = verdict(release.folder)
    assert isinstance(report, ValidationReport)
    assert "not checked" in report.checked["COV001"]


def test_what_a_terminal_would_obey_is_shown_as_text(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    (release.folder / "stray-\x1b[31m\u202e.txt").write_text("x")
    (finding,) = validate(Release(str(release.folder)), only=("INT002",)).findings
    assert finding.where == "stray-\\x1b[31m\\u202e.txt"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gaps.geojson", '"features": [', '"more": ' + "9" * 5_000_000 + ', "features": ['),
        ("collection.json", '"bbox": [\n', '"bbox": [[1' + "0" * 400 + ", 0, 1, 1],\n"),
    ],
)
def test_content_that_cannot_be_checked_is_an_error(
    broken: Callable[..., Broken], name: str, old: str, new: str
) -> None:
    release = broken("small")
    release.text(name, old, new)
    release.settle()
    report = validate(Release(str(release.folder)))
    assert {f.code for f in report.at_or_above(Severity.ERROR)} & {"INT015", "STC008", "STC001"}, report.checked


def test_a_license_that_is_a_link_out_of_the_release_is_an_error(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    elsewhere = release.folder.parent / "LICENSE"
    (release.folder / "LICENSE").rename(elsewhere)
    (release.folder / "LICENSE").symlink_to(elsewhere)
    report = validate(Release(str(release.folder)))
    (finding,) = [f for f in report.findings if f.where == "LICENSE"]
    assert finding.severity is Severity.ERROR
    assert "leads out of the release" in finding.found


def test_a_release_whose_only_data_file_is_gone_is_validated(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    data = release.data
    (release.folder / data).unlink()
    report = validate(Release(str(release.folder)))
    assert [f.where for f in report.findings if f.code == "INT001"] == [f"manifest.json: {data}"]


@pytest.mark.parametrize("name", ["a[1]?*b", "a::b", "~c", "a%20b #d", "zip::memory:e"])
def test_a_folder_named_like_a_pattern_is_read_by_its_name(broken: Callable[..., Broken], name: str) -> None:
    release = broken("small")
    odd = release.folder.parent / name
    release.folder.rename(odd)
    report = validate(Release(str(odd)), only=("RDR", "INT", "SCH"))
    assert report.findings == []
    assert report.checked["RDR004"] == "passed"


@pytest.mark.parametrize("kind", ["address", "path", "eps", "html", "large"])
def test_thumbnails_are_decoded_from_their_bytes_alone(
    broken: Callable[..., Broken], tmp_path: Path, kind: str
) -> None:
    release = broken("small")
    with ImageServer(tmp_path) as elsewhere:
        large = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(large, "PNG")
        stored = {
            "address": {"bytes": None, "path": f"{elsewhere.url}/x.png"},
            "path": {"bytes": None, "path": "/etc/passwd"},
            "eps": {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "path": None},
            "html": {"bytes": b"<html>not found</html>", "path": None},
            "large": {"bytes": large.getvalue(), "path": None},
        }[kind]
        table = release.table(release.data)
        kind_of = embeddings_schema(1, "int8", thumbnails=True).field("thumbnail").type
        column = pa.array([stored] * len(table), kind_of)
        features = {"info": {"features": hugging_face_features(table.append_column("thumbnail", column).schema)}}
        metadata = {**table.schema.metadata, b"huggingface": json.dumps(features).encode()}
        release.put(release.data, table.append_column("thumbnail", column).replace_schema_metadata(metadata))
        report = validate(Release(str(release.folder)), only=("RDR005",))
        assert elsewhere.requests == []
    (finding,) = report.findings
    assert finding.where.endswith(": thumbnail")


def test_what_was_not_looked_at_of_a_long_document_is_said(broken: Callable[[str], Broken]) -> None:
    release = broken("small")
    card = release.folder / "README.md"
    card.write_text(card.read_text() + "\n" * LETTERS)
    release.settle()
    state = check_release(release.release, sample=64, only=["DOC011"]).checked["DOC011"]
    assert re.fullmatch(r"passed on [\d,]+ of [\d,]+ letters of its documents", state)
