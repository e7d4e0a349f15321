"""Markdown with local pictures as one HTML page that needs nothing else.

No scripts, no fonts, no requests: pictures become data URIs, the style stands in the page, and the page's own content
security policy forbids the rest. Links to other pages are links.
"""

import base64
import html
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from trajclust_experiments.rendering.figures import SCREEN

FULL_COLOUR = 0.1  # a difference of this size has the deepest colour
CURRENT = ' aria-current="page"'  # of the link to the page that it stands on
BROAD = 800  # a picture of more pixels is scrolled where a page is narrow, others shrink
WIDE = 30  # a column with cells of more characters may break them into lines
_NUMBER = re.compile(r"[+−-]?\d(?!.*[^\W\d]{3}).*|n/a.*|[-–—]?")  # with units or another number beside it, or a gap


def page(
    markdown: str, folder: Path, *, folded: tuple[str, ...] = (), pages: Sequence[tuple[str, str]] = (), here: str = ""
) -> str:
    """The whole HTML document. `markdown` may hold no HTML: what looks like it is shown as it stands.

    Second-level headings make the table of contents. Numbers below a heading that begins with `difference` are
    coloured, those above 0 otherwise than those below, the deeper the larger; and those of a table whose second column
    begins with `oracle`, the deeper the further below it. A picture that is a paragraph of its own is a figure with its
    title as caption; one that knows its resolution is as large as it is in inches.

    Args:
        markdown: CommonMark with tables.
        folder: where the pictures' relative paths begin.
        folded: how headings begin whose sections are closed until they are asked for.
        pages: titles and addresses of the pages that belong together, this one among them.
        here: this page's address.

    Raises:
        FileNotFoundError: a picture that is not a file there; remote pictures have no place in the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _picture)
    tokens = parser.parse(markdown)
    headings = _anchor_headings(tokens)
    _make_figures(tokens)
    tokens = _mark_tables(tokens)
    first = next((place for place, token in enumerate(tokens) if (token.type, token.tag) == ("heading_open", "h2")), 0)
    lead, body = (
        parser.renderer.render(part, parser.options, {"folder": folder})
        for part in (tokens[:first], list(_fold(tokens[first:], folded)))
    )
    title = next((text for level, _, text in headings if level == "h1"), "")
    others = "".join(
        f'<li><a href="{html.escape(address)}"{CURRENT * (address == here)}>{html.escape(name)}</a></li>\n'
        for name, address in pages
    )
    contents = "\n".join(
        f'<li><a href="#{id}">{html.escape(text)}</a></li>' for level, id, text in headings if level == "h2"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header>
{lead}</header>
<nav aria-labelledby="contents">
{f"<p>Pages</p>{chr(10)}<ul>{chr(10)}{others}</ul>{chr(10)}" if others else ""}<p id="contents">Contents</p>
<ul>
{contents}
</ul>
</nav>
<main>
{body}</main>
</body>
</html>
"""


