"""What a configured proxy says is heard, what anybody else says is not."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_middleware.errors import SettingsError
from authz_middleware.facts import RequestFacts
from authz_middleware.identity.connection.certificate_header import READERS
from authz_middleware.identity.connection.credentials import UNIX, Target
from authz_middleware.identity.connection.proxies import Proxies
from authz_middleware.settings import Settings
from tests.support.certificates import Authority
from tests.support.tokens import shown

pytestmark = [pytest.mark.capability("C44"), pytest.mark.promise("P3")]

PROXY, OUTSIDER = "10.0.0.5", "10.0.1.5"
INNER = Target("http", "inner:8000", "/invoices/7")
FACTS = RequestFacts(method="GET", route="/invoices/{id}", endpoint="app:read", client="192.0.2.99", tls=True)

AUTHORITY = Authority()
CLIENT, OTHER = AUTHORITY.issue("client"), AUTHORITY.issue("other")


def read(**table: Any) -> Settings:
    return Settings.from_mapping(
        {
            "app": {"name": "billing", "environment": "production"},
            "policy": {"source": "billing.yaml", "allow_unsigned": True},
            "decision_log": {"sink": "stdout"},
            "proxies": {"trusted": [PROXY, "10.0.2.0/24", "fd00::/64", UNIX], **table},
        }
    )


def proxies(*forwarded: str, **table: Any) -> Proxies:
    if forwarded:
        table["forwarded"] = list(forwarded)
    elif "client_certificate" not in table:
        table["forwarded"] = ["x-forwarded-for"]
    return Proxies(read(**table).proxies)


def sent(*headers: tuple[str, str], peer: str | None = PROXY, certificate: bytes | None = None) -> Any:
    return shown(headers=headers, peer=peer, target=INNER, certificate=certificate)


# who is a proxy


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (PROXY, True),
        ("10.0.2.0", True),
        ("10.0.2.255", True),
        ("fd00::7", True),
        (UNIX, True),
        (None, False),
        ("", False),
        ("10.0.0.4", False),
        ("10.0.0.6", False),
        ("10.0.1.255", False),
        ("10.0.3.0", False),
        ("fd00:0:0:1::7", False),
        ("fd00::7%eth0", False),
        ("127.0.0.1", False),
        ("10.0.0.5 ", False),
        ("10.0.0.5, 10.0.0.5", False),
        ("::1", False),
        ("testclient", False),
    ],
)
def test_a_proxy_is_who_the_settings_name(peer: str | None, trusted: bool) -> None:
    assert proxies().is_trusted(peer) is trusted


def test_a_unix_socket_is_no_proxy_unless_it_is_named() -> None:
    assert not proxies(trusted=[PROXY]).is_trusted(UNIX)


def test_without_settings_nobody_is_a_proxy_and_no_header_is_read() -> None:
    nobody = Proxies(None)
    credentials = sent(*EVERYTHING, peer=PROXY, certificate=OTHER.der)
    assert not nobody.is_trusted(PROXY)
    assert not nobody.is_trusted(UNIX)
    assert nobody.client_of(credentials) == PROXY
    assert nobody.target_of(credentials) is INNER
    assert nobody.certificate_of(credentials) == OTHER.der
    assert nobody.facts(FACTS, credentials) is FACTS


EVERYTHING = (
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-prefix", "/api"),
    ("forwarded", "for=192.0.2.1;proto=https;host=app.example"),
    ("client-cert", f":{base64.b64encode(CLIENT.der).decode()}:"),
)
ALL = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix")
CERTIFICATE = {"format": "rfc9440"}


@pytest.mark.parametrize("forwarded", [ALL, ("forwarded",)])
@pytest.mark.parametrize("peer", [OUTSIDER, "127.0.0.1", "testclient"])
def test_an_outsider_who_says_everything_is_taken_for_what_it_is(peer: str | None, forwarded: tuple[str, ...]) -> None:
    guarded = proxies(*forwarded, client_certificate=CERTIFICATE)
    credentials = sent(*EVERYTHING, peer=peer)
    assert guarded.client_of(credentials) == peer
    assert guarded.target_of(credentials) == INNER
    assert guarded.certificate_of(credentials) is None
    assert guarded.facts(FACTS, credentials) == RequestFacts(
        method="GET", route="/invoices/{id}", endpoint="app:read", client=peer, tls=True
    )


@pytest.mark.parametrize("forwarded", [ALL, ("forwarded",)])
def test_of_an_unknown_other_end_nothing_is_believed_not_even_its_certificate(forwarded: tuple[str, ...]) -> None:
    """It may be the proxy, and a client that names the proxy in a header can make it unknown."""
    guarded = proxies(*forwarded, client_certificate=CERTIFICATE)
    credentials = sent(*EVERYTHING, peer=None, certificate=OTHER.der)
    assert guarded.client_of(credentials) is None
    assert guarded.certificate_of(credentials) is None
    with pytest.raises(ValueError, match="not known who is at the other end"):
        guarded.target_of(credentials)
    facts = guarded.facts(FACTS, credentials)
    assert (facts.client, facts.tls) == (None, False)
    assert Proxies(None).certificate_of(credentials) == OTHER.der, "without proxies it can only be the client's"


@pytest.mark.parametrize("forwarded", [ALL, ("forwarded",)])
@pytest.mark.parametrize("peer", [PROXY, UNIX, "fd00::7"])
def test_a_proxy_is_believed_about_client_target_and_certificate(peer: str, forwarded: tuple[str, ...]) -> None:
    guarded = proxies(*forwarded, client_certificate=CERTIFICATE)
    credentials = sent(*EVERYTHING, peer=peer)
    path = "/api/invoices/7" if forwarded == ALL else "/invoices/7"
    assert guarded.client_of(credentials) == "192.0.2.1"
    assert guarded.target_of(credentials) == Target("https", "app.example", path)
    assert guarded.certificate_of(credentials) == CLIENT.der


def test_a_header_that_the_proxy_is_not_known_to_set_is_not_read() -> None:
    """nginx passes every header on that it is not told to replace."""
    guarded = proxies("x-forwarded-for", "x-forwarded-proto")
    assert guarded.target_of(sent(*EVERYTHING)) == Target("https", "inner:8000", "/invoices/7")
    assert guarded.certificate_of(sent(*EVERYTHING)) is None
    only_certificate = proxies(client_certificate=CERTIFICATE)
    assert only_certificate.target_of(sent(*EVERYTHING)) == INNER
    assert only_certificate.client_of(sent(*EVERYTHING)) == PROXY
    assert only_certificate.facts(FACTS, sent(*EVERYTHING)).tls is FACTS.tls


def test_an_unknown_other_end_is_told_to_whoever_runs_the_server(caplog: pytest.LogCaptureFixture) -> None:
    guarded = proxies()
    with caplog.at_level(logging.ERROR, "authz"):
        for _ in range(3):
            guarded.client_of(sent(*EVERYTHING, peer=None))
    assert [record.message.count("--no-proxy-headers") for record in caplog.records] == [1]
    assert "192.0.2.1" not in caplog.text


# who the client is

INSIDE = "10.0.2.7"

CLIENTS: dict[str, tuple[int, list[str], str | None]] = {
    "one hop": (1, ["192.0.2.1"], "192.0.2.1"),
    "what the client says is on the left": (1, ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
    "however often it says it": (1, ["203.0.113.9", "203.0.113.8, 192.0.2.1"], "192.0.2.1"),
    "a header added instead of appended": (1, ["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
    "a client inside": (1, ["203.0.113.9, 10.0.2.9"], "10.0.2.9"),
    "two hops": (2, [f"203.0.113.9, 192.0.2.1, {INSIDE}"], "192.0.2.1"),
    "two hops, but the nearer proxy was called directly": (2, ["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
    "two hops, the client inside": (2, ["203.0.113.9, 10.0.2.9, 10.0.2.7"], "10.0.2.9"),
    "more proxies than hops": (2, [f"192.0.2.1, 10.0.2.8, {INSIDE}"], "10.0.2.8"),
    "three hops": (3, [f"203.0.113.9, 192.0.2.1, 10.0.2.8, {INSIDE}"], "192.0.2.1"),
    "the outer proxy itself": (3, [INSIDE], INSIDE),
    "an unknown hop ends the chain": (3, [f"192.0.2.1, unknown, {INSIDE}"], None),
    "none": (1, [], None),
    "empty": (1, [""], None),
    "an empty last hop": (1, ["192.0.2.1,"], None),
    "unknown": (1, ["192.0.2.1, unknown"], None),
    "obfuscated": (1, ["192.0.2.1, _hidden"], None),
    "junk": (1, ["192.0.2.1, <script>"], None),
    "a name": (1, ["192.0.2.1, app.example"], None),
    "a port": (1, ["192.0.2.1:4711"], "192.0.2.1"),
    "IPv6": (1, ["2001:db8:0:0::1"], "2001:db8::1"),
    "IPv6 in brackets": (1, ["[2001:db8::1]"], "2001:db8::1"),
    "IPv6 with a port": (1, ["[2001:db8::1]:4711"], "2001:db8::1"),
    "IPv4 in IPv6": (1, ["::ffff:192.0.2.1"], "192.0.2.1"),
    "a proxy as IPv4 in IPv6": (2, [f"192.0.2.1, ::ffff:{INSIDE}"], "192.0.2.1"),
    "a link of its own": (1, ["fe80::1%eth0"], "fe80::1%eth0"),
    "an open bracket": (1, ["[2001:db8::1"], None),
    "a bad port": (1, ["192.0.2.1:x"], None),
    "octal": (1, ["192.0.02.1"], None),
    "short": (1, ["192.1"], None),
    "a number": (1, ["3221225985"], None),
    "spaces and tabs": (1, ["203.0.113.9 ,\t192.0.2.1\t "], "192.0.2.1"),
    "a quoted one": (1, ['"192.0.2.1"'], None),
    "very many": (10, ["203.0.113.9, " * 5000 + "192.0.2.1"], "192.0.2.1"),
}


@pytest.mark.parametrize(("hops", "values", "client"), CLIENTS.values(), ids=CLIENTS)
def test_the_client_is_the_last_hop_that_no_proxy_answers_for(
    hops: int, values: Sequence[str], client: str | None
) -> None:
    guarded = proxies("x-forwarded-for", hops=hops)
    assert guarded.client_of(sent(*(("x-forwarded-for", value) for value in values))) == client


FORWARDED: dict[str, tuple[int, list[str], str | None]] = {
    "one hop": (1, ["for=192.0.2.1;proto=https"], "192.0.2.1"),
    "any case": (1, ["Proto=https;For=192.0.2.1"], "192.0.2.1"),
    "what the client says is on the left": (1, ["for=203.0.113.9, for=192.0.2.1"], "192.0.2.1"),
    "a header of its own": (1, ["for=203.0.113.9", "for=192.0.2.1"], "192.0.2.1"),
    "IPv6": (1, ['for="[2001:db8::1]:4711"'], "2001:db8::1"),
    "two hops": (2, [f"for=203.0.113.9, for=192.0.2.1, for={INSIDE}"], "192.0.2.1"),
    "two hops, called directly": (2, ["for=203.0.113.9, for=192.0.2.1"], "192.0.2.1"),
    "more proxies than hops": (2, [f"for=192.0.2.1, for=10.0.2.8, for={INSIDE}"], "10.0.2.8"),
    "no client": (1, ["for=203.0.113.9, by=10.0.0.5"], None),
    "unknown": (1, ["for=unknown"], None),
    "obfuscated": (1, ["for=_gazonk"], None),
    "an open quote does not swallow the rest": (1, ['for=203.0.113.9;x=", for=192.0.2.1'], None),
    "a quote that ends in what the proxy quotes": (1, ['x=", for="[2001:db8::1]"'], None),
    "the same twice": (1, ["for=192.0.2.1;for=203.0.113.9"], None),
    "junk on the left": (1, ["junk, for=192.0.2.1"], None),
    "an empty element": (1, ["for=192.0.2.1,"], None),
    "empty": (1, [""], None),
    "none": (1, [], None),
}


@pytest.mark.parametrize(("hops", "values", "client"), FORWARDED.values(), ids=FORWARDED)
def test_the_client_is_the_last_element_that_no_proxy_answers_for(
    hops: int, values: Sequence[str], client: str | None
) -> None:
    guarded = proxies("forwarded", hops=hops)
    assert guarded.client_of(sent(*(("forwarded", value) for value in values))) == client


@given(
    claimed=st.lists(st.sampled_from([INSIDE, PROXY, "203.0.113.9", "unknown", "", '"', "10.0.2.9"]), max_size=6),
    chain=st.lists(st.sampled_from(["10.0.2.1", "10.0.2.2", "fd00::7"]), max_size=3),
    spare=st.integers(0, 3),
)
def test_whatever_a_client_claims_it_is_who_the_outermost_proxy_saw(
    claimed: list[str], chain: list[str], spare: int
) -> None:
    """However long the chain of proxies is, up to `hops`, and even when fewer stand there than are allowed."""
    hops = len(chain) + 1 + spare
    value = ", ".join([*claimed, "192.0.2.1", *chain])
    assert proxies("x-forwarded-for", hops=hops).client_of(sent(("x-forwarded-for", value))) == "192.0.2.1"


# where the request was sent to

REFUSED_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    "no scheme": (("x-forwarded-host", "app.example"),),
    "no host": (("x-forwarded-proto", "https"),),
    "two schemes": (
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example"),
    ),
    "two schemes in one": (("x-forwarded-proto", "https, http"), ("x-forwarded-host", "app.example")),
    "another scheme": (("x-forwarded-proto", "ftp"), ("x-forwarded-host", "app.example")),
    "no scheme in it": (("x-forwarded-proto", ""), ("x-forwarded-host", "app.example")),
    "two hosts": (
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-host", "app.example"),
    ),
    "two hosts in one": (("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example, app.example")),
    "a user": (("x-forwarded-proto", "https"), ("x-forwarded-host", "app.example@evil.example")),
    "a path": (("x-forwarded-proto", "https"), ("x-forwarded-host", "app.example/x")),
    "a query": (("x-forwarded-proto", "https"), ("x-forwarded-host", "app.example?x")),
    "an empty host": (("x-forwarded-proto", "https"), ("x-forwarded-host", "")),
}


@pytest.mark.parametrize("headers", REFUSED_TARGETS.values(), ids=REFUSED_TARGETS)
def test_an_absent_or_ambiguous_header_of_a_proxy_is_no_target(headers: tuple[tuple[str, str], ...]) -> None:
    guarded = proxies("x-forwarded-proto", "x-forwarded-host")
    with pytest.raises(ValueError, match=r"^not "):
        guarded.target_of(sent(*headers))
    assert guarded.facts(FACTS, sent(*headers)).tls is False


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({"proto": "https", "host": "app.example"}, ("https", "app.example", "/invoices/7")),
        ({"proto": "HTTPS", "host": "app.example"}, ("https", "app.example", "/invoices/7")),
        ({"proto": "wss", "host": "app.example"}, ("https", "app.example", "/invoices/7")),
        ({"proto": "ws", "host": "app.example"}, ("http", "app.example", "/invoices/7")),
        ({"proto": "https", "port": "443"}, None),
        ({"proto": "https", "host": "app.example", "port": "443"}, ("https", "app.example", "/invoices/7")),
        ({"proto": "http", "host": "app.example", "port": "443"}, ("http", "app.example:443", "/invoices/7")),
        ({"proto": "https", "host": "app.example", "port": "8443"}, ("https", "app.example:8443", "/invoices/7")),
        ({"proto": "https", "host": "app.example:8443", "port": "8443"}, ("https", "app.example:8443", "/invoices/7")),
        ({"proto": "https", "host": "app.example:8443", "port": "443"}, None),
        ({"proto": "https", "host": "[2001:db8::1]", "port": "8443"}, ("https", "[2001:db8::1]:8443", "/invoices/7")),
        ({"proto": "https", "host": "app.example", "port": "0"}, None),
        ({"proto": "https", "host": "app.example", "port": "8443, 443"}, None),
        ({"proto": "https", "host": "app.example", "port": "8443 "}, ("https", "app.example:8443", "/invoices/7")),
        ({"host": "a.example", "prefix": "/api"}, ("http", "a.example", "/api/invoices/7")),
        ({"host": "a.example", "prefix": "/api/"}, ("http", "a.example", "/api/invoices/7")),
        ({"host": "a.example", "prefix": "/"}, ("http", "a.example", "/invoices/7")),
        ({"host": "a.example", "prefix": ""}, ("http", "a.example", "/invoices/7")),
        ({"host": "a.example", "prefix": "api"}, None),
        ({"host": "a.example", "prefix": "//evil.example"}, None),
        ({"host": "a.example", "prefix": "/a/../b"}, None),
        ({"host": "a.example", "prefix": "/a/./b"}, None),
        ({"host": "a.example", "prefix": "/%2e%2e"}, None),
        ({"host": "a.example", "prefix": "/a?b"}, None),
        ({"host": "a.example", "prefix": "/a#b"}, None),
        ({"host": "a.example", "prefix": "/a,/b"}, None),
    ],
)
def test_a_target_is_put_together_from_the_headers_that_the_proxy_sets(
    headers: dict[str, str], target: tuple[str, str, str] | None
) -> None:
    guarded = proxies(*(f"x-forwarded-{name}" for name in headers))
    credentials = sent(*((f"x-forwarded-{name}", value) for name, value in headers.items()))
    if target is None:
        with pytest.raises(ValueError, match=r"^(not|two) "):
            guarded.target_of(credentials)
    else:
        assert guarded.target_of(credentials) == Target(*target)


def test_a_prefix_that_was_not_taken_off_is_not_put_back() -> None:
    assert proxies("x-forwarded-prefix").target_of(sent()) == INNER
    with pytest.raises(ValueError, match="not exactly one value"):
        proxies("x-forwarded-prefix").target_of(sent(("x-forwarded-prefix", "/a"), ("x-forwarded-prefix", "/b")))


@pytest.mark.parametrize(
    ("hops", "value", "target"),
    [
        (1, "for=192.0.2.1;proto=https;host=app.example", ("https", "app.example")),
        (1, 'for=192.0.2.1;proto=https;host="app.example:8443"', ("https", "app.example:8443")),
        (1, "for=192.0.2.1;proto=https", ("https", "inner:8000")),
        (1, "for=x;proto=http;host=evil, for=192.0.2.1;proto=https;host=app.example", ("https", "app.example")),
        (2, f"proto=https;host=app.example;for=192.0.2.1, for={INSIDE};proto=http;host=i", ("https", "app.example")),
        (2, "proto=https;host=evil;for=203.0.113.9, for=192.0.2.1;proto=http;host=a", ("http", "a")),
        (1, "for=192.0.2.1;host=app.example", None),
        (1, "for=192.0.2.1;proto=gopher;host=app.example", None),
        (1, 'for=192.0.2.1;proto=https;host="a b"', None),
        (1, "for=192.0.2.1;proto=https;proto=http", None),
        (1, "proto=https;host=evil, junk", None),
        (1, "", None),
    ],
)
def test_a_target_is_that_of_the_element_that_tells_the_client(
    hops: int, value: str, target: tuple[str, str] | None
) -> None:
    guarded = proxies("forwarded", hops=hops)
    credentials = sent(("forwarded", value))
    if target is None:
        with pytest.raises(ValueError, match=r"^(not|no|a) "):
            guarded.target_of(credentials)
        assert guarded.facts(FACTS, credentials).tls is False
    else:
        assert guarded.target_of(credentials) == Target(*target, "/invoices/7")


def test_no_forwarded_header_of_a_proxy_that_sets_it_is_no_target() -> None:
    with pytest.raises(ValueError, match="no Forwarded header"):
        proxies("forwarded").target_of(sent())


def test_facts_are_those_of_the_clients_own_connection() -> None:
    guarded = proxies("x-forwarded-for", "x-forwarded-proto")
    for proto, tls in (("https", True), ("http", False)):
        facts = guarded.facts(FACTS, sent(("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", proto)))
        assert (facts.client, facts.tls, facts.route) == ("192.0.2.1", tls, FACTS.route)
    assert guarded.facts(FACTS, sent(peer=UNIX)).client is None


# the client's certificate

B64 = base64.b64encode(CLIENT.der).decode()
ESCAPED = quote(CLIENT.pem, safe="")
HASH = hashlib.sha256(CLIENT.der).hexdigest()
OTHER_ESCAPED = quote(OTHER.pem, safe="")
OTHER_HASH = hashlib.sha256(OTHER.der).hexdigest()

GOOD_HEADERS = [
    ("rfc9440", f":{B64}:"),
    ("rfc9440", f" :{B64}:\t"),
    ("pem-escaped", ESCAPED),
    ("pem-escaped", quote(CLIENT.pem, safe="/=+- ").replace("%0A", "%0a")),
    ("pem-escaped", quote(CLIENT.pem.replace("\n", "\r\n"), safe="")),
    ("pem-escaped", quote(CLIENT.pem.strip(), safe="")),
    ("base64", B64),
    ("xfcc", f'Cert="{ESCAPED}"'),
    ("xfcc", f'By=spiffe://td/app;Hash={HASH};Cert="{ESCAPED}";Subject="CN=\\"a\\", b;c";Chain="{OTHER_ESCAPED}"'),
    ("xfcc", f'By=a;By=b;Hash={HASH.upper()};Cert="{ESCAPED}"'),
    ("xfcc", f'Hash={OTHER_HASH};Cert="{OTHER_ESCAPED}",Hash={HASH};Cert="{ESCAPED}"'),
    ("xfcc", f'Hash={OTHER_HASH};Cert="{OTHER_ESCAPED}";Subject="x,y", Hash={HASH};Cert="{ESCAPED}"'),
]


def passed(form: str, *values: str, peer: str = PROXY, certificate: bytes | None = None) -> bytes | None:
    guarded = proxies(client_certificate={"format": form, "header": "X-Client-Certificate"})
    headers = (("x-client-certificate", value) for value in values)
    return guarded.certificate_of(sent(*headers, peer=peer, certificate=certificate))


@pytest.mark.capability("C19")
@pytest.mark.parametrize(("form", "value"), GOOD_HEADERS)
def test_a_proxy_passes_its_clients_certificate_on(form: str, value: str) -> None:
    assert passed(form, value) == CLIENT.der
    assert passed(form, value, peer=OUTSIDER) is None


@pytest.mark.capability("C19")
@pytest.mark.parametrize("form", READERS)
def test_two_headers_are_no_certificate_whether_or_not_a_server_joins_them(form: str) -> None:
    values = [value for known, value in GOOD_HEADERS if known == form]
    assert passed(form, values[0], values[0]) is None
    if form != "xfcc":  # there the last one counts, and the proxy has written that
        assert passed(form, f"{values[0]},{values[0]}") is None
        assert passed(form, f"{values[0]}, {values[0]}") is None


BAD_HEADERS = [
    *((form, value) for form in READERS for value in ("", " ", ":", "::", "junk!", "\x00", "é", "%", "=", ",")),
    ("rfc9440", B64),
    ("rfc9440", f":{B64}"),
    ("rfc9440", f":{B64}:;a=1"),
    ("rfc9440", f":{B64[:-4]} {B64[-4:]}:"),
    ("rfc9440", f":{base64.urlsafe_b64encode(CLIENT.der).decode()}:;"),
    ("rfc9440", f":{B64}:, :{B64}:"),
    ("rfc9440", f":{base64.b64encode(bytes(16385)).decode()}:"),
    ("pem-escaped", quote(CLIENT.pem + CLIENT.pem, safe="")),
    ("pem-escaped", quote("text\n" + CLIENT.pem, safe="")),
    ("pem-escaped", quote(CLIENT.pem + "text", safe="")),
    ("pem-escaped", quote(CLIENT.pem.replace("CERTIFICATE", "PUBLIC KEY"), safe="")),
    ("pem-escaped", quote(CLIENT.pem.replace("CERTIFICATE", "CÉRTIFICATE"), safe="")),
    ("pem-escaped", quote("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", safe="")),
    ("pem-escaped", quote("-----BEGIN CERTIFICATE-----\n \n-----END CERTIFICATE-----", safe="")),
    ("base64", f"{B64},{B64}"),
    ("base64", f":{B64}:"),
    ("base64", B64 + "é"),
    ("xfcc", f"Hash={HASH}"),
    ("xfcc", f'Hash={HASH};Cert=""'),
    ("xfcc", f'Hash={OTHER_HASH};Cert="{ESCAPED}"'),
    ("xfcc", f'Cert="{ESCAPED}";Cert="{ESCAPED}"'),
    ("xfcc", f'Cert="{ESCAPED}";Cert="{OTHER_ESCAPED}"'),
    ("xfcc", f'cert="{ESCAPED}"'),
    ("xfcc", f'Cert="{ESCAPED}'),
    ("xfcc", f'Cert="{ESCAPED}",'),
    ("xfcc", f'Cert="{ESCAPED}";'),
    ("xfcc", f'Cert="{ESCAPED}"junk'),
    ("xfcc", f'Cert="{ESCAPED}",Hash={OTHER_HASH}'),
    ("xfcc", f'Chain="{ESCAPED}"'),
    ("xfcc", f'Cert="{ESCAPED}";URI=spiffe://td/a'),
    ("xfcc", f'Cert="{ESCAPED}";DNS=a.example'),
    # a name in the client's own certificate that would be another element
    ("xfcc", f'Hash={OTHER_HASH};Cert="{OTHER_ESCAPED}";URI=a,Hash={HASH};Cert="{ESCAPED}"'),
    ("xfcc", f'Hash={OTHER_HASH};Cert="{OTHER_ESCAPED}";Subject="",Cert="{ESCAPED}";Subject=""";Chain=""'),
]


