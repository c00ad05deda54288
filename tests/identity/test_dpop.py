"""Which proofs of possession are believed, and which of the forged, borrowed and repeated ones are not, and why."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.answer import answer_for
from authz_middleware.decision import Decision, Reason
from authz_middleware.errors import SettingsError
from authz_middleware.flow import Effect, Work, arun, run
from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.connection.credentials import Credentials, Target
from authz_middleware.identity.keys.jwk import VerificationKey
from authz_middleware.identity.possession.binding import Binding
from authz_middleware.identity.possession.dpop import DPoP
from authz_middleware.identity.possession.nonces import PERIOD_S, Nonces
from authz_middleware.identity.problem import PROBLEMS, CredentialDetail, TokenRefusedError
from authz_middleware.settings import DPoPSettings, Secret, Settings
from authz_middleware.settings.dpop import PROOF_ALGORITHMS
from tests.support.dpop import URL, Client, curve_key, shown_with, thumbprint, twin
from tests.support.tokens import REMOVED, Issuer, base64url

pytestmark = [pytest.mark.capability("C19"), pytest.mark.promise("P3")]

NOW = 1_750_000_000.0
CLIENT = Client()
OTHER = Client()
ISSUER = Issuer()
TOKEN = ISSUER.mint(now=NOW, cnf=CLIENT.cnf)
ANOTHER_TOKEN = ISSUER.mint(now=NOW, cnf=CLIENT.cnf)
BINDING = Binding(jkt=CLIENT.jkt)
RSA = {bits: rsa.generate_private_key(public_exponent=65537, key_size=bits) for bits in (1024, 2048)}
ACCEPTED = "accepted"


def perform(effect: Effect) -> object:
    assert isinstance(effect, Work)
    return effect.job.perform()


async def aperform(effect: Effect) -> object:
    assert isinstance(effect, Work)
    return await effect.job.aperform()


def outcome(dpop: DPoP, credentials: Credentials, token: str, binding: Binding | None, now: float) -> str:
    """`accepted`, or the detail of the refusal."""
    try:
        run(dpop.check(credentials, token, binding, now), perform)
    except TokenRefusedError as refusal:
        return refusal.detail.value
    return ACCEPTED


def outcome_of(
    *proofs: str,
    dpop: DPoP | None = None,
    token: str = TOKEN,
    binding: Binding | None = BINDING,
    now: float = NOW,
    **request: Any,
) -> str:
    return outcome(dpop or DPoP(DPoPSettings()), shown_with(token, *proofs, **request), token, binding, now)


def prove(client: Client = CLIENT, *, token: str = TOKEN, now: float = NOW, **changes: Any) -> str:
    return client.prove(token, now=now, **changes)


def raw(header: str | bytes | dict[str, Any], payload: str | bytes | dict[str, Any]) -> str:
    return CLIENT.sign(base64url(header), base64url(payload))


def with_payload(text: str | bytes) -> str:
    return raw(CLIENT.header(), text)


def payload_and(extra: str) -> str:
    return with_payload(json.dumps(CLIENT.claims(TOKEN, now=NOW))[:-1] + f", {extra}}}")


def signed_by(header_of: Client, signer: Client) -> str:
    """A proof that shows one key and is signed with another."""
    return signer.sign(base64url(header_of.header()), base64url(header_of.claims(TOKEN, now=NOW)))


def unsigned() -> str:
    header, payload, _ = prove(header={"alg": "none"}).split(".")
    return f"{header}.{payload}."


def hmac_with_the_key(secret: bytes) -> str:
    forger = Client("HS256", key=secret)
    header = CLIENT.header(alg="HS256")
    return forger.sign(base64url(header), base64url(CLIENT.claims(TOKEN, now=NOW)))


def tampered() -> str:
    header, _, signature = prove().split(".")
    return f"{header}.{base64url(CLIENT.claims(TOKEN, now=NOW))}.{signature}"


def weak() -> tuple[Client, Binding]:
    client = Client("PS256", key=RSA[1024])
    return client, Binding(jkt=client.jkt)


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
def test_a_proof_of_the_key_that_the_token_is_bound_to_is_accepted(alg: str) -> None:
    client = Client(alg, key=RSA[2048] if alg == "PS256" else None)
    token = ISSUER.mint(now=NOW, cnf=client.cnf)
    assert outcome_of(prove(client, token=token), token=token, binding=Binding(jkt=client.jkt)) == ACCEPTED


@pytest.mark.parametrize("alg", PROOF_ALGORITHMS)
def test_each_algorithm_can_be_chosen(alg: str) -> None:
    client = Client(alg, key=RSA[2048] if alg[:2] in ("RS", "PS") else None)
    dpop = DPoP(DPoPSettings(algorithms=(alg,)))
    assert outcome_of(prove(client), dpop=dpop, binding=Binding(jkt=client.jkt)) == ACCEPTED


RFC_PROOF = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJ"
    "qdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXN"
    "vdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yR"
    "qzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"


def test_the_proof_of_the_standard_is_accepted() -> None:
    """RFC 9449 section 7.1, with the thumbprint of section 6.1."""
    binding = Binding(jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")
    target = Target("https", "resource.example.org", "/protectedresource")
    request = {"token": RFC_TOKEN, "binding": binding, "target": target}
    assert outcome_of(RFC_PROOF, now=1562262618.0, **request) == ACCEPTED
    assert outcome_of(RFC_PROOF, now=1562262618.0 + 60, **request) == "dpop.time"


FORGED: list[tuple[str, str, Callable[[], str]]] = [
    # form
    ("nothing", "dpop.malformed", lambda: ""),
    ("two parts", "dpop.malformed", lambda: prove().rpartition(".")[0]),
    ("padded", "dpop.malformed", lambda: prove() + "="),
    ("a blank before it", "dpop.malformed", lambda: " " + prove()),
    ("a line feed after it", "dpop.malformed", lambda: prove() + "\n"),
    ("JSON serialised", "dpop.malformed", lambda: json.dumps({"payload": "", "signatures": []}).replace(",", "")),
    ("more than 8 KiB", "dpop.malformed", lambda: prove(filler="x" * 6200)),
    ("a second spelling of the signature", "dpop.malformed", lambda: prove()[:-1] + "-"),
    ("a payload that is no object", "dpop.malformed", lambda: with_payload("[]")),
    ("a payload that is not JSON", "dpop.malformed", lambda: with_payload("htm=GET")),
    ("a payload that is not UTF-8", "dpop.malformed", lambda: with_payload(b'{"jti":"\xff"}')),
    ("the method twice", "dpop.malformed", lambda: payload_and('"htm": "GET"')),
    ("the method twice, by escapes", "dpop.malformed", lambda: payload_and('"h\\u0074m": "GET"')),
    ("NaN", "dpop.malformed", lambda: payload_and('"x": NaN')),
    ("deeper than anybody reads", "dpop.malformed", lambda: payload_and('"x": ' + "[" * 40 + "]" * 40)),
    # header
    ("a type that is missing", "dpop.malformed", lambda: prove(header={"typ": REMOVED})),
    ("an access token as proof", "dpop.malformed", lambda: prove(header={"typ": "at+jwt"})),
    ("the type in capitals", "dpop.malformed", lambda: prove(header={"typ": "DPoP+JWT"})),
    ("the type as a media type", "dpop.malformed", lambda: prove(header={"typ": "application/dpop+jwt"})),
    ("crit", "dpop.malformed", lambda: prove(header={"crit": ["x"], "x": 1})),
    ("an empty crit", "dpop.malformed", lambda: prove(header={"crit": []})),
    ("b64", "dpop.malformed", lambda: prove(header={"b64": True})),
    ("zip", "dpop.malformed", lambda: prove(header={"zip": "DEF"})),
    ("alg none", "dpop.algorithm", lambda: prove(header={"alg": "none"})),
    ("alg none in capitals", "dpop.algorithm", lambda: prove(header={"alg": "NONE"})),
    ("no algorithm", "dpop.algorithm", lambda: prove(header={"alg": REMOVED})),
    ("an algorithm that is a list", "dpop.algorithm", lambda: prove(header={"alg": ["ES256"]})),
    ("an algorithm in lower case", "dpop.algorithm", lambda: prove(header={"alg": "es256"})),
    ("one that was not chosen", "dpop.algorithm", lambda: prove(Client("RS256", key=RSA[2048]))),
    ("HMAC with the key's x", "dpop.algorithm", lambda: hmac_with_the_key(CLIENT.jwk()["x"].encode())),
    ("HMAC with the whole key", "dpop.algorithm", lambda: hmac_with_the_key(json.dumps(CLIENT.jwk()).encode())),
    ("no key", "dpop.key", lambda: prove(header={"jwk": REMOVED})),
    ("a key id for a key", "dpop.key", lambda: prove(header={"jwk": REMOVED, "kid": "key-1"})),
    ("a key as text", "dpop.key", lambda: prove(header={"jwk": json.dumps(CLIENT.jwk())})),
    ("a list of keys", "dpop.key", lambda: prove(header={"jwk": [CLIENT.jwk()]})),
    ("the whole private key", "dpop.key", lambda: prove(header={"jwk": CLIENT.private_jwk()})),
    ("a shared secret", "dpop.key", lambda: prove(header={"jwk": {"kty": "oct", "k": "c2VjcmV0"}})),
    ("a secret beside the key", "dpop.key", lambda: prove(header={"jwk": CLIENT.jwk(k="c2VjcmV0")})),
    ("a private member that is null", "dpop.key", lambda: prove(header={"jwk": {**CLIENT.jwk(), "d": None}})),
    ("a key for encryption", "dpop.key", lambda: prove(header={"jwk": CLIENT.jwk(use="enc")})),
    ("a key for signing alone", "dpop.key", lambda: prove(header={"jwk": CLIENT.jwk(key_ops=["sign"])})),
    ("a key of another algorithm", "dpop.key", lambda: prove(header={"jwk": CLIENT.jwk(alg="ES384")})),
    ("an algorithm that is not the key's", "dpop.key", lambda: prove(header={"alg": "PS256"})),
    ("half a key", "dpop.key", lambda: prove(header={"jwk": CLIENT.jwk(y=REMOVED)})),
    ("somebody else's key", "dpop.mismatch", lambda: prove(OTHER)),
    ("somebody else's key under ours as kid", "dpop.mismatch", lambda: prove(OTHER, header={"kid": CLIENT.jkt})),
    (
        "our key in another spelling",
        "dpop.mismatch",
        lambda: prove(header={"jwk": CLIENT.jwk(x=CLIENT.jwk()["x"] + "=")}),
    ),
    # claims
    ("no jti", "dpop.malformed", lambda: prove(jti=REMOVED)),
    ("an empty jti", "dpop.malformed", lambda: prove(jti="")),
    ("a jti that is a number", "dpop.malformed", lambda: prove(jti=7)),
    ("a huge jti", "dpop.malformed", lambda: prove(jti="x" * 257)),
    ("a jti with a line feed", "dpop.malformed", lambda: prove(jti="a\nb")),
    ("no method", "dpop.malformed", lambda: prove(htm=REMOVED)),
    ("another method", "dpop.method", lambda: prove(method="POST")),
    ("the method in lower case", "dpop.method", lambda: prove(method="get")),
    ("the method and a blank", "dpop.method", lambda: prove(method="GET ")),
    ("methods in a list", "dpop.malformed", lambda: prove(htm=["GET"])),
    ("no address", "dpop.malformed", lambda: prove(htu=REMOVED)),
    ("an address that is a list", "dpop.malformed", lambda: prove(htu=[URL])),
    ("another address", "dpop.target", lambda: prove(url="https://billing.example/refunds")),
    ("another host", "dpop.target", lambda: prove(url="https://other.example/invoices")),
    ("another scheme", "dpop.target", lambda: prove(url="http://billing.example/invoices")),
    ("no hash of the token", "dpop.token", lambda: prove(ath=REMOVED)),
    ("the hash of another token", "dpop.token", lambda: prove(token=ANOTHER_TOKEN)),
    ("a padded hash", "dpop.token", lambda: prove(ath=CLIENT.claims(TOKEN)["ath"] + "=")),
    ("a hash that is null", "dpop.token", lambda: raw(CLIENT.header(), {**CLIENT.claims(TOKEN, now=NOW), "ath": None})),
    ("no time", "dpop.malformed", lambda: prove(iat=REMOVED)),
    ("a time that is text", "dpop.malformed", lambda: prove(iat=str(int(NOW)))),
    ("a time that is true", "dpop.malformed", lambda: prove(iat=True)),
    ("a time before 1970", "dpop.malformed", lambda: prove(iat=-1)),
    ("a time beyond all calendars", "dpop.malformed", lambda: prove(iat=10**18)),
    ("too old", "dpop.time", lambda: prove(iat=NOW - 60)),
    ("from the future", "dpop.time", lambda: prove(iat=NOW + 5.001)),
    ("past its own end", "dpop.time", lambda: prove(exp=NOW)),
    ("before its own beginning", "dpop.time", lambda: prove(nbf=NOW + 6)),
    ("an end that is text", "dpop.malformed", lambda: prove(exp="never")),
    ("a beginning that is true", "dpop.malformed", lambda: prove(nbf=True)),
    # signature
    ("unsigned", "dpop.malformed", unsigned),
    ("signed with another key", "dpop.signature", lambda: signed_by(CLIENT, OTHER)),
    ("changed after it was signed", "dpop.signature", tampered),
    (
        "a signature of another length",
        "dpop.signature",
        lambda: prove().rpartition(".")[0] + "." + base64url(bytes(60)),
    ),
    ("a signature of zeros", "dpop.signature", lambda: prove().rpartition(".")[0] + "." + base64url(bytes(64))),
]


@pytest.mark.parametrize(("detail", "make"), [pytest.param(detail, make, id=name) for name, detail, make in FORGED])
def test_a_forged_proof_is_refused(detail: str, make: Callable[[], str]) -> None:
    assert outcome_of(make()) == detail


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"iat": NOW - 59.999}, id="almost too old"),
        pytest.param({"iat": NOW + 5}, id="a clock that is ahead"),
        pytest.param({"exp": NOW + 1, "nbf": NOW}, id="within its own bounds"),
        pytest.param({"jti": "x" * 256}, id="a long jti"),
        pytest.param({"jti": "été"}, id="a jti beyond ASCII"),
        pytest.param(
            {"url": "HTTPS://BILLING.example:443/%69nvoices?page=2#top"}, id="another spelling of the address"
        ),
        pytest.param({"nonce": "whatever"}, id="a nonce that nobody asked for"),
        pytest.param(
            {"header": {"kid": "../../etc/passwd", "x5u": "https://evil.example/"}}, id="members nobody reads"
        ),
        pytest.param({"header": {"jwk": CLIENT.jwk(kid="a", use="sig", alg="ES256")}}, id="a key with a name"),
        pytest.param({"header": {"jwk": CLIENT.jwk(key_ops=["verify"])}}, id="a key for verifying"),
    ],
)
def test_what_the_standard_leaves_open_is_accepted(changes: dict[str, Any]) -> None:
    assert outcome_of(prove(**changes)) == ACCEPTED


@pytest.mark.parametrize(
    ("client", "why"),
    [
        (Client("PS256", key=RSA[1024]), "too small"),
        (Client("ES256", key=curve_key(ec.SECP256K1())), "of another curve"),
    ],
)
def test_a_weak_key_is_refused_even_where_the_token_is_bound_to_it(client: Client, why: str) -> None:
    assert outcome_of(prove(client), binding=Binding(jkt=client.jkt)) == "dpop.key"


def test_a_key_that_anybody_can_sign_for_is_refused() -> None:
    """A point of small order: for it, one signature holds over everything."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(b"\x01" + bytes(31))}
    header, claims = CLIENT.header(alg="EdDSA", jwk=jwk), CLIENT.claims(TOKEN, now=NOW)
    proof = ".".join(base64url(part) for part in (header, claims, b"\x01" + bytes(63)))
    assert outcome_of(proof, binding=Binding(jkt=thumbprint(jwk))) == "dpop.key"


