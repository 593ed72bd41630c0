"""The documents of a release, parsed when a rule first asks."""

import html
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.manifest import Manifest, read_manifest
from clay_publish.spec.models import Spec
from clay_publish.storage.safe_parse import parse_yaml
from clay_publish.validate.data.files import ReleaseFiles, once
from clay_publish.validate.data.parquet_tables import ParquetTables

# What documents state in sentences, tables of text and addresses. The wording is that of this toolkit: a document of
# another wording states nothing here. Each pattern stands where no text of a maintainer can.

_NUMBER = r"[\d,]{1,20}"
_DAY = r"\d{4}-\d\d-\d\d"
_SPDX = r"(?:https://spdx\.org/licenses/)?(?P<license>[^\s\")]{1,100}?)(?:\.html)?"
LETTERS = 1 << 20
"""Of a document that are looked at. All repetitions are bounded, so that the time grows with the text alone."""

_MARKDOWN = (
    # The first line of a card.
    (
        rf"^\*\*(?P<rows>{_NUMBER}) embeddings of (?P<dimensions>\d{{1,9}}) dimensions\*\*, "
        r"one for each (?P<ground>\S{1,20} k?m) × \S{1,20} k?m of ground, "
        r"made by \[?(?P<model>.{1,900}?)(?:\]\(\S{1,900}\))? from `(?P<sensor>[^`\n]{1,300})` "
        rf"imagery of (?P<start>{_DAY})(?: to (?P<end>{_DAY}))?\. "
        rf"Version (?P<version>\S{{1,100}}), (?:\[[^\]\n]{{1,300}}\]\({_SPDX}\))?"
    ),
    rf"^\*Coverage: (?P<embedded>{_NUMBER}) of (?P<expected>{_NUMBER}) expected chips",
    rf"^(?P<expected>{_NUMBER}) chips were expected before any pixel was read; (?P<embedded>{_NUMBER}) have an",
    rf"^\*\*How many are there\?\*\* (?P<rows>{_NUMBER}), of (?P<expected>{_NUMBER}) expected ones",
    rf"^\| .{{1,200}} \(`(?P<reason>\w{{1,40}})`\) \| (?P<missing>{_NUMBER}) \|$",
    rf"^(?P<rows>{_NUMBER}) rows, one per chip, in",
    r"^\| fingerprint \| `(?P<fingerprint>\w{1,99})`",
    r"^\| weights, SHA-256 \| `?(?P<weights>\w{1,99})`?",
    r"^\| precision \| computed in `(?P<precision>\w{1,20})`, stored as `(?P<dtype>\w{1,20})`",
    r"^\| chips \| (?P<size>\d{1,9}) × \d{1,9} pixels of (?P<gsd>\S{1,20} k?m), layout `(?P<layout>\w{1,20})`",
    rf"^\*\*How is it distributed\?\*\* Under \[[^\]\n]{{1,300}}\]\({_SPDX}\)",
    r"^  version = \{(?P<version>[^}\n]{0,100})\}",
    # AGENTS.md
    r"^# (?P<title>.{1,900}), version (?P<version>\S{1,100}): notes for coding assistants$",
    rf"^(?P<rows>{_NUMBER}) embeddings of satellite image chips as GeoParquet",
    r"^- Vectors: `[^`\n]{1,99}`, column `embedding`, (?P<dimensions>\d{1,9}) × (?P<dtype>\w{1,20})\.",
    r"this one is\s{1,9}`(?P<fingerprint>\w{1,99})` \(`manifest\.json`",
    r"^- License: `(?P<license>[^`\n]{1,100})`;",
)
_JSON = (
    # The last sentence of a description.
    (
        r"(?P<rows>\d{1,15}) embeddings of (?P<dimensions>\d{1,9}) dimensions, made by (?P<model>.{1,900}?) "
        rf"from (?P<sensor>\S{{1,300}}) imagery of (?P<start>{_DAY}) to (?P<end>{_DAY}), "
        r"one for each (?P<ground>\S{1,20} m) of ground\.\""
    ),
    rf'^ {{1,9}}"(?:license|rightsUri)": "{_SPDX}",?$',
    r'"rightsIdentifier": "(?P<license>[^"\n]{1,100})"',
    rf'"temporalCoverage": "(?P<start>{_DAY})/(?P<end>{_DAY})"',
    rf'"date": "(?P<start>{_DAY})/(?P<end>{_DAY})",\s{{1,20}}"dateType": "Collected"',
    r'"(?P<rows>\d{1,15}) embeddings"',
    r'"(?P<rows>\d{1,15}) rows, one per chip\."',
    (
        r'"name": "embeddings/embedding",\s{1,20}"description": "[^"\n]{0,300}",\s{1,20}"isArray": true,\s{1,20}'
        r'"arrayShape": "(?P<dimensions>\d{1,9})",\s{1,20}"dataType": "cr:(?P<dtype>\w{1,20})"'
    ),
    r"\\n  version = \{(?P<version>[^}\n]{0,100})\}",
    r'"A vector of (?P<dimensions>\d{1,9}) numbers that describes a chip of imagery\."',
    r'"Imagery of the collection [^"\n]{1,300}?, sensor (?P<sensor>[^\s"]{1,300})\. ',
    r'"sci:citation": "[^"\n]{0,2000}, version (?P<version>[^\s"]{1,100})\.[ "]',
    r'"description": "Chips of (?P<sensor>[^;"\n]{1,300}); ',
    r'"description": "The encoder of \S{1,300} (?P<version>\S{1,100}); extent and period are',
    r'"description": "SHA-256 (?P<weights>\w{1,99})"',
)
_PATTERNS = {
    kind: tuple(re.compile(pattern, re.MULTILINE) for pattern in patterns)
    for kind, patterns in {"md": _MARKDOWN, "json": _JSON}.items()
}


