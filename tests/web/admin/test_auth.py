"""Nobody looks into the studio who may not."""

import asyncio
import logging
import secrets
import stat
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.support.studio_site import ORIGIN, TOKEN, StudioSite, a_studio_site, told
from xbyte_live.cli import main
from xbyte_live.config import Secret, Settings
from xbyte_live.errors import ConfigError
from xbyte_live.server.admin import TOKEN_FILE, admin_token
from xbyte_live.web.admin.login_tokens import CODE_LASTS, COOKIE_LASTS, LoginTokens

NONCE = "0123456789abcdef01234567"
NOW = 1_760_000_000.0
ASKED = "/api/v1/settlement"

# Open to everyone; all else under /api/v1 is not.
PUBLIC = frozenset(
    {
        ("GET", "/api/v1/catalog"),
        ("GET", "/api/v1/streams"),
        ("GET", "/api/v1/streams/{slug}"),
        ("GET", "/api/v1/site"),
        ("GET", "/api/v1/openapi.json"),
        ("POST", "/api/v1/sessions"),
    }
)


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[StudioSite]:
    async with a_studio_site(sqlite_url) as site:
        yield site


def a_code(site: StudioSite) -> str:
    return site.login_tokens.code(secrets.token_hex(12), time.time())


async def logged_in(site: StudioSite, client: httpx2.AsyncClient) -> None:
    reply = await client.post(
        "/studio/login", json={"code": a_code(site)}, headers={"origin": ORIGIN}
    )
    assert reply.status_code == 200, reply.text


def admin_routes(site: StudioSite) -> Iterator[tuple[str, str]]:
    for route in site.routes():
        if route.path.startswith("/api/v1/"):
            for method in sorted(route.methods or ()):
                public = (method.replace("HEAD", "GET"), route.path) in PUBLIC
                if not public:
                    yield method, route.path


async def test_no_route_answers_without_a_token_or_a_login(site: StudioSite) -> None:
    asked = list(admin_routes(site))
    assert len(asked) >= 15
    async with site.client() as client:
        for method, path in asked:
            path = path.replace("{slug}", "plasma").replace("{id}", "1")
            reply = await client.request(method, path)
            assert (method, path, reply.status_code) == (method, path, 401)
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert reply.headers["cache-control"] == "no-store"


async def test_the_token_opens_everything(site: StudioSite) -> None:
    async with site.admin() as client:
        assert (await client.get(ASKED)).status_code == 200
    async with site.client(authorization=f"bearer  {TOKEN}") as client:
        assert (await client.get(ASKED)).status_code == 200


@pytest.mark.parametrize("shown", ["Bearer wrong", "Bearer", f"Bearer {TOKEN}x", "Bearer \xff"])
async def test_whoever_shows_a_token_is_judged_by_it(site: StudioSite, shown: str) -> None:
    async with site.client() as client:
        await logged_in(site, client)
        reply = await client.get(ASKED, headers={b"authorization": shown.encode("latin-1")})
        assert reply.status_code == 401


