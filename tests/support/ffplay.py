"""``ffplay`` where it is installed, and everywhere FFmpeg's decoder from a wheel under its name."""

import os
import shutil
from pathlib import Path

import imageio_ffmpeg

KINDS = ("decoder", "ffplay") if shutil.which("ffplay") else ("decoder",)


def path_to(kind: str, folder: Path) -> str:
    """A ``PATH`` on which ``ffplay`` is that kind; the decoder plays the last of its arguments."""
    if kind == "decoder":
        script = folder / "ffplay"
        decode = f'"{imageio_ffmpeg.get_ffmpeg_exe()}" -nostdin -loglevel error -i "$url" -f null -'
        script.write_text(f"#!/bin/sh\nfor url; do :; done\nexec {decode}\n")
        script.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"
    return os.environ["PATH"]