def statements(path: str, text: str) -> Mapping[str, frozenset[str]]:
    """Return what a document says, by topic: `rows`, `dimensions`, `model`, …; numbers are without commas.

    Of chips missing for a reason, the topic is `missing.` with the reason.
    """
    found: dict[str, set[str]] = {}
    for pattern in _PATTERNS["md" if path.endswith(".md") else "json"]:
        for match in pattern.finditer(text[:LETTERS]):
            said = {topic: html.unescape(value) for topic, value in match.groupdict().items() if value is not None}
            if "start" in said:
                said.setdefault("end", said["start"])
            if "reason" in said:
                said = {f"missing.{said['reason']}": said["missing"]}
            for topic, value in said.items():
                number = re.fullmatch(_NUMBER, value) is not None
                found.setdefault(topic, set()).add(value.replace(",", "") if number else value)
    return {topic: frozenset(values) for topic, values in found.items()}


class Documents:
    """What a release says about itself. Attributes raise `ReleaseError` where it does not."""

    def __init__(self, files: ReleaseFiles, tables: ParquetTables) -> None:
        self._files = files
        self._tables = tables
        self._statements: dict[str, Mapping[str, frozenset[str]]] = {}
        self.letters: dict[str, int] = {}
        """Of each document whose statements were asked for; beyond `LETTERS` none was looked at."""

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON document."""
        return self._files.release.json(path)

    @once
    def spec(self) -> Spec:
        """`release.yaml`."""
        return self._files.release.spec()

    @once
    def manifest(self) -> Manifest:
        """`manifest.json`."""
        return read_manifest(self._files.release)

    @once
    def collection(self) -> dict[str, Any]:
        """`collection.json`."""
        return self.json(paths.COLLECTION)

    @once
    def model(self) -> dict[str, Any]:
        """`model.json`."""
        return self.json(paths.MODEL)

    @once
    def items(self) -> pa.Table:
        """`items.parquet`, without links, which lead to each source item of a file."""
        names = [name for name in self._tables.schema(paths.ITEMS).names if name != "links"]
        return self._tables.table(paths.ITEMS, columns=names)

    def whole_items(self, rows: npt.NDArray[np.integer]) -> pa.Table:
        """Some rows of `items.parquet`, in their order, with all columns."""
        start, found = 0, [self._tables.schema(paths.ITEMS).empty_table()]
        for batch in self._tables.batches(paths.ITEMS):
            mine = rows[(rows >= start) & (rows < start + len(batch))] - start
            found.append(pa.Table.from_batches([batch.take(pa.array(mine))]))
            start += len(batch)
        return pa.concat_tables(found)

    @once
    def citation(self) -> dict[str, Any]:
        """`CITATION.cff`."""
        return self._files.release.yaml(paths.CITATION)

    @once
    def card(self) -> str:
        """The text of `README.md`."""
        return self._files.text(paths.CARD)

    def statements(self, path: str) -> Mapping[str, frozenset[str]]:
        """Return what the text of a document states, by topic."""
        if path not in self._statements:
            text = self._files.text(path)
            self._statements[path], self.letters[path] = statements(path, text), len(text)
        return self._statements[path]

    @once
    def front_matter(self) -> dict[str, Any]:
        """The YAML at the top of the card.

        Raises:
            ReleaseError: there is none, or it is not a mapping.
        """
        lines = self.card.splitlines()
        if not lines or lines[0].strip() != "---" or "---" not in [line.strip() for line in lines[1:]]:
            raise ReleaseError(paths.CARD, "has no front matter between two lines `---`")
        end = [line.strip() for line in lines[1:]].index("---") + 1
        matter = parse_yaml("\n".join(lines[1:end]).encode(), f"{paths.CARD}: front matter")
        if not isinstance(matter, dict):
            raise ReleaseError(paths.CARD, "has front matter that is not a mapping")
        return matter
