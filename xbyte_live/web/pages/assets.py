"""Adapter: the built scripts and styles, read once and versioned by their digest."""

import asyncio
import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.web.common.ranges import accepts_gzip, names_tag
from xbyte_live.web.common.responses import not_modified, problem

BUILT = Path(__file__).parents[1] / "static"

NEEDED = ("home.js", "watch.js", "studio.js", "pages.css", "xbyte-hls.js")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}(?:\.[a-z0-9]{1,8}){1,2}")
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",  # declarations, to be read by people and compilers
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_OF_ANY_SITE = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}


@dataclass(frozen=True, slots=True)
class _Asset:
    stamp: tuple[int, int]
    tag: str
    plain: bytes
    packed: bytes


class Assets:
    """The built files of a folder; a file that has changed is read again."""

    def __init__(self, folder: Path = BUILT) -> None:
        self._folder = folder
        self._known: dict[str, _Asset] = {}

    async def answer(self, request: Request) -> Response:
        """``GET /static/{name}``: cached for ever under the URL of ``url_of``, else revalidated."""
        name = request.path_params["name"]
        asset = await self._find(name)
        if asset is None:
            return problem(404, "not_found", "there is no such file")
        packed = accepts_gzip(request.headers.get("accept-encoding"))
        headers = {
            "cache-control": _FOR_EVER
            if request.query_params.get("v") == asset.tag
            else "public, no-cache",
            "etag": f'"{asset.tag}-gzip"' if packed else f'"{asset.tag}"',
            "vary": "Accept-Encoding",
            **_OF_ANY_SITE,
        }
        if names_tag(request.headers.get("if-none-match"), headers["etag"]):
            return not_modified(headers)
        if packed:
            headers["content-encoding"] = "gzip"
        body = asset.packed if packed else asset.plain
        return Response(body, 200, headers | {"content-type": _TYPES[Path(name).suffix]})

    async def url_of(self, name: str) -> str | None:
        """The versioned URL of a file, or ``None`` if it was not built."""
        asset = await self._find(name)
        return f"/static/{name}?v={asset.tag}" if asset else None

    async def missing(self) -> list[str]:
        """The names of files that pages need and that were not built."""
        return [name for name in NEEDED if await self._find(name) is None]

    async def _find(self, name: str) -> _Asset | None:
        if _NAME.fullmatch(name) is None or Path(name).suffix not in _TYPES:
            return None
        known = self._known.get(name)
        found = await asyncio.to_thread(_read, self._folder / name, known)
        if found is None:
            self._known.pop(name, None)
        else:
            self._known[name] = found
        return found


def _read(path: Path, known: _Asset | None) -> _Asset | None:
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
        if known is not None and known.stamp == stamp:
            return known
        data = path.read_bytes()
    except OSError:
        return None
    tag = hashlib.sha256(data).hexdigest()[:16]
    return _Asset(stamp, tag, data, gzip.compress(data, 6, mtime=0))
