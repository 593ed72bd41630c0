"""Ways to break files, the manifest, and the tables beside the embeddings."""

from pathlib import Path

import pyarrow.parquet as pq
from breakage import Broken, mutation

# Files


@mutation("INT001", "the manifest names a file that is not there", also="INT010 STC009 STC011", settle=False)
def a_missing_file(broken: Broken) -> None:
    (broken.folder / "gaps.geojson").unlink()


@mutation(
    "INT001",
    "a file of the embeddings is lost",
    base="morocco",
    settle=False,
    also="STC COV003 COV012 COV014 DOC SCH016 VEC014 VEC019",
)
def a_lost_file(broken: Broken) -> None:
    (broken.folder / broken.data).unlink()


@mutation("INT002", "a file that the manifest does not name", settle=False)
def an_unlisted_file(broken: Broken) -> None:
    (broken.folder / "notes.txt").write_text("do not publish")


@mutation("INT003", "a document that was changed after the manifest", settle=False, also="INT004 STC009")
def a_changed_document(broken: Broken) -> None:
    with (broken.folder / "CHANGELOG.md").open("a") as file:
        file.write("one more line\n")


@mutation("INT004", "one bit of a picture flipped", settle=False, also="STC009 DOC022")
def a_flipped_bit_in_a_picture(broken: Broken) -> None:
    _flip(broken.folder / "figures" / "coverage.png", 0.5)


@mutation("INT005", "SHA256SUMS of another version", settle=False)
def stale_checksums(broken: Broken) -> None:
    lines = (broken.folder / "SHA256SUMS").read_text().splitlines()
    (broken.folder / "SHA256SUMS").write_text("\n".join([f"{'0' * 64}{lines[0][64:]}", *lines[1:]]) + "\n")


@mutation(
    "INT006",
    "an embeddings file cut short in transfer",
    settle=False,
    also="INT003 INT004 STC RDR SCH COV GEO VEC TIM DOC PRV",
)
def a_truncated_file(broken: Broken) -> None:
    data = (broken.folder / broken.data).read_bytes()
    (broken.folder / broken.data).write_bytes(data[: len(data) // 2])


@mutation("INT007", "one bit of a vector flipped, checksums recomputed", also="RDR SCH011")
def a_flipped_bit_in_a_vector(broken: Broken) -> None:
    meta = pq.read_metadata(broken.folder / broken.data).row_group(0)
    chunk = next(c for c in map(meta.column, range(meta.num_columns)) if c.path_in_schema.startswith("embedding"))
    _flip_at(broken.folder / broken.data, chunk.data_page_offset + chunk.total_compressed_size // 2)


@mutation("INT008", "pages without checksums")
def no_page_checksums(broken: Broken) -> None:
    table = broken.table(broken.data)
    pages = {"write_page_checksum": False, "write_page_index": True, "data_page_size": 65_536}
    pq.write_table(table, broken.folder / broken.data, compression="zstd", **pages)


@mutation("INT009", "the manifest counts another number of rows", settle=False)
def a_wrong_row_count_in_the_manifest(broken: Broken) -> None:
    broken.json(
        "manifest.json", lambda m: [e.update(rows=e["rows"] + 1) for e in m["files"] if e["path"] == broken.data]
    )


@mutation("INT010", "a release without a citation", also="DOC STC009")
def no_citation(broken: Broken) -> None:
    (broken.folder / "CITATION.cff").unlink()


@mutation("INT011", "a path in the manifest that leads out of the release", settle=False, also="INT005")
def a_path_out_of_the_release(broken: Broken) -> None:
    broken.json(
        "manifest.json", lambda m: m["files"].append({"path": "../../etc/passwd", "size": 1, "sha256": "0" * 64})
    )


@mutation("INT012", "the same id twice", also="COV014 COV005 SCH017")
def an_id_twice(broken: Broken) -> None:
    broken.column("id", lambda ids: [ids[1], *ids[1:]])


# Coverage


@mutation("SCH007", "a spec with an unknown key", also="COV DOC PRV STC TIM VEC")
def an_invalid_spec(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec.update(licens="CC0-1.0"))


@mutation("SCH008", "the sources have no column for licenses", also="COV GEO PRV TIM")
def sources_without_licenses(broken: Broken) -> None:
    broken.change("sources.parquet", lambda t: t.drop_columns(["license"]))


@mutation("SCH014", "a manifest that is none", settle=False, also="INT DOC COV PRV")
def a_manifest_that_is_none(broken: Broken) -> None:
    (broken.folder / "manifest.json").write_text('{"files": "all of them"}')


def _flip(file: Path, share: float) -> None:
    _flip_at(file, int(file.stat().st_size * share))


def _flip_at(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(bytes(data))
