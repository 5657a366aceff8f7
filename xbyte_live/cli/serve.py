"""Wiring: ``serve`` and ``studio``: a server, and a link that logs a browser into its studio."""

import secrets
import time
from urllib.parse import urlsplit

import click

from xbyte_live.cli.options import json_option, settings_options
from xbyte_live.cli.output import print_json
from xbyte_live.config import Settings
from xbyte_live.live.urls import public_url
from xbyte_live.runtime.logs import log_to_stderr
from xbyte_live.server.admin import admin_token, token_file
from xbyte_live.server.service import serve as run_server
from xbyte_live.web.admin.login_tokens import CODE_LASTS, LoginTokens

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  addresses to listen on, which no browser opens


@click.command()
@settings_options()
async def serve(settings: Settings) -> None:
    """Serve the catalog and take payments."""
    log_to_stderr(settings.log_level)
    await run_server(settings)


@click.command()
@json_option
@settings_options("data_dir", "host", "port", "public_url")
def studio(settings: Settings, as_json: bool) -> None:
    """Print a link that opens the studio, and where its admin token is."""
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
    """A link to the studio with a new login code, after the ``#``, which no server logs."""
    code = LoginTokens(admin_token(settings)).code(secrets.token_hex(12), time.time())
    return f"{_base(settings)}/studio#code={code}"


def _base(settings: Settings) -> str:
    url = public_url(settings).rstrip("/")
    if settings.public_url or settings.host not in _EVERYWHERE:
        return url
    return f"{urlsplit(url).scheme}://localhost:{settings.port}"