def test_an_exponent_that_makes_checking_dear_is_refused() -> None:
    client = Client("PS256", key=RSA[2048])
    exponent = RSA[2048].public_key().public_numbers().n - 2
    jwk = client.jwk(e=base64url(exponent.to_bytes(256, "big")))
    assert outcome_of(prove(client, header={"jwk": jwk}), binding=Binding(jkt=thumbprint(jwk))) == "dpop.key"


def test_a_token_that_is_not_bound_to_a_key_is_refused_whatever_is_proven() -> None:
    for binding in (None, Binding(), Binding(x5t_s256=CLIENT.jkt)):
        assert outcome_of(prove(), binding=binding) == "dpop.unbound"


def test_a_token_without_a_proof_is_refused() -> None:
    assert outcome_of() == "dpop.missing"


def test_two_proofs_are_none() -> None:
    assert outcome_of(prove(), prove()) == "dpop.multiple"
    assert outcome_of(f"{prove()}, {prove()}") == "dpop.multiple"
    assert outcome_of(prove() + ",") == "dpop.multiple"
    assert outcome_of(prove(), "") == "dpop.multiple"


def test_a_header_written_with_an_underscore_or_another_name_is_no_proof() -> None:
    scope = {"type": "http", "method": "GET", "headers": [(b"host", b"h"), (b"d_pop", b"x"), (b"dpop-", b"x")]}
    assert outcome(DPoP(DPoPSettings()), ASGICredentials(scope), TOKEN, BINDING, NOW) == "dpop.missing"


