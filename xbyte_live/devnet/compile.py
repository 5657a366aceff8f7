"""Adapter: compiles ``contracts/*.sol`` with a pinned solc, byte for byte the same everywhere.

``python -m xbyte_live.devnet.compile`` writes the artifacts anew after a change of a source.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from xbyte_live.devnet import npm
from xbyte_live.devnet.artifacts import ARTIFACTS_DIR, CONTRACTS_DIR
from xbyte_live.errors import DevnetError

SOURCES = (
    "TestUSDC.sol",
    "TestWallet.sol",
    "BatchSettlement.sol",
    "ERC3009DepositCollector.sol",
)
SETTINGS = {
    "evmVersion": "cancun",
    "optimizer": {"enabled": True, "runs": 200},
    # No trailer with digests of comments and paths: the bytes depend on the code alone.
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}
_TRANSIENT = "2394"  # a warning of transient storage, which says itself that a guard is safe


def compile_contracts(cache_dir: Path | None = None) -> dict[str, bytes]:
    """The artifact files of every contract in ``SOURCES``, by file name.

    Blocking, for seconds. Raises ``DevnetError`` when solc cannot be fetched or refuses a source.
    """
    lock = json.loads((CONTRACTS_DIR / "package-lock.json").read_text("utf-8"))
    modules = npm.install("solc", lock, cache_dir)
    output = _solc(modules)
    complaints = [
        e["formattedMessage"] for e in output.get("errors", ()) if e.get("errorCode") != _TRANSIENT
    ]
    if complaints:
        raise DevnetError(f"solc refused the contracts: {complaints[0].strip()}")
    version = lock["packages"]["node_modules/solc"]["version"]
    return {
        f"{name}.json": _artifact(name, contract, version)
        for source in SOURCES
        for name, contract in output["contracts"][source].items()
        if contract["evm"]["bytecode"]["object"]  # an interface has none
    }


def _solc(modules: Path) -> dict[str, Any]:
    sources = {name: {"content": (CONTRACTS_DIR / name).read_text("utf-8")} for name in SOURCES}
    question = {"language": "Solidity", "sources": sources, "settings": SETTINGS}
    command = (npm.node_tools().node, modules / "solc" / "solc.js", "--standard-json")
    # A file, for solc.js ends without waiting until a pipe has taken more than 64 KiB.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        answer = subprocess.run(
            (*command, "--base-path", modules),
            input=json.dumps(question),
            stdout=said,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
        said.seek(0)
        text = said.read()
    # Before the JSON, solc.js prints a line about the SMT solver it was not asked for.
    start = text.find("{")
    if start < 0:
        raise DevnetError(f"solc did not run: {answer.stderr.strip()[:300]}")
    output: dict[str, Any] = json.loads(text[start:])
    return output


def _artifact(name: str, contract: dict[str, Any], version: str) -> bytes:
    fields = {
        "contractName": name,
        "compiler": f"solc {version}",
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
    }
    return (json.dumps(fields, indent=1) + "\n").encode()


if __name__ == "__main__":
    for file_name, content in compile_contracts().items():
        (ARTIFACTS_DIR / file_name).write_bytes(content)
