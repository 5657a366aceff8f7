"""`xbyte-live ledger settle`, and the server that settles by itself."""

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from tests.support.chain import SharedDevnet
from tests.support.channel_parties import House, a_house, a_key
from tests.support.server import a_server
from xbyte_live.cli import main
from xbyte_live.devnet.chain import DevChain


def settle(house: House, data_dir: Path, gas_key: str, *args: str) -> tuple[int, str]:
    env = {
        "XBYTE_DATA_DIR": str(data_dir),
        "XBYTE_PAY_TO": house.pay_to,
        "XBYTE_NETWORKS": house.network,
        "XBYTE_RPC_URLS": f"{house.network}={house.chain.rpc_url}",
        "XBYTE_GAS_KEY": gas_key,
    }
    result = CliRunner().invoke(main, ["ledger", "settle", *args], env=env)
    return result.exit_code, result.output


async def test_all_that_was_charged_is_claimed_and_paid_out_and_shown(
    tmp_path: Path, devnet: SharedDevnet, chain: DevChain
) -> None:
    key = a_key()
    url = f"sqlite:///{tmp_path / 'xbyte.db'}"
    async with a_house(url, chain, devnet.asset, gas_key=key) as house:
        for charged in (1_000, 230_000):
            await house.opened(1_000_000, charged)

        code, said = await asyncio.to_thread(settle, house, tmp_path, key, "--json")
        moved = json.loads(said)

        assert code == 0
        assert [(m["kind"], m["dollars"], m["state"]) for m in moved] == [
            ("claim", "0.231", "settled"),
            ("settle", "0.231", "settled"),
        ]
        assert all(m["transaction"].startswith("0x") for m in moved)
        assert await chain.usdc_balance(house.pay_to) == 231_000
        code, said = await asyncio.to_thread(settle, house, tmp_path, key)
        assert code == 0
        assert "nothing" in said


async def test_a_server_claims_and_pays_out_by_itself_also_after_it_was_killed(
    tmp_path: Path, devnet: SharedDevnet, chain: DevChain
) -> None:
    key = a_key()
    server_dir = tmp_path / "server"
    async with (
        a_house(f"sqlite:///{tmp_path / 'mine.db'}", chain, devnet.asset, gas_key=key) as mine,
        a_server(
            tmp_path,
            chain.rpc_url,
            mine.pay_to,
            key,
            claim_interval="1",
            settle_interval="1",
            watch_interval="1",
        ) as server,
        a_house(
            f"sqlite:///{server_dir / 'xbyte.db'}",
            chain,
            devnet.asset,
            gas_key=key,
            pay_to=mine.pay_to,
        ) as house,
    ):
        payer = await house.opened(1_000_000, 10_000)

        async def paid(units: int) -> None:
            async with asyncio.timeout(60):
                while await chain.usdc_balance(house.pay_to) != units:
                    await asyncio.sleep(0.1)

        await paid(10_000)
        await server.kill()
        await house.charge(payer, 5_000)
        await server.start()
        await paid(15_000)
        await house.call(payer, "initiateWithdraw", 985_000)
        async with asyncio.timeout(60):
            while (await house.channel(payer)).chain.withdraw_requested_at == 0:
                await asyncio.sleep(0.1)