OUTSIDE = Target("https", "billing.example", "/invoices")
INSIDE = Target("http", "10.0.0.7:8000", "/invoices")


@pytest.mark.parametrize(
    ("url", "behind_a_proxy", "detail"),
    [
        (URL, True, ACCEPTED),
        (URL, False, "dpop.target"),
        ("http://10.0.0.7:8000/invoices", True, "dpop.target"),
        ("http://10.0.0.7:8000/invoices", False, ACCEPTED),
    ],
)
def test_where_the_client_sent_the_request_to_counts(url: str, behind_a_proxy: bool, detail: str) -> None:
    dpop = DPoP(DPoPSettings(), target_of=lambda _: OUTSIDE) if behind_a_proxy else DPoP(DPoPSettings())
    assert outcome_of(prove(url=url), dpop=dpop, target=INSIDE) == detail


def test_an_address_that_is_none_is_not_proven_by_another_that_is_none() -> None:
    assert outcome_of(prove(url="/../x"), target=Target("https", "billing.example", "/../x")) == "dpop.target"


def test_a_server_that_does_not_tell_where_a_request_was_sent_to_gets_a_refusal() -> None:
    scope = {"type": "http", "method": "GET", "path": "/invoices", "headers": [(b"dpop", prove().encode())]}
    assert outcome(DPoP(DPoPSettings()), ASGICredentials(scope), TOKEN, BINDING, NOW) == "dpop.target"


