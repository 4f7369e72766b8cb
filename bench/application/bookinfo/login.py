"""The login cookie: a name and its signature, which every replica accepts since all share one key."""

import base64
import binascii
import hashlib
import hmac
from typing import Final

COOKIE: Final = "session"
# Fixed and public like the original's: it guards nothing, and any replica must be able to read the cookie.
_KEY: Final = b"meshbench bookinfo"


def sign(user: str) -> str:
    """The cookie's value for a user: the name and its signature, both in URL-safe base64."""
    name = user.encode()
    return f"{_encode(name)}.{_encode(_signature(name))}"


def verify(cookie: str | None) -> str:
    """The user of a cookie that `sign` made; empty for none, and for any other value."""
    name, _, signature = (cookie or "").partition(".")
    try:
        user = _decode(name)
        return user.decode() if hmac.compare_digest(_decode(signature), _signature(user)) else ""
    except (binascii.Error, ValueError):  # no base64, or no text
        return ""


def _signature(name: bytes) -> bytes:
    return hmac.digest(_KEY, name, hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
