"""Markdown as our pages have it: safe under their policy, linked as they are served."""

import re
from pathlib import Path

import pytest

from xbyte_live.web.pages.docs import FOLDER
from xbyte_live.web.pages.markdown import Page, render, render_pages


def html(text: str) -> str:
    return render("page", text).html


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("[a](foo.md)", '<p><a href="/docs/foo">a</a></p>'),
        ("[a](./going-live.md#keys)", '<p><a href="/docs/going-live#keys">a</a></p>'),
        ("[a](index.md)", '<p><a href="/docs">a</a></p>'),
        ("[a](#here)", '<p><a href="#here">a</a></p>'),
        ("[a](/studio)", '<p><a href="/studio">a</a></p>'),
        ("[a](https://x402.org)", '<p><a href="https://x402.org">a</a></p>'),
        ("[`gate`](../payments/gate.py) and [b](b.md)",
         '<p><code>gate</code> and <a href="/docs/b">b</a></p>'),
        ("[a](../../README.md)", "<p>a</p>"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("![a <picture>](a.png)", "<p>a &lt;picture&gt;</p>"),
        ("<b onclick=x>a</b>", "<p>&lt;b onclick=x&gt;a&lt;/b&gt;</p>"),
        ("```sh\necho '<a>'\n```",
         "<pre tabindex=\"0\"><code>echo &#x27;&lt;a&gt;&#x27;\n</code></pre>"),
    ],
)  # fmt: skip
def test_text_becomes_html(text: str, rendered: str) -> None:
    assert html(text).strip() == rendered


def test_a_table_scrolls_and_has_no_inline_style() -> None:
    table = html("| a | b |\n|:-:|--:|\n| 1 | 2 |\n")
    assert '<th class="align-center">a</th>' in table
    assert '<td class="align-right">2</td>' in table
    assert "style=" not in table
    assert table.startswith('<div class="doc-table" role="region" aria-label="Table" tabindex="0">')
    assert table.rstrip().endswith("</table></div>")


def test_every_heading_has_an_anchor_of_its_own() -> None:
    page = render("page", "# A `key`'s life\n\n## Keys\n\n## Keys\n\n### Wait: 2 s?\n")
    assert page.title == "A key's life"
    assert page.anchors == {"a-keys-life", "keys", "keys-1", "wait-2-s"}
    assert '<h2 id="keys-1">Keys</h2>' in page.html


def test_the_index_says_the_order() -> None:
    texts = {
        "zebra": "# Zebra",
        "index": "# All\n\n- [c](c.md)\n- [a](a.md#x)\n- [c again](c.md)\n- [gone](gone.md)\n",
        "a": "text without a heading",
        "c": "# C\n",
        "b": "# B\n",
    }
    pages = render_pages(texts)
    assert list(pages) == ["index", "c", "a", "b", "zebra"]
    assert [page.url for page in pages.values()][:2] == ["/docs", "/docs/c"]
    assert pages["a"].title == "a"
    assert list(render_pages({"b": "", "a": ""})) == ["a", "b"]


def our_pages() -> dict[str, Page]:
    return render_pages({file.stem: file.read_text("utf-8") for file in Path(FOLDER).glob("*.md")})


def test_every_link_of_our_pages_leads_somewhere() -> None:
    pages = {page.url: page for page in our_pages().values()}
    assert pages["/docs"].name == "index"
    for page in pages.values():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if target.startswith("/docs") or not target:
                there = pages.get(target or page.url)
                assert there is not None, f"{page.name}.md links to {link}"
                assert not anchor or anchor in there.anchors, f"{page.name}.md links to {link}"


def test_our_pages_need_nothing_our_policy_forbids() -> None:
    for page in our_pages().values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", page.name)
        assert page.html.count("<h1") == 1, f"{page.name}.md has one first heading"
        assert " style=" not in page.html