@pytest.mark.parametrize("shown", [f"Basic {TOKEN}", "Basic cHJveHk6c2VjcmV0", TOKEN, "Digest x"])
async def test_what_is_for_a_proxy_in_front_opens_nothing_and_shuts_nobody_out(
    site: StudioSite, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.client(authorization=shown) as client:
        statuses = [(await client.get(ASKED)).status_code for _ in range(12)]
        assert statuses == [401] * 12  # it is no token that somebody guesses
        assert (await client.get("/studio/login")).json() == {"logged_in": False}
        await logged_in(site, client)
        assert (await client.get(ASKED)).status_code == 200
        reply = await client.post("/api/v1/streams", json={"slug": "evil"})
        assert reply.status_code == 403  # as without it, only our own page changes things
    assert "wrong" not in caplog.text


async def test_wrong_tokens_are_limited_and_never_logged(
    site: StudioSite, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "a-wrong-token-somebody-tried"
    with caplog.at_level(logging.DEBUG):
        async with site.client(authorization=f"Bearer {wrong}") as client:
            statuses = [(await client.get(ASKED)).status_code for _ in range(12)]
            assert statuses == [401] * 10 + [429] * 2
        async with site.client(host="198.51.100.7", authorization="Bearer other") as client:
            assert (await client.get(ASKED)).status_code == 401
        async with site.admin() as client:
            assert (await client.get(ASKED)).status_code == 200  # who has it is not shut out
    assert wrong not in caplog.text and TOKEN not in caplog.text
    assert caplog.text.count("192.0.2.1") == 10


async def test_a_login_code_is_good_once(site: StudioSite) -> None:
    code = a_code(site)
    async with site.client(origin=ORIGIN) as client, site.client(origin=ORIGIN) as thief:
        assert (await client.post("/studio/login", json={"code": code})).status_code == 200
        assert (await client.get(ASKED)).status_code == 200
        stolen = await thief.post("/studio/login", json={"code": code})
        assert stolen.status_code == 401 and "set-cookie" not in stolen.headers
        assert (await thief.get(ASKED)).status_code == 401


async def test_a_code_is_good_on_every_process_but_once(database_url: str) -> None:
    async with a_studio_site(database_url) as one, a_studio_site(database_url) as other:
        code = a_code(one)
        async with one.client(origin=ORIGIN) as here, other.client(origin=ORIGIN) as there:
            assert (await there.post("/studio/login", json={"code": code})).status_code == 200
            assert (await here.post("/studio/login", json={"code": code})).status_code == 401
            here.cookies.update(there.cookies)  # a cookie holds on all of them
            assert (await here.get(ASKED)).status_code == 200


async def test_the_token_logs_in_too(site: StudioSite) -> None:
    async with site.client(origin=ORIGIN) as client:
        assert (await client.get("/studio/login")).json() == {"logged_in": False}
        assert (await client.post("/studio/login", json={"token": TOKEN})).status_code == 200
        assert (await client.get("/studio/login")).json() == {"logged_in": True}
        assert (await client.get(ASKED)).status_code == 200
        assert (await client.post("/studio/logout")).status_code == 200
        assert (await client.get(ASKED)).status_code == 401


async def test_after_logging_out_the_cookie_opens_nothing_on_any_process(
    database_url: str,
) -> None:
    async with (
        a_studio_site(database_url) as one,
        a_studio_site(database_url) as other,
        one.client(origin=ORIGIN) as client,
        one.client(origin=ORIGIN) as elsewhere,
    ):
        await logged_in(one, client)
        await logged_in(one, elsewhere)
        kept = dict(client.cookies)
        assert kept and (await client.post("/studio/logout")).status_code == 200
        for site in (one, other):
            async with site.client(origin=ORIGIN) as thief:
                thief.cookies.update(kept)
                assert (await thief.get(ASKED)).status_code == 401
                assert (await thief.get("/studio/login")).json() == {"logged_in": False}
                assert (await thief.post("/studio/logout")).status_code == 200  # as it was
        assert (await elsewhere.get(ASKED)).status_code == 200  # a login of its own


async def test_logging_out_ends_the_live_figures_too(site: StudioSite) -> None:
    async with site.client(origin=ORIGIN) as client:
        await logged_in(site, client)
        (cookie,) = client.cookies.jar
        async with site.client(cookie=f"{cookie.name}={cookie.value}") as page:
            following = asyncio.create_task(told(site, page, 1000))
            while not site.studio.events.subscribers:
                await asyncio.sleep(0.01)
            assert (await client.post("/studio/logout")).status_code == 200
            async with asyncio.timeout(30):
                assert await following
    assert site.studio.events.subscribers == 0


@pytest.mark.parametrize("body", [{}, {"code": "x", "token": "y"}, {"code": 1}, {"user": "x"}])
async def test_a_login_that_means_nothing_is_refused(site: StudioSite, body: object) -> None:
    async with site.client(origin=ORIGIN) as client:
        assert (await client.post("/studio/login", json=body)).status_code == 400


async def test_the_cookie_is_for_this_site_and_no_script(site: StudioSite) -> None:
    async with site.client(origin=ORIGIN) as client:
        reply = await client.post("/studio/login", json={"token": TOKEN})
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
    assert TOKEN not in cookie


async def test_over_tls_the_cookie_goes_nowhere_else(sqlite_url: str) -> None:
    async with (
        a_studio_site(sqlite_url, public_url="https://live.example") as site,
        site.client(origin="https://live.example") as client,
    ):
        reply = await client.post("/studio/login", json={"token": TOKEN})
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Host-") and "secure" in cookie.lower()


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.test", "http://site.test.evil", "http://[", "site.test"]
)
async def test_other_pages_change_nothing_with_the_cookie(
    site: StudioSite, origin: str | None
) -> None:
    headers = {"origin": origin} if origin else {}
    async with site.client() as client:
        await logged_in(site, client)
        for path in ("/api/v1/streams", "/studio/login", "/studio/logout"):
            reply = await client.post(path, json={"slug": "evil"}, headers=headers)
            assert reply.status_code == 403
        fine = await client.post(
            "/api/v1/streams", json={"slug": "fine"}, headers={"origin": ORIGIN}
        )
        assert fine.status_code == 201
    assert await site.catalog.item("evil") is None


async def test_a_program_with_the_token_needs_no_origin(site: StudioSite) -> None:
    async with site.admin() as client:
        made = await client.post("/api/v1/streams", json={"slug": "fine"})
    assert made.status_code == 201


async def test_no_page_of_another_site_may_read_the_admin_api(site: StudioSite) -> None:
    async with site.admin(origin="http://evil.test") as client:
        for path in (ASKED, "/api/v1/earnings", "/api/v1/streams/x/keys"):
            assert "access-control-allow-origin" not in (await client.get(path)).headers


def test_codes_and_cookies_end() -> None:
    login_tokens = LoginTokens(TOKEN)
    code, cookie = login_tokens.code(NONCE, NOW), login_tokens.cookie(NONCE, NOW)
    assert login_tokens.read_code(code, NOW + CODE_LASTS - 1) == (NONCE, NOW + CODE_LASTS)
    assert login_tokens.read_code(code, NOW + CODE_LASTS) is None
    assert login_tokens.read_cookie(cookie, NOW + COOKIE_LASTS - 1) == (NONCE, NOW + COOKIE_LASTS)
    assert login_tokens.read_cookie(cookie, NOW + COOKIE_LASTS) is None


def test_another_token_opens_nothing() -> None:
    login_tokens, other = LoginTokens(TOKEN), LoginTokens(TOKEN + "x")
    assert other.read_code(login_tokens.code(NONCE, NOW), NOW) is None
    assert other.read_cookie(login_tokens.cookie(NONCE, NOW), NOW) is None
    assert not other.is_token(TOKEN) and login_tokens.is_token(TOKEN)


def test_a_code_is_no_cookie() -> None:
    login_tokens = LoginTokens(TOKEN)
    assert login_tokens.read_cookie(login_tokens.code(NONCE, NOW), NOW) is None
    assert login_tokens.read_code(login_tokens.cookie(NONCE, NOW), NOW) is None


@given(st.text(max_size=120), st.integers(0, 200))
def test_nothing_made_up_is_taken(text: str, cut: int) -> None:
    login_tokens = LoginTokens(TOKEN)
    code, cookie = login_tokens.code(NONCE, NOW), login_tokens.cookie(NONCE, NOW)
    for made in (text, code[:cut] + text, cookie[:cut] + text):
        if made != code:
            assert login_tokens.read_code(made, NOW) is None
        if made != cookie:
            assert login_tokens.read_cookie(made, NOW) is None
        assert not login_tokens.is_token(made)


def test_a_token_is_made_once_for_our_eyes_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: admin_token(settings), range(16)))
    assert len(tokens) == 1 and len(tokens.pop()) >= 24
    found = list((tmp_path / "new").iterdir())
    assert [path.name for path in found] == [TOKEN_FILE]
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600


