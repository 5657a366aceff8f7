"""Pure: the admin token, and the login codes and cookies signed with it."""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

TOKEN_LETTERS = 24  # an admin token has at least so many: nobody may guess one
CODE_LASTS = 600  # seconds from a login link to its use
COOKIE_LASTS = 43_200  # seconds until a browser has to log in again

_PASS = re.compile(r"(?P<until>[0-9]{1,12})\.(?P<nonce>[0-9a-f]{24})\.(?P<seal>[A-Za-z0-9_-]{43})")


class Login(NamedTuple):
    """A verified login code or cookie; valid before ``until`` (Unix seconds)."""

    nonce: str
    until: int


class LoginTokens:
    """Signs and verifies the codes and cookies of one admin token; another token voids them.

    Nothing is stored here: any process with the token verifies them, also after a restart. Used
    codes and ended logins are stored elsewhere. Times are Unix seconds.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"xbyte-live studio", hashlib.sha256)

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, compared in constant time."""
        return hmac.compare_digest(_digest(text.encode("utf-8", "replace")), _digest(self._token))

    def code(self, nonce: str, now: float) -> str:
        """A login code; ``nonce`` is 24 hex digits, never used before."""
        until = int(now) + CODE_LASTS
        return f"{until}.{nonce}.{self._seal('code', until, nonce)}"

    def read_code(self, text: str, now: float) -> Login | None:
        """The login of a code, or ``None`` for a forged or expired one."""
        return self._read("code", text, now)

    def cookie(self, nonce: str, now: float) -> str:
        """A login cookie; ``nonce`` as in ``code``."""
        until = int(now) + COOKIE_LASTS
        return f"{until}.{nonce}.{self._seal('cookie', until, nonce)}"

    def read_cookie(self, text: str, now: float) -> Login | None:
        """The login of a cookie, or ``None`` for a forged or expired one."""
        return self._read("cookie", text, now)

    def _read(self, kind: str, text: str, now: float) -> Login | None:
        match = _PASS.fullmatch(text)
        if match is None:
            return None
        until, nonce = int(match["until"]), match["nonce"]
        ours = hmac.compare_digest(match["seal"], self._seal(kind, until, nonce))
        return Login(nonce, until) if ours and now < until else None

    def _seal(self, *what: object) -> str:
        said = " ".join(map(str, what)).encode()
        sealed = hmac.digest(self._key, said, hashlib.sha256)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
