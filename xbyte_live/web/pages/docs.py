"""Adapter: the documentation of this version at ``/docs``, read and rendered once."""

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.errors import ItemNotFound
from xbyte_live.web.pages.markdown import INDEX, Page, render_pages
from xbyte_live.web.pages.pages import Renderer

FOLDER = Path(__file__).parents[2] / "docs"

_NO_PAGE = "The list of pages is at /docs."


class Docs:
    """``/docs`` and ``/docs/{page}``: every ``*.md`` of a folder as a page."""

    def __init__(self, renderer: Renderer, folder: Path = FOLDER) -> None:
        self._renderer = renderer
        self._folder = folder
        self._pages: dict[str, Page] | None = None
        self._reading = asyncio.Lock()

    def routes(self) -> list[Route]:
        """The routes of the index and of the pages."""
        return [Route("/docs", self.index), Route("/docs/{page}", self.page)]

    async def index(self, request: Request) -> Response:
        """``GET /docs``."""
        return await self._show(request, INDEX)

    async def page(self, request: Request) -> Response:
        """``GET /docs/{page}``; 404 for what is no page."""
        name = request.path_params["page"]
        return await self._show(request, "" if name == INDEX else name)  # each has one URL

    async def _show(self, request: Request, name: str) -> Response:
        pages = await self._read()
        page = pages.get(name)
        if page is None:
            return await self._renderer.explain(request, ItemNotFound(_NO_PAGE), _NO_PAGE)
        order = list(pages.values())
        after = order[order.index(page) + 1 :]
        values = {
            "here": "docs",
            "page": page,
            "pages": order,
            "next": after[0] if after else None,
        }
        return await self._renderer.page(request, "docs.html", "", values)

    async def _read(self) -> dict[str, Page]:
        async with self._reading:
            if self._pages is None:
                self._pages = await asyncio.to_thread(_render_folder, self._folder)
        return self._pages


def _render_folder(folder: Path) -> dict[str, Page]:
    return render_pages({file.stem: file.read_text("utf-8") for file in folder.glob("*.md")})
