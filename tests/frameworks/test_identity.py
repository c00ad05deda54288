"""Who calls, in every framework alike: bound tokens, revoked ones, step-up, what a client is told beforehand."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from authz_middleware import Settings
from authz_middleware.revocation.entry import Scope
from authz_middleware.revocation.guard import Revocations
from authz_middleware.settings.revocations import OnUnavailable, RevocationSettings, UnavailableSettings
from tests.support.certificates import Authority
from tests.support.dpop import Client
from tests.support.surfaces.all import FRAMEWORKS, open_surface
from tests.support.surfaces.surface import Reply, Surface
from tests.support.treasury import ISSUER, STRANGER, records, settings, token

HOST = "treasury.example"
DJANGOS_HOST = "testserver"
"""What Django's asynchronous test client sends as `Host`, beside whatever a test sends."""
METADATA = "/.well-known/oauth-protected-resource"
ISSUER_TABLE = {
    "issuer": ISSUER.url,
    "audience": [ISSUER.audience],
    "jwks": ISSUER.jwks(),
    "algorithms": ["ES256"],
    "claims": {"kind": "kind", "roles": "roles"},
}
OWNER = {"reason": "stolen", "owner": "security@example.com"}


class Served(msgspec.Struct):
    """A served treasury, its folder, and the revocations as another process of the same host has them."""

    surface: Surface
    folder: Path
    revocations: Revocations
    host: str

    def send(self, path: str = "/invoices", *, scheme: str = "Bearer", shown: str | None = None, **more: str) -> Reply:
        """The reply to a GET with this token."""
        host = {} if self.host == DJANGOS_HOST else {"Host": self.host}
        headers = {**host, **({} if shown is None else {"Authorization": f"{scheme} {shown}"}), **more}
        return self.surface.request("GET", path, headers)

    def reasons(self) -> list[str]:
        """The reason of each record, its detail with it where there is one."""
        told = [(record["authz"]["reason"], record["authz"].get("detail")) for record in records(self.folder)]
        return [reason if detail is None else f"{reason} {detail}" for reason, detail in told]


