"""Redact secrets in text, where it leaves the program: in the command line's streams, and in a run's folder.

Two kinds are found: secrets that were registered when credentials were read, in every form in which they may occur
(base64, JSON, URL, HTML), and text that looks like a secret. The replacement has no quote and no backslash, so that
JSON stays JSON; it is the word that kubectl uses. Pure, but for the registry.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

REPLACEMENT: Final = "REDACTED"

_SHORTEST: Final = 6  # shorter ones are parts of ordinary words
_SHORTEST_WORD: Final = 12  # of one kind of letters alone: it may be a name that the records need
_LONGEST_TEXT: Final = 2000  # characters of a text from elsewhere in a message
_SHORTEST_LINE: Final = 16  # of a key's lines

_KEYS: Final = (
    r"(?:(?:id|access|refresh|bearer)[-_]?)?token|(?:id|access|refresh|bearer)Token|password|passwd"
    r"|client[-_]?secret|clientSecret|client-key-data|clientKeyData"
)
_QUERY_KEYS: Final = r"(?:[\w.-]{0,40}(?:token|password|passwd|secret|signature|credential)|pwd|sig|api[_-]?key)"
_PEM: Final = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----"
# Where a word begins: also after a line end that JSON has escaped. One place only in a run of letters, so that a long
# one is looked at once.
_WORD: Final = r"(?:(?<![\w-])|(?<=\\[nrtbf]))"
_QUOTE: Final = r"(?:\\{0,4}[\"']|&quot;|&#34;|&#39;)"

Replace = str | Callable[[re.Match[str]], str]


def _redact_basic(match: re.Match[str]) -> str:
    """Redact a user and password in base64 after the word Basic, and nothing else."""
    text = match[2]
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return match[0]
    return f"{match[1]}{REPLACEMENT}" if b":" in decoded else match[0]


def _redact_value(match: re.Match[str]) -> str:
    """Redact what follows a key, unless it is one plain word: `token: expired` is a message."""
    is_word = len(match[2]) <= _SHORTEST_WORD and match[2].isalpha() and match[2].islower()
    return match[0] if is_word else f"{match[1]}{REPLACEMENT}"


# Each with words in lower case, one of which is in every text where the pattern matches: a fast check before it.
_PATTERNS: Final[tuple[tuple[tuple[str, ...], re.Pattern[str], Replace], ...]] = (
    (  # a private key, whole or cut at its end; in JSON its line ends are escaped
        ("private key-----",),
        re.compile(
            rf"-----BEGIN {_PEM}(?:(?:(?!-----BEGIN)[^\"<>]){{0,20000}}?-----END {_PEM}"
            r"|(?:(?:\s|\\{1,4}[nrt])*[A-Za-z0-9+/=]{16,})*)"
        ),
        REPLACEMENT,
    ),
    (("eyj",), re.compile(rf"{_WORD}eyJ[\w-]{{6,}}\.eyJ[\w-]{{4,}}(?:\.[\w-]*)?"), REPLACEMENT),  # a JWT
    (
        ("authorization",),
        re.compile(
            r"(authorization\\?[\"']?\s{0,9}[:=,]\s{0,9}b?\\?[\"']?(?:bearer|basic|negotiate|digest)\s{1,9})"
            r"[^\s\"'\\,;<>]+",
            re.IGNORECASE,
        ),
        rf"\1{REPLACEMENT}",
    ),
    (
        ("bearer",),
        re.compile(rf"{_WORD}(Bearer\s{{1,9}})(?![A-Za-z]{{1,24}}\b(?![-._~+/=\d]))[\w.~+/-]{{8,}}=*", re.ASCII),
        rf"\1{REPLACEMENT}",
    ),
    (
        ("bearer",),
        re.compile(rf"{_WORD}(bearer\s{{1,9}})(?=[\w.~+/-]*\d)[\w.~+/-]{{8,}}=*", re.ASCII | re.IGNORECASE),
        rf"\1{REPLACEMENT}",
    ),
    (("basic",), re.compile(rf"{_WORD}(Basic\s{{1,9}})([A-Za-z0-9+/_-]{{4,}}={{0,2}})", re.IGNORECASE), _redact_basic),
    (  # a URL's password
        (":/", ":\\"),
        re.compile(r"(:\\{0,4}/\\{0,4}/[^\s/?#\"'<>@:\\]{0,200}):(?!\d{1,5}[,;)])[^\s/?#\"'<>\\]{1,500}@"),
        rf"\1:{REPLACEMENT}@",
    ),
    (
        ("token", "passw", "secret", "signature", "credential", "pwd", "sig", "key"),
        re.compile(rf"([?&;]{_QUERY_KEYS}=)[^&\s\"'<>#\\]+", re.IGNORECASE),
        rf"\1{REPLACEMENT}",
    ),
    (  # a line of a kubeconfig, by itself or with its line ends escaped
        ("token", "passw", "secret", "client-key-data"),
        re.compile(
            rf"((?:^|\\{{1,4}}n)[ \t]*(?:- )?[\"']?(?:{_KEYS})[\"']?:[ \t]+[\"']?)"
            r"([^\s\"'\\#]+)(?=\\{0,4}[\"']?[ \t]*(?:$|\\{0,4}[n\"']))",
            re.MULTILINE,
        ),
        _redact_value,
    ),
    (  # the same in JSON, also inside a string of JSON, in Python's repr, or escaped for HTML
        ("token", "passw", "secret", "client-key-data", "clientkeydata"),
        re.compile(rf"({_QUOTE}(?:{_KEYS}){_QUOTE}\s{{0,9}}:\s{{0,9}}{_QUOTE})([^\"'\\&]+)"),
        _redact_value,
    ),
    (  # as an argument or a variable
        ("token=", "passw", "secret="),
        re.compile(rf"({_WORD}[\w-]{{0,40}}(?:token|password|passwd|secret)=)([^\s\"'\\,;<>&]{{8,}})", re.IGNORECASE),
        _redact_value,
    ),
    (  # the same inside a line, where only text that is too long for a word counts as a value
        ("token", "passw", "secret", "client-key-data", "clientkeydata"),
        re.compile(rf"(\b(?:{_KEYS})[\"']?:\s{{1,9}}[\"']?)(?=[\w.~+/-]*\d)[\w.~+/-]{{20,}}=*", re.ASCII),
        rf"\1{REPLACEMENT}",
    ),
)


class _Registry:
    """The forms of all registered secrets, and the pattern that finds them. The pattern is replaced as a whole, so that
    threads read it without a lock."""

    def __init__(self) -> None:
        self.forms: frozenset[str] = frozenset()
        self.pattern: re.Pattern[str] | None = None

    def add(self, forms: frozenset[str]) -> None:
        if not forms <= self.forms:
            self.forms |= forms
            longest_first = sorted(self.forms, key=lambda form: (-len(form), form))
            self.pattern = re.compile("|".join(map(re.escape, longest_first)))


_registry: Final = _Registry()


def register_secret(text: str) -> None:
    """Register a secret, so that `redact` replaces it in every text. Very short secrets and short plain words are not
    registered, since they occur in ordinary text and in records; the patterns still apply to them."""
    for secret in {text, text.strip(), " ".join(text.split()), *text.split()}:  # messages have it on one line
        if _is_distinctive(secret):
            _registry.add(frozenset(_list_forms(secret)))


def register_key(pem: str) -> None:
    """Register a private key: each of its lines is a secret, since messages may have only some of them."""
    register_secret(pem)
    for line in pem.splitlines():
        if len(line.strip()) >= _SHORTEST_LINE and not line.startswith("-----"):
            register_secret(line)


def split_credentials(url: str) -> tuple[str, str]:
    """Split a URL into itself without credentials, and `user:password`, empty where it has none. The password is
    registered. Raises ValueError for an invalid URL, without showing it."""
    from urllib.parse import unquote, urlsplit, urlunsplit

    userinfo = re.search(r"//(?:[^/]*:)?([^/]*)@", url)
    if userinfo:
        register_secret(userinfo[1])
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    pair, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    name, _, password = pair.partition(":")
    for secret in (password, unquote(password)):
        register_secret(secret)
    return urlunsplit(parts._replace(netloc=host)), f"{unquote(name)}:{unquote(password)}"


def format_basic_authorization(pair: str) -> str:
    """Return the header value for `user:password`, in UTF-8 as curl and kubectl send it. Both are registered."""
    value = base64.b64encode(pair.encode()).decode()
    register_secret(pair)
    register_secret(pair.partition(":")[2])
    register_secret(value)
    return f"Basic {value}"


def redact_values(value: Any) -> Any:
    """Copy plain data and redact its texts; do this before they are escaped, which hides where words begin."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_values(one) for key, one in value.items()}
    return [redact_values(one) for one in value] if isinstance(value, list | tuple) else value


