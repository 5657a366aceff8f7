"""Part: compares the channels, actions and charges of one network with its chain."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select

from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.authorizations import Transfer
from xbyte_live.evm.channel_contract import ChannelState, Receiver
from xbyte_live.evm.channels import channel_id_of, read_config
from xbyte_live.evm.evidence import Evidence, Landed, Logged
from xbyte_live.payments.audit.channel_rules import Change, check_chain, check_mirror, is_mirrored
from xbyte_live.payments.audit.findings import Findings
from xbyte_live.payments.audit.sql import PAGE, channel_page
from xbyte_live.payments.ledger.channel import Channel, OnChain, channel_of
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import actions, channels, charges

CLAIMS = 20  # claims looked at together; each may name a hundred channels
BEFORE = 3600.0  # seconds before its charge in which a transfer may have been made


class Comparison:
    """Goes through the rows of one network; ``lost`` counts what could not be looked up."""

    def __init__(
        self, database: Database, chain: Evidence, network: str, found: Findings, pause: float
    ) -> None:
        self._database = database
        self._chain = chain
        self._network = network
        self._found = found
        self._pause = pause
        self._done = 0
        self.lost = 0

    async def size(self) -> int:
        """How many rows there are to go through."""
        queries = [
            select(func.count()).where(table.c.network == self._network, *where)
            for table, where in (
                (channels, ()),
                (actions, (actions.c.state == "settled",)),
                (charges, (charges.c.state == "settled",)),
            )
        ]
        return await self._database.read(
            lambda db: sum(int(db.execute(query).scalar_one()) for query in queries)
        )

    # Channels

    async def channels(self, step: Callable[[int], None]) -> Counter[tuple[str, str]]:
        """Every channel against the chain; what is claimed there for each asset and payee."""
        claimed: Counter[tuple[str, str]] = Counter()
        after = 0
        while page := await self._page(after):
            at = time.time()
            states = await self._chain.states([channel.channel_id for channel in page])
            doubtful = []
            for channel in page:
                seen = _on_chain(states[channel.channel_id], at)
                claimed[channel.config.token, channel.config.receiver] += seen.claimed
                fine = check_chain(channel, seen, channel, Findings())
                if not (fine and is_mirrored(channel.chain, seen)):
                    doubtful.append(channel.channel_id)
            if doubtful:
                await self._look_again(doubtful)
            self._advance(step, len(page))
            after = page[-1].id
        return claimed

    async def _page(self, after: int) -> list[Channel]:
        return await self._database.read(lambda db: channel_page(db, after, self._network))

    async def _look_again(self, ids: Sequence[str]) -> None:
        """The final word on channels that seem to differ: row, chain, row."""
        await asyncio.sleep(self._pause)
        before, at = await self._rows(ids), time.time()
        states = await self._chain.states(ids)
        after = await self._rows(ids)
        differ = []
        for channel_id in ids:
            seen = _on_chain(states[channel_id], at)
            check_chain(before[channel_id], seen, after[channel_id], self._found)
            if not is_mirrored(before[channel_id].chain, seen):
                differ.append(channel_id)
        if not differ:
            return
        since = min(before[channel_id].chain.at for channel_id in differ)
        history = await self._chain.history(differ, since)
        for channel_id in differ:
            changes = [change for event in history.get(channel_id, ()) if (change := _did(event))]
            seen = _on_chain(states[channel_id], at)
            check_mirror(before[channel_id], seen, changes, self._found)

    async def _rows(self, ids: Sequence[str]) -> dict[str, Channel]:
        query = select(channels).where(channels.c.channel_id.in_(ids))
        return await self._database.read(
            lambda db: {c.channel_id: c for c in map(channel_of, db.execute(query))}
        )

    async def payees(
        self, claimed: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], Receiver]:
        """Each payee's totals, which hold at least what our channels and actions add to them."""
        paid = await self._database.read(lambda db: _paid_out(db, self._network))
        totals: dict[tuple[str, str], Receiver] = {}
        for asset, pay_to in sorted({*claimed, *paid}):
            receiver = await self._chain.receiver(pay_to, asset)
            totals[asset, pay_to] = receiver
            about = f"payee {pay_to} on {self._network}"
            if receiver.claimed < claimed.get((asset, pay_to), 0):
                self._found.add(
                    "payee.claimed", about, claimed[asset, pay_to], receiver.claimed,
                    "the chain shows less claimed for it than of its channels",
                )  # fmt: skip
            if receiver.settled > receiver.claimed:
                self._found.add(
                    "payee.settled", about, receiver.claimed, receiver.settled,
                    "the chain paid it more than was claimed for it",
                )  # fmt: skip
            if receiver.settled < paid.get((asset, pay_to), 0):
                self._found.add(
                    "action.settle", about, paid[asset, pay_to], receiver.settled,
                    "payouts are recorded that the chain does not show",
                )  # fmt: skip
        return totals

    # Actions

    async def actions(self, step: Callable[[int], None]) -> None:
        """Settled deposits, refunds, claims and returns show on the chain."""
        after = 0
        while page := await self._settled_actions(after):
            hashes = [row.tx_hash for row in page if row.kind in _BY_TRANSACTION and row.tx_hash]
            landed = await self._chain.landed(hashes)
            totals: dict[str, int] = {}
            for row in page:
                if row.kind == "claim":
                    totals |= _claimed_by(row)
            totals |= {row.channel_id: 0 for row in page if row.kind == "refund"}
            states = await self._chain.states(list(totals)) if totals else {}
            for row in page:
                self._check_action(row, landed, states)
            self._advance(step, len(page))
            after = page[-1].id

    def _check_action(
        self, row: Any, landed: Mapping[str, Landed], states: Mapping[str, ChannelState]
    ) -> None:
        about = f"{row.kind} {row.id}"
        match row.kind:
            case "claim":
                for channel_id, total in _claimed_by(row).items():
                    if states[channel_id].claimed < total:
                        self._found.add(
                            "action.claim", f"{about}, channel {channel_id}",
                            total, states[channel_id].claimed,
                            "it is recorded as done and the chain shows less claimed",
                        )  # fmt: skip
            case "refund":
                nonce = int(row.identity.rpartition(":")[2])
                if states[row.channel_id].refund_nonce <= nonce:
                    self._found.add(
                        "action.refund", f"{about}, channel {row.channel_id}",
                        nonce + 1, states[row.channel_id].refund_nonce,
                        "it is recorded as done and the chain knows nothing of it",
                    )  # fmt: skip
            case "deposit" | "return":
                did = landed.get(row.tx_hash or "")
                if did is None or not _shows(did, row):
                    self._found.add(
                        f"action.{row.kind}", about, row.amount, 0,
                        "it is recorded as done and its transaction did not do it",
                    )  # fmt: skip

    async def _settled_actions(self, after: int) -> Sequence[Any]:
        a = actions.c
        query = (
            select(a.id, a.kind, a.network, a.asset, a.pay_to, a.payer, a.channel_id, a.identity,
                   a.amount, a.document, a.tx_hash)
            .where(a.id > after, a.network == self._network, a.state == "settled")
            .order_by(a.id)
            .limit(CLAIMS)
        )  # fmt: skip
        return await self._database.read(lambda db: db.execute(query).all())

    # Charges

    async def charges(self, step: Callable[[int], None]) -> None:
        """Settled ``exact`` charges moved their money, in the transaction they name."""
        after = 0
        while page := await self._settled_charges(after):
            landed = await self._chain.landed([row.tx_hash for row in page if row.tx_hash])
            for row in page:
                did = landed.get(row.tx_hash or "")
                if not (did and _paid_by(did, row)):
                    await self._look_up(row)
            self._advance(step, len(page))
            after = page[-1].id

    async def _look_up(self, row: Any) -> None:
        """A charge whose transaction does not show its transfer: does any other?"""
        transfer = Transfer(
            *(row.asset, row.payer, row.pay_to, row.amount, row.nonce, row.valid_before),
            not_before=row.created_at - BEFORE,
        )
        try:
            fate = await self._chain.fate(transfer)
        except ChainUnavailable:
            await self._chain.receiver(row.pay_to, row.asset)  # raises if it is the node
            self.lost += 1
            return
        if fate.kind != "moved":
            self._found.add(
                "charge.unpaid", f"charge {row.id}", row.amount, 0,
                "it is settled and no transaction used its authorization",
            )  # fmt: skip

    async def _settled_charges(self, after: int) -> Sequence[Any]:
        c = charges.c
        query = (
            select(c.id, c.asset, c.payer, c.pay_to, c.amount, c.nonce, c.valid_before,
                   c.created_at, c.tx_hash)
            .where(c.id > after, c.network == self._network, c.state == "settled")
            .order_by(c.id)
            .limit(PAGE)
        )  # fmt: skip
        return await self._database.read(lambda db: db.execute(query).all())

    def _advance(self, step: Callable[[int], None], rows: int) -> None:
        self._done += rows
        step(self._done)


