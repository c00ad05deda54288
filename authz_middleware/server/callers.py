"""Who may ask a decision point, and under which name: a client certificate, a token of a file, or a JWT.

Whoever may not ask learns just that. Which check failed is for the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any, Final, Protocol

from authz_middleware.decision import Reason
from authz_middleware.flow import Effect, Flow, Work, arun
from authz_middleware.identity.authenticator import Authenticator, Known
from authz_middleware.identity.connection.asgi import ASGICredentials
from authz_middleware.identity.principal import Principal
from authz_middleware.server.client_certificates import ClientCertificates
from authz_middleware.server.exchange import RefusedError
from authz_middleware.server.token_files import TokenFiles

Scope = MutableMapping[str, Any]
Named = MutableMapping[bytes, bytes]

_UNAVAILABLE: Final = frozenset({Reason.KEYS_UNAVAILABLE, Reason.ISSUER_UNAVAILABLE})


class Callers(Protocol):
    """Establishes who sends a request, before its body is read."""

    def name_of(self, scope: Scope, headers: Named) -> str | Awaitable[str] | None:
        """The name of the caller, for the record; awaited where it takes a while to tell.

        Raises RefusedError for whoever may not ask.
        """
        ...


class Anyone:
    """Everybody who can reach the decision point may ask; known by the address of the connection's other end.

    With `hosts`, only under one of these names (`Host` headers, lower case): a page in a browser whose own name was
    made to mean this machine (DNS rebinding) cannot send another one.
    """

    def __init__(self, hosts: frozenset[bytes] | None = None) -> None:
        self._hosts = hosts

    def name_of(self, scope: Scope, headers: Named) -> str | None:
        """The address of the caller. Raises RefusedError."""
        if self._hosts is not None and headers.get(b"host", b"").lower() not in self._hosts:
            raise RefusedError(421, "Host must be the host of the decision point's base URL, or a loopback address")
        client = scope.get("client")
        return None if client is None else str(client[0])


class KnownCallers:
    """Those whom the settings name. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        tokens: TokenFiles | None,
        authenticator: Authenticator | None,
        certificates: ClientCertificates | None,
        clock: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._authenticator = authenticator
        self._certificates = certificates
        self._clock = clock

    def name_of(self, scope: Scope, headers: Named) -> str | Awaitable[str]:
        """The name of the caller: by its Authorization header where it sends one, else by its certificate.

        Raises RefusedError, or the awaited answer does.
        """
        authorization = headers.get(b"authorization")
        if authorization is not None:
            return self._by_authorization(scope, authorization)
        name = None if self._certificates is None else self._certificates.name_of(scope, self._clock())
        if name is None:
            raise _unknown()
        return name

    def _by_authorization(self, scope: Scope, authorization: bytes) -> str | Awaitable[str]:
        name = None if self._tokens is None else self._tokens.name_of(authorization)
        if name is not None:
            return name
        if self._authenticator is None:
            raise _unknown()
        known = self._authenticator.authenticating(ASGICredentials(scope), self._clock())
        return _awaited(known) if isinstance(known, Generator) else _name(known)


async def _awaited(flow: Flow[Known]) -> str:
    return _name(await arun(flow, _perform))


async def _perform(effect: Effect) -> object:
    if isinstance(effect, Work):
        return await effect.job.aperform()
    raise AssertionError("to establish who calls takes nothing else")


def _name(known: Known) -> str:
    if isinstance(known, Principal):
        return f"{known.subject} ({known.issuer})"
    if known.reason in _UNAVAILABLE:
        raise RefusedError(503, "the caller cannot be authenticated at present", [(b"retry-after", b"1")])
    raise _unknown()


def _unknown() -> RefusedError:
    return RefusedError(401, "the caller is not authenticated", [(b"www-authenticate", b"Bearer")])
