"""A client that holds a key and proves it (RFC 9449), and one that forges: any proof can be made, the forbidden too."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import get_default_algorithms

from authz_middleware.identity.connection.credentials import Target
from tests.support.tokens import REMOVED, ShownCredentials, base64url, make_key, shown

URL: Final = "https://billing.example/invoices"
"""Where `shown` says that its requests were sent to."""

_METHODS: Final = get_default_algorithms()
_REQUIRED: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_ORDER_OF_P256: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Client:
    """A client with one key, which it makes unless given one."""

    def __init__(self, alg: str = "ES256", *, key: Any = None) -> None:
        self.alg = alg
        self.key = make_key(alg) if key is None else key

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public key as a JSON Web Key; members can be added, replaced or REMOVED."""
        jwk = _METHODS[self.alg].to_jwk(self.key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        return _without_removed({**jwk, **members})

    def private_jwk(self) -> dict[str, Any]:
        """The whole key, as nobody should show it."""
        return dict(_METHODS[self.alg].to_jwk(self.key, as_dict=True))

    @property
    def jkt(self) -> str:
        """The thumbprint of the key (RFC 7638), for the `cnf` of a token."""
        return thumbprint(self.jwk())

    @property
    def cnf(self) -> dict[str, Any]:
        """The confirmation claim of a token that is bound to this client."""
        return {"jkt": self.jkt}

    def header(self, **members: Any) -> dict[str, Any]:
        """The header of a proof; members can be added, replaced or REMOVED."""
        return _without_removed({"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk(), **members})

    def claims(
        self, token: str, *, method: str = "GET", url: str = URL, now: float | None = None, **claims: Any
    ) -> dict[str, Any]:
        """The claims of a proof for one request with this token; each can be replaced or REMOVED."""
        return _without_removed(
            {
                "jti": uuid.uuid4().hex,
                "htm": method,
                "htu": url,
                "iat": int(time.time() if now is None else now),
                "ath": base64url(hashlib.sha256(token.encode()).digest()),
                **claims,
            }
        )

    def prove(
        self,
        token: str,
        *,
        method: str = "GET",
        url: str = URL,
        now: float | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A proof for one request with this token."""
        full = self.claims(token, method=method, url=url, now=now, **claims)
        return self.sign(base64url(self.header(**(header or {}))), base64url(full))

    def sign(self, header: str, payload: str) -> str:
        """A proof over two parts that are already encoded, however wrong they are."""
        signed = f"{header}.{payload}"
        return f"{signed}.{base64url(_METHODS[self.alg].sign(signed.encode(), self.key))}"


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638, said once more and otherwise than in the code under test; a key of no known kind is taken for EC."""
    kind = jwk["kty"] if isinstance(jwk["kty"], str) else "EC"
    members = {name: jwk.get(name) for name in _REQUIRED.get(kind, _REQUIRED["EC"])}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(text.encode()).digest())


def shown_with(
    token: str,
    *proofs: str,
    method: str = "GET",
    target: Target = Target("https", "billing.example", "/invoices"),  # noqa: B008 - frozen
) -> ShownCredentials:
    """The credentials of a request with a token under the scheme DPoP and these proofs."""
    return shown(f"DPoP {token}", headers=[("dpop", proof) for proof in proofs], method=method, target=target)


def twin(proof: str) -> str:
    """The same ES256 proof with the other signature that is just as valid: s becomes n - s."""
    from base64 import urlsafe_b64decode

    signed, _, signature = proof.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    s = _ORDER_OF_P256 - int.from_bytes(raw[32:], "big")
    return f"{signed}.{base64url(raw[:32] + s.to_bytes(32, 'big'))}"


def curve_key(curve: ec.EllipticCurve) -> Any:
    """A new private key on a curve of any kind."""
    return ec.generate_private_key(curve)


def _without_removed(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not REMOVED}
