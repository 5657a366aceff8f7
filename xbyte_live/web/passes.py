"""Pure: what opens the studio: the admin token, one-time codes, and signed cookies made of it."""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

TOKEN_LETTERS = 24  # an admin token has at least so many: nobody may guess one
CODE_LASTS = 600  # seconds from a login link to its use
COOKIE_LASTS = 43_200  # seconds until a browser has to log in again

_CODE = re.compile(r"(?P<until>[0-9]{1,12})\.(?P<nonce>[0-9a-f]{24})\.(?P<seal>[A-Za-z0-9_-]{43})")
_COOKIE = re.compile(r"(?P<until>[0-9]{1,12})\.(?P<seal>[A-Za-z0-9_-]{43})")


class Code(NamedTuple):
    """A login code that was made by who has the token; good once and before ``until``."""

    nonce: str
    until: int


class Passes:
    """Makes and checks what stands for one admin token; with another, none of it is good.

    Nothing is kept: any process that knows the token knows its codes and cookies, also after a
    restart. Times are Unix seconds.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"xbyte-live studio", hashlib.sha256)

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, in the same time whatever it is."""
        return hmac.compare_digest(_digest(text.encode("utf-8", "replace")), _digest(self._token))

    def code(self, nonce: str, now: float) -> str:
        """A login code; ``nonce`` is 24 hex digits that were never used."""
        until = int(now) + CODE_LASTS
        return f"{until}.{nonce}.{self._seal('code', until, nonce)}"

    def read_code(self, text: str, now: float) -> Code | None:
        """What a code says, or ``None`` for one that is not ours or too old."""
        match = _CODE.fullmatch(text)
        if match is None:
            return None
        until, nonce = int(match["until"]), match["nonce"]
        ours = hmac.compare_digest(match["seal"], self._seal("code", until, nonce))
        return Code(nonce, until) if ours and now < until else None

    def cookie(self, now: float) -> str:
        """What a browser that logged in shows from then on."""
        until = int(now) + COOKIE_LASTS
        return f"{until}.{self._seal('cookie', until)}"

    def is_cookie(self, text: str, now: float) -> bool:
        """Whether a cookie is one of ours and not too old."""
        match = _COOKIE.fullmatch(text)
        if match is None:
            return False
        until = int(match["until"])
        return hmac.compare_digest(match["seal"], self._seal("cookie", until)) and now < until

    def _seal(self, *what: object) -> str:
        said = " ".join(map(str, what)).encode()
        sealed = hmac.digest(self._key, said, hashlib.sha256)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
