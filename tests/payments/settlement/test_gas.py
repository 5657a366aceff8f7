"""The alarm is raised once when gas runs low, and taken back."""

import logging

import pytest

from xbyte_live.errors import FacilitatorUnavailable
from xbyte_live.payments.settlement.gas import GasWatch

NETWORK = "eip155:84532"


class Purse:
    """A key with coins, on a node that may be away."""

    def __init__(self, wei: int) -> None:
        self.wei = wei
        self.away = False

    async def gas_balance(self, network: str) -> int:
        if self.away:
            raise FacilitatorUnavailable(f"the RPC node of {network} gave no answer")
        return self.wei


async def test_low_gas_is_an_alarm_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xbyte_live.payments.settlement.gas")
    purse = Purse(10**16)
    watch = GasWatch(purse, [NETWORK], low=5 * 10**14)

    async def said(wei: int | None) -> list[str]:
        caplog.clear()
        purse.away = wei is None
        purse.wei = purse.wei if wei is None else wei
        await watch.look()
        return [f"{r.levelname} {r.getMessage()}" for r in caplog.records]

    assert await said(10**16) == []
    assert watch.low == ()
    (alarm,) = await said(4 * 10**14)
    assert alarm.startswith("ERROR only 0.0004 coins are left for gas")
    assert watch.low == (NETWORK,)
    assert await said(3 * 10**14) == []
    assert (await said(None))[0].startswith("WARNING")
    assert watch.levels == {NETWORK: 3 * 10**14}
    (over,) = await said(10**15)
    assert over.startswith("INFO")
    assert watch.low == ()
