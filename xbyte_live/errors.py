"""Pure: every error the product raises on purpose, as one tree.

    XByteError
    ├── ConfigError              a setting is missing or wrong
    ├── MoneyError               an amount or price that cannot be exact
    ├── ItemError
    │   ├── ItemNotFound         no such item, rendition or segment
    │   ├── ItemGone             was for sale, no longer is
    │   └── ItemExists           the slug is taken
    ├── MediaError               the input cannot be packaged
    │   └── TranscodeRequired    ... without re-encoding, which was not allowed
    ├── RtmpError                a peer broke the RTMP protocol
    ├── PublishRefused           a publisher may not publish, or no longer (has a code)
    ├── FeedFailed               the child process that packages a feed failed
    ├── SourceRefused            a URL that may not be pulled
    ├── StoreError               segment bytes cannot be read or written
    ├── DatabaseUnavailable      the database did not take or give an answer
    │   └── DatabaseOverloaded   ... because too much is waiting already
    ├── RangeNotSatisfiable      the requested bytes lie outside the resource
    ├── BadRequest               a request that means nothing
    ├── Overloaded               more requests wait than may
    ├── PaymentError             their side: what a payer sent
    │   ├── PaymentMalformed     cannot be read as an x402 payment
    │   └── PaymentRefused       read, and not good for this sale (has a code)
    │       └── VoucherMismatch  ... as it does not follow on what its channel was charged
    ├── PaymentPending           sent to the chain, outcome not known yet
    ├── FacilitatorError         our side: the way to the chain
    │   ├── FacilitatorUnavailable   could not be asked (nothing was sent)
    │   └── FacilitatorMisbehaved    answered, but not in the x402 form
    ├── ChainUnavailable         the RPC node did not answer
    ├── BudgetExceeded           the paying side stopped before paying too much
    ├── TermsRefused             the paying side will not sign what a server asks of it
    ├── ChannelDistrusted        a server claims of a channel more than it earned
    ├── DeliveryFailed           a server did not hand over what was asked of it or paid for
    └── DevnetError              the local chain could not be started

Every message is one sentence a person can act on, and holds no key, no path of the
server and no traceback.
"""

from typing import Any


class XByteError(Exception):
    """Anything xByte Live raises on purpose; its text is fit for a user."""


class ConfigError(XByteError):
    """A setting is missing or wrong; the text names the setting and what it takes."""


class MoneyError(XByteError):
    """An amount or price that cannot be represented exactly."""


class ItemError(XByteError):
    """An error about an item for sale."""


class ItemNotFound(ItemError):
    """No such item, rendition or segment (HTTP 404)."""


class ItemGone(ItemError):
    """The item or segment is not for sale any more (HTTP 410)."""


class ItemExists(ItemError):
    """The slug is taken by another item."""


class MediaError(XByteError):
    """The input cannot be packaged; the text says why in one sentence."""


class TranscodeRequired(MediaError):
    """The input can only be packaged by re-encoding it, and that was not allowed."""


class RtmpError(XByteError):
    """A peer broke the RTMP protocol, so its connection ends."""


class PublishRefused(XByteError):
    """A publisher may not publish, or not any longer.

    ``code`` is what RTMP calls it (``NetStream.Publish.BadName`` …); the text is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class FeedFailed(XByteError):
    """The child process that packages a feed crashed, hung or outgrew its limits."""


class SourceRefused(XByteError):
    """A URL that may not be pulled: its scheme or its address is not allowed."""


class StoreError(XByteError):
    """Segment bytes cannot be read from or written to the store."""


class DatabaseUnavailable(XByteError):
    """The database did not take or give an answer, so nothing may be delivered (HTTP 503)."""


class DatabaseOverloaded(DatabaseUnavailable):
    """Too many writes are waiting; try again shortly (HTTP 503)."""


class RangeNotSatisfiable(XByteError):
    """The requested byte range lies outside the resource (HTTP 416, RFC 9110 14.4).

    ``size`` is the whole resource in bytes, for ``Content-Range: bytes */size``.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside the {size} bytes of this resource")
        self.size = size


class BadRequest(XByteError):
    """A request that cannot be understood (HTTP 400)."""


class Overloaded(XByteError):
    """More requests wait than may; try again shortly (HTTP 503)."""


class PaymentError(XByteError):
    """A payment that does not buy this resource; the payer is at fault."""


class PaymentMalformed(PaymentError):
    """The payment header cannot be read as x402 (HTTP 400)."""


class PaymentRefused(PaymentError):
    """The payment was read and does not pay for this sale (HTTP 402).

    ``code`` is the x402 error code for the payer's software; the text is for people.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(message or code.replace("_", " "))
        self.code = code


class VoucherMismatch(PaymentRefused):
    """A voucher does not follow on what its channel was charged.

    ``extra`` is what its payer needs to sign the right one, for the 402 of ``network``.
    """

    def __init__(self, code: str, network: str, extra: dict[str, Any]) -> None:
        super().__init__(code)
        self.network = network
        self.extra = extra


class PaymentPending(XByteError):
    """The payment was sent to the chain and its outcome is not known yet (HTTP 503).

    ``retry_after`` is in seconds. The same payment must be presented again, not a new one.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__("the payment is being settled; present the same payment again")
        self.retry_after = retry_after


class FacilitatorError(XByteError):
    """The way to the chain failed; we are at fault, never the payer."""


class FacilitatorUnavailable(FacilitatorError):
    """No facilitator could be asked; nothing was sent (HTTP 503)."""


class FacilitatorMisbehaved(FacilitatorError):
    """A facilitator answered, but not in the x402 form (HTTP 502)."""


class ChainUnavailable(XByteError):
    """The RPC node of a network did not answer."""


class BudgetExceeded(XByteError):
    """The paying side stopped: the next payment would exceed a limit its owner set."""


class TermsRefused(XByteError):
    """The paying side will not sign what a server asks: wrong token, chain, payee or amount."""


class ChannelDistrusted(XByteError):
    """A server claims more of a channel than it delivered, or an impossible state.

    Nothing more is signed for it; what is left in the channel can be withdrawn.
    """


class DeliveryFailed(XByteError):
    """A server did not hand over what was asked of it or paid for."""


class DevnetError(XByteError):
    """The local chain could not be started or prepared."""
