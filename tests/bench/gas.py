"""Gas of 1,000 paid segments of one viewer: channels by our own settlement, beside ``exact``.

    python -m tests.bench.gas [--segments 1000] [--crowd 50] [--claim-interval S] ...

On anvil, with the devnet's contracts. Every segment is a charge in a real ledger, every claim and
payout is made by ``Claims`` when the settings say that it is due, and gas is what the receipts
say; only the clock is moved by hand. The devnet's token is no proxy as the real USDC is, so that
``exact`` costs more elsewhere.
"""

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from eth_account import Account
from eth_typing import ABIFunction
from eth_utils.abi import function_abi_to_4byte_selector

from tests.support.chain import ETHER
from tests.support.channel_parties import House, Payer, a_house, a_key
from tests.support.paying import Clock, v2_document
from xbyte_live.config import Settings
from xbyte_live.devnet.artifacts import load_artifact
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.money import Price
from xbyte_live.payments.build import claim_policy
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Settled, SignedPayment
from xbyte_live.payments.facilitators.transfer_batcher import MOST, TransferBatcher
from xbyte_live.payments.ledger.channel import NewDelivery
from xbyte_live.payments.settlement.claims import ClaimPolicy, Claims

BUDGET = 500  # what `exact` costs is to be so many times as much
PATIENCE = 60.0  # seconds for a chain on a machine that is busy
BYTES = 750_000  # two seconds at 3 Mb/s


