"""A spec full of markup, code and tricks gives a harmless card."""

import json
import re
import unicodedata
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from clay_publish.cards import write_cards
from clay_publish.cards.filters import code, link, markdown, paragraphs
from clay_publish.release.directory import Release

from .copies import change_table
from .specs import respecify

HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)><!-- --></table></p>&lt;&#x3c; "
    "![x](javascript:alert(1)) [y](//evil) `code` | a | **b** ~~c~~ $x_{1}$ {{ facts.__class__ }} {% raw %} {# #}\n"
    "# head\n\n***\n\n1. one\n\n- two\n\n> three\n\n    four\n\n```sh\nrm\n```\n",
    "front matter": "x\n---\nlicense: none\n---\n# gone",
    "code": "a: b\n- c: &anchor {d: !!python/object/apply:os.system [ls]} # '\" $(reboot) `reboot` ; && "
    "\\input{/etc/passwd} % } @misc{evil, ${HOME} > /etc/passwd '; DROP TABLE chips; --",
    "invisible": "safe\u202egnp.exe\u2066\u200f\u061c\u200b\ufeff bell\x07 escape\x1b[31m\u2028\u2029\x85line",
    "long": "A" * 100_000,
}
FENCE = re.compile(r"^```", re.MULTILINE)


def hostile_spec(text: str) -> dict[str, object]:
    return {
        "title": text[:200],
        "description": text,
        "creators": [
            {"name": text, "affiliation": text, "email": text, "orcid": "0000-0002-1825-0097"},
            {"name": text},
        ],
        "keywords": [text, text[::-1]],
        "doi": "10.1234/" + ("".join(text.split()) or "x"),
        "publish": {"base_url": "https://example.org/" + re.sub(r"[\s?#]", "", text)[:300]},
    }


def hostile_sources(folder: Path, text: str) -> None:
    path = folder / "sources.parquet"
    table = pq.read_table(path)
    clean = text.replace("\x00", "")
    for name in ("license", "attribution", "collection", "platform"):
        column = pa.array([clean] * table.num_rows, pa.string())
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    pq.write_table(table, path)


def hostile_run(folder: Path, text: str) -> None:
    """A model that calls itself what it likes, and images that carry strange notes."""
    document = json.loads((folder / "manifest.json").read_text())["run"]
    document |= {"notes": [text, text]}
    document["libraries"][text[:50]] = text
    (folder / ".run/run.json").write_text(json.dumps(document))

    def renamed(table: pa.Table) -> pa.Table:
        emb = json.loads(table.schema.metadata[b"emb"])
        emb["embrel:decided_by"] |= {"model_name": text, "model_link": text, "encoder_version": text}
        emb["embrel:decided_by"]["parameters"] = {text[:50]: text}
        return table.replace_schema_metadata({**table.schema.metadata, b"emb": json.dumps(emb)})

    change_table(folder, "embeddings", renamed)


@pytest.fixture(scope="module")
def schema() -> object:
    return json.loads((Path(__file__).parent / "cff-1.2.0.json").read_text())


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_spec_gives_a_harmless_card(kind: str, release_copy: Path, schema: object) -> None:
    text = HOSTILE[kind]
    before = (release_copy / "README.md").read_text()
    respecify(release_copy, **hostile_spec(text))
    hostile_sources(release_copy, text)
    hostile_run(release_copy, text)
    write_cards(Release(str(release_copy)))
    card = (release_copy / "README.md").read_text()
    assert len(card) < 100_000

    # The front matter is the program's own, and says what it always says.
    data = DatasetCard(card).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["configs"] == DatasetCard(before).data.to_dict()["configs"]

    # The outline, the links and the blocks are those of the template.
    parser = MarkdownIt("commonmark").enable("table")
    body = DatasetCard(card).text
    assert outline(parser, body)[1:] == outline(parser, DatasetCard(before).text)[1:]
    assert len(FENCE.findall(body)) == len(FENCE.findall(before))
    html = parser.render(body)
    assert set(re.findall(r"<(\w+)", html)) <= {
        *("h1", "h2", "h3", "p", "em", "strong", "code", "pre", "a", "img", "ul", "li"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    for address in re.findall(r'(?:href|src)="([^"]*)"', html):
        assert address.startswith(("https://", "figures/"))
    assert not any(unicodedata.category(c) in {"Cc", "Cf"} for c in card if c != "\n")

    # What machines read holds the text as text.
    cited = yaml.safe_load((release_copy / "CITATION.cff").read_text())
    jsonschema.validate(cited, schema)
    for name in ("croissant.json", "datacite.json", "dataset.jsonld"):
        json.loads((release_copy / name).read_text())
    host = (release_copy / "hosts/source.coop/README.md").read_text()
    assert outline(parser, host) == outline(parser, body)
    pictures = re.findall(r'src="([^"]*)"', parser.render(host))
    assert pictures
    assert all(address.startswith("https://example.org/") for address in pictures)


def outline(parser: MarkdownIt, text: str) -> list[str]:
    tokens = parser.parse(text)
    return [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_escaped_text_shows_its_own_characters(text: str) -> None:
    from html import unescape

    shown = unescape(re.sub(r"</?p>", "", MarkdownIt("commonmark").render(str(markdown(text))))).strip()
    expected = " ".join(
        "".join(
            " " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else "" if unicodedata.category(c) == "Cf" else c
            for c in text
        ).split()
    )
    assert shown == expected or (shown.endswith("…") and expected.startswith(shown[:-1]))


def test_links_lead_to_the_web_alone() -> None:
    assert link("javascript:alert(1)", "x") == "x"
    assert link("https://a.example/)<b>", "[x]") == "[\\[x\\]](https://a.example/%29%3Cb%3E)"


def test_inline_code_cannot_be_left() -> None:
    assert code("a`b|<c>") == "`abc`"


def test_paragraphs_stay() -> None:
    assert paragraphs("One\nline.\n\n# Two") == "One line.\n\n\\# Two"


def test_a_thousand_kinds_of_terms_make_no_endless_card(release_copy: Path) -> None:
    path = release_copy / "sources.parquet"
    row = pq.read_table(path).slice(0, 1)
    rows = pa.concat_tables([row] * 1000)
    texts = pa.array([f"Attribution of image {number}." for number in range(1000)], pa.string())
    place = rows.column_names.index("attribution")
    pq.write_table(rows.set_column(place, rows.schema.field("attribution"), texts), path)
    write_cards(Release(str(release_copy)))
    card = (release_copy / "README.md").read_text()
    assert card.count("Attribution of image") == 40
    assert "960 more kinds of terms are in `sources.parquet`." in card
