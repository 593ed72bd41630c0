"""Text from outside, made harmless for Markdown, HTML and one-line fields.

Every value a template prints goes through `markdown`; only what is `Markup` already is printed as it is.
"""

import html
import re
import unicodedata
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clay_publish.formats import FORMATS

LINE = 300
"""Characters of a name, title or other one-line value in a document; the rest is in release.yaml."""

TEXT = 5_000
"""Characters of a description in a document."""

_INLINE = re.compile(r"([\\`*_\[\]|~#$])")
# What makes a list, a heading, a quote or a rule when it opens a line.
_OPENING = re.compile(r"^(?:([-+=])(?=\s|\1|$)|(\d{1,9})([.)])(?=\s|$))")
_CODE = re.compile(r"[^\w .,:/=+@()-]")
_URL = re.compile(r"https?://[^\s]+")


def one_line(text: str, limit: int = LINE) -> str:
    """Printable text in one line: no control, format or direction-changing characters, at most `limit` long."""
    # Looking at a few times the limit is enough, and bounds the work on a hostile text.
    clean = "".join(_printable(c) for c in text[: 4 * limit])
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit and len(text) <= 4 * limit else clean[: limit - 1].rstrip() + "…"


def _printable(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in {"Cc", "Zl", "Zp", "Zs"}:
        return " "
    # Joiners are part of how some scripts are written; the other format characters reorder or hide text.
    return "" if kind in {"Cf", "Cs", "Co", "Cn"} and character not in "\u200c\u200d" else character


def markdown(value: Any) -> Markup:
    """A value as one line of Markdown that shows exactly its characters."""
    if hasattr(value, "__html__"):
        return Markup(value.__html__())  # noqa: S704 - marked as safe by its maker
    if isinstance(value, int | float):
        return Markup(str(value))  # noqa: S704 - digits
    return _escape(one_line(str(value)))


def long(value: str) -> Markup:
    """A value in one line that may be as long as a description."""
    return _escape(one_line(value, TEXT))


def paragraphs(text: str) -> Markup:
    """A longer text: its paragraphs stay, nothing in it is markup."""
    short = text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"
    blocks = [long(block) for block in re.split(r"\n\s*\n", short)]
    return Markup("\n\n").join(block for block in blocks if block)


def _escape(line: str) -> Markup:
    text = html.escape(line, quote=False)
    text = _INLINE.sub(r"\\\1", text)
    text = _OPENING.sub(lambda found: f"\\{found[1]}" if found[1] else f"{found[2]}\\{found[3]}", text)
    return Markup(text)  # noqa: S704 - escaped above


def code(value: Any) -> Markup:
    """A value as inline code; characters that no identifier needs are left out."""
    return Markup(f"`{_CODE.sub('', one_line(str(value))) or ' '}`")  # noqa: S704 - only harmless characters are left


def link(url: str | None, text: str | None = None) -> Markup:
    """A link where the address is one of the web; else the text alone."""
    shown = markdown(text if text is not None else url or "")
    if url is None or not _URL.fullmatch(url) or len(url) > 2000:
        return shown
    return Markup(f"[{shown}]({quote(url, safe=':/?&=%~+,;@')})")  # noqa: S704 - quoted


@cache
def environment() -> Environment:
    """The templates, with everything they print escaped for Markdown and HTML."""
    made = Environment(
        loader=PackageLoader("clay_publish.cards"),
        autoescape=True,
        finalize=markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(code=code, link=link, long=long, paragraphs=paragraphs, **FORMATS)
    return made