def one_line(text: str) -> str:
    """Format text from elsewhere as a part of a message: on one line, without secrets and control characters, and not
    too long. Secrets are removed before the text is cut, since a secret that is cut would no longer be recognised."""
    line = " ".join("".join(one if one.isprintable() else " " for one in redact(text)).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}..."


def redact(text: str) -> str:
    """Redact registered secrets, and what looks like a secret."""
    if _registry.pattern is not None:
        text = _registry.pattern.sub(REPLACEMENT, text)
    small = text.lower()
    for needles, pattern, replacement in _PATTERNS:
        if any(needle in small for needle in needles):
            text = pattern.sub(replacement, text)
    return text


def _is_distinctive(secret: str) -> bool:
    if len(secret) < _SHORTEST:
        return False
    is_word = secret.isdigit() or (secret.isalpha() and (secret.islower() or secret.isupper()))
    return not is_word or len(secret) >= _SHORTEST_WORD


def _list_forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may occur."""
    import html
    from urllib.parse import quote, quote_plus

    encoded = secret.encode("utf-8", "surrogateescape")
    yield secret
    for plain in (encoded, encoded + b"\n"):
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            yield code(plain).decode().rstrip("=")
    for written in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)):
        yield written[1:-1]
    yield json.dumps(json.dumps(secret)[1:-1])[1:-1]  # JSON inside a string of JSON
    yield from (
        html.escape(secret),
        html.escape(secret, quote=False),
        html.escape(secret, quote=False).replace('"', "&quot;"),
    )
    yield secret.replace('"', '""')  # CSV
    for url in (quote(secret, safe="", errors="surrogateescape"), quote(secret, errors="surrogateescape")):
        yield from (url, re.sub("%..", lambda found: found[0].lower(), url))
    yield quote_plus(secret, errors="surrogateescape")