def test_a_proof_is_worth_one_request() -> None:
    dpop, proof = DPoP(DPoPSettings()), prove()
    assert [outcome_of(proof, dpop=dpop, now=NOW + second) for second in range(3)] == [
        ACCEPTED,
        "dpop.replayed",
        "dpop.replayed",
    ]


def test_another_signature_over_the_same_claims_is_the_same_proof() -> None:
    proof = prove()
    assert twin(proof) != proof
    assert outcome_of(twin(proof)) == ACCEPTED
    dpop = DPoP(DPoPSettings())
    assert outcome_of(proof, dpop=dpop) == ACCEPTED
    assert outcome_of(twin(proof), dpop=dpop) == "dpop.replayed"


def test_the_same_jti_signed_anew_is_the_same_proof() -> None:
    dpop = DPoP(DPoPSettings())
    assert outcome_of(prove(jti="one"), dpop=dpop) == ACCEPTED
    assert outcome_of(prove(jti="one", now=NOW + 1), dpop=dpop, now=NOW + 1) == "dpop.replayed"
    assert outcome_of(prove(jti="one", token=ANOTHER_TOKEN), dpop=dpop, token=ANOTHER_TOKEN) == "dpop.replayed"


def test_a_jti_counts_by_its_case_and_within_its_key() -> None:
    dpop = DPoP(DPoPSettings())
    assert outcome_of(prove(jti="one"), dpop=dpop) == ACCEPTED
    assert outcome_of(prove(jti="One"), dpop=dpop) == ACCEPTED
    assert outcome_of(prove(OTHER, jti="one"), dpop=dpop, binding=Binding(jkt=OTHER.jkt)) == ACCEPTED


