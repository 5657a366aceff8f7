"""The demo and a browser, both started once for all of these tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chrome import a_browser, find_browser
from tests.support.demo import Demo
from xbyte_live.frontend.bundle import build


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def demo(demo_dir: Path) -> AsyncIterator[Demo]:
    """The running demo."""
    find_browser()  # without one there is no need for it
    build()  # the scripts as they stand; nothing where they are up to date
    demo = Demo(demo_dir)
    await demo.start()
    try:
        yield demo
    finally:
        await demo.end()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser; each tab has a profile of its own."""
    async with a_browser() as browser:
        yield browser
