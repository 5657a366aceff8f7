"""Adapter: builds the scripts of the pages from their sources, when these have changed."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xbyte_live.devnet import npm
from xbyte_live.errors import DevnetError

PLAYER = Path(__file__).parent
STATIC = PLAYER.parent / "web" / "static"
SOURCES = (
    "package.json", "package-lock.json", "tsconfig.json", "tsconfig.types.json", "build.mjs", "src",
)  # fmt: skip
STAMP = ".sources"  # in the built folder: the digest of what it was built from
BUILD_TIMEOUT_S = 300


def build(player: Path = PLAYER, static: Path = STATIC, cache_dir: Path | None = None) -> bool:
    """Build ``player`` into ``static``; whether there was anything to do.

    What was there before is replaced as a whole, or stays when the build fails. Blocking.
    Raises ``DevnetError`` when Node.js or npm packages cannot be had, or the sources do not build.
    """
    digest = _digest(player)
    stamp = static / STAMP
    if stamp.is_file() and stamp.read_text() == digest:
        return False
    lock = json.loads((player / "package-lock.json").read_text())
    modules = npm.install("player", lock, cache_dir, dev=False)
    static.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=static.parent, prefix=".static-") as draft:
        made = _build_in(Path(draft), player, modules)
        (made / STAMP).write_text(digest)
        shutil.rmtree(static, ignore_errors=True)
        made.rename(static)
    return True


def _digest(player: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(player):
        digest.update(file.relative_to(player).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(player: Path) -> Iterator[Path]:
    for name in SOURCES:
        source = player / name
        yield from (
            sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        )


def _build_in(draft: Path, player: Path, modules: Path) -> Path:
    """Build a copy, laid out like the package, so that the player's own folder stays as it is."""
    copy, made = draft / "player", draft / "static"
    for file in _files(player):
        target = copy / file.relative_to(player)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (copy / "node_modules").symlink_to(modules, target_is_directory=True)
    try:
        subprocess.run(
            (npm.node_tools().node, "build.mjs", "--out", str(made)),
            cwd=copy,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise DevnetError("the scripts of the pages took too long to build") from None
    except subprocess.CalledProcessError as error:
        raise DevnetError(
            f"the scripts of the pages do not build: {error.stderr.strip()}"
        ) from None
    return made


def main() -> None:
    """Build, and end with a sentence and status 1 where that cannot be done."""
    try:
        build()
    except (DevnetError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
