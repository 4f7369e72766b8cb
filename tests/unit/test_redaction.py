"""Secrets in text: registered ones, and texts that look like one, are redacted, and nothing else."""

import base64
import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.system import redaction
from bench.system.redaction import (
    REPLACEMENT,
    redact,
    redact_values,
    register_key,
    register_secret,
)
from bench.system.redaction import split_credentials as split
from tests.command import ROOT

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASC\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what other tests registered."""
    monkeypatch.setattr(redaction, "_registry", redaction._Registry())


def _stored_texts() -> Iterator[Path]:
    for run in (ROOT / "results" / "example", ROOT / "tests" / "recorded" / "run_of_version_1"):
        yield from (path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".parquet")


def test_changes_no_stored_file() -> None:
    """Every text file of a recorded run stays unchanged: ids, sums, digests, tables and hints are no secrets."""
    paths = list(_stored_texts())
    texts = {path: path.read_text("utf-8") for path in paths}
    assert len(texts) > 20
    assert [path for path, text in texts.items() if redact(text) != text] == []


@pytest.mark.parametrize(
    "text",
    [
        "20261123T031500Z-istio-policies-7f3a: removed in 12 s",
        f"sha256:{'0123456789abcdef' * 4}",
        "registry.istio.io/release/proxyv2@sha256:0f3a1b",
        "spiffe://cluster.local/ns/bookinfo-7f3a/sa/bookinfo-reviews",
        "kubectl --context kind-mesh -n meshbench-ci create token meshbench --duration 8h",
        "A bearer token that ends in a line break, or Basic authentication with Bearer authorization",
        "Authorization: who may do what; AuthorizationPolicy: ratings",
        "http://127.0.0.1:8089 and https://10.0.0.1:6443/api/v1/pods?limit=500&continue=abc@def",
        "token: has a line break inside",
        "the password is wrong; password: not given",
        "GET /productpage?u=normal HTTP/1.1",
        "token: expired",
        '{"password": "required"}',
        "http://localhost:8080,x@y",
        "a token= that is empty",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
        "|---:|---|\n| P95 | 12.3 ms |",
    ],
)
def test_leaves_ordinary_text(text: str) -> None:
    """Text that mentions secrets, or resembles one, is unchanged."""
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("headers: {'Authorization': 'Bearer hunter2'}", "hunter2"),
        ("Invalid header value b'Bearer abc/def.123\\n'", "abc/def.123"),
        ("Proxy-Authorization: Basic bWU6aHVudGVyMg==", "bWU6aHVudGVyMg"),
        ("it sent Basic bWU6aHVudGVyMg==, and waited", "bWU6aHVudGVyMg"),
        (f"a token {JWT}, cut {JWT[:80]}", "eyJpc3Mi"),
        (f"key:\n{PEM}rest", "MIIEvQIBADANBgkqhkiG9w0B"),
        (json.dumps({"key": PEM}), "MIIEvQIBADANBgkqhkiG9w0B"),
        (PEM[:60], "MIIEvQIBADANBgkqhkiG9w0B"),
        ("http://me:hunter2@proxy.example:3128/", "hunter2"),
        (r"http:\/\/me:hunter2@proxy.example", "hunter2"),
        ("GET /x?a=1&access_token=hunter2&b=2", "hunter2"),
        ("https://x.example/y?X-Amz-Signature=hunter2", "hunter2"),
        ("<a href='/x?a=1&amp;token=hunter2'>", "hunter2"),
        ("users:\n- name: me\n  user:\n    token: hunter2\n", "hunter2"),
        ("    client-key-data: aHVudGVyMg==\n", "aHVudGVyMg"),
        ('{"token": "hunter2", "a": 1}', "hunter2"),
        ("{'password': 'hunter2pw'}", "hunter2pw"),
        ("login --token=hunter2hunter2 and PASSWORD=hunter2hunter2", "hunter2hunter2"),
        (json.dumps("user:\n    password: hunter2\nnext: 1"), "hunter2"),
    ],
)
def test_redacts_what_looks_like_a_secret(text: str, secret: str) -> None:
    """A secret that was never registered is recognised by its context, also at the start of an escaped line in a JSON
    text; the rest of the text stays."""
    found = redact(text)
    assert secret not in found
    assert REPLACEMENT in found
    assert redact(found) == found
    record = {"reason": f"log:\n{text}", "more": [json.dumps({"b": f"x\n{text}"})]}
    assert secret not in json.dumps(redact_values(record))


@pytest.mark.parametrize(
    "text", ["-eyJ", "-----BEGIN PRIVATE KEY-----", "Bearer ", "token=", "://a:", "eyJ" + "a" * 50]
)
def test_reads_long_text_in_linear_time(text: str) -> None:
    """A pod may print any text: no pattern examines a position more than once."""
    began = time.monotonic()
    redact(text * (500_000 // len(text)))
    assert time.monotonic() - began < 5  # a quadratic one takes minutes


def test_keeps_the_context_of_a_secret() -> None:
    """A reader sees to whom the secret belongs."""
    assert (
        redact("http://me:hunter2@proxy.example:3128/ refused")
        == f"http://me:{REPLACEMENT}@proxy.example:3128/ refused"
    )
    assert redact(f"key:\n{PEM}rest") == f"key:\n{REPLACEMENT}\nrest"


ODD = 'q"uo\\te/t0ken+<&>é='


@pytest.mark.parametrize(
    "form",
    [
        ODD,
        json.dumps(ODD),
        json.dumps(ODD, ensure_ascii=False),
        json.dumps({"a": json.dumps({"b": ODD})}),
        repr(ODD),
        html.escape(ODD),
        html.escape(ODD, quote=False),
        ODD.replace('"', '""'),
        quote(ODD),
        re.sub("%..", lambda found: found[0].lower(), quote(ODD, safe="")),
        quote(ODD, safe=""),
        base64.b64encode(ODD.encode()).decode(),
        base64.urlsafe_b64encode(ODD.encode()).decode(),
        base64.b64encode(f"{ODD}\n".encode()).decode(),
    ],
)
def test_redacts_registered_secret_in_every_form(form: str) -> None:
    """As a server, a library or a report may return it."""
    register_secret(f"{ODD}\n")
    found = redact(f"before {form} after")
    assert found.startswith("before ")
    assert found.endswith(" after")
    assert "t0ken" not in found
    assert form.strip("\"'") not in found


def test_redacts_key_line_by_line() -> None:
    """Messages may have only some of its lines."""
    register_key(PEM)
    assert redact("near MIIEvQIBADANBgkqhkiG9w0B: bad") == f"near {REPLACEMENT}: bad"


@pytest.mark.parametrize("secret", ["", "abc", "istio", "baseline", "12345678"])
def test_does_not_register_short_and_plain_words(secret: str) -> None:
    """A password that is a word of a record would remove the record's own words."""
    register_secret(secret)
    assert redact(f"{secret} istio baseline 12345678") == f"{secret} istio baseline 12345678"


