"""A throw-away token issuer: a key that lives as long as the demo, its public half as a JWKS file, and tokens."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER = "https://issuer.example/"
AUDIENCE = "treasury-api"


class Issuer:
    """Signs access tokens (RFC 9068) with one ES256 key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def publish(self, path: Path) -> None:
        """Write the public key as a JSON Web Key Set."""
        public = ECAlgorithm(ECAlgorithm.SHA256).to_jwk(self._key.public_key(), as_dict=True)
        jwk = {**public, "kid": "demo", "alg": "ES256", "use": "sig"}
        path.write_text(json.dumps({"keys": [jwk]}), encoding="utf-8")

    def mint(self, claims: Mapping[str, Any], lifetime: int = 900) -> str:
        """A token with these claims, valid for `lifetime` seconds. A claim that is None is left out."""
        now = int(time.time())
        common = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + lifetime, "jti": uuid.uuid4().hex}
        full = {name: value for name, value in {**common, **claims}.items() if value is not None}
        return jwt.encode(full, self._key, algorithm="ES256", headers={"kid": "demo", "typ": "at+jwt"})
