"""Wiring: `python -m xbyte_live.cli` is `xbyte-live`."""

from xbyte_live.cli.program import main

if __name__ == "__main__":
    main()
