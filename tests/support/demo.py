"""The demo as a process of its own, the way a person runs it."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import free_port
from xbyte_live.devnet.accounts import GAS

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Demo:
    """`xbyte-live demo` over ``data_dir``; ``described`` is what it says of itself."""

    data_dir: Path
    port: int = field(default_factory=free_port)
    rpc_port: int = field(default_factory=free_port)
    rtmp_port: int = field(default_factory=free_port)
    described: dict[str, Any] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run it until it says that everything answers."""
        file = self.data_dir / "demo.json"
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live", "demo", "--data-dir", str(self.data_dir)),
            *("--port", str(self.port), "--rpc-port", str(self.rpc_port)),
            *("--rtmp-port", str(self.rtmp_port)),
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(240):
            while not file.exists():
                assert self._process.returncode is None, "the demo ended by itself"
                await asyncio.sleep(0.1)  # the file is what it promises, there is no event
        self.described = json.loads(file.read_text())

    async def end(self) -> None:
        """Ctrl-C; nothing of its session may be left."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        session = os.getsid(process.pid)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 30)
        assert not (self.data_dir / "demo.json").exists()
        assert [pid for pid in _running() if _session_of(pid) == session] == []
        assert not any(str(self.data_dir) in _command_of(pid) for pid in _running())

    async def pay(self, *args: str) -> str:
        """Run `xbyte-live pay` with the demo's wallet; its output."""
        config = str(self.data_dir.parent / "config")
        wallet = {"XBYTE_WALLET_KEY": self.described["payer_key"], "XDG_CONFIG_HOME": config}
        return await _cli("pay", *args, environment=wallet)

    async def manage(self, *args: str) -> str:
        """Run `xbyte-live` over its data; its output."""
        network, rpc_url = self.described["network"], self.described["rpc_url"]
        settings = {
            "XBYTE_DATA_DIR": str(self.data_dir),
            "XBYTE_PORT": str(self.port),
            "XBYTE_PAY_TO": self.described["pay_to"],
            "XBYTE_NETWORKS": network,
            "XBYTE_RPC_URLS": f"{network}={rpc_url}",
            "XBYTE_GAS_KEY": GAS.key,
        }
        return await _cli(*args, environment=settings)


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo of this worker keeps its data: its sample titles are made once."""
    return tmp_path_factory.mktemp("demo") / "demo"


async def _cli(*args: str, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live", *args),
        env=os.environ | environment,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()


def _running() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
