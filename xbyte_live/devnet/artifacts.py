"""Adapter: reads the compiled contracts of this package."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTRACTS_DIR = Path(__file__).parent / "contracts"
ARTIFACTS_DIR = CONTRACTS_DIR / "artifacts"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract: its ABI, creation code and runtime code (both ``0x`` hex)."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: str


def load_artifact(name: str) -> Artifact:
    """Read the contract ``name``, one of those below; ``Multicall3`` has runtime code only.

    ``TestUSDC``, ``TestWallet``, ``TestWalletFactory``, ``BatchSettlement``,
    ``ERC3009DepositCollector``, ``Multicall3``.
    """
    fields = json.loads((ARTIFACTS_DIR / f"{name}.json").read_text("utf-8"))
    return Artifact(name, fields["abi"], fields["bytecode"], fields["deployedBytecode"])
