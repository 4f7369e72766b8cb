"""JSON Web Tokens that a test signs with a key of its own."""

import base64
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sign(claims: dict[str, object], key: rsa.RSAPrivateKey) -> str:
    """Return a token with these claims."""
    parts = [_encode(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "one"}, claims)]
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*parts, _encode(signature)])


def format_key_set(key: rsa.RSAPrivateKey) -> str:
    """Return the JSON Web Key Set by which its tokens are verified."""
    public = key.public_key().public_numbers()
    numbers = {"n": public.n, "e": public.e}
    parts = {name: _encode(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in numbers.items()}
    return json.dumps({"keys": [{"kty": "RSA", "kid": "one", "alg": "RS256", **parts}]})


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
