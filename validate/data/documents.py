"""The documents of a release, parsed when a rule first asks."""

from typing import Any

import pyarrow as pa

from clay_publish.errors import ReleaseError
from clay_publish.release import directory as paths
from clay_publish.release.manifest import Manifest, read_manifest
from clay_publish.spec.models import Spec
from clay_publish.storage.safe_parse import parse_yaml
from clay_publish.validate.data.files import ReleaseFiles, once
from clay_publish.validate.data.parquet_tables import ParquetTables


class Documents:
    """What a release says about itself. Attributes raise `ReleaseError` where it does not."""

    def __init__(self, files: ReleaseFiles, tables: ParquetTables) -> None:
        self._files = files
        self._tables = tables

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
        """`items.parquet`."""
        return self._tables.table(paths.ITEMS)

    @once
    def citation(self) -> dict[str, Any]:
        """`CITATION.cff`."""
        return self._files.release.yaml(paths.CITATION)

    @once
    def card(self) -> str:
        """The text of `README.md`."""
        return self._files.text(paths.CARD)

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
