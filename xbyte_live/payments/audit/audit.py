"""Part: proves money rule 6 from the database, then from the chain, and lists what disagrees.

The database is summed on one snapshot; the chain is asked afterwards. A channel on which the two
seem to differ is looked at again, its row before and after the chain, so that what is only on its
way is no disagreement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection

from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.evidence import Evidence
from xbyte_live.payments.audit import sql
from xbyte_live.payments.audit.findings import Audit, Findings, Sums
from xbyte_live.payments.audit.onchain import Comparison
from xbyte_live.payments.ledger import totals
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, SCHEME_EXACT
from xbyte_live.storage.db.engine import Database

PAUSE = 2.0  # seconds before what seems to differ is looked at again

Stage = Literal["database", "sums", "chain"]
STAGES: tuple[Stage, ...] = ("database", "sums", "chain")
Progress = Callable[[Stage, int, int], None]
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the database says, of one snapshot."""

    sums: dict[tuple[str, _Key], Sums]
    networks: list[str]


class Auditor:
    """``chains`` maps CAIP-2 networks to what can be proven on them."""

    def __init__(
        self, database: Database, chains: Mapping[str, Evidence], *, pause: float = PAUSE
    ) -> None:
        self._database = database
        self._chains = dict(chains)
        self._pause = pause

    async def audit(self, *, chain: bool = True, progress: Progress | None = None) -> Audit:
        """Check everything; ``progress`` is told how much of a stage is done, from any thread.

        Raises ``DatabaseUnavailable``; a chain that gives no answer is ``unchecked`` instead.
        """
        advance = progress or _ignore
        found, recorded = await self._database.read(lambda db: _database(db, advance))
        unchecked: list[str] = []
        if chain:
            for network in recorded.networks:
                try:
                    await self._compare(network, recorded, found, unchecked, advance)
                except ChainUnavailable as error:
                    unchecked.append(f"{network}: {error}")
        sums = [recorded.sums[key] for key in sorted(recorded.sums)]
        return Audit(sums, tuple(found.kept), found.more, chain, tuple(unchecked))

    async def _compare(
        self,
        network: str,
        recorded: _Recorded,
        found: Findings,
        unchecked: list[str],
        advance: Progress,
    ) -> None:
        chain = self._chains.get(network)
        if chain is None:
            raise ChainUnavailable(f"no RPC node is known; set rpc_urls={network}=URL")
        await chain.check(int(network.removeprefix("eip155:")))
        comparison = Comparison(self._database, chain, network, found, self._pause)
        total = await comparison.size()

        def step(done: int) -> None:
            advance("chain", done, total)

        payees = await comparison.channels(step)
        for (asset, pay_to), receiver in (await comparison.payees(payees)).items():
            key = (SCHEME_CHANNELS, (network, asset, pay_to))
            if key in recorded.sums:
                recorded.sums[key] = replace(
                    recorded.sums[key], claimed=receiver.claimed, settled=receiver.settled
                )
        await comparison.actions(step)
        await comparison.charges(step)
        if comparison.lost:
            unchecked.append(
                f"{network}: {comparison.lost} transactions are unknown to the node and lie too "
                "far back to be looked for"
            )


def _database(db: Connection, advance: Progress) -> tuple[Findings, _Recorded]:
    found = Findings()
    total, done = sql.counted(db), 0

    def step(rows: int) -> None:
        nonlocal done
        done += rows
        advance("database", done, total)

    sql.check_channels(db, found, step)
    sql.check_sessions(db, found)
    sql.check_credits(db, found)
    sql.check_earnings(db, found)
    sql.check_charges(db, found)
    advance("sums", 0, 1)
    sql.check_sums(db, found)
    advance("sums", 1, 1)
    return found, _Recorded(_sums(db), sql.networks(db))


def _sums(db: Connection) -> dict[tuple[str, _Key], Sums]:
    """The sums of each payee by scheme, as recorded."""
    sums: dict[tuple[str, _Key], Sums] = {}

    def add(scheme: str, key: _Key, **amounts: Any) -> None:
        network, asset, pay_to = key
        none = Sums(scheme=scheme, network=network, asset=asset, pay_to=pay_to)
        sums[scheme, key] = replace(sums.get((scheme, key), none), **amounts)

    for *key, count, charged, claimed in totals.channel_sums(db):
        add(SCHEME_CHANNELS, _key(*key), count=count, charged=charged, claimed=claimed)
    for *key, _, paid, waiting in totals.action_sums(db):
        add(SCHEME_CHANNELS, _key(*key), settled=paid, in_flight=waiting)
    for *key, count, settled, waiting in totals.charge_sums(db):
        add(
            SCHEME_EXACT, _key(*key), count=count, charged=settled + waiting, claimed=settled,
            settled=settled, in_flight=waiting,
        )  # fmt: skip
    return sums


def _key(network: str, asset: str, pay_to: str) -> _Key:
    return network, asset, pay_to


def _ignore(_: Stage, __: int, ___: int) -> None:
    """Progress that nobody asked for."""