@given(text=st.text(), key=st.text(max_size=8))
def test_redacted_json_is_valid(text: str, key: str) -> None:
    """A redacted record can be read again, and text without secrets is unchanged."""
    register_secret("hunter2-hunter2")
    written = json.dumps({key: f"{text}hunter2-hunter2 Bearer abc123def456 http://u:{text}@h {PEM}", "n": [1, text]})
    read = json.loads(redact(written))
    assert "hunter2-hunter2" not in json.dumps(read)
    assert read["n"][0] == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://x.example:9090/a", ("http://x.example:9090/a", "")),
        ("http://me:pa55%20word@x.example:9090/a", ("http://x.example:9090/a", "me:pa55 word")),
        ("https://me@x.example", ("https://x.example", "me:")),
        ("http://:pw@[::1]:80", ("http://[::1]:80", ":pw")),
    ],
)
def test_splits_url_from_its_credentials(url: str, expected: tuple[str, str]) -> None:
    """User and password are decoded, as they go into a header."""
    assert split(url) == expected


@pytest.mark.parametrize("url", ["http://me:hunter2@x:port", "http://me:hunter2@[::1", "http://me:hunter2@x:99999"])
def test_does_not_show_invalid_url(url: str) -> None:
    """The error has no part of it, and its password is registered."""
    with pytest.raises(ValueError, match=r"^it is not a URL$"):
        split(url)
    assert "hunter2" not in redact(f"cannot parse {url}; 'hunter2'")
