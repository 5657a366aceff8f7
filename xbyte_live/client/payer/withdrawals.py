"""Adapter: refunds of a channel by its server, and withdrawals by the contract without it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx2
from eth_account.signers.local import LocalAccount

from xbyte_live.client.payer.budget import dollars
from xbyte_live.client.payer.chain import (
    Sent,
    chain_time,
    deposit_call,
    finalize_withdraw_call,
    initiate_withdraw_call,
    send_call,
)
from xbyte_live.client.payer.channel import PayerChannel, distrusted, refunded, synced, under_way
from xbyte_live.client.payer.channel_lock import ChannelLock, Turn
from xbyte_live.client.payer.channel_recovery import Refusal, after
from xbyte_live.client.payer.channel_reports import (
    ChannelRequirement,
    Refund,
    read_correction,
    read_refund,
)
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import Offers, read_challenge
from xbyte_live.client.payer.vouchers import sign_refund
from xbyte_live.errors import (
    ChainUnavailable,
    ChannelDistrusted,
    ConfigError,
    DeliveryFailed,
    PaymentPending,
    PaymentRefused,
    TermsRefused,
)
from xbyte_live.evm.channels import AMOUNT_MISMATCH, BELOW_CLAIMED, BUSY, CONTRACT
from xbyte_live.runtime.json import MAX_DOCUMENT

_TRIES = 4
_WAIT = 1.0  # seconds, where the server does not say


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A step of a withdrawal: done, or when (Unix seconds) it can be finished."""

    amount: int
    finalize_at: int
    transaction: str


