"""The documentation as a server hands it out."""

from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from tests.support.web import Site
from xbyte_live.web.api.site import Site as WebSite
from xbyte_live.web.pages.assets import Assets
from xbyte_live.web.pages.docs import Docs
from xbyte_live.web.pages.pages import Renderer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Documentation\n\n- [Pricing](pricing.md)\n")
    (docs / "pricing.md").write_text("# Pricing\n\n1 MB is 1,048,576 bytes.\n")
    (docs / "zz.md").write_text("# The end\n")
    (tmp_path / "secret.md").write_text("# Secret\n")
    (tmp_path / "pages.css").write_text("body{}")
    return docs


def docs_of(folder: Path) -> httpx2.AsyncClient:
    site = Site()
    told = WebSite(settings=site.settings, gate=site.gate)  # type: ignore[arg-type]
    renderer = Renderer(site=told, assets=Assets(folder.parent))
    transport = httpx2.ASGITransport(Starlette(routes=Docs(renderer, folder).routes()))
    return httpx2.AsyncClient(transport=transport, base_url="http://site.test")


async def test_pages_are_listed_and_shown(folder: Path) -> None:
    async with docs_of(folder) as client:
        index = await client.get("/docs")
        page = await client.get("/docs/pricing")
    assert index.status_code == page.status_code == 200
    for text in (index.text, page.text):
        assert text.index('href="/docs/pricing"') < text.index('href="/docs/zz"')
    assert "<title>Pricing · " in page.text
    assert "<p>1 MB is 1,048,576 bytes.</p>" in page.text
    assert '<a href="/docs/pricing" aria-current="page">Pricing</a>' in page.text
    assert "Next: The end</a>" in page.text


async def test_they_are_under_the_policy_of_all_pages_and_revalidated(folder: Path) -> None:
    async with docs_of(folder) as client:
        page = await client.get("/docs/pricing")
        again = await client.get("/docs/pricing", headers={"if-none-match": page.headers["etag"]})
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "style-src 'self';" in page.headers["content-security-policy"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.text) == (304, "")


async def test_they_are_read_once(folder: Path) -> None:
    async with docs_of(folder) as client:
        first = await client.get("/docs/pricing")
        (folder / "pricing.md").write_text("# Another\n")
        assert (await client.get("/docs/pricing")).text == first.text


@pytest.mark.parametrize(
    "path", ["nothing", "index", "pricing.md", "..%2Fsecret", "%2e%2e%2fsecret", "../secret", "é"]
)
async def test_what_is_no_page_is_not_found(folder: Path, path: str) -> None:
    async with docs_of(folder) as client:
        reply = await client.get(f"/docs/{path}")
    assert reply.status_code == 404
    assert "Secret" not in reply.text


async def test_an_unknown_page_says_where_the_list_is(folder: Path) -> None:
    async with docs_of(folder) as client:
        reply = await client.get("/docs/nothing")
    assert "The list of pages is at /docs." in reply.text
    assert reply.headers["cache-control"] == "no-store"


async def test_every_server_has_them() -> None:
    site = Site()
    async with site.client() as client:
        assert (await client.get("/docs")).status_code == 200
        assert 'href="/docs"' in (await client.get("/")).text
