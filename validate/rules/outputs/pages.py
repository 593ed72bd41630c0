"""A rule on the explorer's pages: what a browser loads and runs there, whatever software wrote them."""

from collections.abc import Iterator
from html.parser import HTMLParser

from clay_publish.release.directory import EXPLORER
from clay_publish.release.public_urls import release_address, source_coop_address
from clay_publish.spec.models import Spec
from clay_publish.validate.context import ReleaseContext
from clay_publish.validate.outcomes import Fault, Outcome
from clay_publish.validate.registry import rule

_SPACE = "hosts/huggingface-space"
_CODE = {"explorer.css", "explorer.js", "maplibre.css", "maplibre.js", "maplibre-worker.js"}
_BESIDE = {"index.html", "LICENSES.txt", "land.bin", "release.json", "basis.json", "files.parquet"}
_TILES = f"{EXPLORER}/tiles/"
_LINKS = ("#", "./LICENSES.txt", "https://maplibre.org/")
"""Where a person may be led."""
_LOADING = {"src", "srcset", "srcdoc", "data", "action", "formaction", "poster", "background", "xlink:href", "style"}
"""Attributes by which a browser loads or runs something."""
_POLICY = {"default-src 'none'", "script-src 'self'", "style-src 'self'"}
"""What the policy of a page has to say at least: nothing runs that is not in a file beside it."""


_LONGEST = 1 << 16
"""Letters of a page: reading some texts that are not HTML takes quadratic time."""


class _Page(HTMLParser):
    """What a page says that the explorer's page does not: pairs of what was found and what was expected."""

    def __init__(self, addresses: set[str]) -> None:
        super().__init__()
        self.faults: list[tuple[str, str]] = []
        self._addresses = addresses
        self._policy = False
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at what an element loads, runs or leads to."""
        given = {name: value or "" for name, value in attrs}
        self._script = tag == "script"
        if tag == "meta":
            self._meta(given)
        elif tag == "script" and not self._policy:
            self.faults.append(("a script before any policy", "a policy that forbids other scripts, first"))
        elif tag == "a" and not given.get("href", "#").startswith(_LINKS):
            self.faults.append((f"a link to {given['href']}", "links to licenses and to MapLibre"))
        elif tag == "base":
            self.faults.append(("an element <base>", "addresses from where the page lies"))
        if tag == "link" and given.get("href") != "data:,":
            self._loads("href", given.get("href", ""))
        for name, value in given.items():
            if name in _LOADING:
                self._loads(name, value)
            elif name.startswith("on"):
                self.faults.append((f"a script in {name}", "scripts in files"))

    def handle_data(self, data: str) -> None:
        """Look for a script that stands in the page."""
        if self._script and data.strip():
            self.faults.append((f"a script {data.strip()!r:.100}", "scripts in files"))

    def handle_endtag(self, tag: str) -> None:
        """What follows a script is text."""
        self._script = self._script and tag != "script"

    def handle_comment(self, data: str) -> None:
        """Browsers end some comments earlier."""
        self.faults.append((f"a comment {data.strip()!r:.100}", "no comments"))

    def unknown_decl(self, data: str) -> None:
        """Browsers take some declarations for others."""
        self.faults.append((f"a declaration {data!r:.100}", "no other than <!doctype html>"))

    handle_pi = unknown_decl

    def close(self) -> None:
        """End the page, which has to have had a policy."""
        super().close()
        if not self._policy:
            self.faults.append(("no policy", "a Content-Security-Policy"))

    def _meta(self, given: dict[str, str]) -> None:
        kind, content = given.get("http-equiv", "").lower(), given.get("content", "")
        if kind == "content-security-policy":
            self._policy = True
            if missing := _POLICY - {part.strip() for part in content.split(";")}:
                self.faults.append((f"the policy {content}", f"one with {'; '.join(sorted(missing))}"))
        elif kind:
            self.faults.append((f"http-equiv {kind}", "a policy alone"))
        elif given.get("name") == "release" and content not in self._addresses:
            expected = ", ".join(sorted(self._addresses)) or "no page"
            self.faults.append((f"shows the release at {content}", expected))

    def _loads(self, name: str, value: str) -> None:
        if value.removeprefix("./") not in _CODE:
            self.faults.append((f"{name} {value}", f"one of {', '.join(sorted(_CODE))}"))


@rule("EXP004")
def pages_run_the_explorer(context: ReleaseContext) -> Iterator[Outcome]:
    """`index.html` below `explore/` and of the Space, and the names of the files below `explore/`."""
    spec = context.documents.spec
    pages = {f"{EXPLORER}/index.html": {".."}, f"{_SPACE}/index.html": _addresses(spec)}
    if spec.outputs.explorer:
        for name in sorted(_CODE | _BESIDE):
            if f"{EXPLORER}/{name}" not in context.files.paths:
                yield Fault(f"{EXPLORER}/{name}", "does not exist", "a file of every explorer")
    for path in context.files.paths:
        if path.startswith(f"{EXPLORER}/") and not path.startswith(_TILES) and path[8:] not in _CODE | _BESIDE:
            yield Fault(path, "is there", "no such file of an explorer")
        if path in pages:
            page, text = _Page(pages[path]), context.files.text(path)
            if len(text) > _LONGEST:
                yield Fault(path, f"{len(text):,} letters", f"at most {_LONGEST:,}")
            page.feed(text[:_LONGEST])
            page.close()
            for found, expected in page.faults:
                yield Fault(path, found, expected)


def _addresses(spec: Spec) -> set[str]:
    """Where a page on another host may read the release."""
    hub = spec.publish.hugging_face
    copy = f"https://huggingface.co/datasets/{hub}/resolve/v{spec.version}" if hub else None
    return {address for address in (copy, source_coop_address(spec), release_address(spec)) if address is not None}