def test_a_refused_proof_is_not_spent() -> None:
    dpop, proof = DPoP(DPoPSettings()), prove(method="POST")
    assert outcome_of(proof, dpop=dpop) == "dpop.method"
    assert outcome_of(proof, dpop=dpop, method="POST") == ACCEPTED


def test_a_proof_is_not_taken_again_after_time_has_jumped_back() -> None:
    dpop, proof = DPoP(DPoPSettings()), prove()
    assert outcome_of(proof, dpop=dpop) == ACCEPTED
    assert outcome_of(prove(now=NOW + 3600), dpop=dpop, now=NOW + 3600) == ACCEPTED
    assert outcome_of(proof, dpop=dpop) == "dpop.replayed"


@pytest.mark.parametrize("where", ["memory", "file"])
def test_of_many_threads_that_show_one_proof_exactly_one_is_served(where: str, tmp_path: Path) -> None:
    dpop = DPoP(DPoPSettings(replay=tmp_path / "dpop.db" if where == "file" else None))
    dpop.start()
    threads, rounds = 8, 20
    barrier = threading.Barrier(threads)

    def show(proof: str) -> str:
        barrier.wait(10)
        return outcome_of(proof, dpop=dpop)

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            outcomes = list(pool.map(show, [prove()] * threads))
            assert sorted(outcomes) == [ACCEPTED] + ["dpop.replayed"] * (threads - 1)
    dpop.close()


