"""Names from elsewhere, such as those of pods and containers, as names of files here."""

import hashlib
import re
from typing import Final

_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST: Final = 150
_DIGEST: Final = 8


def file_name(text: str) -> str:
    """The text, where it is a plain file name; else one made from it, which leads nowhere else: without separators and
    leading dots, not too long, and another one for each text."""
    plain = _OTHER.sub("_", text).lstrip(".")[:_LONGEST]
    if plain == text and plain:
        return text
    return f"{plain or 'unnamed'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:_DIGEST]}"
