"""The settings of a decision point: a file of its own, in the words of an application's settings where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import msgspec

from authz_middleware.errors import Problem, SettingsError
from authz_middleware.server.tls import ClientCertificate, TLSSettings
from authz_middleware.settings.issuers import IssuerSettings
from authz_middleware.settings.model import AppSettings, DecisionLogSettings, PolicySettings
from authz_middleware.settings.reading import read_tables
from authz_middleware.settings.section import Section
from authz_middleware.settings.toml import read_toml
from authz_middleware.settings.urls import check_address

UnknownMembers = Literal["refuse", "ignore"]

SHARED: Final = ("policy", "issuers", "decision_log")
"""Tables that mean what they mean to an application."""


class CallerSettings(msgspec.Struct, frozen=True):
    """Who may ask. With nothing of it, on a loopback address, whoever can reach it.

    `tokens` are files of bearer tokens by the caller's name; `certificates` the names (SAN) of those client
    certificates that may ask, or None for all that `tls.client_ca` vouches for.
    """

    tokens: Mapping[str, Path] = {}
    issuers: tuple[IssuerSettings, ...] = ()
    certificates: tuple[str, ...] | None = None
    anyone: bool = False


class ServerSettings(msgspec.Struct, frozen=True):
    """Everything about one decision point.

    `arrival` is how long a request may take to arrive, `drain` how long requests may take to end when it is stopped, in
    seconds; `max_body` is in bytes, `max_batch` in evaluations, `max_page` in results.
    """

    policy: PolicySettings
    app: AppSettings
    base_url: str
    """Its identifier, and where its endpoints are found: nobody's Host header is believed."""
    host: str = "127.0.0.1"
    port: int = 8181
    workers: int = 1
    arrival: float = 10.0
    drain: float = 10.0
    max_body: int = 256 * 1024
    max_batch: int = 100
    max_page: int = 100
    unknown_members: UnknownMembers = "ignore"
    """What becomes of a request with members that we have no word for."""
    decision_log: DecisionLogSettings | None = None
    """None: no decision is recorded."""
    tls: TLSSettings | None = None
    callers: CallerSettings = CallerSettings()

    @property
    def knows_callers(self) -> bool:
        """Whether callers are told apart."""
        callers = self.callers
        return bool(callers.tokens or callers.issuers or (self.tls is not None and self.tls.client_ca is not None))

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """The settings in a TOML file; relative paths in it start from its folder.

        Raises SettingsError with every problem found.
        """
        return cls.from_mapping(read_toml(path), path.parent)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], base: Path | None = None) -> Self:
        """The settings in a mapping; relative paths start from `base`, by default the working folder.

        Raises SettingsError with every problem found.
        """
        problems: list[Problem] = []
        root = Section(values, "", problems, base or Path.cwd())
        server, callers = root.table("server"), root.table("callers")
        tls = _tls(root)
        host = server.text("host", "127.0.0.1")
        port = server.whole("port", 8181, least=1, most=65_535)
        base_url = _base_url(server, host, port, tls)
        shared = _shared(root, server, base_url, problems)
        settings = cls(
            policy=shared.get("policy", PolicySettings(Path())),
            app=shared.get("app", AppSettings("", "")),
            base_url=base_url,
            host=host,
            port=port,
            workers=server.whole("workers", 1, least=1, most=64),
            arrival=server.duration("arrival", "10s", least="100ms", most="5m"),
            drain=server.duration("drain", "10s", most="5m"),
            max_body=server.whole("max_body", 256 * 1024, least=1024, most=16 * 1024 * 1024),
            max_batch=server.whole("max_batch", 100, least=1, most=1000),
            max_page=server.whole("max_page", 100, least=1, most=1000),
            unknown_members=server.choice("unknown_members", get_args(UnknownMembers), "ignore"),
            decision_log=shared.get("decision_log") if "decision_log" in root else None,
            tls=tls,
            callers=_callers(callers, shared.get("issuers", ())),
        )
        _check_reach(server, callers, settings)
        for section in (server, callers, root):
            section.done()
        if problems:
            raise SettingsError(problems)
        return settings


