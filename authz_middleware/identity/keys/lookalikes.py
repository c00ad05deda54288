"""Secrets that are none: keys that others know, or that were meant for something else.

Who keys HMAC with a public key lets everybody sign (CVE-2016-10555, CVE-2022-29217). A shared secret is therefore
refused when it reads as a key of another kind, in whichever way that key was written down.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from jwt.algorithms import get_default_algorithms

_LAYERS: Final = 3
_ARMOUR: Final = re.compile(
    rb"---- ?BEGIN |<RSAKeyValue|\b(?:sk-)?(?:ssh-(?:rsa|dss|ed25519|ed448)|ecdsa-sha2-nistp\d+)\b"
)
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]+|[A-Za-z0-9_-]+")
_CURVES: Final = {64: ec.SECP256R1(), 96: ec.SECP384R1(), 132: ec.SECP521R1()}
_HMAC: Final = get_default_algorithms()["HS256"]
_LOADERS: Final[tuple[Callable[[bytes], Any], ...]] = (
    load_der_public_key,
    lambda view: load_der_private_key(view, password=None),
    x509.load_der_x509_certificate,
    x509.load_der_x509_csr,
)


def reads_as_key(secret: bytes) -> bool:
    """Whether these bytes are a public key, a private key or a certificate: PEM, DER, SSH, JWK, XML or a bare point of
    a curve, also in base64, base64url, hexadecimal digits or UTF-16, and up to three of these upon each other.

    What cannot be told from random bytes passes: an Ed25519 key, a compressed point, a bare modulus.
    """
    return any(_is_key(view) for view in _views(secret, _LAYERS))


def _views(data: bytes, layers: int) -> Iterator[bytes]:
    """What these bytes may stand for, themselves first."""
    if not data:
        return
    yield data
    if not layers:
        return
    for decoded in _decodings(data):
        yield from _views(decoded, layers - 1)


def _decodings(data: bytes) -> Iterator[bytes]:
    if b"\0" in data:
        yield data.replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    text = b"".join(data.split())
    digits = text.replace(b":", b"")
    if _HEX.fullmatch(digits):
        yield binascii.a2b_hex(digits)
    bare = text.rstrip(b"=")
    if _BASE64.fullmatch(bare) and len(bare) % 4 != 1:
        yield base64.urlsafe_b64decode(bare.translate(bytes.maketrans(b"+/", b"-_")) + b"=" * (-len(bare) % 4))


def _is_key(view: bytes) -> bool:
    return bool(_ARMOUR.search(view)) or _is_refused_by_pyjwt(view) or _is_der(view) or _is_point(view)


def _is_refused_by_pyjwt(view: bytes) -> bool:
    """PyJWT's own check, which knows a JWK when it sees one; whatever it stumbles over is no plain secret."""
    try:
        _HMAC.prepare_key(view)
    except Exception:  # noqa: BLE001 - its exceptions are many, and their text may quote the secret
        return True
    return False


def _is_der(view: bytes) -> bool:
    return any(_loads(load, view) for load in _LOADERS)


def _is_point(view: bytes) -> bool:
    """An uncompressed point (SEC 1 section 2.3.3), with or without the byte in front that says so."""
    coordinates = view[1:] if len(view) % 2 and view[:1] == b"\x04" else view
    curve = _CURVES.get(len(coordinates))
    if curve is None:
        return False
    return _loads(lambda point: ec.EllipticCurvePublicKey.from_encoded_point(curve, point), b"\x04" + coordinates)


def _loads(load: Callable[[bytes], Any], view: bytes) -> bool:
    try:
        load(view)
    except Exception:  # noqa: BLE001 - what cannot be read as a key is not one
        return False
    return True
