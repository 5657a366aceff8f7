"""Part: sessions, for players that cannot pay: bought once, drawn segment by segment."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import ItemGone, XByteError
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger, Drawn, NewDraw
from xbyte_live.payments.ledger.session import EndedSession, Session, SessionTotals
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.settlement.session_refunds import SessionRefunds
from xbyte_live.payments.x402.order import digest_of, read_order, token_of
from xbyte_live.payments.x402.schemes import Charged

BATCH = 100  # sessions that are ended in one go
KNOWN, FRESH = 8192, 2.0  # sessions that are remembered, and for how many seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionPurchase:
    """The session a payment bought, with its token, and the response headers.

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
        refunds: SessionRefunds | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._draws = draws
        self._charges = charges
        self._gate = gate
        self._secret = secret
        self._refunds = refunds
        self._clock = clock
        self._known: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._looked_at = 0  # charges up to this number all have their session

    async def buy(self, headers: Mapping[str, str], sale: Sale) -> SessionPurchase:
        """Take the payment of a request for the order in a sale, once however often it comes.

        Raises as ``Gate.charge`` does, and ``ItemGone`` if the session it bought is over.
        """
        if sale.order is None:
            raise AssertionError("a session is sold without an order")
        response = await self._gate.charge(headers, sale)
        charged = response.charged
        if charged is None:
            return SessionPurchase(None, "", response.headers, response.answer)
        session = await self._session_of(charged, sale)
        self._known.pop(session.digest, None)
        if session.is_over(self._clock()):
            raise ItemGone("this session is over")
        token = "" if sale.order.digest else token_of(self._secret, charged.origin)
        return SessionPurchase(session, token, response.headers)

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
        """The amount a session was first bought for, in atomic units."""
        return await self._ledger.price(session)

    async def draw(self, new: NewDraw) -> Drawn:
        """Draw the price of bytes from a session; on return the draw is durable."""
        return await self._draws.draw(new)

    async def end(self, session: Session) -> EndedSession | None:
        """End a session and give back what is left; ``None`` if it had ended."""
        ended = await self._ledger.end(session)
        self._known.pop(session.digest, None)
        await self._send_refunds()
        return ended

    async def drain(self) -> None:
        """Wait for the refunds that are on their way to the chain."""
        if self._refunds is not None:
            await self._refunds.drain()

    async def run(self, interval: float = 15.0) -> None:
        """Sweep for ever, every ``interval`` seconds; a failure is logged and tried again."""
        while True:
            try:
                await self.sweep()
            except XByteError as error:
                log.error("sessions cannot be swept: %s", error)
            except Exception:
                log.exception("sessions cannot be swept")
            await asyncio.sleep(interval)

    async def sweep(self) -> None:
        """Open sessions that were paid for, end expired ones, and send the refunds that are due."""
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
        await self._send_refunds()

    async def _session_of(self, charged: Charged, sale: Sale) -> Session:
        """The session a payment opened; an ``exact`` charge opens it here, a voucher has before."""
        if charged.charge_id is not None and sale.order is not None:
            charge = await self._charges.get(charged.charge_id)
            if charge is not None:
                return await self._ledger.paid(charge, sale.order)
        found = await self._ledger.bought(charged.origin)
        if found is None:
            raise AssertionError("a payment was charged for a session that is not there")
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

    async def _send_refunds(self) -> None:
        if self._refunds is None:
            return
        try:
            await self._refunds.send_due()
        except XByteError as error:
            log.warning("session refunds cannot be sent now: %s", error)
