"""What nobody has signed is not read, whoever might have signed it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from authz_middleware import Settings
from authz_middleware.identity.authenticator import Authenticator
from authz_middleware.identity.compact import RawToken
from authz_middleware.identity.principal import Principal
from tests.support.spiffe import TrustDomain
from tests.support.tokens import AUDIENCE, Issuer, bearer
from tests.support.treasury import ISSUER, settings

pytestmark = [pytest.mark.capability("C13"), pytest.mark.promise("P3")]

DOMAIN = TrustDomain()


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    table = {
        "name": DOMAIN.name,
        "audience": [AUDIENCE],
        "algorithms": ["ES256"],
        "jwks": DOMAIN.bundle(),
        "paths": ["/ns/**"],
    }
    chosen = Settings.from_mapping({**settings(tmp_path), "trust_domains": [table]})
    return Authenticator(chosen.issuers, trust_domains=chosen.trust_domains)


@pytest.mark.parametrize("iss", ["https://nobody.example/", f"spiffe://{DOMAIN.name}", ISSUER.url])
@pytest.mark.parametrize("sub", [DOMAIN.id(), "alice"])
def test_the_claims_of_a_forged_token_are_not_built_for_the_sake_of_a_trust_domain(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch, iss: str, sub: str
) -> None:
    read: list[RawToken] = []
    monkeypatch.setattr(RawToken, "unverified_claims", property(read.append))
    forged = Issuer(iss, kid="svid-1").mint(sub=sub, header={"typ": "JWT"}, padding=[0] * 1000)
    assert not isinstance(authenticator.authenticate(bearer(forged), time.time()), Principal)
    assert read == []


@pytest.mark.parametrize("iss", [5, [ISSUER.url], {"a": ISSUER.url}, ISSUER.url])
def test_an_svid_whose_issuer_is_somebody_elses_or_no_text_is_none(authenticator: Authenticator, iss: Any) -> None:
    now = time.time()
    assert isinstance(authenticator.authenticate(bearer(DOMAIN.svid(now=now)), now), Principal)
    assert not isinstance(authenticator.authenticate(bearer(DOMAIN.svid(now=now, iss=iss)), now), Principal)
