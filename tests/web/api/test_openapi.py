"""The API's document covers what there is, and is one."""

import copy
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from starlette.routing import Route

from tests.support.session_site import a_session_site
from tests.support.studio_site import StudioSite, a_studio_site
from tests.support.web import a_title, an_object
from xbyte_live.models import NewStream, Offer
from xbyte_live.money import Price
from xbyte_live.web.api.openapi import document

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


async def test_what_is_public_answers_as_described_and_nothing_more(
    site: StudioSite, sqlite_url: str
) -> None:
    await site.streams.create(
        NewStream(slug="show", name="Show"), Offer(Price(1_000), None, time.time())
    )
    async with site.client() as client:
        for path, schema in (
            ("/api/v1/catalog", "Catalog"),
            ("/api/v1/streams", "Streams"),
            ("/api/v1/streams/show", "StreamStatus"),
            ("/hls/show/pricing.json", "Pricing"),
        ):
            strictly(await client.get(path), schema)

    async with a_session_site(sqlite_url) as selling, selling.client() as client:
        selling.add(a_title())
        selling.catalog.by_slug["paper"] = an_object(b"x" * 100)
        for path, schema in (
            ("/api/v1/site", "Site"),
            ("/api/v1/catalog", "Catalog"),
            ("/hls/plasma/pricing.json", "Pricing"),
            ("/objects/paper/pricing.json", "Pricing"),
        ):
            strictly(await client.get(path), schema)


def strictly(reply: httpx2.Response, schema: str) -> None:
    """The answer is what the document says, and has no property it is silent of."""
    assert reply.status_code == 200, reply.text
    components = copy.deepcopy(document("")["components"])
    for described in components["schemas"].values():
        if "properties" in described:
            described["additionalProperties"] = False
    wanted = {"$ref": f"#/components/schemas/{schema}", "components": components}
    OAS31Validator(wanted).validate(reply.json())
