"""Wiring: the program: its commands, each loaded when it is called, and its error messages."""

import importlib
from typing import Any

import click

from xbyte_live import __version__
from xbyte_live.errors import XByteError

# Each command's module in this folder, and the line ``--help`` shows of it: one command imports
# its own module and no other, and help imports none.
COMMANDS: dict[str, tuple[str, str]] = {
    "add": ("package", "Put any file on sale as it is, by the bytes of each range."),
    "bench": (
        "bench",
        "Measure your own server: viewers who pay, each through a channel of its own.",
    ),
    "demo": (
        "demo",
        "Show the whole path here: a local chain, sample titles, a broadcast, a funded wallet.",
    ),
    "devnet": ("demo", "Run a local chain with test money until interrupted."),
    "doctor": ("doctor", "Check settings, ports, database, store, chain, facilitator and keys."),
    "ledger": ("ledger", "The books: what was charged, and bringing it to the chain."),
    "list": ("catalog", "List what is for sale."),
    "package": ("package", "Package media files, or all in a folder, as HLS and put them on sale."),
    "pay": ("pay", "Buy a playlist or an object into a file, within a budget."),
    "play": ("play", "Play what URL sells, paying as it plays."),
    "price": ("catalog", "Change what an item costs: `price SLUG 0.001` is dollars per MB."),
    "proxy": ("play", "Offer what URL sells to any player on this machine, paying as it plays."),
    "remove": ("catalog", "Take items off sale; what was sold stays for its retry window."),
    "serve": ("serve", "Serve the catalog and take payments."),
    "session": (
        "session",
        "Buy a URL that any player plays, for a budget; what is left of it goes back.",
    ),
    "stream": ("stream", "Live streams: make them, their keys, and see how they are doing."),
    "studio": ("serve", "Print a link that opens the studio, and where its admin token is."),
    "wallet": ("wallet", "Keep the key that pays, encrypted (or in XBYTE_WALLET_KEY)."),
}


class Main(click.Group):
    """The commands of ``COMMANDS``; a deliberate error is one line and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return the command, ``None`` if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"xbyte_live.cli.{COMMANDS[cmd_name][0]}")
        commands = (c for c in vars(module).values() if isinstance(c, click.Command))
        return next(command for command in commands if command.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help lines of all commands, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in sorted(COMMANDS.items())])

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
