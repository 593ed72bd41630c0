"""Validating one embeddings file where it was made, by the rules that need no other embeddings file."""

from clay_publish import __version__
from clay_publish.release.directory import SOURCES, SPEC, Release
from clay_publish.release.findings import FileVerdict, Finding
from clay_publish.validate.checks import run_rule
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.data.files import digest
from clay_publish.validate.data.sources import SourceTable
from clay_publish.validate.registry import all_rules

SAMPLE = 64
"""Chips of a file that costly rules look at."""

_OF_ONE_FILE = {"SCH001", "SCH002", "SCH004", "SCH005", "SCH006", "SCH010", "INT006", "INT007", "GEO014", "VEC007"}
"""Rules beside those on rows that find in a file only what they would find in the whole release."""


class FileCheck:
    """Validates the embeddings files of a release that is being made, in the process that makes them.

    A worker trusts what it wrote itself, so this needs no sandbox. Sources are read once.
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._rules = [rule for rule in all_rules() if rule.rows is not None or rule.code in _OF_ONE_FILE]
        self._sources: SourceTable | None = None

    def __call__(self, path: str) -> FileVerdict:
        """Validate a file.

        Raises:
            AccessError: the place does not answer.
        """
        context = ReleaseContext(
            _OneFileOf(self._release, path),
            checks={rule.code: rule.rows for rule in self._rules if rule.rows is not None},
            sampled=frozenset(rule.code for rule in self._rules if rule.sampled),
            sample=SAMPLE,
            threads=1,
            sources=self._sources,
        )
        findings: list[Finding] = []
        unchecked: dict[str, str] = {}
        with context.files, context:
            for rule in self._rules:
                found, state = run_rule(rule, context)
                findings += found
                if state.startswith("not checked"):
                    unchecked[rule.code] = state
            sha256 = context.scan.digests.get(path) or digest(self._release.store, path)
            self._sources = vars(context).get("sources")
        return FileVerdict(file=path, sha256=sha256, validator=__version__, findings=findings, unchecked=unchecked)


class _OneFileOf(Release):
    """One embeddings file of a release, with the documents that its rules read, whatever else is there by now."""

    def __init__(self, release: Release, path: str) -> None:
        super().__init__(release.store)
        self._paths = sorted([path, SOURCES, SPEC])

    def files(self, folder: str = "") -> list[str]:
        """Those files."""
        return [path for path in self._paths if path.startswith(folder)]
