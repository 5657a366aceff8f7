"""Pure: accounts and contract addresses of the local chain; every key in it is public."""

from dataclasses import dataclass

from xbyte_live.money import Asset

BANNER = (
    "This is a local test chain: its keys are publicly known and its USDC is worthless. "
    "Never send real money to an address shown here."
)

MNEMONIC = "test test test test test test test test test test test junk"
USDC_ADDRESS = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
MULTICALL3_ADDRESS = "0xcA11bde05977b3631167028862bE2a173976CA11"
# Where x402's batch-settlement contracts are on every chain; the SDK knows no other place.
BATCH_SETTLEMENT_ADDRESS = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
ERC3009_COLLECTOR_ADDRESS = "0x4020806089470a89826cB9fB1f4059150b550004"
DEFAULT_CHAIN_ID = 84532  # Base Sepolia's, whose USDC unmodified x402 clients agree to pay


@dataclass(frozen=True, slots=True)
class TestAccount:
    """One account of anvil's default mnemonic, with its publicly known private key (hex)."""

    __test__ = False  # not a test, whatever pytest makes of the name

    address: str
    key: str


GAS = TestAccount(
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
)
PAYEE = TestAccount(
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
)
PAYER = TestAccount(
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
)
FAUCET = TestAccount(
    "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
)


def devnet_usdc(chain_id: int = DEFAULT_CHAIN_ID) -> Asset:
    """The test USDC as an ``Asset``: six decimals, EIP-712 domain ``USDC`` version ``2``."""
    return Asset(f"eip155:{chain_id}", USDC_ADDRESS, "USDC", "2", 6, "USDC")
