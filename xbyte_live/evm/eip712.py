"""Pure: EIP-712 domain separators and digests, signing one, and who signed one (SEC 1 4.1.6)."""

from functools import lru_cache
from typing import Any

from btclib_libsecp256k1 import keys, recovery

from xbyte_live.money import Asset

try:
    from sha3 import keccak_256
except ImportError:  # macOS, for whose arm64 there is no wheel
    from Crypto.Hash.keccak import new

    def keccak_256(data: bytes) -> Any:
        """The same hash by pycryptodome."""
        return new(data=data, digest_bits=256)


def keccak(data: bytes) -> bytes:
    """The Keccak-256 digest, which Ethereum calls SHA-3 and NIST does not."""
    return bytes(keccak_256(data).digest())


_DOMAIN_TYPE = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def word(value: int) -> bytes:
    """An unsigned integer as one 32-byte ABI word; raises ``OverflowError`` beyond 2**256."""
    return value.to_bytes(32, "big")


def address_word(address: str) -> bytes:
    """A ``0x`` address as one 32-byte ABI word."""
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


@lru_cache(maxsize=64)
def domain_separator(asset: Asset) -> bytes:
    """The EIP-712 domain separator of a token, kept for the few tokens a server takes."""
    return contract_separator(asset.name, asset.version, asset.chain_id, asset.address)


def contract_separator(name: str, version: str, chain_id: int, address: str) -> bytes:
    """The EIP-712 domain separator of a contract."""
    return keccak(
        _DOMAIN_TYPE
        + keccak(name.encode())
        + keccak(version.encode())
        + word(chain_id)
        + address_word(address)
    )


def typed_digest(separator: bytes, struct_hash: bytes) -> bytes:
    """The 32 bytes that are signed: ``keccak(0x1901 ‖ domain ‖ struct)`` (EIP-712)."""
    return keccak(b"\x19\x01" + separator + struct_hash)


class SigningKey:
    """A private key of secp256k1; ``address`` is that of its account, in lower case.

    Raises ``ValueError`` for 32 bytes that are no key; an error holds none of them.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.address = _address_of(keys.pubkey_from_prvkey(secret, compressed=False))

    def sign(self, digest: bytes) -> bytes:
        """The signature r ‖ s ‖ v of a digest, v being 27 or 28; the same each time (RFC 6979)."""
        signature, recovery_id = recovery.sign(digest, self._secret)
        return signature + bytes([recovery_id + 27])


def recover(digest: bytes, signature: bytes) -> str | None:
    """The lower-case address that signed ``digest``, or ``None`` if no key can have.

    ``signature`` is r ‖ s ‖ v; a high s is refused, as USDC and EIP-2 do.
    """
    if len(signature) != 65:
        return None
    recovery_id = signature[64] - 27 if signature[64] >= 27 else signature[64]
    if recovery_id not in (0, 1) or int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        return _address_of(recovery.recover(digest, signature[:64], recovery_id, compressed=False))
    except ValueError:
        return None


def _address_of(public_key: bytes) -> str:
    """The address of an uncompressed public key of 65 bytes."""
    return "0x" + keccak(public_key[1:])[-20:].hex()