class Withdrawals:
    """Closes the channels of one payer; ``client`` asks servers and never pays."""

    def __init__(
        self,
        payer: Payer,
        turns: ChannelLock,
        client: httpx2.AsyncClient,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._payer = payer
        self._turns = turns
        self._client = client
        self._sleep = sleep

    async def refund(
        self, url: str, amount: int | None = None, *, only: PayerChannel | None = None
    ) -> tuple[PayerChannel, Refund]:
        """Ask the server of a priced ``url`` for ``amount`` back, or for all it did not charge.

        Where that sells nothing any more, the channels that were opened there are asked for at
        ``/channels/{id}``; with ``only`` that one alone. Raises ``PaymentRefused`` with its code
        when it says no, ``PaymentPending`` while it cannot say yes, ``DeliveryFailed`` when the
        URL is of nothing that is sold, ``ConfigError`` when no channel was opened there.
        """
        url, terms = await self._terms(url, only)
        requirement = self._payer.channel_way(terms)
        channel = self._payer.holdings.channel_of(requirement)
        turn = await self._turns.take(channel)
        try:
            if not turn.channel.may_refund:
                raise ConfigError("there is nothing left in the channel to that server")
            refund = await self._refund(turn, url, requirement, terms, amount)
            return turn.channel, refund
        finally:
            turn.release()

    async def begin_withdrawal(
        self, channel: PayerChannel, account: LocalAccount, rpc_url: str
    ) -> Withdrawal:
        """Announce on chain that what was not signed away is taken back.

        From a server that was caught everything is, which it did not claim. It can be finished
        after the channel's delay. Raises ``ConfigError`` when there is nothing, or no gas.
        """
        turn = await self._turns.take(channel)
        try:
            found = await turn.on_chain()
            if found is None:
                raise ChainUnavailable("the node does not say how the channel stands")
            channel = synced(turn.channel, found, now=0)
            if channel.withdrawn_at:
                await turn.keep(channel, sync=True)
                return Withdrawal(found.withdrawing, channel.withdrawn_at, "")
            amount = found.balance - (found.claimed if channel.fault else channel.charged)
            if amount <= 0:
                raise ConfigError("there is nothing left in the channel to withdraw")
            data = initiate_withdraw_call(channel.config, amount)
            sent = await self._send(account, rpc_url, channel, data)
            finalize_at = sent.at + channel.config.withdraw_delay
            await turn.keep(replace(channel, withdrawn_at=finalize_at), sync=True)
            return Withdrawal(amount, finalize_at, sent.transaction)
        finally:
            turn.release()

    async def finish_withdrawal(
        self, channel: PayerChannel, account: LocalAccount, rpc_url: str
    ) -> Withdrawal:
        """Take back what was announced; raises ``ConfigError`` before its time has come."""
        turn = await self._turns.take(channel)
        try:
            before = await turn.on_chain()
            if before is None:
                raise ChainUnavailable("the node does not say how the channel stands")
            channel = synced(turn.channel, before, now=0)
            if not channel.withdrawn_at:
                await turn.keep(channel, sync=True)
                raise ConfigError("no withdrawal was begun; leave out --finalize to begin one")
            now = await chain_time(rpc_url, channel.network)
            if now < channel.withdrawn_at:
                raise ConfigError(
                    f"the withdrawal can be finished in {channel.withdrawn_at - now} seconds"
                )
            data = finalize_withdraw_call(channel.config)
            sent = await self._send(account, rpc_url, channel, data)
            found = await turn.on_chain()
            if found is not None:
                await turn.keep(synced(channel, found, now=0), sync=True)
            left = found.balance if found is not None else before.balance - before.withdrawing
            return Withdrawal(before.balance - left, 0, sent.transaction)
        finally:
            turn.release()

    async def deposit(
        self,
        requirement: ChannelRequirement,
        amount: int,
        account: LocalAccount,
        rpc_url: str,
        now: float,
    ) -> tuple[PayerChannel, str]:
        """Put ``amount`` into the channel that pays a requirement, with gas of the payer's own.

        A deposit that was signed before and may still be taken is sent instead of another one;
        raises ``ConfigError`` when that has another amount.
        """
        new = self._payer.holdings.channel_of(requirement)
        turn = await self._turns.take(new)
        try:
            order = turn.channel.deposit if under_way(turn.channel, now) else None
            if order is None:
                order = self._payer.holdings.order_deposit(requirement, turn.channel, amount, now)
            elif order.amount != amount:
                raise ConfigError(
                    f"a deposit of {dollars(order.amount)} was signed before and can still be "
                    f"taken for {order.valid_before - int(now)} seconds; deposit that, or wait"
                )
            await turn.keep(replace(turn.channel, deposit=order), sync=True)
            data = deposit_call(turn.channel.config, order)
            sent = await self._send(account, rpc_url, turn.channel, data)
            await turn.look(now)
            return turn.channel, sent.transaction
        finally:
            turn.release()

    async def _refund(
        self,
        turn: Turn,
        url: str,
        requirement: ChannelRequirement,
        terms: Offers,
        amount: int | None,
    ) -> Refund:
        for _ in range(_TRIES):
            name, value = sign_refund(
                self._payer.holdings.signer, requirement, turn.channel, amount, terms
            )
            response = await self._get(url, {name: value})
            if response.status_code == 402:
                refused = read_challenge(response.headers.get("payment-required"), response.content)
                if not await self._mended(turn, refused):
                    code = refused.error or "payment_required"
                    raise PaymentRefused(code, f"the server does not refund ({code})")
            elif response.status_code in (429, 500, 502, 503, 504):
                await self._sleep(_WAIT)
            else:
                refund = read_refund(response.headers)
                if refund is None:
                    raise DeliveryFailed(
                        f"the server answered {response.status_code} to a refund, and not what "
                        "became of it"
                    )
                await turn.keep(refunded(turn.channel, refund.amount), sync=True)
                await turn.look(0)
                return refund
        raise PaymentPending(int(_WAIT))

    async def _mended(self, turn: Turn, terms: Offers) -> bool:
        """Whether the server refused for a reason that the next try does not have."""
        if terms.error == BUSY:
            await self._sleep(_WAIT)
            return True
        if terms.error not in (AMOUNT_MISMATCH, BELOW_CLAIMED):
            return False
        channel = turn.channel
        refusal = Refusal(
            code=terms.error,
            correction=read_correction(terms, channel.channel_id),
            identity="",
            presented_before=False,
            key=channel.config.payer_authorizer,
            chain_id=int(channel.network.partition(":")[2]),
        )
        try:
            channel, verdict = after(channel, refusal, await turn.on_chain(), now=0)
        except ChannelDistrusted as error:
            await turn.keep(distrusted(turn.channel, str(error)), sync=True)
            raise
        await turn.keep(channel, sync=True)
        return verdict == "again"

    async def _terms(self, url: str, only: PayerChannel | None) -> tuple[str, Offers]:
        """Where a refund can be asked for, and the terms there."""
        first = 0
        for place in (url, *self._places(url, only)):
            response = await self._get(place, {})
            if response.status_code == 402:
                header = response.headers.get("payment-required")
                terms = read_challenge(header, response.content)
                if only is None or self._is_of(terms, only):
                    return place, terms
            first = first or response.status_code
        raise DeliveryFailed(
            f"the server answered {first} where something was sold before; "
            "name the URL of what it sells now"
        )

    def _is_of(self, terms: Offers, channel: PayerChannel) -> bool:
        """Whether that channel is the one that pays there."""
        try:
            found = self._payer.holdings.channel_of(self._payer.channel_way(terms))
        except TermsRefused:
            return False
        return found.channel_id == channel.channel_id

    def _places(self, url: str, only: PayerChannel | None) -> list[str]:
        """Where a server like ours knows the channels that were opened with it."""
        here = _origin(url)
        found = self._payer.channels.values() if only is None else (only,)
        return [f"{here}/channels/{c.channel_id}" for c in found if _origin(c.url) == here]

    async def _get(self, url: str, headers: dict[str, str]) -> httpx2.Response:
        try:
            async with self._client.stream("GET", url, headers=headers) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_DOCUMENT:
                        break
        except (httpx2.TransportError, httpx2.InvalidURL):
            raise DeliveryFailed("the server does not answer") from None
        kept = {k: v for k, v in response.headers.items() if k.startswith("payment-")}
        return httpx2.Response(response.status_code, headers=kept, content=body)

    async def _send(
        self, account: LocalAccount, rpc_url: str, channel: PayerChannel, data: str
    ) -> Sent:
        return await send_call(account, rpc_url, channel.network, CONTRACT, data, sleep=self._sleep)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