_BY_TRANSACTION = ("deposit", "return")


def _paid_out(db: Connection, network: str) -> dict[tuple[str, str], int]:
    """The highest total each payee's recorded payouts brought it to: the end of their identity."""
    a = actions.c
    query = select(a.asset, a.pay_to, a.identity, a.id).where(
        a.network == network, a.kind == "settle", a.state == "settled"
    )
    paid: dict[tuple[str, str], int] = {}
    after = 0
    while rows := db.execute(query.where(a.id > after).order_by(a.id).limit(PAGE)).all():
        for row in rows:
            key = (row.asset, row.pay_to)
            paid[key] = max(paid.get(key, 0), int(row.identity.rpartition(":")[2]))
        after = rows[-1].id
    return paid


def _claimed_by(row: Any) -> dict[str, int]:
    """The totals that a claim brings its channels to."""
    chain_id = int(row.network.removeprefix("eip155:"))
    return {
        channel_id_of(read_config(claim["voucher"]["channel"]), chain_id): int(
            claim["totalClaimed"]
        )
        for claim in json.loads(row.document)["payload"]["claims"]
    }


def _shows(did: Landed, row: Any) -> bool:
    """Whether a transaction made a deposit, or gave a session's rest back."""
    if row.kind == "deposit":
        return (row.channel_id, row.amount) in did.deposits
    return (row.asset, row.pay_to, row.payer, row.amount) in did.moved


def _paid_by(did: Landed, row: Any) -> bool:
    """Whether a transaction used a charge's authorization and moved its money."""
    used = (row.asset, row.payer, row.nonce.lower()) in did.used
    return used and (row.asset, row.payer, row.pay_to, row.amount) in did.moved


def _did(event: Logged) -> Change | None:
    """What an event changed of what is mirrored."""
    match event.name:
        case "Deposited":
            return Change(event.amount, 0, 0)
        case "Claimed":
            return Change(0, event.amount, 0)
        case "Refunded":
            return Change(-event.amount, 0, 1, withdrawal=True)
        case "WithdrawFinalized":
            return Change(-event.amount, 0, 0, withdrawal=True)
        case "WithdrawInitiated":
            return Change(0, 0, 0, withdrawal=True)
    return None


def _on_chain(state: ChannelState, at: float) -> OnChain:
    return OnChain(
        state.balance, state.claimed, state.withdraw_requested_at, state.refund_nonce, at
    )
