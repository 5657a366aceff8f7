"""Adapter: anvil as a child process that saves its state and never outlives us."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from xbyte_live.devnet import guard
from xbyte_live.errors import DevnetError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = guard.END_WAIT_S + 5.0
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG")


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
