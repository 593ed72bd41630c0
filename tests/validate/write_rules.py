"""The pages of the docs that are made from the rules: `python tests/validate/write_rules.py`."""

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

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
from breakage import MUTATIONS

from clay_publish.release.findings import ValidationReport
from clay_publish.validate import Rule, all_rules

DOCS = Path(__file__).resolve().parents[2] / "docs"

_RULES = """\
# Rules

`clay-publish validate RELEASE` checks a release against these rules, whatever program wrote it. Each has a stable
code and a severity: an **error** makes the release wrong for a user, a **warning** should be reviewed before
publishing, an **info** is for information only. Each rule lists the [mutations](rules-mutations.md) of a release that
it is tested to find.

    clay-publish validate my-first-release/1.0.0
    clay-publish validate my-first-release/1.0.0 --only COV --only GEO009
    clay-publish validate my-first-release/1.0.0 --skip RDR --fail-on warning --json

The exit code is 0 when nothing is found at or above `--fail-on` (by default `error`), 1 when something is, and 2 when
the release could not be validated. What a rule could not check, because a file is missing, a reader is not installed or
a schema is not available, is listed as *not checked* and never counts as passed. Costly checks of single chips look at
`--sample` chips drawn from all files; the report states the sample size.

Documents that follow from the data (cards, figures, citation, changelog, Croissant, DataCite, JSON-LD, Collection,
Items, the explorer's page and summary) are rendered again and compared byte by byte, where the libraries that made the
release are those installed here; figures by their pixels. Of more than 128 MB of embeddings, the table of Items, the
cards and the figures, which would take reading all chips again, are *not checked* in this way, nor are releases that
are not local directories; the independent rules on counts, dates, license, model and places hold for all, whatever
software made them: they find single facts in each document, in sentences too.

All embeddings files are read once, in one pass that hashes them, compares the checksums of their pages and passes
each batch of rows to all rules; two files at a time on two cores. About 60 bytes per chip are kept for the rules that
compare chips with each other, and a few values of the vectors of half a million chips at most, whose neighbors are
compared. Two checks have a fixed sample, whatever `--sample` says: the effective rank of 512 chips, and 256 recomputed
aggregates of each side; the list of aggregate blocks is compared in full.

## Releases elsewhere, and quick looks

RELEASE is a directory, an address, or one Parquet file:

    clay-publish validate https://data.source.coop/clay/shore/1.0.0
    clay-publish validate s3://bucket/shore/1.0.0 --quick
    clay-publish validate hf://datasets/clay/shore@v1.0.0
    clay-publish validate embeddings.parquet

A server has to answer range requests. Over the network each file is fetched once. `--quick` reads metadata, the footers
and the first rows of eight files at most, leaves alone what is larger than 8 MB, says how many bytes it fetched, and
lists all that it could not know as *not checked*. Readers that open files by themselves (`RDR`, `SCH011`) are tried on
directories only. A web server cannot list its files: what lies there is what the manifest names.

## Reports

Findings of one kind are one line, causes first: what may follow from a file that is missing, changed or broken is
indented below it, and what is wrong in tables comes before what documents state otherwise. `--json` prints one document
([its schema](validation-report.schema.json)); `--html FILE` writes one page with the verdict, the findings and how to
fix them, their places and the gaps on a map, and the distributions of the vectors' lengths, losses and similarities;
`--junit FILE` and `--sarif FILE` are for CI. The page holds no script and asks for nothing.

In a GitHub workflow:

```yaml
permissions:
  contents: read
  security-events: write
steps:
  - run: pip install clay-publish
  - run: clay-publish validate https://data.source.coop/clay/shore/1.0.0 --html report.html --sarif report.sarif
  - uses: actions/upload-artifact@v4
    if: always()
    with: {{name: report, path: report.html}}
  - uses: github/codeql-action/upload-sarif@v3
    if: always()
    with: {{sarif_file: report.sarif}}
```

## Making chips again

`--recompute N` (extra `produce`) is the independent proof: it reads the imagery of the N chips with the lowest SHA-256
of their ids from where the release says it is, embeds them with the published model, and compares (VEC023): vectors by
cosines of at least 1 − 1e-5 in float32 and 1 − 5e-4 in bfloat16, less what quantization takes, and by length; losses;
16 patches of each chip in tables of patches; the colors of thumbnails; shares of valid pixels and of cloud; and the
reasons of as many gaps because of cloud, nodata or too few images. Signs, permuted dimensions or other units of patches
and losses, and cloud that is not stated, show here alone. `--imagery STAC_OR_DIR` names the imagery where the published
addresses are missing or have expired, `--weights FILE` the weights where the spec names a file. If no image can be
read, or the model is another one, the rule is *not checked* and the exit code is 2.

    clay-publish validate my-first-release/1.0.0 --recompute 16 --imagery my-first-release/imagery

## Embeddings of others

`validate` takes files that this program did not make: a Parquet file (`.parquet`, `.geoparquet`, `.gpq`), a directory
of them, partitioned or not, or a STAC document beside them. The first line says what the input was taken for: a release
of clay-publish, Clay v0, Clay v1 and v1.5 in LGND's layout, Major TOM, Earth Index, GeoParquet with vectors, STAC
documents that describe embeddings, or something without embeddings. The column of vectors is found by type and name
(`embedding`, `embeddings`, `vector`, …). Only the rules that apply are checked: those of the group `ANY` and some on
vectors, footprints and files; `--verbose` lists them.

    clay-publish validate clay_03WVN_20220610_20220610_v001.gpq

What holds no embeddings is an error. Where documents only lead to embeddings elsewhere, these are not fetched, and the
exit code is 2. `emb:` fields of STAC documents and footers and `geoemb:` attributes of Zarr groups are validated
wherever they appear, in releases too.

## Lines that should not show

Chips beside each other on the ground look more or less alike, whatever the ground. VEC013 and VEC025 compare each pair
of neighbors across a line with the two pairs before and the two pairs behind it. On ground that knows nothing of the
line, each of the five is as likely as the others to differ most, which gives the probability that chance explains what
shows. A warning needs all of this:

- a probability below 10⁻⁶ after correction for all lines that are looked at; on real imagery, results spread 1.1 to 1.2
  times as far as by chance, and every three pairs count as two;
- a ratio of medians, across the line over just beside it, outside of its limits;
- lines parallel to it that show less than half as much. A shore, or the fields along a road, show on these as well;
- for superblocks: edges of the same shape that lie elsewhere, and show less than half as much.

| line | rule | pairs | limits |
|---|---|---|---|
| around a run of 64 rows and more of a file | VEC013 | in one image | at most 1.25 |
| edges of files: units, 100 km squares | VEC025 | in one image | 0.8 to 1.25 |
| edges of superblocks: what is warped in one go | VEC025 | in one image | 0.8 to 1.25 |
| edges of UTM zones | VEC025 | in one image, cells about a side apart | 0.8 to 1.25 |
| edges of images, inside of a zone or between two | VEC025 | in images of one acquisition | 0.25 to 4 |

Images of different acquisitions are not compared: season, haze and snow make them differ, and a composite avoids
that. Chips of a composite count as chips of one image. Nothing is said below 200 chips, and of a kind of edge with
fewer than 200 pairs in a window. The edge of a single file, superblock, image or run needs 20 pairs, more where many
are looked at: a superblock of 5 × 5 chips, the default, has 20 inside of a file and is found among up to about 1,000
where all of them differ most; beside the edge of a file it has fewer, and shows only where several differ. Units that
share a file, in the `utm` layout with chips below 800 m, are rows of superblocks and show as these. Of a release with
more than 500,000 chips, files beside each other with about as many are compared; the report says how many.

## Hostile releases

A release decides nothing about the machine that validates it. Links out of the directory, paths with `..` and addresses
in documents are not followed, nor redirects to private addresses; a version before that a spec names on another server
is only read with `--previous`. JSON and YAML are counted before they are parsed (32 MB and a million values, 8 MB and
half a million values), tags and self-repeating aliases refused. Texts are shown without control characters. Files are
read in a child process that has no credentials, no network and no files but the release; one that crashes it, or takes
more memory or time than its size allows, is an error that names the file. SECURITY.md of the repository lists all
promises.

## Schemas

The schemas of all STAC extensions that releases declare come with this program. Others are fetched once from where the
extensions are published, and kept in `~/.cache/clay-publish/schemas`. With `CLAY_PUBLISH_SCHEMAS=FOLDER` they come from
that folder and nothing is fetched.

That each rule finds what it is meant to find is shown by [breaking good releases](rules-mutations.md) in {mutations}
ways.

This page is made from the rules: `python tests/validate/write_rules.py`.
"""

