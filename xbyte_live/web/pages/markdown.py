"""Pure: Markdown pages as HTML: no raw HTML, no inline styles, an anchor at every heading."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

INDEX = "index"

_PAGE = re.compile(r"(?:\./)?([a-z0-9]+(?:-[a-z0-9]+)*)\.md(#.*)?")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|/|#", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page; ``anchors`` are the ids of its headings, ``links`` its links' targets."""

    name: str
    title: str
    html: str
    anchors: frozenset[str]
    links: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where it is served."""
        return url_of(self.name)


def url_of(name: str) -> str:
    """The URL of a page by its name."""
    return "/docs" if name == INDEX else f"/docs/{name}"


def render_pages(texts: Mapping[str, str]) -> dict[str, Page]:
    """Render Markdown by the names of its pages, in the order in which they are listed.

    The order is that of the links in ``index``; pages it does not link to follow by name.
    """
    pages = {name: render(name, text) for name, text in sorted(texts.items())}
    urls = {page.url: name for name, page in pages.items()}
    index = pages.get(INDEX)
    linked = [link.partition("#")[0] for link in index.links] if index else []
    listed = [urls[link] for link in linked if link in urls]
    return {name: pages[name] for name in dict.fromkeys([*pages.keys() & {INDEX}, *listed, *pages])}


def render(name: str, text: str) -> Page:
    """Render one page; its title is its first heading, or else its name.

    ``foo.md`` is linked as ``/docs/foo``. A link to any other file of the repository, which no
    server has, becomes plain text, and so does a picture.
    """
    markdown = MarkdownIt("js-default", {"html": False, "linkify": False})
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("image", _image)
    markdown.add_render_rule("table_open", _table_open)
    markdown.add_render_rule("table_close", _table_close)
    tokens = markdown.parse(text)
    headings: dict[str, str] = {}
    links: list[str] = []
    for at, token in enumerate(tokens):
        style = str(token.attrs.pop("style", ""))  # the policy of our pages allows none
        if style:
            token.attrSet("class", style.replace("text-align:", "align-"))
        if token.type == "heading_open":
            anchor = _anchor(_text_of(tokens[at + 1]), headings)
            headings[anchor] = _text_of(tokens[at + 1])
            token.attrSet("id", anchor)
        links += _relink(token.children or [])
    return Page(
        name=name,
        title=next(iter(headings.values()), name),
        html=markdown.renderer.render(tokens, markdown.options, {}),
        anchors=frozenset(headings),
        links=tuple(links),
    )


def _relink(children: list[Token]) -> list[str]:
    """Point the links of a paragraph at what a server has; returns their targets."""
    found: list[str] = []
    is_served = True
    for token in children:
        if token.type == "link_open":
            target = str(token.attrs["href"])
            if page := _PAGE.fullmatch(target):
                target = url_of(page[1]) + (page[2] or "")
            is_served = _ELSEWHERE.match(target) is not None
            token.attrSet("href", target)
            found += [target] if is_served else []
        if token.type in ("link_open", "link_close") and not is_served:
            token.type = "text"  # one without a word
    return found


def _text_of(inline: Token) -> str:
    return "".join(
        token.content for token in inline.children or [] if token.type in ("text", "code_inline")
    )


def _anchor(heading: str, taken: Mapping[str, str]) -> str:
    """The id that code hosts give a heading: lower case, words joined by hyphens, no two alike."""
    base = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
    found, number = base, 0
    while found in taken:
        number += 1
        found = f"{base}-{number}"
    return found


def _fence(_: Any, tokens: Sequence[Token], at: int, *_more: Any) -> str:
    """A block of code, which the keyboard can scroll."""
    return f'<pre tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'


def _image(_: Any, tokens: Sequence[Token], at: int, *_more: Any) -> str:
    return escape(tokens[at].content)


def _table_open(*_: Any) -> str:
    return '<div class="doc-table" role="region" aria-label="Table" tabindex="0"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"
