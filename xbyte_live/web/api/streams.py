"""Adapter: the status of streams as JSON, free for everyone."""

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.item_json import stream_json
from xbyte_live.models import Stream
from xbyte_live.web.api.viewers import Audience
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.common.responses import NO_STORE, json_reply


class StreamsApi:
    """Serves ``/api/v1/streams``."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        resolver: Resolver,
        audience: Audience,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._resolver = resolver
        self._audience = audience
        self._clock = clock

    async def streams(self, _: Request) -> Response:
        """``GET /api/v1/streams``: every stream, the oldest first."""
        found = [item for item in await self._catalog.items() if isinstance(item, Stream)]
        now = self._clock()
        return json_reply({"streams": [stream_json(s, now) for s in found]}, NO_STORE)

    async def stream(self, request: Request) -> Response:
        """``GET /api/v1/streams/{slug}``: one stream, and the number of its paying viewers."""
        stream = await self._resolver.stream(request.path_params["slug"])
        now = self._clock()
        paying = await self._audience.paying(stream.slug)
        return json_reply({**stream_json(stream, now), "viewers_paying": paying}, NO_STORE)
