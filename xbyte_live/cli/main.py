"""Wiring: the program itself: its name, its commands, and how it says what went wrong."""

from typing import Any

import click

from xbyte_live import __version__
from xbyte_live.cli.catalog import add, list_items, package, remove, set_price
from xbyte_live.cli.ledger import ledger
from xbyte_live.cli.pay import bench, pay, play, proxy, session
from xbyte_live.cli.serve_command import doctor, serve, studio
from xbyte_live.cli.stream import stream
from xbyte_live.cli.trying import demo, devnet
from xbyte_live.cli.wallet import wallet
from xbyte_live.errors import XByteError


class Main(click.Group):
    """Says every deliberate error in one line and ends with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a traceback is shown only for our own bugs."""
        try:
            return super().invoke(ctx)
        except XByteError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xbyte-live")
def main() -> None:
    """Live feeds and files as HLS, sold by the byte over x402.

    Try it: `xbyte-live demo` needs nothing but this machine.
    """


for command in (
    *(demo, serve, package, add, list_items, set_price, remove, stream),
    *(pay, proxy, play, bench, session, wallet, devnet, ledger, studio, doctor),
):
    main.add_command(command)
