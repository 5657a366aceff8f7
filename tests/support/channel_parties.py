"""A payer, a payee and all that brings their channels to a real chain, on a real database."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.support.chain import ETHER
from xbyte_live.devnet.accounts import BATCH_SETTLEMENT_ADDRESS
from xbyte_live.devnet.artifacts import load_artifact
from xbyte_live.devnet.chain import DevChain
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.channel_contract import ChannelChain
from xbyte_live.evm.channels import (
    COLLECTOR,
    ChannelConfig,
    ChannelPayment,
    Deposit,
    Voucher,
    channel_id_of,
    deposit_nonce,
    voucher_digest,
)
from xbyte_live.evm.keys import Authorizer
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Facilitator
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.channel import Channel, NewDelivery
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.claims import ClaimLedger
from xbyte_live.payments.settlement.channel_actions import ActionPolicy, Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.proofs import Proofs
from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database

DELAY = 900
RECEIVE = {
    "ReceiveWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def a_key() -> str:
    """A fresh private key."""
    return "0x" + os.urandom(32).hex()


class Payer:
    """An account with a channel to one payee; signs as the scheme says."""

    def __init__(
        self, account: LocalAccount, asset: Asset, pay_to: str, authorizer: str, **changes: Any
    ) -> None:
        self.account = account
        self.asset = asset
        fields: dict[str, Any] = {
            "payer": account.address.lower(),
            "payer_authorizer": account.address.lower(),
            "receiver": pay_to.lower(),
            "receiver_authorizer": authorizer,
            "token": asset.address.lower(),
            "withdraw_delay": DELAY,
            "salt": "0x" + os.urandom(32).hex(),
        }
        self.config = ChannelConfig(**(fields | changes))
        self.channel_id = channel_id_of(self.config, asset.chain_id)

    @property
    def tuple(self) -> tuple[Any, ...]:
        """The config as the contract takes it."""
        return tuple(self.config.wire().values())

    def voucher(self, ceiling: int) -> Voucher:
        """A voucher up to a ceiling."""
        digest = voucher_digest(self.channel_id, ceiling, self.asset.chain_id)
        signed = self.account.unsafe_sign_hash(digest)
        return Voucher(self.channel_id, ceiling, "0x" + signed.signature.hex().removeprefix("0x"))

    def deposit(self, amount: int, ceiling: int = 1, valid_for: float = 600) -> ChannelPayment:
        """A deposit with its first voucher."""
        salt = "0x" + os.urandom(32).hex()
        valid_before = int(time.time() + valid_for)
        domain = {
            "name": self.asset.name,
            "version": self.asset.version,
            "chainId": self.asset.chain_id,
            "verifyingContract": self.asset.address,
        }
        message = {
            "from": self.account.address,
            "to": COLLECTOR,
            "value": amount,
            "validAfter": 0,
            "validBefore": valid_before,
            "nonce": deposit_nonce(self.channel_id, salt),
        }
        signed = self.account.sign_typed_data(domain, RECEIVE, message)
        signature = "0x" + signed.signature.hex().removeprefix("0x")
        deposit = Deposit(amount, 0, valid_before, salt, signature)
        return ChannelPayment("deposit", self.config, self.voucher(ceiling), deposit)


@dataclass(slots=True)
class House:
    """One server's parts that bring channels to the chain."""

    network: str
    asset: Asset
    chain: DevChain
    database: Database
    ledger: ActionLedger
    channels: ChannelLedger
    claims: ClaimLedger
    leases: LeaseLedger
    reader: ChannelChain
    channel_sync: ChannelSync
    actions: Actions
    authorizer: Authorizer
    facilitator: Facilitator
    pay_to: str

    async def payer(self, usdc: int = 10_000, **changes: Any) -> Payer:
        """A payer with so much, and no channel yet."""
        account: LocalAccount = Account.create()
        await self.chain.fund(account.address, usdc, ETHER)
        return Payer(account, self.asset, self.pay_to, self.authorizer.address, **changes)

    async def deposit(self, payment: ChannelPayment) -> Action:
        """Have a deposit moved."""
        requirements = {
            "scheme": "batch-settlement",
            "network": self.network,
            "asset": self.asset.address,
            "amount": "1",
            "payTo": payment.config.receiver,
            "maxTimeoutSeconds": 300,
            "extra": {
                "receiverAuthorizer": payment.config.receiver_authorizer,
                "withdrawDelay": payment.config.withdraw_delay,
                "name": self.asset.name,
                "version": self.asset.version,
            },
        }
        return await self.actions.deposit(
            payment,
            network=self.network,
            asset=self.asset,
            requirements=requirements,
            document={},
        )

    async def charge(self, payer: Payer, amount: int) -> Channel:
        """Charge one more delivery to a channel."""
        channel = await self.channel(payer)
        voucher = payer.voucher(channel.charged + amount)
        charging = await self.channels.charge(
            NewDelivery(
                payer.channel_id,
                voucher.ceiling,
                voucher.signature,
                amount,
                "plasma",
                f"/hls/plasma/source/{voucher.ceiling}.ts",
                1000,
            )
        )
        assert charging.outcome == "charged", charging
        assert charging.channel is not None
        return charging.channel

    async def channel(self, payer: Payer) -> Channel:
        """A payer's channel as the ledger has it."""
        found = await self.channels.find(payer.channel_id)
        assert found is not None
        return found

    async def opened(self, deposit: int, charged: int = 0, **changes: Any) -> Payer:
        """A payer with a channel that holds so much and was charged so much."""
        payer = await self.payer(deposit, **changes)
        action = await self.deposit(payer.deposit(deposit))
        assert action.state == "settled", action
        if charged:
            await self.charge(payer, charged)
        return payer

    async def on_chain(self, payer: Payer) -> Any:
        """A channel's state in the contract."""
        return (await self.reader.states([payer.channel_id]))[payer.channel_id]

    async def call(self, payer: Payer, name: str, *args: Any) -> None:
        """Let a payer itself call the contract about its channel."""
        from web3 import Web3

        contract = Web3().eth.contract(
            Web3.to_checksum_address(BATCH_SETTLEMENT_ADDRESS),
            abi=load_artifact("BatchSettlement").abi,
        )
        config = tuple(
            Web3.to_checksum_address(v) if isinstance(v, str) and len(v) == 42 else v
            for v in payer.tuple
        )
        data = contract.encode_abi(name, [config, *args])
        await self.chain.rpc("anvil_impersonateAccount", payer.account.address)
        call = {"from": payer.account.address, "to": contract.address, "data": data}
        receipt = await self.chain.rpc("eth_sendTransactionSync", call)
        assert receipt["status"] == "0x1"


