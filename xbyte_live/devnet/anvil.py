"""Adapter: finds anvil, the EVM node of the local chain, or fetches it with npm."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from xbyte_live.devnet import npm
from xbyte_live.errors import DevnetError

ANVIL_VERSION = "1.7.1"
LEAST_VERSION = (1, 7)

# By `sys.platform` and `platform.machine()`: the package and, where known, its digest.
_PACKAGES = {
    ("linux", "x86_64"): (
        "@foundry-rs/anvil-linux-amd64",
        "sha512-+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    ),
    ("linux", "aarch64"): ("@foundry-rs/anvil-linux-arm64", None),
    ("darwin", "x86_64"): ("@foundry-rs/anvil-darwin-amd64", None),
    ("darwin", "arm64"): ("@foundry-rs/anvil-darwin-arm64", None),
}


def find_anvil(cache_dir: Path | None = None) -> Path:
    """An anvil that runs: the one on ``PATH`` if recent enough, else npm's, fetched when needed.

    Blocking, for seconds the first time. Raises ``DevnetError`` saying what to do.
    """
    on_path = shutil.which("anvil")
    if on_path is not None and (anvil_version(Path(on_path)) or (0,)) >= LEAST_VERSION:
        return Path(on_path).resolve()
    return _fetch_anvil(cache_dir)


def anvil_version(binary: Path) -> tuple[int, ...] | None:
    """The version ``binary`` says it has, or ``None`` when it does not run or says none."""
    try:
        answer = subprocess.run(
            (str(binary), "--version"), capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def _fetch_anvil(cache_dir: Path | None) -> Path:
    machine = (sys.platform, platform.machine())
    wanted = ".".join(str(part) for part in LEAST_VERSION)
    if machine not in _PACKAGES:
        raise DevnetError(
            f"npm has no anvil for {'/'.join(machine)}: put anvil {wanted} or newer on PATH"
        )
    package, integrity = _PACKAGES[machine]
    try:
        modules = npm.install("anvil", _lock(package, integrity), cache_dir)
    except DevnetError as error:
        raise DevnetError(f"{error}, or put anvil {wanted} or newer on PATH") from None
    binary = modules / package / "bin" / "anvil"
    if anvil_version(binary) is None:
        raise DevnetError(
            f"npm's anvil does not run on this machine: put anvil {wanted} or newer on PATH"
        )
    return binary


def _lock(package: str, integrity: str | None) -> dict[str, Any]:
    entry = {"version": ANVIL_VERSION} | ({"integrity": integrity} if integrity else {})
    return {
        "name": "xbyte-live-anvil",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {
            "": {"name": "xbyte-live-anvil", "dependencies": {package: ANVIL_VERSION}},
            f"node_modules/{package}": entry,
        },
    }
