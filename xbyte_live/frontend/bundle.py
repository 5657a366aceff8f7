"""Adapter: bundles the scripts of the pages with Node.js when their sources have changed."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xbyte_live.devnet import npm
from xbyte_live.errors import DevnetError

FRONTEND = Path(__file__).parent
STATIC = FRONTEND.parent / "web" / "static"
SOURCES = (
    "package.json", "package-lock.json", "tsconfig.json", "tsconfig.types.json", "build.mjs", "src",
)  # fmt: skip
STAMP = ".sources"  # file in the built folder: the digest of its sources
DRAFT = ".static-"  # prefix of the folders in which it is built
BEFORE = "before"  # in such a folder: the build that is being replaced
BUILD_TIMEOUT_S = 300


def build(frontend: Path = FRONTEND, static: Path = STATIC, cache_dir: Path | None = None) -> bool:
    """Build the folder ``frontend`` into ``static``; false where that is up to date.

    The earlier build is replaced as a whole, or stays when this one fails; the next build restores
    it where one was killed in between. One process builds at a time, others wait. Blocking.
    Raises ``DevnetError`` when Node.js or npm packages cannot be had, or the sources do not build.
    """
    digest = _digest(frontend)
    static.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(static.parent):
        _put_back(static)
        stamp = static / STAMP
        if stamp.is_file() and stamp.read_text() == digest:
            return False
        lock = json.loads((frontend / "package-lock.json").read_text())
        modules = npm.install("frontend", lock, cache_dir, dev=False)
        with tempfile.TemporaryDirectory(dir=static.parent, prefix=DRAFT) as draft:
            made = _build_in(Path(draft), frontend, modules)
            (made / STAMP).write_text(digest)
            if static.exists():
                static.rename(Path(draft) / BEFORE)
            made.rename(static)
    return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Shut out other builds into a folder, of this process and of others."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _put_back(static: Path) -> None:
    """Undo what a killed build left half done."""
    for draft in static.parent.glob(f"{DRAFT}*"):
        if not static.exists() and (draft / BEFORE).is_dir():
            (draft / BEFORE).rename(static)
        shutil.rmtree(draft, ignore_errors=True)


def _digest(frontend: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(frontend):
        digest.update(file.relative_to(frontend).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(frontend: Path) -> Iterator[Path]:
    for name in SOURCES:
        source = frontend / name
        yield from (
            sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        )


def _build_in(draft: Path, frontend: Path, modules: Path) -> Path:
    """Build a copy, laid out like the package, so that the folder of the sources stays as it is."""
    copy, made = draft / "frontend", draft / "static"
    for file in _files(frontend):
        target = copy / file.relative_to(frontend)
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
