"""Which addresses are the same address, for the `htu` of a proof (RFC 3986 section 6.2), and which never are."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from authz_middleware.identity.connection.credentials import Target
from authz_middleware.identity.possession.target_uri import normalise_target, normalise_uri

pytestmark = [pytest.mark.capability("C19"), pytest.mark.promise("P3")]

SENT_TO = Target("https", "billing.example", "/invoices/7")

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
SAFE = UNRESERVED + "!$&'()*+,;=:@"


def same(uri: str, target: Target = SENT_TO) -> bool:
    known = normalise_target(target)
    return known is not None and normalise_uri(uri) == known


@pytest.mark.parametrize(
    "uri",
    [
        "https://billing.example/invoices/7",
        "HTTPS://Billing.EXAMPLE/invoices/7",
        "https://billing.example:443/invoices/7",
        "https://billing.example:/invoices/7",
        "https://billing.example/%69nvoices/7",
        "https://billing.example/invoices/%37",
        "https://billing.example/invoices/./7",
        "https://billing.example/x/../invoices/7",
        "https://billing.example/x/%2E%2e/invoices/7",
        "https://billing.example/invoices/7?as=pdf",
        "https://billing.example/invoices/7#total",
        "https://billing.example/invoices/7?as=pdf#total?",
    ],
)
def test_another_spelling_of_an_address_is_the_same_address(uri: str) -> None:
    assert same(uri)


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("", id="nothing"),
        pytest.param("/invoices/7", id="a path alone"),
        pytest.param("//billing.example/invoices/7", id="no scheme"),
        pytest.param("https:/invoices/7", id="no host"),
        pytest.param("https:///invoices/7", id="an empty host"),
        pytest.param("http://billing.example/invoices/7", id="another scheme"),
        pytest.param("http\u017f://billing.example/invoices/7", id="a scheme with a long s"),
        pytest.param("wss://billing.example/invoices/7", id="a scheme of websockets"),
        pytest.param("https://billing.example:8443/invoices/7", id="another port"),
        pytest.param("https://billing.example:80/invoices/7", id="the default port of the other scheme"),
        pytest.param("https://billing.example:65979/invoices/7", id="a port that wraps around"),
        pytest.param("https://billing.example:٤٤٣/invoices/7", id="a port in Arabic digits"),
        pytest.param("https://billing.example:0/invoices/7", id="port zero"),
        pytest.param("https://other.example/invoices/7", id="another host"),
        pytest.param("https://billing.example./invoices/7", id="a dot after the host"),
        pytest.param("https://billing.example.other.example/invoices/7", id="a longer host"),
        pytest.param("https://alice@billing.example/invoices/7", id="user information"),
        pytest.param("https://billing.example@other.example/invoices/7", id="a host as user information"),
        pytest.param("https://other.example/@billing.example/invoices/7", id="a host in the path"),
        pytest.param("https://other.example\\@billing.example/invoices/7", id="a backslash"),
        pytest.param("https://b%69lling.example/invoices/7", id="an encoded host"),
        pytest.param("https://b\u0131ll\u0131ng.example/invoices/7", id="a host in Unicode"),
        pytest.param("https://billing\u3002example/invoices/7", id="an ideographic full stop"),
        pytest.param("https://billing.example/Invoices/7", id="another case of the path"),
        pytest.param("https://billing.example/invoices/7/", id="a slash after it"),
        pytest.param("https://billing.example//invoices/7", id="a slash twice"),
        pytest.param("https://billing.example/invoices%2F7", id="an encoded slash"),
        pytest.param("https://billing.example/invoices%2f7", id="an encoded slash in lower case"),
        pytest.param("https://billing.example/invoices/%2537", id="encoded twice"),
        pytest.param("https://billing.example/invoices/%3", id="half an encoding"),
        pytest.param("https://billing.example/invoices/%zz", id="no encoding"),
        pytest.param("https://billing.example/invoices/7%00", id="an encoded zero"),
        pytest.param("https://billing.example/invoices/7 ", id="a blank after it"),
        pytest.param("https://billing.example/invoices/7\n", id="a line feed after it"),
        pytest.param(" https://billing.example/invoices/7", id="a blank before it"),
        pytest.param("https://billing.example/invoices/7;v=1", id="a path parameter"),
        pytest.param("https://billing.example/invoices", id="a shorter path"),
        pytest.param("https://billing.example", id="no path"),
        pytest.param("https://billing.example/?/invoices/7", id="the path in the query"),
        pytest.param("https://billing.example/#/invoices/7", id="the path in the fragment"),
        pytest.param("https://billing.example/invoices/7/%2e%2E/8", id="another path by dots"),
    ],
)
def test_another_address_is_another_address(uri: str) -> None:
    assert not same(uri)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("https://billing.example", Target("https", "billing.example", "/")),
        ("https://billing.example/", Target("https", "Billing.Example:443", "")),
        ("http://127.0.0.1:8000/a", Target("http", "127.0.0.1:8000", "/a")),
        ("http://[::1]/a", Target("http", "[::1]:80", "/a")),
        ("https://[2001:DB8::1]:8443/a", Target("https", "[2001:db8::1]:8443", "/a")),
        ("https://xn--bcher-kva.example/b%c3%bccher", Target("https", "XN--bcher-kva.example", "/b%C3%BCcher")),
        ("https://billing.example/a%2fb", Target("https", "billing.example", "/a%2Fb")),
        ("https://billing.example/a//b", Target("https", "billing.example", "/a//b")),
    ],
)
def test_addresses_of_every_kind_are_found_equal(uri: str, target: Target) -> None:
    assert same(uri, target)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(Target("https", "billing.example", "/a/../b"), id="dots"),
        pytest.param(Target("https", "billing.example", "/a/%2e%2e/b"), id="encoded dots"),
        pytest.param(Target("https", "billing.example", "/./b"), id="one dot"),
        pytest.param(Target("https", "billing.example", "/b/.."), id="dots at the end"),
        pytest.param(Target("https", "billing.example", "/b?c"), id="a query"),
        pytest.param(Target("https", "billing.example", "/b#c"), id="a fragment"),
        pytest.param(Target("https", "billing.example", "b"), id="no slash"),
        pytest.param(Target("https", "billing.example", "*"), id="the server itself"),
        pytest.param(Target("https", "billing.example", "/\xfc"), id="a byte that is not ASCII"),
        pytest.param(Target("https", "billing.example/a", "/b"), id="a path in the host"),
        pytest.param(Target("https", "alice@billing.example", "/b"), id="user information"),
        pytest.param(Target("https", "billing.example:443:443", "/b"), id="two ports"),
        pytest.param(Target("https", "billing.example, other.example", "/b"), id="two hosts"),
        pytest.param(Target("https", "billing.example:0", "/b"), id="port zero"),
        pytest.param(Target("https", "billing.example:65536", "/b"), id="a port beyond the last"),
        pytest.param(Target("https", "b%69lling.example", "/b"), id="an encoded host"),
        pytest.param(Target("https", "", "/b"), id="no host"),
        pytest.param(Target("", "billing.example", "/b"), id="no scheme"),
        pytest.param(Target("ftp", "billing.example", "/b"), id="another protocol"),
    ],
)
def test_a_request_to_no_such_address_has_no_proof(target: Target) -> None:
    assert normalise_target(target) is None


SEGMENTS = st.lists(
    st.one_of(
        st.sampled_from(["", ".", "..", "...", ".a", "%2e", "%2E.", "%2F", "%2f", "%25", "%41", "A", "a"]),
        st.text(SAFE, max_size=4),
        st.binary(max_size=3).map(lambda data: "".join(f"%{byte:02x}" for byte in data)),
    ),
    min_size=1,
    max_size=6,
)
PATHS = SEGMENTS.map(lambda segments: "/" + "/".join(segments))


def by_the_book(path: str) -> str:
    """RFC 3986 section 5.2.4, word for word."""
    given, output = path, ""
    while given:
        if given.startswith("../"):
            given = given[3:]
        elif given.startswith(("./", "/./")):
            given = given[2:]
        elif given == "/.":
            given = "/"
        elif given.startswith("/../"):
            given, output = given[3:], output[: max(output.rfind("/"), 0)]
        elif given == "/..":
            given, output = "/", output[: max(output.rfind("/"), 0)]
        elif given in (".", ".."):
            given = ""
        else:
            end = given.find("/", 1)
            end = len(given) if end < 0 else end
            given, output = given[end:], output + given[:end]
    return output


def spelt_out(path: str) -> list[bytes]:
    """What a path names: each of its segments, decoded, after dot segments have gone."""
    decoded = ""
    position = 0
    while position < len(path):
        character, step = path[position], 1
        if character == "%":
            step = 3
            plain = chr(int(path[position + 1 : position + 3], 16))
            character = plain if plain in UNRESERVED else path[position : position + 3]
        decoded, position = decoded + character, position + step
    # Reserved characters mean another thing when they are encoded: keep them apart.
    segments = by_the_book(decoded).split("/")
    return [b"".join(_meaning(segment)) for segment in segments]


def _meaning(segment: str) -> list[bytes]:
    pieces = segment.split("%")
    return [
        pieces[0].encode(),
        *(b"\xff" + unquote_to_bytes("%" + piece[:2]) + piece[2:].encode() for piece in pieces[1:]),
    ]


@given(PATHS, PATHS)
@example("/a/../b", "/b")
@example("/a%2fb", "/a/b")
@example("/a/", "/a")
@example("/a//..", "/a/")
def test_two_paths_are_equal_exactly_when_they_name_the_same(one: str, other: str) -> None:
    equal = normalise_uri(f"https://h{one}") == normalise_uri(f"https://h{other}")
    assert equal == (spelt_out(one) == spelt_out(other))


@given(PATHS)
def test_an_address_stays_equal_to_itself_in_its_normal_form(path: str) -> None:
    form = normalise_uri(f"https://billing.example{path}")
    assert form is not None
    assert normalise_uri(form) == form


@given(PATHS, st.sampled_from(["http", "https"]), st.sampled_from(["h.example", "h.example:8000", "[::1]"]), st.data())
def test_spellings_that_mean_the_same_stay_the_same(path: str, scheme: str, host: str, data: st.DataObject) -> None:
    target = Target(scheme, host, path)
    assume(normalise_target(target) is not None)
    respelt = "".join(
        f"%{ord(character):02{data.draw(st.sampled_from('xX'))}}"
        if character in UNRESERVED and data.draw(st.booleans())
        else character
        for character in _characters(path)
    )
    port = {"http": ":80", "https": ":443"}[scheme] if ":" not in host.rpartition("]")[2] else ""
    assert same(f"{scheme.upper()}://{host.upper()}{port}{respelt}?q#f", target)


def _characters(path: str) -> list[str]:
    """The path's characters, each encoded one whole."""
    head, *encoded = path.split("%")
    return [*head, *(piece for part in encoded for piece in ("%" + part[:2], *part[2:]))]


@given(st.text(max_size=40))
def test_whatever_is_claimed_is_read_without_an_exception(text: str) -> None:
    for uri in (text, f"https://{text}", f"https://h/{text}", f"https://h:{text}/"):
        form = normalise_uri(uri)
        assert form is None or form.isascii()


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_server_hands_over_is_read_without_an_exception(scheme: str, authority: str, path: str) -> None:
    normalise_target(Target(scheme, authority, path))
    normalise_target(Target("https", authority, "/"))
    normalise_target(Target("https", "h", path))
