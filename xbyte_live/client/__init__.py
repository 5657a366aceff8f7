"""The paying side; imports without a media library, a web server or a database."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbyte_live.client.http.transport import PayingTransport as PayingTransport
    from xbyte_live.client.payer.budget import Budget as Budget
    from xbyte_live.client.payer.payer import Payer as Payer

__all__ = ["Budget", "Payer", "PayingTransport"]


def __getattr__(name: str) -> Any:
    """Import an exported name once it is asked for: pure modules of this room load no httpx2."""
    if name == "Budget":
        from xbyte_live.client.payer.budget import Budget

        return Budget
    if name == "Payer":
        from xbyte_live.client.payer.payer import Payer

        return Payer
    if name == "PayingTransport":
        from xbyte_live.client.http.transport import PayingTransport

        return PayingTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