@dataclass(slots=True)
class Spent:
    """Gas by the contract's function, a number for each transaction."""

    by_function: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def of(self, *functions: str) -> int:
        """What these functions cost in all."""
        return sum(sum(self.by_function[name]) for name in functions)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is watched: ``segments`` of ``seconds`` by each viewer, at ``amount`` atomic units."""

    segments: int
    seconds: float
    amount: int
    deposit_segments: int


async def watch(net: Devnet, plan: Plan, viewers: int, policy: ClaimPolicy) -> Spent:
    """Let so many viewers watch at once until all is paid out; what that cost."""
    clock, gas_key = Clock(time.time()), a_key()
    total = viewers * plan.segments * plan.amount
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        async with a_house(
            url, net.chain, net.asset, gas_key=gas_key, clock=clock, settle_wait=PATIENCE,
            wait=PATIENCE, patience=PATIENCE,
        ) as house:  # fmt: skip
            await net.chain.fund(house.pay_to, usdc=1)  # a payee that was paid before
            first_block = await block_number(net.chain)
            claims = Claims(house.claims, house.ledger, house.actions, policy, clock=clock)
            payers = [await house.payer(plan.segments * plan.amount) for _ in range(viewers)]
            looked = clock.now
            for segment in range(plan.segments):
                await buy(house, payers, segment, plan)
                clock.now += plan.seconds
                if clock.now - looked >= policy.look:
                    looked = clock.now
                    await claims.look()
            while await net.chain.usdc_balance(house.pay_to) <= total:
                clock.now += policy.look
                await claims.look()
            return await spent(net.chain, Account.from_key(gas_key).address, first_block)


async def buy(house: House, payers: Sequence[Payer], segment: int, plan: Plan) -> None:
    """One segment for each, with a deposit for the next ones where the last is used up."""
    ceiling = (segment + 1) * plan.amount
    if segment % plan.deposit_segments == 0:
        more = min(plan.deposit_segments, plan.segments - segment) * plan.amount
        for payer in payers:
            payment = payer.deposit(more, ceiling)
            while (action := await house.deposit(payment)).state == "pending":
                continue  # asked for again it goes on
            assert action.state == "settled", action
    found = await asyncio.gather(
        *(house.channels.charge(delivery(payer, ceiling, plan)) for payer in payers)
    )
    assert {charging.outcome for charging in found} == {"charged"}


def delivery(payer: Payer, ceiling: int, plan: Plan) -> NewDelivery:
    """One segment, with the voucher that pays for it."""
    signature, resource = payer.voucher(ceiling).signature, f"/hls/plasma/source/{ceiling}.ts"
    return NewDelivery(payer.channel_id, ceiling, signature, plan.amount, "plasma", resource, BYTES)


async def exact(net: Devnet, plan: Plan, payments: int, *, together: bool) -> float:
    """Gas of one ``exact`` payment, settled by our own facilitator one by one or in batches."""
    key, payer, pay_to = a_key(), Account.create(), Account.create().address
    sender_address = Account.from_key(key).address
    await net.chain.fund(sender_address, wei=10 * ETHER)
    await net.chain.fund(payer.address, usdc=payments * plan.amount + 1)
    await net.chain.fund(pay_to, usdc=1)
    requirements = {
        "scheme": "exact",
        "network": net.network,
        "asset": net.asset.address,
        "amount": str(plan.amount),
        "payTo": pay_to,
        "maxTimeoutSeconds": 300,
        "extra": {"name": net.asset.name, "version": net.asset.version},
    }
    signed = [
        SignedPayment(2, v2_document(payer, requirements), requirements) for _ in range(payments)
    ]
    first_block = await block_number(net.chain)
    sender = TransactionSender(key, RpcNode(net.rpc_url, timeout=20), confirmation_timeout=PATIENCE)
    facilitator = LocalFacilitator({net.network: sender}, {})
    try:
        if together:
            batcher = TransferBatcher({net.network: sender})
            for at in range(0, payments, MOST):
                assert isinstance(await batcher.settle(signed[at : at + MOST]), Settled)
        else:
            for payment in signed:
                assert isinstance(await facilitator.settle(payment), Settled)
    finally:
        await facilitator.close()
    assert await net.chain.usdc_balance(pay_to) == payments * plan.amount + 1
    found = await spent(net.chain, sender_address, first_block)
    return found.of(*found.by_function) / payments


async def block_number(chain: DevChain) -> int:
    """The newest block."""
    return int(await chain.rpc("eth_blockNumber"), 16)


async def spent(chain: DevChain, sender: str, after: int) -> Spent:
    """What the transactions of a sender used in the blocks since."""
    names = {
        "0x" + function_abi_to_4byte_selector(cast("ABIFunction", entry)).hex(): entry["name"]
        for entry in load_artifact("BatchSettlement").abi
        if entry["type"] == "function"
    }
    found = Spent()
    for number in range(after + 1, await block_number(chain) + 1):
        block = await chain.rpc("eth_getBlockByNumber", hex(number), True)
        for sent in block["transactions"]:
            if sent["from"].lower() == sender.lower():
                receipt = await chain.rpc("eth_getTransactionReceipt", sent["hash"])
                assert receipt["status"] == "0x1", receipt
                selector = sent["input"][:10]
                found.by_function[names.get(selector, selector)].append(int(receipt["gasUsed"], 16))
    return found


def tell(title: str, gas: Spent, viewers: int, dear: float, cheap: float) -> None:
    """The rows of one run, for one viewer, and how they stand to ``exact`` and the budget."""
    print(f"\n{title}")
    for name, each in gas.by_function.items():
        print(
            f"  {name:<22}{len(each):>5} transactions of {min(each):>9,}"
            f" to {max(each):>9,}{sum(each) / viewers:>12,.0f} a viewer"
        )
    opening = sum(gas.by_function["deposit"][:viewers]) / viewers
    deposits, rest = gas.of("deposit") / viewers, sum(gas.of(n) for n in gas.by_function) / viewers
    rest -= deposits
    for what, own in (
        ("claims and payouts", rest),
        ("... and one deposit", rest + opening),
        ("... and every deposit", rest + deposits),
    ):
        verdict = "holds" if own * BUDGET <= dear else "does not hold"
        print(
            f"  {what:<22}{own:>12,.0f}   1/{dear / own:,.0f} of exact (1/{BUDGET}: {verdict}),"
            f" 1/{cheap / own:,.0f} of exact in batches"
        )


async def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    settings = Settings()
    policy = replace(
        claim_policy(settings),
        claim_interval=arguments.claim_interval,
        claim_threshold=arguments.claim_threshold,
    )
    plan = Plan(
        arguments.segments,
        arguments.seconds,
        Price.parse(settings.price).amount_for(arguments.bytes),
        max(1, int(settings.deposit_minutes * 60 / arguments.seconds)),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with Devnet(Path(folder)) as net:
            single = await exact(net, plan, arguments.payments, together=False)
            batched = await exact(net, plan, arguments.payments, together=True)
            dear, cheap = single * plan.segments, batched * plan.segments
            print(f"exact: {single:,.0f} gas a segment, {batched:,.0f} in batches of {MOST}")
            print(
                f"{plan.segments:,} segments: {dear:,.0f}; 1/{BUDGET} of it: {dear / BUDGET:,.0f}"
            )
            print(
                f"channels: {plan.segments:,} segments of {plan.seconds} s for {plan.amount} units,"
                f" a deposit lasts {plan.deposit_segments}; claimed each"
                f" {policy.claim_interval:.0f} s or {policy.claim_threshold:,} units,"
                f" paid out each {policy.settle_interval:.0f} s"
            )
            for viewers in (1, arguments.crowd):
                gas = await watch(net, plan, viewers, policy)
                tell(f"{viewers} at once", gas, viewers, dear, cheap)


def _arguments() -> argparse.Namespace:
    defaults = claim_policy(Settings())
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gas")
    parser.add_argument("--segments", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=BYTES)
    parser.add_argument("--crowd", type=int, default=50)
    parser.add_argument("--payments", type=int, default=100)
    parser.add_argument("--claim-interval", type=float, default=defaults.claim_interval)
    parser.add_argument("--claim-threshold", type=int, default=defaults.claim_threshold)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_arguments()))
