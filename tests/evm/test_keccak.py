"""Keccak-256 by either library, the one that has no wheel everywhere and the one that has."""

import subprocess
import sys

import pytest

# The digests of nothing and of "abc" (Keccak team, known answers for the original padding).
ANSWERS = {
    "": "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
    "abc": "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
}


@pytest.mark.parametrize("missing", ["", "sha3"])
def test_keccak_is_the_same_by_both(missing: str) -> None:
    program = (
        f"import sys\n"
        f"if {missing!r}: sys.modules[{missing!r}] = None\n"
        f"from xbyte_live.evm.eip712 import keccak\n"
        f"print(*[keccak(text.encode()).hex() for text in {list(ANSWERS)!r}])"
    )
    run = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert (run.stderr, run.stdout.split()) == ("", list(ANSWERS.values()))
