"""The command line; every command imports what it needs when it runs."""

from xbyte_live.cli.main import main as main
