"""Wiring: the commands that serve and look after a server: serve, studio, doctor."""

import click

from xbyte_live.cli.options import json_option, run, settings_options
from xbyte_live.config import Settings


@click.command()
@settings_options()
def serve(settings: Settings) -> None:
    """Serve the catalog and take payments."""
    from xbyte_live.runtime.logs import log_to_stderr
    from xbyte_live.server.service import serve as run_server

    log_to_stderr(settings.log_level)
    run(run_server(settings))


@click.command()
@json_option
@settings_options("data_dir", "host", "port", "public_url")
def studio(settings: Settings, as_json: bool) -> None:
    """Print a link that opens the studio, and where its admin token is."""
    from xbyte_live.cli.serve import show_login

    show_login(settings, as_json=as_json)


@click.command()
@json_option
@settings_options()
def doctor(settings: Settings, as_json: bool) -> None:
    """Check settings, ports, database, store, chain, facilitator and keys."""
    from xbyte_live.cli.doctor import examine

    if not run(examine(settings, as_json=as_json)):
        raise click.exceptions.Exit(1)