def slug(title: str) -> str:
    """The anchor of a heading, as code hosts make it from Markdown."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def _anchor_headings(tokens: Sequence[Token]) -> list[tuple[str, str, str]]:
    """Gives every heading an id, no two the same; returns tag, id and text of each."""
    headings: list[tuple[str, str, str]] = []
    used = {"contents"}
    for opening, content in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = _text(content)
            id, again = slug(text), 1
            while id in used:
                id, again = f"{slug(text)}-{again}", again + 1
            used.add(id)
            opening.attrSet("id", id)
            headings.append((opening.tag, id, text))
    return headings


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children)


def _make_figures(tokens: Sequence[Token]) -> None:
    for opening, content, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type == "paragraph_open" and [child.type for child in content.children] == ["image"]:
            opening.tag = closing.tag = "figure"


def _picture(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]) -> str:
    token = tokens[index]
    data = io.BytesIO()
    with Image.open(env["folder"] / unquote(token.attrs["src"])) as image:
        scale = SCREEN / image.info["dpi"][0] if "dpi" in image.info else 1
        width, height = (max(1, round(size * scale)) for size in image.size)
        image.save(data, "WEBP", lossless=True, quality=50, method=1)  # 60 % of a PNG's size
    alt = html.escape(renderer.renderInlineAsText(token.children, options, env))
    source = base64.b64encode(data.getvalue()).decode()
    broad = ' class="broad"' if width > BROAD else ""
    picture = f'<img src="data:image/webp;base64,{source}" alt="{alt}" width="{width}" height="{height}"{broad}>'
    caption = token.attrs.get("title")
    return picture + (f"<figcaption>{html.escape(caption)}</figcaption>" if caption else "")


def _mark_tables(tokens: Sequence[Token]) -> list[Token]:
    """Every table in a box of its own that scrolls, named by the heading above it."""
    marked, heading = [], ""
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = token.attrs["id"]
        if token.type == "table_open":
            length = next(n for n, other in enumerate(tokens[index:]) if other.type == "table_close")
            _mark_cells(tokens[index : index + length])
            marked.append(_raw(f'<div class="box" role="region" aria-labelledby="{heading}" tabindex="0">\n'))
        marked.append(token)
        if token.type == "table_close":
            marked.append(_raw("</div>\n"))
    return marked


def _fold(tokens: Sequence[Token], folded: tuple[str, ...]) -> Iterator[Token]:
    """Sections whose headings begin so can be opened and closed; each ends where the next of its level begins."""
    open_level, summary = "", False
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and open_level and token.tag <= open_level:
            yield _raw("</details>\n")
            open_level = ""
        if token.type == "heading_open" and not open_level and folded and _text(tokens[index + 1]).startswith(folded):
            yield _raw("<details>\n<summary>\n")
            open_level, summary = token.tag, True
        yield token
        if token.type == "heading_close" and summary:
            yield _raw("</summary>\n")
            summary = False
    if open_level:
        yield _raw("</details>\n")


def _raw(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _mark_cells(table: Sequence[Token]) -> None:
    rows: list[list[tuple[Token, str]]] = []
    for token, content in itertools.pairwise(table):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append((token, _text(content)))
    by_oracle = len(rows[0]) > 2 and rows[0][1][1].startswith("oracle")
    two_keys = len(rows[0]) > 3 and rows[0][0][1] == "task" and rows[0][1][1] in ("method", "policies", "learner")
    for column, ((head, title), *cells) in enumerate(zip(*rows, strict=True)):
        head.attrSet("scope", "col")
        key = "key" if column == 0 else "key second" if column == 1 and two_keys else ""
        for cell in (head, *(cell for cell, _ in cells)) if key else ():
            cell.attrJoin("class", key)
        texts = [text for _, text in cells]
        numbers = texts and all(_NUMBER.fullmatch(text) for text in texts)
        kind = "number" if numbers else "wide" if max(map(len, texts), default=0) > WIDE else ""
        for cell in (head, *(cell for cell, _ in cells)) if kind else ():
            cell.attrJoin("class", kind)
        if title.lower().startswith("difference"):
            for cell, text in cells:
                _colour(cell, _number(text) / FULL_COLOUR)
        if by_oracle and column > 1:
            for (cell, text), (_, oracle) in zip(cells, (row[1] for row in rows[1:]), strict=True):
                behind = min(_number(text) - _number(oracle), 0) / (abs(_number(oracle)) or 1)
                _colour(cell, behind if re.match(_FIRST, text) and re.match(_FIRST, oracle) else 0)


_FIRST = r"([+−-]?[\d,]*\.?\d+)\s*(%?)"


def _number(text: str) -> float:
    """The number that a cell begins with, or 0."""
    found = re.match(_FIRST, text)
    return float(found[1].replace("−", "-").replace(",", "")) / (100 if found[2] else 1) if found else 0.0


def _colour(cell: Token, depth: float) -> None:
    """`depth` from -1, wholly the colour of what is below, to 1."""
    if depth:
        cell.attrJoin("class", "above" if depth > 0 else "below")
        cell.attrSet("style", f"--depth: {min(abs(depth), 1):.2f}")


# Blue and orange are told apart under all common forms of colour blindness; the signs say the same without colour.
_STYLE = """
:root {
  --paper: #fff; --raised: #f5f6f8; --ink: #1b1f24; --faint: #57606a; --line: #d5d9de; --link: #0b5cad;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --raised: #1d2127; --ink: #e4e7eb; --faint: #a2abb5; --line: #363c45; --link: #7fb8f0; }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1rem; max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
a { color: var(--link); }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; }
h1 { margin-top: 0; }
h2 { margin: 3rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--line); }
summary { cursor: pointer; }
summary > * { display: inline; border: 0; }
details { margin: 1.5rem 0; padding-top: 1rem; border-top: 1px solid var(--line); }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
li { margin: .2rem 0; }
code { font: .875em/1.4 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
nav { font-size: .9rem; padding: .75rem 1rem; background: var(--raised); border-radius: .5rem; margin-bottom: 2rem; }
nav p { margin: 0; font-weight: 600; }
nav ul { margin: .5rem 0 1rem; padding: 0; list-style: none; }
nav ul:last-child { margin-bottom: 0; }
nav [aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
.box { max-height: 85vh; overflow: auto; border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; line-height: 1.35; min-width: 100%; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; z-index: 2; vertical-align: bottom; background: var(--raised); font-weight: 600; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.number { text-align: right; }
td.wide { white-space: normal; min-width: 16rem; }
.key { position: sticky; left: 0; background: var(--raised); }
td.key { z-index: 1; white-space: normal; min-width: var(--key); max-width: 18rem; overflow-wrap: break-word; }
th.key { z-index: 3; }
.key:has(+ .second) { width: var(--key); min-width: var(--key); max-width: var(--key); }
.key.second { left: var(--key); min-width: calc(var(--key) * 1.3); border-right: 1px solid var(--line); }
.box { --key: 8.5rem; }
.above, .below { -webkit-print-color-adjust: exact; print-color-adjust: exact; font-weight: 600; }
.above { background: rgb(0 114 178 / calc(.08 + .42 * var(--depth))); }
.below { background: rgb(230 110 0 / calc(.08 + .42 * var(--depth))); }
figure { margin: 1.5rem 0; overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .25rem; }
figcaption {
  position: sticky; left: 0; max-width: 48rem; color: var(--faint); font-size: .875rem; padding-top: .3rem;
}
@media (min-width: 72rem) {
  body {
    display: grid; grid-template: auto 1fr / 15rem minmax(0, 1fr); column-gap: 2.5rem; padding: 2rem;
  }
  nav { grid-area: 1 / 1 / span 2; position: sticky; top: 2rem; align-self: start; }
  nav { max-height: calc(100vh - 4rem); overflow: auto; }
}
@media (max-width: 48rem) {
  h1 { font-size: 1.6rem; }
  h2 { font-size: 1.25rem; margin-top: 2rem; }
  nav { max-height: 45vh; overflow: auto; }
  table { font-size: .8rem; }
  th, td { padding: .35rem .5rem; }
  .box { --key: 6.8rem; }
  td.key, .key.second { max-width: 7rem; }
  .key.second { min-width: 6rem; }
  figure .broad { max-width: max(100%, 44rem); }
}
@media print {
  details::details-content { content-visibility: visible; }
  :root { --paper: #fff; --raised: #f5f6f8; --ink: #000; --faint: #444; --line: #bbb; --link: #000; }
  @page { size: A4 landscape; margin: 12mm; }
  body { display: block; padding: 0; max-width: none; font-size: 10pt; }
  nav { display: none; }
  .box { max-height: none; overflow: visible; border: 0; }
  table { font-size: 8pt; }
  th, .key { position: static; }
  th, td, td.key { padding: .25rem .4rem; }
  td, td.key { white-space: normal; }
  td.number { white-space: nowrap; }
  .key, td.wide, .key:has(+ .second), .key.second { min-width: 0; width: auto; }
  tr, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  figure img { max-height: 165mm; object-fit: contain; object-position: left; }
  figure img:not(.broad) { max-width: 130mm; }
}
"""
