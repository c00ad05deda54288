"""What a token says that it is bound to, and which of it is refused because nobody here could check it."""

from __future__ import annotations

from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from authz_middleware.identity.possession.binding import (
    Binding,
    Possession,
    binding_of,
    check_possession,
    thumbprint_of,
)
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError
from tests.support.dpop import Client

pytestmark = [pytest.mark.capability("C19"), pytest.mark.promise("P2")]

JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
X5T = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"


@pytest.mark.parametrize(
    ("cnf", "binding"),
    [
        pytest.param({"jkt": JKT}, Binding(jkt=JKT), id="a key"),
        pytest.param({"x5t#S256": X5T}, Binding(x5t_s256=X5T), id="a certificate"),
        pytest.param({"jkt": JKT, "x5t#S256": X5T}, Binding(JKT, X5T), id="both"),
    ],
)
def test_a_confirmation_says_what_must_be_proven(cnf: dict[str, Any], binding: Binding) -> None:
    assert binding_of({"sub": "alice", "cnf": cnf}) == binding


def test_a_token_without_a_confirmation_is_not_bound() -> None:
    assert binding_of({"sub": "alice"}) is None


@pytest.mark.parametrize(
    "cnf",
    [
        pytest.param(None, id="null"),
        pytest.param(JKT, id="text"),
        pytest.param([{"jkt": JKT}], id="a list"),
        pytest.param({}, id="nothing"),
        pytest.param({"jwk": Client().jwk()}, id="a whole key"),
        pytest.param({"kid": "key-1"}, id="a key id"),
        pytest.param({"x5t": "7XyMpaDn1oTFyYDkMIxNQ1nSMyg"}, id="the SHA-1 of a certificate"),
        pytest.param({"jkt": JKT, "kid": "key-1"}, id="something unknown beside a key"),
        pytest.param({"jkt": JKT, "x5t#S256": None}, id="null beside a key"),
        pytest.param({"JKT": JKT}, id="another case"),
        pytest.param({"jkt": None}, id="a thumbprint that is null"),
        pytest.param({"jkt": ""}, id="an empty thumbprint"),
        pytest.param({"jkt": 7}, id="a thumbprint that is a number"),
        pytest.param({"jkt": [JKT]}, id="a list of thumbprints"),
        pytest.param({"jkt": JKT[:-1]}, id="a short thumbprint"),
        pytest.param({"jkt": JKT + "A"}, id="a long thumbprint"),
        pytest.param({"jkt": JKT + "="}, id="a padded thumbprint"),
        pytest.param({"jkt": JKT + "\n"}, id="a thumbprint and a line feed"),
        pytest.param({"jkt": JKT[:-1] + "J"}, id="another spelling of the last byte"),
        pytest.param({"jkt": JKT.replace("-", "+")}, id="the other alphabet"),
        pytest.param({"x5t#S256": X5T[:-1] + "1"}, id="another spelling of a certificate's last byte"),
    ],
)
def test_a_confirmation_that_nobody_here_can_check_is_refused(cnf: Any) -> None:
    with pytest.raises(TokenRefusedError) as refusal:
        binding_of({"sub": "alice", "cnf": cnf})
    assert refusal.value.detail is CredentialDetail.BOUND


@pytest.mark.parametrize(
    ("required", "binding", "accepted"),
    [
        (None, None, True),
        (None, Binding(jkt=JKT), True),
        ("any", None, False),
        ("any", Binding(jkt=JKT), True),
        ("any", Binding(x5t_s256=X5T), True),
        ("dpop", None, False),
        ("dpop", Binding(x5t_s256=X5T), False),
        ("dpop", Binding(jkt=JKT), True),
        ("dpop", Binding(JKT, X5T), True),
        ("mtls", None, False),
        ("mtls", Binding(jkt=JKT), False),
        ("mtls", Binding(x5t_s256=X5T), True),
    ],
)
def test_an_issuers_tokens_must_be_bound_as_its_settings_say(
    required: Possession | None, binding: Binding | None, accepted: bool
) -> None:
    if accepted:
        check_possession(binding, required)
        return
    with pytest.raises(TokenRefusedError) as refusal:
        check_possession(binding, required)
    assert refusal.value.detail is CredentialDetail.UNBOUND


RFC9449 = {
    "kty": "EC",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    "crv": "P-256",
}
RFC8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RFC7638 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
    "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
    "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


@pytest.mark.parametrize(
    ("jwk", "thumbprint"),
    [
        pytest.param(RFC9449, JKT, id="RFC 9449 section 6.1"),
        pytest.param(RFC8037, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", id="RFC 8037 appendix A.3"),
        pytest.param(RFC7638, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", id="RFC 7638 section 3.1"),
        pytest.param({**RFC9449, "kid": "a", "use": "sig", "n": "x"}, JKT, id="members that do not make the key"),
    ],
)
def test_the_thumbprint_of_a_key_is_that_of_the_standard(jwk: dict[str, Any], thumbprint: str) -> None:
    assert thumbprint_of(jwk) == thumbprint


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="a shared secret"),
        pytest.param({"kty": ["EC"]}, id="a type that is a list"),
        pytest.param({"kty": "EC", "crv": "P-256", "x": "AA"}, id="half a key"),
        pytest.param({**RFC9449, "x": 1}, id="a coordinate that is a number"),
        pytest.param({**RFC9449, "x": "é"}, id="a coordinate that is not base64url"),
    ],
)
def test_what_is_no_public_key_has_no_thumbprint(jwk: dict[str, Any]) -> None:
    assert thumbprint_of(jwk) is None


def test_another_spelling_of_a_key_is_another_key() -> None:
    spelt = {**RFC9449, "x": RFC9449["x"][:-1] + "t"}
    numbers = [ECAlgorithm.from_jwk(jwk).public_numbers() for jwk in (RFC9449, spelt)]  # type: ignore[union-attr]  # public
    assert numbers[0] == numbers[1]
    assert thumbprint_of(spelt) != JKT


def test_a_binding_does_not_hold_a_confirmation_of_nothing() -> None:
    assert Binding(jkt=JKT) != Binding()