_MUTATIONS = """\
# How a release is broken, and what finds it

Each line is one way to break a good release, a function of that name in `tests/validate/`. Sizes, checksums and counts
in all other places follow the change, so that only the fault itself can be seen. The tests break a copy of a good
release in each of these ways and expect a finding of the rule named here, and of no rule that is not about the same
fault. Where a table is broken, documents may state what it does not hold any more: the rules that compare them may find
that, too, and are reported after the rule named here. Every rule has at least one. Good releases (Sentinel-2 L1C and
L2A and NAIP; both layouts; float32, float16 and int8; with and without clouds, patches, aggregates and a version
before) give no finding at all.

This page is made from the tests: `python tests/validate/write_rules.py`.

| what is wrong | found by | mutation |
|---|---|---|
"""


def rules_page() -> str:
    """`docs/rules.md`."""
    parts = [_RULES.format(mutations=len(MUTATIONS))]
    for group, rules in groupby(all_rules(), key=lambda rule: rule.group):
        parts.append(f"\n## {group}\n")
        parts += map(_section, rules)
    return "".join(parts)


def _section(rule: Rule) -> str:
    """What a rule asks for, why, what to do, and what it finds; reports link to its code."""
    head = f"\n### {rule.code} {rule.title} {{ #{rule.code.lower()} }}\n"
    return f"{head}\n*{rule.severity}.* {rule.reason}\n\nFix: {rule.fix}\n{_found_by(rule)}"


def _found_by(rule: Rule) -> str:
    """The mutations that a rule is meant to find, on one line."""
    names = sorted(mutation.name for mutation in MUTATIONS if mutation.code == rule.code)
    return f"\nFinds: {', '.join(f'`{name}`' for name in names)}\n"


def mutations_page() -> str:
    """`docs/rules-mutations.md`."""
    ordered = sorted(MUTATIONS, key=lambda m: ([r.code for r in all_rules()].index(m.code), m.name))
    rows = [f"| {m.what} | [{m.code}](rules.md) | `{m.name}` |\n" for m in ordered]
    return _MUTATIONS + "".join(rows)


def report_schema() -> str:
    """`docs/validation-report.schema.json`: what `clay-publish validate --json` prints."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ValidationReport.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "rules.md": rules_page,
    "rules-mutations.md": mutations_page,
    "validation-report.schema.json": report_schema,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
