"""How the tokens of one issuer are checked: where its keys come from, or whom to ask about tokens without any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from authz_middleware.address import Place, parse_place
from authz_middleware.identity.kinds import OTHER_KINDS, kind_of
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section
from authz_middleware.settings.urls import check_address

ALGORITHMS = (
    *("ES256", "ES384", "ES512", "EdDSA"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("HS256", "HS384", "HS512"),
)
Discovery = Literal["openid", "oauth"]
_SOURCES: Final = ("jwks_uri", "jwks_file", "jwks", "discovery", "introspection")


class RefreshTimes(msgspec.Struct, frozen=True):
    """How often keys are looked for; all in seconds."""

    interval: float = 300.0
    """Between two looks at a key set address."""
    poll: float = 1.0
    """Between two looks at a key file."""
    cooldown: float = 10.0
    """Between two looks that unknown key ids may cause."""
    missing: float = 60.0
    """Between two looks that one and the same unknown key id may cause."""
    retry: float = 1.0
    """After a failure; doubled with each further one, up to the regular interval."""
    deadline: float = 5.0
    """For one look altogether."""
    max_age: float = 86_400.0
    """For how long the last good set serves when no newer one can be had."""


class IntrospectionSettings(msgspec.Struct, frozen=True):
    """The issuer's introspection endpoint (RFC 7662), and how it is shown who asks: by `client_id` and `client_secret`,
    or by the bearer token in the file `token`."""

    url: str
    client_id: str | None = None
    client_secret: Secret | None = None
    token: Secret | None = None
    ca_file: Path | None = None
    deadline: float = 1.0
    """For one question altogether, in seconds."""
    cache_ttl: float = 0.0
    """For how many seconds an answer is used again; 0 asks about every request, so that a revocation counts at once."""
    max_connections: int = 64


def read_key_source(section: Section) -> dict[str, Any]:
    """What an issuer's table says about its key source, by the fields of `IssuerSettings`.

    A key that means nothing for that source is not taken, and so reported as unknown.
    """
    named = [name for name in _SOURCES if section.raw(name) is not None]
    if len(named) != 1:
        section.problem("", f"needs exactly one of {', '.join(_SOURCES)}")
    fields: dict[str, Any] = {
        "jwks_uri": section.text("jwks_uri", None),
        "jwks_file": section.file("jwks_file", None),
        "jwks": _inline(section),
        "discovery": section.choice("discovery", ("openid", "oauth"), None),
    }
    if "introspection" in named:
        fields["introspection"] = _introspection(section.table("introspection"))
    if named != ["introspection"]:
        fields["algorithms"] = _algorithms(section)
        fields["token_types"] = _token_types(section)
    if "jwks_uri" in named or "discovery" in named:
        fields |= _from_afar(section, "jwks_uri" if "jwks_uri" in named else "issuer")
    elif "jwks_file" in named:
        fields["refresh"] = RefreshTimes(
            poll=section.duration("key_refresh", "1s", least="100ms", most="1h"), **_limits(section)
        )
    return fields


def _from_afar(section: Section, key: str) -> dict[str, Any]:
    """What holds for keys that are fetched; `key` has the address that it begins with."""
    url, hosts = section.raw(key), _hosts(section)
    address = check_address(section, key, url) if isinstance(url, str) and url.strip() else None
    if hosts and address is not None and key == "jwks_uri" and address.place not in hosts:
        section.problem("key_hosts", "does not have the host of jwks_uri")
    refresh = RefreshTimes(
        interval=section.duration("key_refresh", "5m", least="10s", most="1d"),
        deadline=section.duration("key_deadline", "5s", least="100ms", most="30s"),
        **_limits(section),
    )
    if refresh.max_age < refresh.interval:
        section.problem("key_max_age", "must not be shorter than key_refresh")
    return {"key_hosts": hosts, "ca_file": section.file("ca_file", None), "refresh": refresh}


def _limits(section: Section) -> dict[str, float]:
    return {
        "cooldown": section.duration("key_cooldown", "10s", least="1s", most="1h"),
        "max_age": section.duration("key_max_age", "1d", least="1m", most="30d"),
    }


def _hosts(section: Section) -> tuple[Place, ...]:
    places = []
    for host in section.texts("key_hosts", ()):
        try:
            places.append(parse_place(host))
        except ValueError:
            what = f'has {host!r}; accepted: a host in ASCII such as "keys.example.com", perhaps with ":port"'
            section.problem("key_hosts", what)
    return tuple(places)


def _inline(section: Section) -> Mapping[str, Any] | None:
    inline = section.raw("jwks")
    if inline is not None and not isinstance(inline, Mapping):
        section.problem("jwks", "must be a JSON Web Key Set: a table with the key 'keys'")
        return None
    if inline is not None and _holds_secret(inline):
        section.problem("jwks", "must hold public keys only; a shared secret (kty 'oct') belongs into jwks_file")
        return None
    return inline


def _holds_secret(jwks: Mapping[str, Any]) -> bool:
    keys = jwks.get("keys")
    return isinstance(keys, list | tuple) and any(
        isinstance(key, Mapping) and (key.get("kty") == "oct" or "d" in key) for key in keys
    )


def _algorithms(section: Section) -> tuple[str, ...]:
    algorithms = section.texts("algorithms")
    for algorithm in algorithms:
        if algorithm not in ALGORITHMS:
            section.problem("algorithms", f"has {algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if len({algorithm.startswith("HS") for algorithm in algorithms}) > 1:
        section.problem("algorithms", "must not mix HMAC (HS…) and public-key algorithms in one issuer")
    return algorithms


def _introspection(section: Section) -> IntrospectionSettings:
    url, token = section.text("url"), section.file("token_file", None)
    if isinstance(url, str):
        check_address(section, "url", url)
    settings = IntrospectionSettings(
        url=url,
        client_id=section.text("client_id", None),
        client_secret=section.secret("client_secret"),
        token=None if token is None else Secret(file=token),
        ca_file=section.file("ca_file", None),
        deadline=section.duration("deadline", "1s", least="1ms", most="30s"),
        cache_ttl=section.duration("cache_ttl", "0s", most="5m"),
        max_connections=section.whole("max_connections", 64, least=1, most=4096),
    )
    shown = tuple(key for key in ("client_id", "client_secret", "token_file") if key in section)
    if shown not in (("client_id", "client_secret"), ("token_file",)):
        # RFC 7662 section 2.1: an endpoint that answers anybody tells a thief which tokens are good.
        section.problem("", "needs either client_id and client_secret, or token_file; the server must know who asks")
    section.done()
    return settings


def _token_types(section: Section) -> tuple[str, ...]:
    types = section.texts("token_types", ("at+jwt",))
    for each in types:
        if kind_of(each) is None or kind_of(each) in OTHER_KINDS:
            section.problem("token_types", f"has {each!r}, which is never that of an access token (at+jwt, JWT)")
    return types
