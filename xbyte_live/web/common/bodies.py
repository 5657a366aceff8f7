"""Adapter: reads the body of a request as JSON fields of known names and kinds."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from xbyte_live.errors import BadRequest
from xbyte_live.runtime.json import read_json

MAX_BODY = 16_384  # bytes


async def read_fields(request: Request, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a JSON object, all of them named in ``kinds`` and of that type.

    An empty body is an object without fields. Raises ``BadRequest`` that names the fault.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BadRequest(f"the body has at most {MAX_BODY} bytes")
    try:
        fields = read_json(body) if body.strip() else {}
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise BadRequest("the body is a JSON object")
    for name, value in fields.items():
        if name not in kinds:
            known = ", ".join(kinds) or "none"
            raise BadRequest(f"there is no field {name[:40]!r} here; the fields are: {known}")
        if type(value) is not kinds[name]:
            raise BadRequest(f"{name} is {_WORDS[kinds[name]]}")
    return fields


_WORDS: Mapping[type, str] = {str: "text", int: "a whole number", bool: "true or false"}
