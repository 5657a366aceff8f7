"""Part: sessions, for players that cannot pay: bought once, drawn segment by segment."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from xbyte_live.errors import ItemGone, XByteError
from xbyte_live.payments.gate import Gate, Paid, Sale
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger, Drawn, NewDraw
from xbyte_live.payments.ledger.session import EndedSession, Session, SessionTotals
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.x402.order import digest_of, read_order, token_of

BATCH = 100  # sessions that are ended in one go
KNOWN, FRESH = 8192, 2.0  # sessions that are remembered, and for how many seconds

log = logging.getLogger(__name__)


class Returner(Protocol):
    """What gives money back on chain."""

    async def send_due(self) -> int:
        """Try what is due once; how many there were."""


@dataclass(frozen=True, slots=True)
class Bought:
    """What a payment for a session came to: the session with its token, and response headers.

    The token is empty where more was added. ``answer`` goes back in place of it all: the payment
    asked for its money back.
    """

    session: Session | None
    token: str
    headers: dict[str, str]
    answer: dict[str, Any] | None = None


class Sessions:
    """Sells, keeps and ends sessions; ``secret`` makes their tokens, as in the ledger."""

    def __init__(
        self,
        ledger: SessionLedger,
        draws: DrawLedger,
        charges: ChargeLedger,
        gate: Gate,
        *,
        secret: bytes,
        returns: Returner | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._draws = draws
        self._charges = charges
        self._gate = gate
        self._secret = secret
        self._returns = returns
        self._clock = clock
        self._known: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._looked_at = 0  # charges up to this number all have their session

    async def buy(self, headers: Mapping[str, str], sale: Sale) -> Bought:
        """Take the payment of a request for the order in a sale, once however often it comes.

        Raises as ``Gate.admit`` does, and ``ItemGone`` if the session it bought is over.
        """
        if sale.order is None:
            raise AssertionError("a session is sold without an order")
        receipt = await self._gate.admit(headers, sale)
        if receipt.answer is not None or receipt.paid is None:
            return Bought(None, "", receipt.headers, receipt.answer)
        session = await self._session_of(receipt.paid, sale)
        self._known.pop(session.digest, None)
        if session.is_over(self._clock()):
            raise ItemGone("this session is over")
        token = "" if sale.order.digest else token_of(self._secret, receipt.paid.origin)
        return Bought(session, token, receipt.headers)

    async def find(self, token: str) -> Session | None:
        """The session of a token, unless it is over; as it was a moment ago."""
        digest, now = digest_of(token), self._clock()
        if digest is None:
            return None
        found, read_at = self._known.get(digest, (None, 0.0))
        if found is None or not 0 <= now - read_at < FRESH:
            found = await self._ledger.find(digest)
            if found is None:
                return None
            self._known[digest] = (found, now)
            self._known.move_to_end(digest)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return None if found.is_over(now) else found

    async def state(self, token: str) -> Session | None:
        """The session of a token as it stands now, unless it is over."""
        digest = digest_of(token)
        found = await self._ledger.find(digest) if digest else None
        return None if found is None or found.is_over(self._clock()) else found

    async def totals(self) -> SessionTotals:
        """The sessions that have not ended; for metrics."""
        return await self._ledger.totals()

    async def price(self, session: Session) -> int:
        """What a session was first bought for."""
        return await self._ledger.price(session)

    async def draw(self, new: NewDraw) -> Drawn:
        """Have a session pay for bytes; on return it is durable."""
        return await self._draws.draw(new)

    async def end(self, session: Session) -> EndedSession | None:
        """End a session and give back what is left; ``None`` if it had ended."""
        ended = await self._ledger.end(session)
        self._known.pop(session.digest, None)
        await self._send_returns()
        return ended

    async def run(self, interval: float = 15.0) -> None:
        """Clear up for ever; what fails is logged and tried again."""
        while True:
            try:
                await self.sweep()
            except XByteError as error:
                log.error("sessions cannot be cleared up: %s", error)
            except Exception:
                log.exception("sessions cannot be cleared up")
            await asyncio.sleep(interval)

    async def sweep(self) -> None:
        """Open what was paid for and not opened, end what expired, send what is to go back."""
        await self._open_paid()
        while expired := await self._ledger.expired(BATCH):
            for session in expired:
                self._known.pop(session.digest, None)
                ended = await self._ledger.end(session, expired=True)
                if ended is not None:
                    log.info(
                        "session %d expired with %d units left (%s)",
                        session.id,
                        ended.session.returned,
                        ended.way,
                    )
        await self._send_returns()

    async def _session_of(self, paid: Paid, sale: Sale) -> Session:
        if paid.charge is not None and sale.order is not None:
            return await self._ledger.paid(paid.charge, sale.order)
        found = await self._ledger.bought(paid.origin)
        if found is None:
            raise AssertionError("a voucher was charged for a session that is not there")
        return found

    async def _open_paid(self) -> None:
        """Give those their session whose payment was settled just before a crash."""
        while True:
            found, seen = await self._ledger.unopened(self._looked_at)
            for number in found:
                charge = await self._charges.get(number)
                order = read_order(charge.resource) if charge is not None else None
                if charge is None or order is None:
                    log.error("charge %d paid for a session that cannot be told", number)
                    continue
                session = await self._ledger.paid(charge, order)
                log.info("charge %d had paid for session %d", number, session.id)
            done = not found or seen == self._looked_at
            self._looked_at = seen
            if done:
                return

    async def _send_returns(self) -> None:
        if self._returns is None:
            return
        try:
            await self._returns.send_due()
        except XByteError as error:
            log.warning("nothing can be given back now: %s", error)
