"""Part: watches the balance that pays gas on each network, and raises an alarm when it is low."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from xbyte_live.errors import XByteError
from xbyte_live.money import format_decimal
from xbyte_live.payments.facilitators.local import LocalFacilitator

EVERY = 60.0  # seconds
COIN_DECIMALS = 18

log = logging.getLogger(__name__)


class GasWatch:
    """Reads the balance on each network; below ``low`` wei is an alarm."""

    def __init__(self, payer: LocalFacilitator, networks: Sequence[str], *, low: int) -> None:
        self._payer = payer
        self._networks = tuple(networks)
        self._low = low
        self._levels: dict[str, int] = {}

    @property
    def levels(self) -> Mapping[str, int]:
        """Wei by network, as last read."""
        return self._levels

    @property
    def low(self) -> tuple[str, ...]:
        """The networks where gas runs low."""
        return tuple(network for network, wei in self._levels.items() if wei < self._low)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Read the balances; log when one falls below what is enough, and when it is enough."""
        before = set(self.low)
        for network in self._networks:
            try:
                self._levels[network] = await self._payer.gas_balance(network)
            except XByteError as error:
                log.warning("the gas left on %s is not known: %s", network, error)
        for network in set(self.low) - before:
            left = format_decimal(self._levels[network], COIN_DECIMALS)
            log.error("only %s coins are left for gas on %s: send the gas key some", left, network)
        for network in before - set(self.low):
            log.info("there is enough for gas on %s again", network)
