"""Wiring: `python -m xbyte_live` is `xbyte-live`."""

from xbyte_live.cli.main import main

if __name__ == "__main__":
    main()
