"""Adapter: where a payer gets back what a channel has left, whatever is on sale by then."""

import re

from eth_utils.address import to_checksum_address
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.config import Settings
from xbyte_live.errors import ItemNotFound, PaymentRefused
from xbyte_live.money import MIB, PRICE_DECIMALS, Asset, Price
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.x402.headers import read_payment
from xbyte_live.payments.x402.order import Buyer
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, ChannelTerms, PaymentMethod
from xbyte_live.pricing.quotes import Quote
from xbyte_live.web.common.responses import (
    JSON,
    NO_STORE,
    base_url,
    json_reply,
    payment_required,
)

_CHANNEL = re.compile(r"0x[0-9a-f]{64}")


class RefundsApi:
    """``GET /channels/{id}``: a protected resource of the channel's payee that sells nothing.

    A refund is asked for like at any other (x402 ``scheme_batch_settlement_evm``), and this one
    is still there when an item is gone.
    """

    def __init__(self, *, settings: Settings, channels: ChannelLedger, gate: Gate) -> None:
        self._settings = settings
        self._channels = channels
        self._gate = gate

    def routes(self) -> list[Route]:
        """Its route."""
        return [Route("/channels/{channel_id}", self.answer)]

    async def answer(self, request: Request) -> Response:
        """402 with the terms of the channel; for a refund request, its result."""
        channel_id = request.path_params["channel_id"].lower()
        known = _CHANNEL.fullmatch(channel_id) is not None
        channel = await self._channels.find(channel_id) if known else None
        if channel is None:
            raise ItemNotFound("no channel of that id is known here")
        sale = self._sale(request, channel)
        try:
            payment = read_payment(request.headers, max_bytes=self._settings.max_payment_header)
            wanted = payment is not None and payment.payload.get("type") == "refund"
            if not wanted or request.method != "GET":
                raise PaymentRefused("payment_required")
            paid = await self._gate.charge(request.headers, sale)
        except PaymentRefused as refusal:
            return payment_required(self._gate.challenge(sale, refusal))
        return json_reply(paid.answer or {}, {**NO_STORE, **paid.headers})

    def _sale(self, request: Request, channel: Channel) -> Sale:
        payee = to_checksum_address(channel.config.receiver)
        return Sale(
            resource=f"/channels/{channel.channel_id}",
            url=f"{base_url(request, self._settings.public_url)}/channels/{channel.channel_id}",
            slug="",
            size=MIB,  # a requirement has an amount; a refund costs nothing
            quotes=(Quote(MIB, Price(1), payee),),
            description="what a channel has left, to be given back",
            mime_type=JSON,
            retry_only=True,
            deposit=self._settings.deposit_units,
            buyer=Buyer(SCHEME_CHANNELS, channel.network, channel.config.payer),
            methods=(self._as_opened(channel),),
        )

    def _as_opened(self, channel: Channel) -> PaymentMethod:
        """The way to pay with a channel: its own terms, which no setting changes."""
        config, network = channel.config, channel.network
        token, authorizer = map(to_checksum_address, (config.token, config.receiver_authorizer))
        known = (m.asset for m in self._gate.methods if m.asset.network == network)
        asset = next(
            (asset for asset in known if asset.address.lower() == config.token),
            Asset(network, token, "", "", PRICE_DECIMALS, ""),  # one that is not taken any more
        )
        terms = ChannelTerms(authorizer, config.withdraw_delay)
        return PaymentMethod(SCHEME_CHANNELS, asset, channel=terms)
