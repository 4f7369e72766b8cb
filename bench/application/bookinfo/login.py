"""Sign and verify the login cookie: a name and its signature, which every replica accepts since all share one key."""

import base64
import binascii
import hashlib
import hmac
from typing import Final

COOKIE: Final = "session"
# Fixed and public like the original's: it protects nothing, and any replica must be able to read the cookie.
_KEY: Final = b"meshbench bookinfo"


def sign(user: str) -> str:
    """Return the cookie's value for a user: the name and its signature, both in URL-safe base64."""
    name = user.encode()
    return f"{_encode(name)}.{_encode(_signature(name))}"


def verify(cookie: str | None) -> str:
    """Return the user of a cookie from `sign`; empty for None and for any other value."""
    name, _, signature = (cookie or "").partition(".")
    try:
        user = _decode(name)
        return user.decode() if hmac.compare_digest(_decode(signature), _signature(user)) else ""
    except (binascii.Error, ValueError):  # not base64, or not UTF-8
        return ""


def _signature(name: bytes) -> bytes:
    return hmac.digest(_KEY, name, hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
