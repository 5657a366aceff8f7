"""Wiring: sessions, for players that cannot pay."""

from collections.abc import Mapping, Sequence

from xbyte_live.config import Settings
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.payee import own_payee
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import Facilitator
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.ledger.draws import DrawLedger
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.sessions import Sessions
from xbyte_live.payments.settlement.session_refunds import SessionRefunds
from xbyte_live.storage.db.engine import Database


def build_budgets(settings: Settings, database: Database, secret: bytes) -> SessionLedger:
    """The ledger of sessions; ``secret`` makes their tokens."""
    payee = own_payee(settings)
    return SessionLedger(
        database,
        secret=secret,
        payees=() if payee is None else (payee.address,),
        retry_window=settings.retry_window,
    )


def build_sessions(
    settings: Settings,
    database: Database,
    secret: bytes,
    *,
    budgets: SessionLedger,
    charges: ChargeLedger,
    gate: Gate,
    facilitator: Facilitator,
    chains: Mapping[str, ChainReader],
    assets: Sequence[Asset],
    rows: ActionLedger,
    lease: float,
) -> Sessions:
    """The part that sells sessions, of collaborators that are there already."""
    payee = own_payee(settings)
    returns = None
    if payee is not None:
        returns = SessionRefunds(rows, payee, facilitator, chains, assets, lease=lease)
    return Sessions(
        budgets,
        DrawLedger(database, retry_window=settings.retry_window),
        charges,
        gate,
        secret=secret,
        returns=returns,
    )