def test_the_environment_is_asked_first(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, admin_token=Secret(TOKEN))
    assert admin_token(settings) == TOKEN
    assert list(tmp_path.iterdir()) == []


def test_a_token_one_could_guess_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="24"):
        replace(Settings(), admin_token=Secret("hunter2"))
    (tmp_path / TOKEN_FILE).write_text("short\n")
    with pytest.raises(ConfigError, match=TOKEN_FILE):
        admin_token(Settings(data_dir=tmp_path))


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="XBYTE_ADMIN_TOKEN"):
        admin_token(Settings(data_dir=tmp_path / "file"))


async def test_the_command_prints_a_link_that_logs_in(sqlite_url: str, tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["studio", "--data-dir", str(tmp_path)])
    assert run.exit_code == 0, run.output
    link, _, code = run.output.splitlines()[0].partition("#code=")
    assert link == "http://127.0.0.1:8402/studio"
    token = (tmp_path / TOKEN_FILE).read_text().strip()
    assert token not in run.output and str(tmp_path / TOKEN_FILE) in run.output
    async with (
        a_studio_site(sqlite_url, admin_token=Secret(token)) as site,
        site.client(origin=ORIGIN) as client,
    ):
        assert (await client.post("/studio/login", json={"code": code})).status_code == 200


def test_the_command_says_where_a_server_for_everyone_is(tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path), "--host", "0.0.0.0", "--json"]
    run = CliRunner().invoke(main, ["studio", *options])
    assert '"login_url": "http://localhost:8402/studio#code=' in run.output
