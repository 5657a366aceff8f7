"""Adapter: the API described for programs: the OpenAPI 3.1 document in ``openapi.json``."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from xbyte_live import __version__

_FILE = Path(__file__).with_suffix(".json")
_OF_ALL = ("503",)
_OF_ADMINS = ("401", "403", "429", "503")
_ADMIN: list[dict[str, list[str]]] = [{"token": []}, {"login": []}]


def document(server: str) -> dict[str, Any]:
    """The document for a server that is reached at a URL.

    The file leaves out what all operations share: the statuses that any of them may answer, and
    the login that all need but those tagged ``public``.
    """
    described: dict[str, Any] = json.loads(_text())
    for path in described["paths"].values():
        for method in path.keys() - {"parameters"}:
            operation = path[method]
            is_public = operation["tags"] == ["public"]
            for status in _OF_ALL if is_public else _OF_ADMINS:
                operation["responses"][status] = {"$ref": f"#/components/responses/{status}"}
            operation["security"] = [] if is_public else _ADMIN
    described["info"]["version"] = __version__
    described["servers"] = [{"url": server}]
    return described


@cache
def _text() -> str:
    return _FILE.read_text("utf-8")
