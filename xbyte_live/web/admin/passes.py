"""Pure: what opens the studio: the admin token, one-time codes, and signed cookies made of it."""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

TOKEN_LETTERS = 24  # an admin token has at least so many: nobody may guess one
CODE_LASTS = 600  # seconds from a login link to its use
COOKIE_LASTS = 43_200  # seconds until a browser has to log in again

_PASS = re.compile(r"(?P<until>[0-9]{1,12})\.(?P<nonce>[0-9a-f]{24})\.(?P<seal>[A-Za-z0-9_-]{43})")


class Pass(NamedTuple):
    """A code or cookie that was made by who has the token; good before ``until``."""

    nonce: str
    until: int


class Passes:
    """Makes and checks what stands for one admin token; with another, none of it is good.

    Nothing is kept here: any process that knows the token knows its codes and cookies, also after
    a restart; which were used or ended, others keep. Times are Unix seconds.
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

    def read_code(self, text: str, now: float) -> Pass | None:
        """What a code says, or ``None`` for one that is not ours or too old."""
        return self._read("code", text, now)

    def cookie(self, nonce: str, now: float) -> str:
        """What a browser that logged in shows from then on; ``nonce`` as in ``code``."""
        until = int(now) + COOKIE_LASTS
        return f"{until}.{nonce}.{self._seal('cookie', until, nonce)}"

    def read_cookie(self, text: str, now: float) -> Pass | None:
        """What a cookie says, or ``None`` for one that is not ours or too old."""
        return self._read("cookie", text, now)

    def _read(self, kind: str, text: str, now: float) -> Pass | None:
        match = _PASS.fullmatch(text)
        if match is None:
            return None
        until, nonce = int(match["until"]), match["nonce"]
        ours = hmac.compare_digest(match["seal"], self._seal(kind, until, nonce))
        return Pass(nonce, until) if ours and now < until else None

    def _seal(self, *what: object) -> str:
        said = " ".join(map(str, what)).encode()
        sealed = hmac.digest(self._key, said, hashlib.sha256)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
