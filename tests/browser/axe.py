"""axe-core, run in a page: what it finds that keeps people out."""

from typing import Any

from playwright.async_api import Page

from xbyte_live.devnet import npm

VERSION = "4.14.1"
SERIOUS = ("serious", "critical")
LOCK: dict[str, Any] = {
    "name": "axe",
    "lockfileVersion": 3,
    "requires": True,
    "packages": {
        "": {"name": "axe", "dependencies": {"axe-core": VERSION}},
        "node_modules/axe-core": {
            "version": VERSION,
            "integrity": "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",  # noqa: E501
        },
    },
}


async def serious(page: Page) -> list[str]:
    """What is seriously wrong with a page as it stands, a line each."""
    script = (npm.install("axe", LOCK) / "axe-core" / "axe.min.js").read_text("utf-8")
    await page.evaluate(script)  # not as an element: the page's policy lets no script in
    found = await page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['any'] or node['all'] or ''}"
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]