@pytest.mark.capability("C19")
@pytest.mark.parametrize(("form", "value"), BAD_HEADERS)
def test_a_header_that_is_not_one_certificate_is_none(form: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "authz"):
        assert passed(form, value) is None
    assert len(caplog.records) == 1, "and whoever runs the proxy is told"
    assert value.strip() == "" or len(value) < 3 or value not in caplog.text


@given(st.sampled_from(list(READERS)), st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_no_header_makes_a_reader_fail_otherwise(form: Any, value: str) -> None:
    with contextlib.suppress(ValueError):
        READERS[form](value)


def test_a_header_longer_than_any_certificate_is_not_read() -> None:
    chain = f'Hash={HASH};Cert="{ESCAPED}";Chain="{{0}}"'
    assert passed("xfcc", chain.format("a" * 1000)) == CLIENT.der
    assert passed("xfcc", chain.format("a" * 65536)) is None


def test_the_certificate_of_a_proxy_is_not_its_clients() -> None:
    """A proxy that shows a certificate of its own to the application would lend it to everybody."""
    assert passed("rfc9440", certificate=OTHER.der) is None
    assert passed("rfc9440", f":{B64}:", certificate=OTHER.der) == CLIENT.der
    assert proxies("x-forwarded-for").certificate_of(sent(certificate=OTHER.der)) is None


def test_the_certificate_of_whoever_is_no_proxy_is_that_of_its_connection() -> None:
    assert passed("rfc9440", f":{B64}:", peer=OUTSIDER, certificate=OTHER.der) == OTHER.der


@pytest.mark.parametrize(
    ("form", "header"),
    [("rfc9440", "client-cert"), ("base64", "x-forwarded-tls-client-cert"), ("xfcc", "x-forwarded-client-cert")],
)
def test_a_format_has_its_usual_header(form: str, header: str) -> None:
    settings = read(client_certificate={"format": form}).proxies
    assert settings is not None
    assert settings.client_certificate is not None
    assert settings.client_certificate.name == header


# the table


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trusted": ...}, "proxies.trusted: is required"),
        ({"trusted": []}, "proxies.trusted: must be a non-empty list"),
        ({"trusted": "10.0.0.5"}, "proxies.trusted: must be a non-empty list"),
        ({"trusted": ["proxy.example"]}, "proxies.trusted: has 'proxy.example'; accepted: an address"),
        ({"trusted": ["10.0.0.5/8"]}, "proxies.trusted: has '10.0.0.5/8'; accepted: an address"),
        ({"trusted": ["*"]}, "proxies.trusted: has '*'"),
        ({"trusted": ["0.0.0.0/0"]}, "which is everybody"),
        ({"trusted": ["::/0"]}, "which is everybody"),
        ({"trusted": ["::ffff:10.0.0.5"]}, "write an IPv4 address as such"),
        ({"trusted": ["fe80::1"]}, "no link-local one"),
        ({"trusted": ["fe80::/10"]}, "no link-local one"),
        ({"forwarded": ["x-forwarded-user"]}, "proxies.forwarded: has 'x-forwarded-user'; accepted: forwarded, x-forw"),
        ({"forwarded": ["x_forwarded_for"]}, "proxies.forwarded: has 'x_forwarded_for'"),
        ({"forwarded": "x-forwarded-for"}, "proxies.forwarded: must be a non-empty list"),
        ({"forwarded": ["forwarded", "x-forwarded-proto"]}, "two could differ"),
        ({"forwarded": ...}, "proxies: needs forwarded or client_certificate"),
        ({"hops": 0}, "proxies.hops: must be a whole number from 1 to 10"),
        ({"hops": 2, "forwarded": ["x-forwarded-proto"]}, "proxies.hops: counts hops of"),
        ({"client_certificate": {}}, "proxies.client_certificate.format: is required"),
        ({"client_certificate": {"format": "pem"}}, "proxies.client_certificate.format: must be one of"),
        ({"client_certificate": {"format": "pem-escaped"}}, "proxies.client_certificate.header: is required"),
        ({"client_certificate": {"format": "rfc9440", "header": "Client_Cert"}}, "has 'client_cert'; accepted"),
        ({"client_certificate": {"format": "rfc9440", "header": "client cert"}}, "has 'client cert'; accepted"),
        ({"client_certificate": {"format": "rfc9440", "header": "client-cert:"}}, "has 'client-cert:'; accepted"),
        ({"client_certificate": {"format": "rfc9440", "header": "Authorization"}}, "no name with another use"),
        ({"client_certificate": {"format": "rfc9440", "header": "X-Forwarded-For"}}, "no name with another use"),
        ({"client_certificate": "client-cert"}, "proxies.client_certificate: must be a table"),
        ({"trust": ["10.0.0.5"]}, "proxies.trust: is not a known key"),
    ],
)
def test_a_mistake_in_the_table_is_named(changes: dict[str, Any], said: str) -> None:
    table = {"forwarded": ["x-forwarded-for"], "trusted": [PROXY], **copy.deepcopy(changes)}
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(
            {
                "app": {"name": "billing", "environment": "production"},
                "policy": {"source": "billing.yaml", "allow_unsigned": True},
                "decision_log": {"sink": "stdout"},
                "proxies": {key: value for key, value in table.items() if value is not ...},
            }
        )
    assert any(said in str(problem) for problem in caught.value.problems), caught.value