def is_loopback(host: str) -> bool:
    """Whether an address to bind is one that only this machine reaches. A name is none, `localhost` excepted:
    what it resolves to is decided elsewhere."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def base_url_of(host: str, port: int, scheme: str = "http") -> str:
    """The base URL of a server at this address."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _shared(root: Section, server: Section, base_url: str, problems: list[Problem]) -> dict[str, Any]:
    """The tables that an application's settings have as well, read as they are there."""
    values: dict[str, Any] = {name: root.raw(name) for name in SHARED if name in root}
    values["app"] = {"name": server.text("name", "authz-serve"), "environment": server.text("environment", "any")}
    values.setdefault("decision_log", {"sink": "stderr"})
    if isinstance(values.get("policy"), Mapping):
        values["policy"] = {"refresh": "1s", **values["policy"]}
    if isinstance(values.get("issuers"), list):
        values["issuers"] = [
            {"audience": [base_url], **each} if isinstance(each, Mapping) else each for each in values["issuers"]
        ]
    try:
        return read_tables(values, root.base)
    except SettingsError as error:
        problems.extend(error.problems)
        return {}


def _base_url(server: Section, host: str, port: int, tls: TLSSettings | None) -> str:
    here = base_url_of(host, port, "http" if tls is None else "https")
    if "base_url" not in server and not is_loopback(host):
        server.text("base_url")
        return here
    url: str = server.text("base_url", here)
    if check_address(server, "base_url", url) is not None and url.endswith("/"):
        server.problem("base_url", "must not end in a slash: callers compare it letter by letter")
    if tls is not None and url.startswith("http:"):
        server.problem("base_url", "must be an https URL where there is [tls]")
    return url


def _tls(root: Section) -> TLSSettings | None:
    section = root.optional_table("tls")
    if section is None:
        return None
    settings = TLSSettings(
        certificate=section.file("certificate"),
        key=section.file("key"),
        client_ca=section.file("client_ca", None),
        client_certificate=section.choice("client_certificate", get_args(ClientCertificate), "required"),
    )
    if "client_certificate" in section and settings.client_ca is None:
        section.problem("client_ca", "is required where client_certificate is set")
    section.done()
    return settings


def _callers(section: Section, issuers: tuple[IssuerSettings, ...]) -> CallerSettings:
    table = section.table("tokens")
    tokens = {name: table.file(name) for name in table.keys()}  # noqa: SIM118 - a Section is not a mapping
    return CallerSettings(
        tokens=tokens,
        issuers=issuers,
        certificates=section.texts("certificates") if "certificates" in section else None,
        anyone=section.flag("anyone", False),
    )


def _check_reach(server: Section, callers: Section, settings: ServerSettings) -> None:
    """Nobody is let in by default where others than this machine's own can come, and no token comes in clear."""
    plain_http = server.flag("plain_http", False)
    if "tokens" in callers and not settings.callers.tokens:
        callers.problem("tokens", "names no file, so that nobody would be known by a token; leave it out or name one")
    if settings.callers.certificates is not None and (settings.tls is None or settings.tls.client_ca is None):
        callers.problem("certificates", "needs tls.client_ca: the authority that vouches for them")
    if settings.callers.anyone and settings.knows_callers:
        callers.problem("anyone", "cannot be true where tokens, issuers or client certificates are asked for")
    if is_loopback(settings.host):
        return
    if not settings.knows_callers and not settings.callers.anyone:
        callers.problem(
            "",
            f"must say who may ask: {settings.host} can be reached by other machines; name tokens, [[issuers]] or "
            "tls.client_ca, or set anyone = true: then the decision point authenticates nobody (on the command line: "
            "--token-file or --allow-remote)",
        )
    if settings.tls is None and not plain_http:
        server.problem(
            "plain_http",
            f"must be true where {settings.host} is served without [tls]: others can read and change what passes, "
            "unless a proxy before it ends TLS",
        )