@pytest.fixture(params=FRAMEWORKS)
def open_treasury(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def build(*, choices: Any = MappingProxyType({}), **changes: Any) -> Served:
            """A treasury whose settings have these tables instead of its own; None removes one."""
            values = settings(tmp_path)
            store = f"file:{tmp_path / 'revocations.db'}"
            values["revocations"] = {"store": store, "on_unavailable": {"default": "deny", "actions": dict(choices)}}
            values["protected_resource"] = {"resource": f"https://{HOST}", "resource_name": "Treasury"}
            values = {name: table for name, table in {**values, **changes}.items() if table is not None}
            chosen = Settings.from_mapping(values).revocations
            beside = Revocations(chosen or RevocationSettings(UnavailableSettings(OnUnavailable("deny"))))
            beside.start()
            stack.callback(beside.close)
            host = DJANGOS_HOST if request.param == "django_async" else HOST
            return Served(stack.enter_context(open_surface(request.param, values)), tmp_path, beside, host)

        yield build


# revocation


REVOKED: dict[str, tuple[Scope, dict[str, Any]]] = {
    "token": (Scope.TOKEN, {"issuer": ISSUER.url, "value": "jti-1"}),
    "subject": (Scope.SUBJECT, {"issuer": ISSUER.url, "value": "alice"}),
    "actor": (Scope.ACTOR, {"value": "helper-bot"}),
    "client": (Scope.CLIENT, {"issuer": ISSUER.url, "value": "web-shop"}),
    "task": (Scope.TASK, {"value": "month-end"}),
    "transaction": (Scope.TRANSACTION, {"value": "txn-1"}),
    "issuer": (Scope.ISSUER, {"issuer": ISSUER.url}),
    "key": (Scope.KEY, {"issuer": ISSUER.url, "value": "key-1"}),
    "everything": (Scope.EVERYTHING, {}),
}


@pytest.mark.capability("C16", "C18", "C51")
@pytest.mark.promise("P5")
@pytest.mark.parametrize("scope", REVOKED)
def test_what_another_process_revokes_is_refused_from_the_next_request_on(
    open_treasury: Callable[..., Served], scope: str
) -> None:
    served = open_treasury()
    who = token(jti="jti-1", txn="txn-1", act={"sub": "helper-bot"})
    assert served.send(shown=who).status == 200
    assert served.send(shown=who).status == 200
    which, names = REVOKED[scope]
    entry = served.revocations.revoke(which, **names, **OWNER)
    refused = served.send(shown=who)
    assert refused.status == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert served.reasons()[-1] == f"credential.revoked revoked.{scope}"
    served.revocations.lift([entry.id])
    assert served.send(shown=who).status == 200
    assert served.surface.ran == ["list_invoices"] * 3


@pytest.mark.capability("C18")
def test_a_subject_is_revoked_up_to_a_moment(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    now = int(time.time())
    early, late = token(iat=now - 20, exp=now + 100), token(iat=now - 5, exp=now + 100)
    names: dict[str, Any] = {"issuer": ISSUER.url, "value": "alice", "issued_before": now - 10}
    served.revocations.revoke(Scope.SUBJECT, **names, **OWNER)
    assert (served.send(shown=early).status, served.send(shown=late).status) == (401, 200)


@pytest.mark.capability("C18")
@pytest.mark.promise("P3")
def test_when_revocations_cannot_be_read_what_was_chosen_for_the_action_holds(
    open_treasury: Callable[..., Served],
) -> None:
    served = open_treasury(choices={"note:read": {"mode": "last_known", "max_age": "5m"}})
    who, other = token(), token(sub="mallory")
    served.revocations.revoke(Scope.SUBJECT, issuer=ISSUER.url, value="mallory", **OWNER)
    assert (served.send(shown=who).status, served.send(shown=other).status) == (200, 401)
    (served.folder / "revocations.db").rename(served.folder / "away.db")
    (served.folder / "revocations.db").write_bytes(b"no database")
    refused = served.send(shown=who)
    assert (refused.status, "retry-after" in refused.headers) == (503, True)
    assert served.reasons()[-1].startswith("revocations.unavailable ")
    assert served.send("/notes", shown=who).status == 200
    assert served.reasons()[-1] == "permitted revocations.last_known"
    assert served.send("/notes", shown=other).status == 401


@pytest.mark.capability("C18")
@pytest.mark.parametrize("revocations", [{}, {"revocations": None}], ids=["no lists", "no table"])
def test_a_token_whose_status_nobody_can_look_up_is_refused(
    open_treasury: Callable[..., Served], revocations: dict[str, Any]
) -> None:
    served = open_treasury(**revocations)
    who = token(status={"status_list": {"idx": 0, "uri": "https://status.example/1"}})
    assert served.send(shown=who).status == 401
    assert served.reasons() == ["credential.invalid status.not_configured"]


# tokens that are bound to a key


@pytest.mark.capability("C19")
def test_a_bound_token_is_worth_nothing_without_a_proof_and_once_with_one(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    client = Client()
    who = token(cnf=client.cnf)
    url = f"http://{served.host}/invoices"
    plain = served.send(shown=who)
    assert (plain.status, served.reasons()[-1]) == (401, "credential.invalid token.bound")
    assert "DPoP " in plain.headers["www-authenticate"]
    assert served.send(shown=who, scheme="DPoP").status == 401
    proof = client.prove(who, url=url)
    assert served.send(shown=who, scheme="DPoP", DPoP=proof).status == 200
    replayed = served.send(shown=who, scheme="DPoP", DPoP=proof)
    assert (replayed.status, served.reasons()[-1]) == (401, "credential.invalid dpop.replayed")
    assert 'error="invalid_dpop_proof"' in replayed.headers["www-authenticate"]
    elsewhere = served.send("/notes", shown=who, scheme="DPoP", DPoP=client.prove(who, url=url))
    assert (elsewhere.status, served.reasons()[-1]) == (401, "credential.invalid dpop.target")
    another = served.send(shown=who, scheme="DPoP", DPoP=Client().prove(who, url=url))
    assert (another.status, served.reasons()[-1]) == (401, "credential.invalid dpop.mismatch")
    assert served.surface.ran == ["list_invoices"]


@pytest.mark.capability("C19")
def test_a_proof_on_an_unbound_token_is_refused_each_time(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    client = Client()
    who = token()
    for _ in range(2):
        proof = client.prove(who, url=f"http://{served.host}/invoices")
        assert served.send(shown=who, scheme="DPoP", DPoP=proof).status == 401


@pytest.mark.capability("C19")
def test_a_token_that_is_bound_to_a_certificate_is_refused_without_it(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    assert served.send(shown=token(cnf={"x5t#S256": "A" * 43})).status == 401
    assert served.reasons() == ["credential.invalid certificate.missing"]


BATCH = Authority().issue("batch")
CLIENT_CERT = f":{base64.b64encode(BATCH.der).decode()}:"
KNOWN = {
    "certificates": {
        hashlib.sha256(BATCH.der).hexdigest(): {
            "subject": "batch",
            "environment": "production",
            "owner": "ops@example.com",
            "scopes": ["invoices.read"],
            "roles": ["batch"],
        }
    }
}


def behind(*proxies: str) -> dict[str, Any]:
    """Settings in which these addresses are proxies that tell of client certificates (RFC 9440)."""
    return {"proxies": {"trusted": list(proxies), "client_certificate": {"format": "rfc9440"}}}


@pytest.mark.capability("C13", "C44")
def test_a_certificate_that_is_known_establishes_who_calls_only_by_the_word_of_a_configured_proxy(
    open_treasury: Callable[..., Served],
) -> None:
    served = open_treasury(**KNOWN, **behind("127.0.0.1"))
    if served.host == DJANGOS_HOST:
        pytest.skip("Django's asynchronous test client tells no peer; real servers: test_client_certificates.py")
    assert served.send(**{"Client-Cert": CLIENT_CERT}).status == 200
    assert records(served.folder)[-1]["input"]["subject"]["id"] == "batch"
    stranger = Authority().issue("batch")
    other = f":{base64.b64encode(stranger.der).decode()}:"
    assert served.send(**{"Client-Cert": other}).status == 401
    assert served.reasons()[-1] == "credential.invalid certificate.unknown"
    assert served.send().status == 401
    assert served.reasons()[-1] == "credential.missing authorization.missing"


@pytest.mark.capability("C13", "C44")
@pytest.mark.parametrize("changes", [behind("10.0.0.1"), {}], ids=["from another", "no proxies"])
def test_a_certificate_that_anyone_else_tells_of_establishes_nobody(
    open_treasury: Callable[..., Served], changes: dict[str, Any]
) -> None:
    served = open_treasury(**KNOWN, **changes)
    assert served.send(**{"Client-Cert": CLIENT_CERT}).status == 401
    assert served.reasons() == ["credential.missing authorization.missing"]


@pytest.mark.capability("C13")
def test_a_known_certificate_does_not_make_up_for_a_token_that_does_not_hold(
    open_treasury: Callable[..., Served],
) -> None:
    served = open_treasury(**KNOWN, **behind("127.0.0.1"))
    for shown in ("", "x", STRANGER.mint(env="production")):
        assert served.send(shown=shown, **{"Client-Cert": CLIENT_CERT}).status == 401
    assert "credential.missing authorization.missing" not in served.reasons()


@pytest.mark.capability("C44")
@pytest.mark.parametrize(("proxy", "believed"), [("127.0.0.1", True), ("10.0.0.1", False)])
def test_a_clients_address_is_told_by_a_configured_proxy_alone(
    open_treasury: Callable[..., Served], proxy: str, believed: bool
) -> None:
    served = open_treasury(proxies={"trusted": [proxy], "forwarded": ["x-forwarded-for", "x-forwarded-proto"]})
    if served.host == DJANGOS_HOST:
        pytest.skip("Django's asynchronous test client tells no peer; real servers: test_client_certificates.py")
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    assert served.send(shown=token(), **headers).status == 200
    record = records(served.folder)[-1]
    assert record["requested_by"] == ("203.0.113.7" if believed else "127.0.0.1")
    assert record["input"]["context"]["tls"] is believed


@pytest.mark.capability("C19")
def test_a_token_that_is_bound_to_a_certificate_is_accepted_beside_it_alone(
    open_treasury: Callable[..., Served],
) -> None:
    served = open_treasury(**behind("127.0.0.1"))
    if served.host == DJANGOS_HOST:
        pytest.skip("Django's asynchronous test client tells no peer; real servers: test_client_certificates.py")
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(BATCH.der).digest()).rstrip(b"=").decode()
    who = token(cnf={"x5t#S256": thumbprint})
    for _ in range(2):
        assert served.send(shown=who, **{"Client-Cert": CLIENT_CERT}).status == 200
    other = f":{base64.b64encode(Authority().issue('thief').der).decode()}:"
    assert served.send(shown=who, **{"Client-Cert": other}).status == 401
    assert served.reasons()[-1] == "credential.invalid certificate.mismatch"
    assert served.send(shown=who).status == 401
    assert served.reasons()[-1] == "credential.invalid certificate.missing"


@pytest.mark.capability("C19")
def test_an_issuer_whose_tokens_must_be_bound_has_no_others(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury(issuers=[{**ISSUER_TABLE, "proof": "dpop"}])
    client = Client()
    refused = served.send(shown=token())
    assert (refused.status, served.reasons()[-1]) == (401, "credential.invalid token.unbound")
    assert refused.headers["www-authenticate"].startswith("DPoP ")
    who = token(cnf=client.cnf)
    proof = client.prove(who, url=f"http://{served.host}/invoices")
    assert served.send(shown=who, scheme="DPoP", DPoP=proof).status == 200


# what a client is told


@pytest.mark.capability("C47")
def test_a_client_without_a_token_is_told_where_to_get_one(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    asked = served.send().headers["www-authenticate"]
    assert asked == f'Bearer resource_metadata="https://{HOST}{METADATA}"'
    told = served.send(METADATA)
    assert (told.status, told.headers["content-type"]) == (200, "application/json")
    members = json.loads(told.body)
    assert members["resource"] == f"https://{HOST}"
    assert members["authorization_servers"] == [ISSUER.url]
    assert members["scopes_supported"] == ["invoices.read"]
    assert served.reasons() == ["credential.missing authorization.missing"]


def test_beside_the_metadata_nothing_is_open(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury()
    for path in (f"{METADATA}/", f"{METADATA}/x", METADATA.upper()):
        assert served.send(path).status == 404
    assert served.surface.request("POST", METADATA, {}).status == 404


def test_without_the_table_there_is_no_metadata(open_treasury: Callable[..., Served]) -> None:
    served = open_treasury(protected_resource=None)
    assert served.send().headers["www-authenticate"] == "Bearer"
    assert served.send(METADATA).status == 404


# how somebody authenticated


@pytest.mark.capability("C25")
def test_a_person_is_asked_to_authenticate_anew_and_a_machine_is_not(open_treasury: Callable[..., Served]) -> None:
    handler = {"action": "note:read", "acr": ["phr"], "max_age": "5m"}
    served = open_treasury(handlers={"third_party": handler, "static": {"action": "static:read"}})
    now = int(time.time())
    asked = served.send("/third-party", shown=token())
    assert asked.status == 401
    challenge = asked.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="phr"' in challenge
    assert "max_age=300" in challenge
    assert served.send("/third-party", shown=token(acr="phr", auth_time=now - 400)).status == 401
    assert served.send("/third-party", shown=token(acr="phr", auth_time=now - 20)).status == 200
    machine = served.send("/third-party", shown=token(kind="workload"))
    assert (machine.status, machine.headers.get("www-authenticate")) == (403, None)
    assert served.reasons().count("authentication.insufficient") == 3
