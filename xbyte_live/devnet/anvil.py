"""Adapter: anvil, the EVM node of the local chain: found, or fetched with npm, and run."""

import asyncio
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from xbyte_live.devnet import guard, npm
from xbyte_live.errors import DevnetError

ANVIL_VERSION = "1.7.1"
LEAST_VERSION = (1, 7)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = guard.END_WAIT_S + 5.0
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG")

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


class AnvilProcess:
    """One running anvil, behind a guard process of its own session (so Ctrl-C is ours alone)."""

    def __init__(self, process: asyncio.subprocess.Process, pid: int, rpc_url: str) -> None:
        self._process = process
        self.pid = pid
        self.rpc_url = rpc_url

    @classmethod
    async def start(
        cls, binary: Path, data_dir: Path, *, port: int, chain_id: int, block_time: int | None
    ) -> "AnvilProcess":
        """Start ``binary`` on 127.0.0.1:``port`` (0: any free one) with its state in ``data_dir``.

        Returns when it listens. Raises ``DevnetError`` with anvil's reason when it does not.
        """
        lock, state = data_dir / "chain.lock", data_dir / "chain.json"
        command = [str(binary), *_arguments(state, port, chain_id, block_time)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", guard.__file__, str(lock), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                pid, address = await _listening(process, port, state)
        except TimeoutError:
            await _end(process)
            raise DevnetError("anvil did not start to listen in time; try again") from None
        except BaseException:
            await _end(process)
            raise
        return cls(process, pid, f"http://{address}")

    async def stop(self) -> None:
        """End it and wait until its state is saved; doing so twice is fine."""
        await _end(self._process)

    async def ended(self) -> int:
        """Wait until it has ended, for whatever reason, and return its exit status."""
        return await self._process.wait()


def _arguments(state: Path, port: int, chain_id: int, block_time: int | None) -> list[str]:
    arguments = {
        "--host": "127.0.0.1",
        "--port": port,
        "--chain-id": chain_id,
        "--state": state,
        "--state-interval": 60,
        # Bounds memory and the saved file, and keeps anvil from writing into the home directory.
        "--prune-history": 256,
        "--transaction-block-keeper": 4096,
        "--threads": 2,
        "--color": "never",
    }
    if block_time is not None:
        arguments["--block-time"] = block_time
    return [str(part) for pair in arguments.items() for part in pair]


async def _listening(
    process: asyncio.subprocess.Process, port: int, state: Path
) -> tuple[int, str]:
    assert process.stdout is not None
    pid = 0
    said: list[str] = []
    while line := await process.stdout.readline():
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("pid "):
            pid = int(text.split()[1])
        elif text.startswith(guard.READY.decode()):
            return pid, text.split()[-1]
        elif text:
            said.append(text)
    raise DevnetError(_why(await process.wait(), said, port, state))


def _why(status: int, said: list[str], port: int, state: Path) -> str:
    words = " ".join(said)
    if status == guard.BUSY:
        return f"another local chain runs in {state.parent}: stop it, or use another directory"
    if "Address already in use" in words:
        return f"port {port} is taken: stop what uses it, or choose another with --rpc-port"
    if str(state) in words:
        return f"the saved chain {state} cannot be read: delete it to begin with a new one"
    return f"anvil did not start: {words[-300:] or f'it ended with status {status}'}"


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # the kernel then ends anvil
        await process.wait()
