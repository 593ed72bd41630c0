"""A release from the internet cannot fill the memory, read elsewhere, or write what a terminal obeys."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from breakage import Broken
from image_server import Fault, ImageServer

from clay_publish.bounded import parse_json, parse_yaml
from clay_publish.errors import ReleaseError
from clay_publish.findings import ValidationReport
from clay_publish.release import Release
from clay_publish.validate import validate

GIB = 1 << 30
_JUDGE = r"""
import re, sys
from pathlib import Path
from clay_publish.release import Release
from clay_publish.validate import validate
report = validate(Release(sys.argv[1]))
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
print(report.model_dump_json())
"""


def judged_apart(folder: Path) -> ValidationReport:
    """Judge in a process of its own, which may take two minutes of processor time and 1 GiB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

    made = subprocess.run(
        [sys.executable, "-c", _JUDGE, folder],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert int(made.stderr.splitlines()[-1]) * 1024 < GIB
    return ValidationReport.model_validate_json(made.stdout)


def replace_data(release: Broken, table: pa.Table, **options: Any) -> None:
    pq.write_table(table, release.folder / release.data, **options)


def test_a_page_that_decompresses_to_gigabytes(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    replace_data(release, pa.table({"id": [b"\0" * 300_000_000]}), compression="zstd", use_dictionary=False)
    assert (release.folder / release.data).stat().st_size < 1_000_000
    report = judged_apart(release.folder)
    (finding,) = [f for f in report.findings if f.code == "INT006"]
    assert "decompresses to 300,000,0" in finding.found
    assert report.checked["RDR001"].startswith("not checked")


def test_a_long_text_that_every_row_repeats(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    word = "x" * 30_000_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array([word]))
    replace_data(release, pa.table({"id": column}), compression="zstd", store_schema=False)
    judged_apart(release.folder)


def test_a_billion_rows_in_a_few_bytes(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    path = release.folder / release.data
    replace_data(release, pa.table({"id": pa.nulls(1 << 24, pa.int8())}), row_group_size=1 << 24)
    assert path.stat().st_size < 1_000_000
    (finding,) = [f for f in judged_apart(release.folder).findings if f.code == "INT006"]
    assert "claims 16,777,216 rows in" in finding.found


def test_a_footer_that_claims_to_be_huge(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    path = release.folder / release.data
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
        file.seek(-8, os.SEEK_END)
        file.write((2_300_000_000).to_bytes(4, "little") + b"PAR1")
    report = validate(Release(str(release.folder)), only=("INT006",))
    assert "claims a footer of 2,300,000,000 bytes" in report.findings[0].found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("collection.json", "[" * 1_000_000),
        ("collection.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
        ("collection.json", '{"links": ' + "[" * 900 + "]" * 900 + "}"),
        ("manifest.json", '{"files": [' + "{},[]," * 5_000_000 + "1]}"),
        ("gaps.geojson", '{"features": [' + "{}," * 3_000_000 + "1]}"),
        ("collection.json", '{"title": "\\ud800", "links": [{"href": "\\udfff"}]}'),
        (
            "release.yaml",
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [" + f"*{chr(97 + n)}, " * 9 + "1]\n" for n in range(12)),
        ),
        ("release.yaml", "a: &a [*a]\n"),
        ("release.yaml", "- " * 50_000 + "1"),
        ("release.yaml", "x: !!python/object/apply:os.system [touch hacked]\n"),
        ("CITATION.cff", "x: !!python/name:os.system\n"),
        ("README.md", "---\na: &a [*a]\n---\n" + "[" * 300_000),
        ("LICENSE", "![" * 300_000),
    ],
    ids=lambda value: value[:24].strip() if isinstance(value, str) else "",
)
def test_documents_that_are_bombs(
    broken: Callable[..., Broken], name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release = broken("small")
    (release.folder / name).write_text(text)
    report = validate(Release(str(release.folder)), skip=("RDR",))
    assert report.worst() is not None
    assert not (tmp_path / "hacked").exists()


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


def test_a_server_cannot_send_its_reader_to_a_private_address(broken: Callable[..., Broken], tmp_path: Path) -> None:
    release = broken("small")
    with ImageServer(tmp_path) as inner, ImageServer(release.folder.parent) as server:
        for method in ("GET", "HEAD"):
            server.faults.append(Fault(f"redirect:{inner.url}/secret", name="gaps.geojson", method=method))
        report = validate(Release(f"{server.url}/{release.folder.name}"), skip=("RDR",))
        assert inner.requests == []
    assert "sends its readers to" in report.checked["COV013"]


def test_a_spec_that_asks_for_a_trillion_chips(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    release.sources(lambda row: row.update(proj_shape=[2_000_000_000, 2_000_000_000]))
    report = judged_apart(release.folder)
    assert "not checked" in report.checked["COV001"]


def test_what_a_terminal_would_obey_is_shown_as_text(broken: Callable[..., Broken]) -> None:
    release = broken("small")
    (release.folder / "stray-\x1b[31m\u202e.txt").write_text("x")
    (finding,) = validate(Release(str(release.folder)), only=("INT002",)).findings
    assert finding.where == "stray-\\x1b[31m\\u202e.txt"
