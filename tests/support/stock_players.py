"""Players people have: ``ffplay`` and VLC where they are installed, and FFmpeg's decoder always."""

import os
import shutil
from pathlib import Path

import imageio_ffmpeg

# A player by the name `xbyte-live play` knows it by, and which program that is.
PLAYERS = [("ffplay", "decoder")]
PLAYERS += [(name, name) for name in ("ffplay", "vlc") if shutil.which(name)]

_DECODER = f'"{imageio_ffmpeg.get_ffmpeg_exe()}" -nostdin -loglevel error -i "$url" -f null -'
_VLC = 'cvlc --intf dummy --vout dummy --aout dummy "$@" 2>/dev/null'
_NOT_AS_ROOT = "runuser -u nobody -- env HOME=/tmp "  # VLC refuses to run as root


def path_to(program: str, folder: Path) -> str:
    """A ``PATH`` on which the player is that program; the decoder plays its last argument."""
    if program == "decoder":
        _write(folder / "ffplay", f"for url; do :; done\nexec {_DECODER}")
    elif program == "vlc":
        _write(folder / "vlc", f"exec {_NOT_AS_ROOT if os.geteuid() == 0 else ''}{_VLC}")
    else:
        return os.environ["PATH"]
    return f"{folder}:{os.environ['PATH']}"


def _write(script: Path, lines: str) -> None:
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)