POLICY = ActionPolicy(lease=30.0, wait=10.0, max_gas_price=0, parallel=8)


@asynccontextmanager
async def a_house(
    url: str,
    chain: DevChain,
    asset: Asset,
    *,
    facilitator: Facilitator | None = None,
    policy: ActionPolicy = POLICY,
    confirmations: int = 1,
    settle_wait: float = 10.0,
    gas_key: str | None = None,
    authorizer_key: str | None = None,
    pay_to: str | None = None,
    rpc_url: str | None = None,
    clock: Callable[[], float] = time.time,
    **changes: Any,
) -> AsyncIterator[House]:
    """Open a house on a database; again with the same keys is a restart."""
    network, rpc_url = asset.network, rpc_url or chain.rpc_url
    gas_key = gas_key or a_key()
    await chain.fund(Account.from_key(gas_key).address, wei=10 * ETHER)
    database = Database(url)
    await database.start()
    node = RpcNode(rpc_url, timeout=5)
    sender = TransactionSender(gas_key, node, confirmation_timeout=settle_wait)
    local = LocalFacilitator({network: sender}, {})
    chosen = facilitator or local
    reader = ChannelChain(node, confirmations=confirmations)
    fates = ChainReader(node)
    readers: Mapping[str, ChannelChain] = {network: reader}
    ledger = ActionLedger(database, clock=clock)
    channels = ChannelLedger(database, retry_window=120, clock=clock)
    channel_sync, authorizer = ChannelSync(channels, readers), Authorizer(authorizer_key or gas_key)
    proofs = Proofs(readers, {network: fates})
    actions = Actions(
        ledger,
        channels,
        chosen,
        readers,
        proofs,
        channel_sync,
        [authorizer],
        replace(policy, **changes),
    )
    try:
        yield House(
            network,
            asset,
            chain,
            database,
            ledger,
            channels,
            ClaimLedger(database),
            LeaseLedger(database),
            reader,
            channel_sync,
            actions,
            authorizer,
            local,
            (pay_to or Account.create().address).lower(),
        )
    finally:
        await actions.drain()
        await local.close()
        await node.close()
        await database.stop()
