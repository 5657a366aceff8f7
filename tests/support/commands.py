"""``xbyte-live`` commands of a payer, run as processes of their own."""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount

from tests.support.server import Server


@dataclass(slots=True)
class Person:
    """Somebody with a wallet and a home, who pays a server."""

    server: Server
    account: LocalAccount
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    async def said(self, *words: str) -> tuple[int, str, str]:
        """Run a command: its exit code, and what it said on both ways."""
        own = {
            "XBYTE_WALLET_KEY": "0x" + bytes(self.account.key).hex(),
            "XDG_CONFIG_HOME": str(self.home),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live", *words),
            env=self.server.environment | own | self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 90)
        return process.returncode or 0, out.decode(), err.decode()

    async def run(self, *words: str) -> Any:
        """What a command says with ``--json``; it must end well."""
        code, out, err = await self.said(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    async def refused(self, *words: str) -> str:
        """Why a command does not do it, in one line."""
        code, out, err = await self.said(*words)
        assert (code, out, err.count("\n")) == (1, "", 1), (code, out, err)
        return err
