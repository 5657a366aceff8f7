"""A real browser, and tabs that notice what a page should never do."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    async_playwright,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Of every test here: one loop for all, and time for the first of them to have the demo made.
IN_A_BROWSER = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}

# Runs in every document before its own scripts: what went wrong, and how its media played.
_OBSERVER = """
(() => {
  const seen = { violations: [], shift: 0, moved: [], waits: [], playing: false };
  Object.defineProperty(window, '__seen', { value: seen });
  addEventListener('securitypolicyviolation', (e) =>
    seen.violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
  new PerformanceObserver((list) => {
    for (const e of list.getEntries()) {
      if (e.hadRecentInput) continue;
      seen.shift += e.value;
      seen.moved.push(...e.sources.map(({ node }) => node?.id || node?.className || '?'));
    }
  }).observe({ type: 'layout-shift', buffered: true });
  const on = (name, work) => document.addEventListener(name, work, true);
  on('playing', () => { seen.playing = true; });
  on('pause', () => { seen.playing = false; });
  on('seeking', () => { seen.playing = false; });
  const ahead = ({ buffered, currentTime }) => {
    for (let i = 0; i < buffered.length; i += 1)
      if (buffered.start(i) - 0.5 <= currentTime && currentTime <= buffered.end(i))
        return buffered.end(i) - currentTime;
    return 0;
  };
  for (const name of ['waiting', 'stalled'])
    on(name, (e) => { if (seen.playing) seen.waits.push(ahead(e.target)); });
})();
"""


def find_browser() -> str:
    """The browser of this machine; without one the test is skipped, which CI takes for failed."""
    chosen = os.environ.get("XBYTE_BROWSER")
    found = next(filter(None, map(shutil.which, [chosen] if chosen else NAMES)), None)
    if found is None:
        pytest.skip("no browser: apt-get install chromium, or name one in XBYTE_BROWSER")
    return found


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """The browser, without a window."""
    executable = find_browser()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=[*FLAGS])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Tab:
    """A page in a fresh profile, with what it said, what it asked for, and what went wrong."""

    page: Page
    errors: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)

    def watch(self) -> None:
        """Begin to notice."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("response", lambda answer: self.answers.append(answer))
        self.page.on("console", self._said)

    def _said(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.errors.append(f"{said.text} {said.location['url']}")

    async def seen(self) -> dict[str, Any]:
        """What the observer has counted in the document that is open."""
        counted: dict[str, Any] = await self.page.evaluate("() => window.__seen")
        return counted

    async def check(self, *, expected: tuple[str, ...] = ()) -> None:
        """No violation of the policy, no error in the console, nothing that moved by itself."""
        seen = await self.seen()
        said = [e for e in self.errors if not any(word in e for word in expected)]
        assert not seen["violations"] + said, seen["violations"] + said
        assert seen["shift"] < 0.1, seen["moved"]  # what is called good


@asynccontextmanager
async def a_tab(
    browser: Browser, *scripts: str, context: BrowserContext | None = None, **options: Any
) -> AsyncIterator[Tab]:
    """A tab in a profile of its own (or of ``context``) that runs ``scripts`` in every page."""
    options = {"viewport": DESKTOP, "reduced_motion": "reduce"} | options
    profile = context or await browser.new_context(**options)
    profile.set_default_timeout(15_000)
    try:
        page = await profile.new_page()
        for script in (_OBSERVER, *scripts):
            await page.add_init_script(script)
        tab = Tab(page)
        tab.watch()
        yield tab
    finally:
        if context is None:
            await profile.close()
