"""The API's document covers what there is, and is one."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from tests.support.session_site import a_session_site
from tests.support.studio_site import StudioSite, a_studio_site
from xbyte_live.web.openapi import document

DOCUMENTED = re.compile(r"/api/v1/.*|.*/pricing\.json")
OF_A_SESSION = re.compile(r"/s/\{token\}/.*")  # the same document, at a session's own URL


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[StudioSite]:
    async with a_studio_site(sqlite_url) as site:
        yield site


def operations(described: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, operations in described["paths"].items()
        for method in operations
        if method != "parameters"
    }


async def test_every_route_is_described_and_nothing_else(site: StudioSite, sqlite_url: str) -> None:
    async with a_session_site(sqlite_url) as selling:
        routes = {
            (method, route.path)
            for route in [*site.app.routes, *selling.app.routes]
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
            if DOCUMENTED.fullmatch(route.path) and not OF_A_SESSION.fullmatch(route.path)
        }
    assert operations(document("http://site.test")) == routes


async def test_it_is_valid(site: StudioSite) -> None:
    async with site.client() as client:
        reply = await client.get("/api/v1/openapi.json")
    assert reply.status_code == 200
    described = reply.json()
    assert described["servers"] == [{"url": "http://site.test"}]
    validate(described)


def test_it_says_what_needs_a_login() -> None:
    described = document("")
    for method, path in operations(described):
        operation = described["paths"][path][method.lower()]
        is_public = operation["tags"] == ["public"]
        assert bool(operation["security"]) is not is_public, (method, path)
        assert ("401" in operation["responses"]) is not is_public


def test_every_schema_is_used() -> None:
    described = document("")
    used = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert used | {"Figures"} == set(described["components"]["schemas"])
