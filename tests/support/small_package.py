"""A package of a few kilobytes with nothing else behind it, as npm's lock has it."""

from typing import Any

SMALL: dict[str, Any] = {
    "name": "small",
    "lockfileVersion": 3,
    "requires": True,
    "packages": {
        "": {"name": "small", "dependencies": {"js-sha3": "0.8.0"}},
        "node_modules/js-sha3": {
            "version": "0.8.0",
            "integrity": "sha512-gF1cRrHhIzNfToc802P800N8PpXS+evLLXfsVpowqmAFR9uwbi89WvXg2QspOmXL8QL86J4T1EpFu+yUkwJY3Q==",  # noqa: E501
        },
    },
}