async def test_on_an_event_loop_the_file_is_read_beside_it(tmp_path: Path) -> None:
    dpop = DPoP(DPoPSettings(replay=tmp_path / "dpop.db"))
    dpop.start()
    credentials, here = shown_with(TOKEN, prove()), threading.get_ident()
    spent_in: list[int] = []
    real = dpop._replay.spend

    def spend(key: bytes, until: float, now: float) -> bool:
        spent_in.append(threading.get_ident())
        return real(key, until, now)

    dpop._replay.spend = spend  # type: ignore[method-assign]  # watched, not replaced
    await arun(dpop.check(credentials, TOKEN, BINDING, NOW), aperform)
    with pytest.raises(TokenRefusedError) as refusal:
        await arun(dpop.check(credentials, TOKEN, BINDING, NOW), aperform)
    assert refusal.value.detail is CredentialDetail.DPOP_REPLAYED
    assert len(spent_in) == 2
    assert here not in spent_in
    dpop.close()


def test_the_memory_of_the_process_needs_no_waiting() -> None:
    flow = DPoP(DPoPSettings()).check(shown_with(TOKEN, prove()), TOKEN, BINDING, NOW)
    with pytest.raises(StopIteration):
        next(flow)


def test_a_file_that_cannot_be_written_refuses_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dpop = DPoP(DPoPSettings(replay=tmp_path / "absent" / "dpop.db"))
    proofs = [prove(), prove()]
    assert [outcome_of(proof, dpop=dpop) for proof in proofs] == ["dpop.replay_unavailable"] * 2
    assert PROBLEMS[CredentialDetail.DPOP_REPLAY_UNAVAILABLE].reason is Reason.ERROR
    (line,) = caplog.messages
    assert "No such file or directory" in line
    assert all(part not in line for proof in proofs for part in proof.split("."))


def test_a_file_that_cannot_be_written_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"dpop\.replay.*cannot be used: No such file"):
        DPoP(DPoPSettings(replay=tmp_path / "absent" / "dpop.db")).start()


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_anything_but_true_is_no_first_time(answer: object, tmp_path: Path) -> None:
    dpop = DPoP(DPoPSettings(replay=tmp_path / "dpop.db"))
    with pytest.raises(TokenRefusedError):
        run(dpop.check(shown_with(TOKEN, prove()), TOKEN, BINDING, NOW), lambda effect: answer)


