"""What channel ledger tests run in processes of their own: ``python -m`` this."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from tests.support.ledger_children import NOW, PAYEE, PAYER, say
from xbyte_live.evm.channels import ChannelConfig, channel_id_of
from xbyte_live.payments.ledger.channel import Channel, NewDelivery, OnChain
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.storage.db.engine import Database

CHAIN_ID, NETWORK = 84532, "eip155:84532"
AMOUNT = 100
WINDOW = 120.0
Work = Callable[..., Awaitable[None]]


def a_config(number: int = 1, **changes: Any) -> ChannelConfig:
    """A channel that differs by its salt."""
    fields: dict[str, Any] = {
        "payer": PAYER,
        "payer_authorizer": PAYER,
        "receiver": PAYEE,
        "receiver_authorizer": PAYEE,
        "token": "0x036cbd53842c5426634e7929541ec2318f3dcf7e",
        "withdraw_delay": 900,
        "salt": f"0x{number:064x}",
    }
    return ChannelConfig(**(fields | changes))


async def opened(
    ledger: ChannelLedger, number: int = 1, balance: int = 10**9, at: float = NOW, **chain: Any
) -> Channel:
    """A channel as the chain is said to have it."""
    config = a_config(number)
    seen = OnChain(
        balance,
        chain.get("claimed", 0),
        chain.get("withdraw_requested_at", 0),
        chain.get("refund_nonce", 0),
        at,
    )
    return await ledger.sync(NETWORK, config, channel_id_of(config, CHAIN_ID), seen)


def a_voucher(number: int, ceiling: int, **changes: Any) -> NewDelivery:
    """The voucher of a channel up to a ceiling, for a resource of its own."""
    fields: dict[str, Any] = {
        "channel_id": channel_id_of(a_config(number), CHAIN_ID),
        "ceiling": ceiling,
        "signature": f"0x{ceiling:0130x}",
        "amount": AMOUNT,
        "slug": "plasma",
        "resource": f"/hls/plasma/source/{ceiling}.ts",
        "size": 1000,
    }
    return NewDelivery(**(fields | changes))


async def charge_all(ledger: ChannelLedger, vouchers: str, channels: str) -> None:
    """Charge the same vouchers of the same channels as everybody; says those that were ours."""
    news = [
        a_voucher(channel, ceiling * AMOUNT)
        for ceiling in range(1, int(vouchers) + 1)
        for channel in range(1, int(channels) + 1)
    ]
    for new, charging in zip(
        news, await asyncio.gather(*(ledger.charge(new) for new in news)), strict=True
    ):
        assert charging.outcome in ("charged", "again"), charging
        if charging.outcome == "charged":
            say(f"{new.channel_id}-{new.ceiling}")


async def charge_next(ledger: ChannelLedger, name: str, times: str) -> None:
    """Charge whatever voucher is next of channel 1, for resources of our own; says ceilings."""
    for _ in range(int(times)):
        channel = await ledger.find(a_voucher(1, 0).channel_id)
        assert channel is not None
        ceiling = channel.charged + AMOUNT
        charging = await ledger.charge(a_voucher(1, ceiling, resource=f"/{name}/{ceiling}"))
        assert charging.outcome in ("charged", "mismatch"), charging
        if charging.outcome == "charged":
            say(ceiling)


async def charge_until_killed(ledger: ChannelLedger, channels: str) -> None:
    """Charge voucher after voucher of each channel, and say each once it is charged."""

    async def worker(number: int) -> None:
        channel = await ledger.find(a_voucher(number, 0).channel_id)
        assert channel is not None
        for ceiling in count(channel.charged + AMOUNT, AMOUNT):
            charging = await ledger.charge(a_voucher(number, ceiling))
            assert charging.outcome == "charged", charging
            say(f"{number}-{ceiling}")

    await asyncio.gather(*(worker(number) for number in range(1, int(channels) + 1)))


async def main(work: Work, url: str, *args: str) -> None:
    database = Database(url)
    await database.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    await work(ChannelLedger(database, retry_window=WINDOW, clock=lambda: NOW), *args)
    await database.stop()


if __name__ == "__main__":
    works: dict[str, Work] = {
        work.__name__: work for work in (charge_all, charge_next, charge_until_killed)
    }
    asyncio.run(main(works[sys.argv[1]], *sys.argv[2:]))
