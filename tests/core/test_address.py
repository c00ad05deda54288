"""An address has one reading, or is none: the host that is compared is the host that is asked."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_middleware.address import Address, parse_address, parse_place


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://idp.example.com", Address(True, ("idp.example.com", 443), "idp.example.com", "/")),
        (
            "https://IDP.Example.com/a%2Fb/jwks",
            Address(True, ("idp.example.com", 443), "idp.example.com", "/a%2Fb/jwks"),
        ),
        ("https://idp.example.com:8443/", Address(True, ("idp.example.com", 8443), "idp.example.com:8443", "/")),
        ("https://idp.example.com?p=b2c", Address(True, ("idp.example.com", 443), "idp.example.com", "/?p=b2c")),
        ("HTTPS://[::1]/jwks", Address(True, ("::1", 443), "[::1]", "/jwks")),
        ("http://localhost:80/jwks", Address(False, ("localhost", 80), "localhost:80", "/jwks")),
        ("http://127.0.0.1:9/", Address(False, ("127.0.0.1", 9), "127.0.0.1:9", "/")),
        ("https://xn--bcher-kva.example/", Address(True, ("xn--bcher-kva.example", 443), "xn--bcher-kva.example", "/")),
        ("https://auth_server/", Address(True, ("auth_server", 443), "auth_server", "/")),
    ],
)
def test_the_parts_of_an_address(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.capability("C44")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example.com",
        "//idp.example.com/",
        "ftp://idp.example.com/",
        "file:///etc/passwd",
        "https:///jwks",
        "https:idp.example.com",
        "http://idp.example.com/",
        "http://127.0.0.2/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://[::2]/",
        "https://user@idp.example.com/",
        "https://user:password@idp.example.com/",
        "https://idp.example.com@evil.example/",
        "https://idp.example.com\\@evil.example/",
        "https://evil.example\\.idp.example.com/",
        "https://idp.example.com#@evil.example/",
        "https://idp.example.com/jwks#fragment",
        "https://idp.example.com./",
        "https://.idp.example.com/",
        "https://idp..example.com/",
        "https://bücher.example/",
        "https://\u017fide.example/",
        "https://\u212aeys.example/",
        "http\u017f://idp.example.com/",
        "https://idp\u3002example.com/",
        "https://%69dp.example.com/",
        "https://idp.example.com%2f@evil.example/",
        "https://idp.example.com:/",
        "https://idp.example.com:0/",
        "https://idp.example.com:65536/",
        "https://idp.example.com:443443/",
        "https://idp.example.com:٤٤٣/",
        "https://idp.example.com:-1/",
        "https://idp.example.com /",
        " https://idp.example.com/",
        "https://idp.example.com/\n",
        "https://idp.exa\nmple.com/",
        "https://idp.exa\tmple.com/",
        "https://idp.example.com/a b",
        "https://idp.example.com/\r\nHost: evil.example",
        "https://idp.example.com/ü",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://idp.example.com]/",
    ],
)
def test_what_two_readers_could_tell_apart_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"plain URL|https URL|port") as caught:
        parse_address(url)
    assert not url or url not in str(caught.value)


@given(st.text("htps:/@[]\\.%#?&:-_ \tlocaexmAZ019ü\u017f\u3002", max_size=40).map(lambda rest: f"https://{rest}"))
@example("https://a:443\\@b")
def test_an_address_is_read_as_the_standard_library_reads_it(url: str) -> None:
    try:
        address = parse_address(url)
    except ValueError:
        return
    parts = urlsplit(url)
    assert address.place == (parts.hostname, parts.port or 443)
    assert (parts.username, parts.password, parts.fragment) == (None, None, "")


def test_a_host_stands_for_its_port_of_https_or_names_another() -> None:
    assert parse_place("Keys.example.com") == ("keys.example.com", 443)
    assert parse_place("[::1]:8443") == ("::1", 8443)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys.example.com/",
        "keys.example.com/jwks",
        "keys.example.com?",
        "https://keys.example.com",
        "*.example.com",
        "u@keys.example.com",
        "keys.example.com.",
    ],
)
def test_what_is_no_host_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|plain URL"):
        parse_place(text)