def test_a_forged_proof_never_reaches_the_dear_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a proof with the key of a verified token costs a signature, and only a signed one a place in memory."""
    dpop, checked = DPoP(DPoPSettings()), []
    real = VerificationKey.verifies
    monkeypatch.setattr(VerificationKey, "verifies", lambda *args: checked.append(1) or real(*args))
    cheap = [make() for _, detail, make in FORGED if detail != "dpop.signature"]
    for proof in cheap:
        outcome_of(proof, dpop=dpop)
    assert checked == []
    for proof in [make() for _, detail, make in FORGED if detail == "dpop.signature"]:
        outcome_of(proof, dpop=dpop)
    assert len(checked) == sum(detail == "dpop.signature" for _, detail, _ in FORGED)
    assert len(dpop._replay) == 0  # type: ignore[arg-type]  # the one in memory


def test_whatever_a_library_raises_is_a_bad_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: object) -> bool:
        raise RuntimeError(TOKEN)

    dpop = DPoP(DPoPSettings())
    monkeypatch.setattr("jwt.algorithms.ECAlgorithm.verify", explode)
    assert outcome_of(prove(), dpop=dpop) == "dpop.signature"


def test_nothing_that_can_be_shown_shows_a_proof_or_a_token() -> None:
    dpop, proof = DPoP(DPoPSettings()), prove()
    flow: Generator[Any, Any, None] = dpop.check(shown_with(TOKEN, proof), TOKEN, BINDING, NOW)
    assert TOKEN not in repr(flow) + repr(dpop)
    with pytest.raises(TokenRefusedError) as refusal:
        run(dpop.check(shown_with(TOKEN, tampered()), TOKEN, BINDING, NOW), perform)
    assert str(refusal.value) == "dpop.signature"
    assert refusal.value.__cause__ is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(
    JSON, st.sampled_from(["kty", "crv", "x", "y", "e", "n", "d", "k", "kid", "use", "key_ops", "alg", "oth", "x5c"])
)
def test_whatever_a_key_says_of_itself_it_is_read_without_an_exception(value: Any, name: str) -> None:
    jwk = {**CLIENT.jwk(), name: value}
    jkt = thumbprint(jwk)
    assert outcome_of(prove(header={"jwk": jwk}), binding=Binding(jkt=jkt)) in {ACCEPTED, *CredentialDetail}


@given(
    JSON, st.sampled_from(["typ", "alg", "jwk", "kid", "crit", "b64", "jti", "htm", "htu", "ath", "iat", "exp", "nbf"])
)
def test_whatever_a_member_holds_it_is_read_without_an_exception(value: Any, name: str) -> None:
    header, claims = CLIENT.header(), CLIENT.claims(TOKEN, now=NOW)
    (header if name in ("typ", "alg", "jwk", "kid", "crit", "b64") else claims)[name] = value
    assert outcome_of(raw(header, claims)) in {ACCEPTED, *CredentialDetail}


@given(st.text(max_size=30), st.sampled_from(["jti", "htm", "htu", "ath", "iat", "nonce"]))
def test_any_text_in_any_claim_is_read_without_an_exception(text: str, name: str) -> None:
    assert outcome_of(prove(**{name: text})) in {ACCEPTED, *CredentialDetail}


@given(st.text(max_size=60))
def test_any_text_for_a_proof_is_read_without_an_exception(text: str) -> None:
    assert outcome_of(text).startswith("dpop.")


# Nonces (RFC 9449 section 9)

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "nonce"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def with_nonces(secret_file: Path) -> DPoP:
    return DPoP(DPoPSettings(nonce_secret=Secret(file=secret_file)))


def handed_out(dpop: DPoP, now: float) -> str:
    return dict(dpop.challenge("dpop.nonce", now))["dpop-nonce"]


def test_the_nonce_of_the_challenge_makes_the_next_proof_good(with_nonces: DPoP) -> None:
    assert outcome_of(prove(), dpop=with_nonces) == "dpop.nonce"
    nonce = handed_out(with_nonces, NOW)
    assert outcome_of(prove(nonce=nonce), dpop=with_nonces) == ACCEPTED
    assert outcome_of(prove(nonce=nonce), dpop=with_nonces) == ACCEPTED


@pytest.mark.parametrize("nonce", [None, "", 7, True, ["x"], "x", "é", "x" * 43])
def test_a_nonce_that_was_not_handed_out_is_refused(with_nonces: DPoP, nonce: Any) -> None:
    proof = raw(CLIENT.header(), {**CLIENT.claims(TOKEN, now=NOW), "nonce": nonce})
    assert outcome_of(proof, dpop=with_nonces) == "dpop.nonce"


def test_a_nonce_in_a_list_or_with_an_end_is_another(with_nonces: DPoP) -> None:
    nonce = handed_out(with_nonces, NOW)
    for other in ([nonce], nonce + "=", nonce + " ", nonce[:-1], nonce.swapcase()):
        assert outcome_of(prove(nonce=other), dpop=with_nonces) == "dpop.nonce"


def test_a_nonce_is_accepted_in_its_period_and_the_next_one() -> None:
    nonces, begin = Nonces(SECRET), NOW - NOW % PERIOD_S
    nonce = nonces.current(begin)
    assert nonce == nonces.current(begin + PERIOD_S - 0.001)
    assert nonce != nonces.current(begin + PERIOD_S)
    accepted = [nonces.accepts(nonce, begin + moment) for moment in (-5.001, -5, 0, PERIOD_S, 2 * PERIOD_S - 0.001)]
    assert accepted == [False, True, True, True, True]
    assert not nonces.accepts(nonce, begin + 2 * PERIOD_S)


def test_workers_accept_each_others_nonces_and_nobody_elses() -> None:
    assert Nonces(SECRET).accepts(Nonces(SECRET).current(NOW), NOW)
    assert not Nonces(SECRET).accepts(Nonces(SECRET[::-1]).current(NOW), NOW)


@given(st.floats(0, 4e9), st.floats(0, 1e6))
def test_a_nonce_is_accepted_for_one_period_at_least_and_two_at_most(now: float, later: float) -> None:
    nonces = Nonces(SECRET)
    accepted = nonces.accepts(nonces.current(now), now + later)
    assert accepted or later >= PERIOD_S
    assert not (accepted and later >= 2 * PERIOD_S + 1e-3)


# Challenges (RFC 9449 section 7.1)


@pytest.mark.parametrize(
    ("detail", "error"),
    [
        ("dpop.missing", "invalid_dpop_proof"),
        ("dpop.signature", "invalid_dpop_proof"),
        ("dpop.replayed", "invalid_dpop_proof"),
        ("dpop.nonce", "use_dpop_nonce"),
        ("dpop.unbound", "invalid_token"),
        ("dpop.mismatch", "invalid_token"),
        ("token.bound", "invalid_token"),
        ("token.expired", "invalid_token"),
    ],
)
def test_a_challenge_says_what_to_do_and_not_which_check_failed(detail: str, error: str) -> None:
    decision = Decision(permit=False, reason=Reason.CREDENTIAL_INVALID, detail=detail)
    answer = answer_for(decision, None, retry_after=1.0, challenges=DPoP(DPoPSettings()).challenge(detail, NOW))
    assert answer.status == 401
    assert dict(answer.headers)["www-authenticate"] == f'DPoP error="{error}", algs="ES256 EdDSA PS256"'


@pytest.mark.parametrize("detail", [None, "authorization.missing"])
def test_a_challenge_to_whoever_showed_nothing_is_bare(detail: str | None) -> None:
    assert DPoP(DPoPSettings(algorithms=("ES384",))).challenge(detail, NOW) == (
        ("www-authenticate", 'DPoP algs="ES384"'),
    )


@pytest.mark.parametrize("detail", [None, "dpop.nonce", "dpop.missing", "token.bound"])
def test_every_challenge_carries_the_nonce_to_use_next(with_nonces: DPoP, detail: str | None) -> None:
    assert handed_out(with_nonces, NOW) == dict(with_nonces.challenge(detail, NOW))["dpop-nonce"]
    assert Nonces(SECRET).accepts(dict(with_nonces.challenge(detail, NOW))["dpop-nonce"], NOW)


# Settings


def read(dpop: Any, base: Path | None = None) -> DPoPSettings:
    values = {
        "app": {"name": "billing", "environment": "production"},
        "policy": {"source": "policy.yaml", "allow_unsigned": True},
        "decision_log": {"sink": "stdout"},
    }
    return Settings.from_mapping({**values, "dpop": dpop}, base).dpop


def test_settings_of_every_kind_are_read(tmp_path: Path) -> None:
    table = {
        "algorithms": ["ES384", "RS256"],
        "max_age": "10s",
        "replay": "file:run/dpop.db",
        "nonce": True,
        "nonce_secret": {"env": "NONCE"},
    }
    assert read(table, tmp_path) == DPoPSettings(
        ("ES384", "RS256"), 10.0, tmp_path / "run" / "dpop.db", Secret(env="NONCE")
    )


def test_an_absent_table_and_an_empty_one_mean_the_defaults() -> None:
    assert read({}) == DPoPSettings() == DPoPSettings(("ES256", "EdDSA", "PS256"), 60.0, None, None)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"algorithms": ["HS256"]}, "dpop.algorithms: has 'HS256'; accepted: ES256"),
        ({"algorithms": ["none"]}, "dpop.algorithms: has 'none'; accepted: ES256"),
        ({"algorithms": []}, "dpop.algorithms: must be a non-empty list"),
        ({"max_age": "1h"}, "dpop.max_age: must be a duration from 5s to 5m"),
        ({"max_age": 60}, "dpop.max_age: must be a duration"),
        ({"replay": "redis"}, 'dpop.replay: must be "memory" or "file:PATH"'),
        ({"replay": "file: "}, 'dpop.replay: must be "memory" or "file:PATH"'),
        ({"replay": True}, "dpop.replay: must be a non-empty string"),
        ({"nonce": True}, "dpop.nonce_secret: is required where nonce is true"),
        ({"nonce_secret": {"env": "NONCE"}}, "dpop.nonce_secret: is of use only with nonce = true"),
        ({"nonce": True, "nonce_secret": "hunter2-hunter2"}, "dpop.nonce_secret: must be { env"),
        ({"jti": 1}, "dpop.jti: is not a known key; accepted here: algorithms, max_age, nonce"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_accepted(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(table)
    assert problem in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "cannot be read: no secret in file"), (SECRET[1:], "must be at least 32 bytes")]
)
def test_a_secret_that_is_absent_or_short_is_a_mistake(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "nonce"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        DPoP(DPoPSettings(nonce_secret=Secret(file=path)))
    assert problem in str(error.value)
    assert SECRET[1:].decode() not in str(error.value)
