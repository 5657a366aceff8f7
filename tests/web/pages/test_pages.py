"""The pages as a browser gets them: what they say, what they may load, how they are cached."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from tests.support.web import NOW, PAYEE, Site, a_stream, a_title
from xbyte_live.config import Settings
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.models import Rendition
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.runtime.format import clock, size_text
from xbyte_live.web.api.catalog import CatalogApi
from xbyte_live.web.api.site import Site as WebSite
from xbyte_live.web.api.viewers import Audience
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.pages.assets import Assets
from xbyte_live.web.pages.cards import money, price_text
from xbyte_live.web.pages.pages import Pages, Renderer

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
BUILT = {
    "pages.css": b"body{}" * 400,
    "home.js": b"// home",
    "watch.js": b"// watch",
    "secret.txt": b"no",
}


class Payers(ChargeLedger):
    """A ledger that knows how many pay for what."""

    def __init__(self, **paying: int) -> None:
        self.paying = paying

    async def payers(self, slug: str, *, since: float) -> int:
        assert since == NOW - 60
        return self.paying.get(slug, 0)


@pytest.fixture
def site() -> Site:
    site = Site()
    site.add_title(a_title(price=1000))
    return site


@pytest.fixture
def built(tmp_path: Path) -> Path:
    for name, data in BUILT.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def pages_of(site: Site, folder: Path, ledger: ChargeLedger | None = None) -> httpx2.AsyncClient:
    """The pages alone, with built files of a folder."""
    listing = CatalogApi(
        settings=site.settings,
        catalog=site.catalog,
        resolver=Resolver(site.catalog, limit=8),
        cache=site.cache,
        gate=site.gate,  # type: ignore[arg-type]
        audience=Audience(ledger or Payers(), clock=lambda: site.now),
        clock=lambda: site.now,
    )
    told = WebSite(settings=site.settings, gate=site.gate)  # type: ignore[arg-type]
    assets = Assets(folder)
    pages = Pages(
        settings=site.settings,
        listing=listing,
        site=told,
        assets=assets,
        renderer=Renderer(site=told, assets=assets),
    )
    transport = httpx2.ASGITransport(Starlette(routes=pages.routes()))
    return httpx2.AsyncClient(transport=transport, base_url="http://site.test")


# --- what they say


async def test_home_lists_everything_without_a_script(site: Site, built: Path) -> None:
    site.add_title(a_title("talk", renditions=(a_sound(),), name="Talk", price=1000))
    site.add_object(b"x" * 3_000_000, name="data.parquet", slug="data", price=2000)
    site.catalog.by_slug["concert"] = a_stream()
    site.catalog.by_slug["silence"] = a_stream("silence", state="ended", name="Silence")
    async with pages_of(site, built, Payers(concert=3, silence=9)) as client:
        page = (await client.get("/")).text
    for slug in ("plasma", "talk", "data", "concert", "silence"):
        assert f'href="/watch/{slug}"' in page
    concert, rest = page.split('id="item-concert"')[1].split("</li>", 1)
    assert "Live" in concert
    assert "3 paying now" in concert
    assert "$0.0072 a minute" in concert  # 1 Mb/s for a minute at $0.001 a MB, rounded up
    assert "First 30 s free" in concert
    assert "Off air" in rest.split('id="item-silence"')[1]
    assert "9 paying" not in page
    assert "$0.0058" in page  # 3,000,000 bytes at $0.002
    assert "Audio" in page
    assert "File, 2.9 MB" in page


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: set[str] = set()
        self.sources: set[str | None] = set()
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.sources |= {value for name, value in attrs if name == "src"}

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)


def a_sound() -> Rendition:
    return replace(a_title().renditions[0], width=None, height=None, average_bandwidth=128_000)


async def test_a_watch_page_has_the_figures_of_its_item(site: Site, built: Path) -> None:
    async with pages_of(site, built) as client:
        page = (await client.get("/watch/plasma")).text
    assert 'data-slug="plasma"' in page
    assert 'data-kind="title"' in page
    assert "$0.0058 a minute" in page  # 800 kb/s for a minute at $0.001 a MB, rounded up
    assert "720p" in page
    assert "$0.000020 for all of it" in page  # five segments of 4000 bytes, each 4 units
    assert "http://site.test/hls/plasma/index.m3u8" in page


async def test_an_item_that_is_not_there_is_said_to_be_missing(site: Site) -> None:
    async with site.client() as client:
        for path in ("/watch/nothing", "/watch/NOT-A-SLUG"):
            answer = await client.get(path)
            assert answer.status_code == 404
        answer = await client.get("/watch/nothing")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "There is nothing here" in answer.text


async def test_a_database_that_is_down_is_told_in_words(site: Site) -> None:
    site.catalog.broken = DatabaseUnavailable("a secret place is down")
    async with site.client() as client:
        answers = [await client.get(path) for path in ("/", "/watch/plasma")]
    for answer in answers:
        assert answer.status_code == 503
        assert "the database does not answer" in answer.text
        assert "secret" not in answer.text


async def test_names_are_never_markup(built: Path) -> None:
    site = Site(Settings(pay_to=PAYEE, site_name=HOSTILE))
    site.add_title(a_title("evil", name=HOSTILE))
    site.add_object(b"paper", name=HOSTILE, slug="file")
    site.catalog.by_slug["concert"] = a_stream(name=HOSTILE)
    async with pages_of(site, built) as client:
        for path in ("/", "/watch/evil", "/watch/file", "/watch/concert", "/watch/none"):
            page = (await client.get(path)).text
            assert "&lt;script&gt;alert(1)" in page
            seen = Elements()
            seen.feed(page)
            assert "alert" not in "".join(seen.scripts)
            assert not {name for name in seen.attributes if name.startswith(("on", "style"))}
            assert "x" not in seen.sources


async def test_pages_say_which_files_were_not_built(site: Site, tmp_path: Path) -> None:
    async with pages_of(site, tmp_path) as client:
        home = await client.get("/")
        watch = await client.get("/watch/plasma")
        (tmp_path / "pages.css").write_bytes(b"body{}")
        (tmp_path / "home.js").write_bytes(b"//")
        mended = await client.get("/")
    assert home.status_code == watch.status_code == 200
    assert "are not built" in home.text
    assert "pages.css, home.js" in home.text
    assert "pages.css, watch.js" in watch.text
    assert "<script" not in home.text
    assert 'href="/watch/plasma"' in home.text
    assert "are not built" not in mended.text


# --- how they are sent


async def test_pages_may_load_their_own_files_and_nothing_else(site: Site) -> None:
    async with site.client() as client:
        for path in ("/", "/watch/plasma", "/watch/none"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"].split("; ")
            assert "default-src 'none'" in policy
            assert "script-src 'self'" in policy
            assert "style-src 'self'" in policy
            assert "connect-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"


async def test_only_a_test_chain_opens_the_policy(built: Path) -> None:
    faucet = "http://127.0.0.1:4000/faucet"
    network, node = "eip155:84532", "http://127.0.0.1:8545/a/key"
    settings = Settings(
        pay_to=PAYEE,
        networks=(network,),
        rpc_urls=(f"{network}={node}",),
        faucet_url=faucet,
    )
    sold = "https://base.example/v2/a-key"
    far = replace(settings, rpc_urls=(f"{network}={sold}",))
    for chosen, more, told_node in (
        (settings, " http://127.0.0.1:4000 http://127.0.0.1:8545", node),
        (far, " http://127.0.0.1:4000", None),  # its URL may hold what was paid for
        (replace(settings, faucet_url=""), "", None),
    ):
        async with pages_of(Site(chosen), built) as client:
            headers = (await client.get("/")).headers
            told = (await client.get("/api/v1/site")).json()
        assert f"connect-src 'self'{more};" in headers["content-security-policy"]
        (found,) = told["networks"]
        assert found["faucet_url"] == (faucet if more else None)
        assert found["rpc_url"] == told_node
        assert found["name"] == ("Local test chain" if more else "Base Sepolia")
        assert (found["chain_id"], found["symbol"], found["decimals"]) == (84532, "USDC", 6)


async def test_a_page_is_sent_once_while_it_stays_the_same(site: Site) -> None:
    async with site.client() as client:
        for path in ("/", "/watch/plasma"):
            first = await client.get(path)
            assert first.headers["cache-control"] == "no-cache"
            tag = {"If-None-Match": first.headers["etag"]}
            again = await client.get(path, headers=tag)
            head = await client.head(path)
            assert (again.status_code, again.content) == (304, b"")
            assert "content-security-policy" in again.headers
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["etag"] == first.headers["etag"]
        site.add_title(a_title("more"))
        site.now += 2
        changed = await client.get("/", headers={"If-None-Match": first.headers["etag"]})
        refused = await client.post("/")
    assert changed.status_code == 200
    assert refused.status_code == 405


async def test_built_files_are_cached_by_what_is_in_them(site: Site, built: Path) -> None:
    async with pages_of(site, built) as client:
        page = (await client.get("/")).text
        url = re.search(r'href="(/static/pages\.css\?v=\w+)"', page)
        assert url
        for_ever = await client.get(url[1])
        plain = await client.get("/static/pages.css", headers={"Accept-Encoding": "identity"})
        tag = {"If-None-Match": for_ever.headers["etag"]}
        again = await client.get("/static/pages.css", headers=tag)
        (built / "pages.css").write_bytes(b"p{}")
        changed = await client.get(url[1])
        new_page = (await client.get("/")).text
    assert for_ever.headers["cache-control"].endswith("immutable")
    assert for_ever.headers["content-encoding"] == "gzip"
    assert for_ever.content == plain.content == BUILT["pages.css"]
    assert "content-encoding" not in plain.headers
    assert plain.headers["cache-control"] == "public, no-cache"
    assert again.status_code == 304
    assert changed.content == b"p{}"
    assert "immutable" not in changed.headers["cache-control"]
    assert url[1] not in new_page


async def test_nothing_but_built_files_is_served(site: Site, built: Path) -> None:
    (built / ".sources").write_text("no")
    async with pages_of(site, built) as client:
        for name in ("secret.txt", ".sources", "..%2fpages.py", "none.js", "PAGES.CSS", "a" * 300):
            assert (await client.get(f"/static/{name}")).status_code == 404


# --- words


@pytest.mark.parametrize(
    ("decimal", "shown"),
    [
        ("0", "$0"),
        ("0.000001", "$0.000001"),
        ("0.000099", "$0.000099"),
        ("0.0001", "$0.0001"),
        ("0.007101", "$0.0072"),
        ("0.9999", "$0.9999"),
        ("0.99991", "$1.0000"),
        ("1", "$1.00"),
        ("1234.561", "$1,234.57"),
    ],
)
def test_a_price_is_rounded_up_to_few_digits(decimal: str, shown: str) -> None:
    assert money(decimal) == shown


def test_other_words() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3600, 36061)] == [
        "0:00",
        "1:00",
        "1:01",
        "1:00:00",
        "10:01:01",
    ]
    assert [size_text(n) for n in (1, 2048, 2**20, 3_000_000)] == [
        "1 kB",
        "2 kB",
        "1.0 MB",
        "2.9 MB",
    ]
    entry = {"kind": "stream", "price_per_mb": "0.001", "price_per_minute": None}
    assert price_text(entry) == "$0.001 a MB"
    assert price_text(entry | {"price_per_mb": "0"}) == "Free"
