"""Wiring: the ``studio`` command: a link that logs a browser into the studio."""

import secrets
import time
from urllib.parse import urlsplit

import click

from xbyte_live.cli.output import print_json
from xbyte_live.config import Settings
from xbyte_live.server.admin import admin_token, token_file
from xbyte_live.server.service import public_url
from xbyte_live.web.admin.passes import CODE_LASTS, Passes

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  where one listens, no place to open


def show_login(settings: Settings, *, as_json: bool) -> None:
    """Print a login link that is good once, and where the admin token is."""
    url = login_url(settings)
    where = "XBYTE_ADMIN_TOKEN" if settings.admin_token else str(token_file(settings).resolve())
    if as_json:
        print_json({"login_url": url, "good_for_s": CODE_LASTS, "token": where})
        return
    click.echo(url)
    click.echo(f"  opens the studio in a browser, once, within {CODE_LASTS // 60} minutes")
    click.echo(f"  programs send the admin token, which is in {where}:")
    click.echo(f"  curl -H 'Authorization: Bearer …' {_base(settings)}/api/v1/settlement")


def login_url(settings: Settings) -> str:
    """A link to the studio with a new login code; what follows ``#`` no server ever logs."""
    code = Passes(admin_token(settings)).code(secrets.token_hex(12), time.time())
    return f"{_base(settings)}/studio#code={code}"


def _base(settings: Settings) -> str:
    url = public_url(settings).rstrip("/")
    if settings.public_url or settings.host not in _EVERYWHERE:
        return url
    return f"{urlsplit(url).scheme}://localhost:{settings.port}"
