"""Wiring: the commands that bring what channels were charged to the chain now."""

from dataclasses import asdict, dataclass

from xbyte_live.cli.output import print_json, print_table
from xbyte_live.config import Settings
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.build import open_till
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.server.service import open_shelf


@dataclass(frozen=True, slots=True)
class Moved:
    """One claim or payout: dollars, in which transaction, and how it stands."""

    kind: str
    network: str
    pay_to: str
    dollars: str
    state: str
    transaction: str
    error: str


async def settle_now(settings: Settings, *, as_json: bool) -> bool:
    """Claim and pay out all there is, and show it; whether nothing is left open."""
    async with (
        open_shelf(settings) as shelf,
        open_till(settings, shelf.database) as till,
    ):
        done = await till.clearing.claims.claim_now()
        done += await till.clearing.claims.settle_now()
    moved = [_moved(action) for action in done if action.state != "failed" or action.error]
    if as_json:
        print_json([asdict(one) for one in moved])
    elif moved:
        heads = ("", "payee", "network", "dollars", "state", "transaction")
        rows = [
            (m.kind, m.pay_to, m.network, m.dollars, m.error or m.state, m.transaction)
            for m in moved
        ]
        print_table(heads, rows)
    else:
        print_table(("",), [("nothing was charged that is not claimed and paid out",)])
    return all(action.state == "settled" for action in done)


def _moved(action: Action) -> Moved:
    return Moved(
        kind=action.kind,
        network=action.network,
        pay_to=action.pay_to,
        dollars=format_decimal(action.amount, PRICE_DECIMALS),
        state=action.state,
        transaction=action.tx_hash or "",
        error=(action.error or "") if action.state != "settled" else "",
    )
