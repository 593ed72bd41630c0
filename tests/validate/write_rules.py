"""The pages of the docs that are made from the rules: `python tests/validate/write_rules.py`."""

from itertools import groupby
from pathlib import Path

import mutations_coverage  # noqa: F401 - registers its mutations
import mutations_documents  # noqa: F401
import mutations_files  # noqa: F401
import mutations_places  # noqa: F401
import mutations_provenance  # noqa: F401
import mutations_tables  # noqa: F401
import mutations_vectors  # noqa: F401
from breakage import MUTATIONS

from clay_publish.validate import all_rules

DOCS = Path(__file__).resolve().parents[2] / "docs"

_RULES = """\
# Rules

`clay-publish validate RELEASE` judges a release by these rules, whoever made it. Each has a stable code, and a
severity: an **error** makes the release wrong for somebody, a **warning** is worth a look before publishing, an
**info** is what a reader may want to know.

    clay-publish validate my-first-release/1.0.0
    clay-publish validate my-first-release/1.0.0 --only COV --only GEO009
    clay-publish validate my-first-release/1.0.0 --skip RDR --fail-on warning --json

The exit code is 0 when nothing is found at or above `--fail-on` (by default `error`), 1 when something is, and 2 when
the release could not be judged. What a rule could not check, because a file is missing, a reader is not installed or a
schema is not to be had, is listed as *not checked* and never counts as passed. Costly checks of single chips look at
`--sample` chips at most, spread over all files, and say so.

All embeddings files are read once, in one pass that hashes them, compares the checksums of their pages, and shows each
batch of rows to all rules; two files at a time on two cores. About 60 bytes a chip are kept for the rules that compare
chips with each other.

Schemas of STAC extensions are fetched once from where the extensions are published, and kept in
`~/.cache/clay-publish/schemas`. With `CLAY_PUBLISH_SCHEMAS=FOLDER` they come from that folder and nothing is fetched.

That each rule finds what it is meant to find is shown by [breaking good releases](rules-mutations.md) in {mutations}
ways.

This page is made from the rules: `python tests/validate/write_rules.py`.
"""

_MUTATIONS = """\
# How a release is broken, and what finds it

Each line is one way to break a good release, a function of that name in `tests/validate/`. Sizes, checksums and counts
in all other places follow the change, so that only the fault itself can be seen. The tests break a copy of a good
release in each of these ways and expect a finding of the rule named here, and of no rule that is not about the same
fault. Good releases (Sentinel-2 L1C and L2A and NAIP; both layouts; float32 and int8; with and without clouds and a
version before) give no finding at all.

This page is made from the tests: `python tests/validate/write_rules.py`.

| what is wrong | found by | mutation |
|---|---|---|
"""


def rules_page() -> str:
    """`docs/rules.md`."""
    parts = [_RULES.format(mutations=len(MUTATIONS))]
    for group, rules in groupby(all_rules(), key=lambda rule: rule.group):
        parts.append(f"\n## {group}\n")
        parts += [
            f"\n### {rule.code} {rule.title}\n\n*{rule.severity}.* {rule.reason}\n\nMend: {rule.fix}\n"
            for rule in rules
        ]
    return "".join(parts)


def mutations_page() -> str:
    """`docs/rules-mutations.md`."""
    ordered = sorted(MUTATIONS, key=lambda m: ([r.code for r in all_rules()].index(m.code), m.name))
    rows = [f"| {m.what} | [{m.code}](rules.md) | `{m.name}` |\n" for m in ordered]
    return _MUTATIONS + "".join(rows)


PAGES = {"rules.md": rules_page, "rules-mutations.md": mutations_page}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
