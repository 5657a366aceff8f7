"""Pure: payment channels as the ledger has them, and vouchers that are charged to them."""

from dataclasses import dataclass
from typing import Any, Literal

from xbyte_live.evm.channels import ChannelConfig, Claim, Voucher, signed_by_key

Outcome = Literal["charged", "again", "mismatch", "balance", "stale", "missing", "forged"]


@dataclass(frozen=True, slots=True)
class OnChain:
    """A channel as the contract has it; ``at`` is when it was read (Unix seconds)."""

    balance: int
    claimed: int
    withdraw_requested_at: int
    refund_nonce: int
    at: float


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as the ledger has it; amounts are cumulative atomic units of its token."""

    id: int
    channel_id: str
    network: str
    config: ChannelConfig
    opening: int
    charged: int
    signed: int
    signature: str
    held: int
    reserved: int
    epoch: int
    archived: int
    chain: OnChain
    created_at: float
    charged_at: float | None

    def charged_for(self, new: "NewDelivery", at: float) -> "Channel":
        """The channel once a delivery is charged; its highest voucher stays the highest."""
        higher = new.ceiling > self.signed
        return Channel(
            self.id,
            self.channel_id,
            self.network,
            self.config,
            self.opening,
            new.ceiling,
            new.ceiling if higher else self.signed,
            new.signature if higher else self.signature,
            self.held,
            self.reserved,
            self.epoch,
            self.archived,
            self.chain,
            self.created_at,
            at,
        )

    @property
    def spendable(self) -> int:
        """How far ``charged`` may go."""
        return self.chain.balance - self.reserved

    @property
    def claimable(self) -> int:
        """The total that may be claimed now: what was charged and is not a session's rest."""
        return self.charged - self.held

    @property
    def voucher(self) -> Voucher:
        """The highest voucher."""
        return Voucher(self.channel_id, self.signed, self.signature)

    @property
    def claim(self) -> Claim:
        """The row that claims all that may be claimed."""
        return Claim(self.config, self.voucher, self.claimable)


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A voucher for one delivery; ``ceiling`` is what it signs for in all.

    It is charged if the chain was read at ``oldest`` (Unix seconds) or later, and if the key
    ``signed_by`` (its address and the chain's id) has signed it; ``None``: that was checked.
    """

    channel_id: str
    ceiling: int
    signature: str
    amount: int
    slug: str
    resource: str
    size: int
    oldest: float = 0.0
    signed_by: tuple[str, int] | None = None

    @property
    def is_signed(self) -> bool:
        """Whether the voucher was signed by the key it should be signed by."""
        if self.signed_by is None:
            return True
        voucher = Voucher(self.channel_id, self.ceiling, self.signature)
        return signed_by_key(voucher, *self.signed_by)


@dataclass(frozen=True, slots=True)
class Charging:
    """The outcome of charging a voucher, and the channel as it then stands.

    It is ``None`` where the channel is ``missing`` or the voucher ``forged``: not signed as it
    should be.

    ``charged``: now; ``again``: before, for the same bytes, within the retry window;
    ``mismatch``: it does not follow on what was charged; ``balance``: the channel has too little,
    or its payer is about to take it out; ``stale``: the chain was read too long ago to tell.
    ``epoch`` names with the ceiling the delivery that was charged.
    """

    outcome: Outcome
    channel: Channel | None
    epoch: int = 0


def channel_of(row: Any) -> Channel:
    """A row of ``channels`` as a value."""
    return Channel(
        id=row.id,
        channel_id=row.channel_id,
        network=row.network,
        config=ChannelConfig(
            payer=row.payer,
            payer_authorizer=row.payer_authorizer,
            receiver=row.pay_to,
            receiver_authorizer=row.receiver_authorizer,
            token=row.asset,
            withdraw_delay=row.withdraw_delay,
            salt=row.salt,
        ),
        opening=row.opening,
        charged=row.charged,
        signed=row.signed,
        signature=row.signature,
        held=row.held,
        reserved=row.reserved,
        epoch=row.epoch,
        archived=row.archived,
        chain=OnChain(
            balance=row.balance,
            claimed=row.claimed,
            withdraw_requested_at=row.withdraw_requested_at,
            refund_nonce=row.refund_nonce,
            at=row.synced_at,
        ),
        created_at=row.created_at,
        charged_at=row.charged_at,
    )


def channel_from(fields: dict[str, Any]) -> Channel:
    """A channel of its own fields, as JSON has them."""
    config, chain = ChannelConfig(**fields["config"]), OnChain(**fields["chain"])
    return Channel(**{**fields, "config": config, "chain": chain})
