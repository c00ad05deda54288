"""A small document over HTTPS, within a total time and a size, from exactly the address given.

The standard library's time-outs bound one read, not the whole exchange: a server that drips one byte a second
holds them for ever. Here each read gets what is left of one deadline. No proxy of the environment is used and
no redirect followed: whoever answers for the key set decides who may sign.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from authz_middleware.address import Address, Place, parse_address
from authz_middleware.remote.transport.wire import Wire, connect

MAX_DOCUMENT: Final = 512 * 1024
KEY_SET_TYPES: Final = ("application/jwk-set+json", "application/json", "")
"""What a key set is served as (RFC 7517 section 8.5). No RFC obliges its server to say so, hence the last."""


class DownloadError(Exception):
    """There is no document. The text is ours and names no part of what was received."""


def download(
    url: str,
    *,
    deadline: float,
    limit: int = MAX_DOCUMENT,
    media_types: Collection[str] = KEY_SET_TYPES,
    hosts: Collection[Place] | None = None,
    ca_file: Path | None = None,
) -> bytes:
    """The body of a 200 answer from `url` within `deadline` seconds and `limit` bytes.

    It is served as one of `media_types` ("" stands for not saying). `hosts`, where given, are the only ones that are
    asked. `ca_file` holds the certificates to trust instead of the system's. Raises DownloadError for everything else.
    """
    ends = time.monotonic() + deadline
    try:
        address = _allowed(url, hosts)
        wire = connect(*address.place, ends, tls_context(ca_file) if address.secure else None)
        try:
            wire.deadline = ends
            return _exchange(wire, address, limit, media_types)
        finally:
            wire.hang_up()
    except DownloadError:
        raise
    except TimeoutError:
        raise DownloadError("did not answer in time") from None
    except ssl.SSLError:
        raise DownloadError("could not be reached over TLS with a trusted certificate") from None
    except OSError as error:
        raise DownloadError(f"could not be reached ({type(error).__name__})") from None
    except Exception:  # noqa: BLE001 - http.client raises ValueError and more on hostile input
        raise DownloadError("did not answer in well-formed HTTP") from None


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """For connections to servers whose certificate is vouched for by these authorities, or by the system's.

    Raises DownloadError when the file holds none.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ValueError):
        raise DownloadError(f"cannot be believed: no certificates to trust can be read from {ca_file}") from None


def media_type(content_type: str) -> str | None:
    """The media type of a document in UTF-8, lower case; None for another character set or further parameters."""
    essence, _, parameters = content_type.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    return essence.strip().lower() if charset in ("", "charset=utf-8") else None


def _allowed(url: str, hosts: Collection[Place] | None) -> Address:
    try:
        address = parse_address(url)
    except ValueError as error:
        raise DownloadError(f"has an address that {error}") from None
    if hosts is not None and address.place not in hosts:
        raise DownloadError("has an address on a host that is not allowed")
    return address


def _exchange(wire: Wire, address: Address, limit: int, media_types: Collection[str]) -> bytes:
    connection = http.client.HTTPConnection(address.authority)
    connection.sock = wire  # as much of a socket as http.client uses
    connection.putrequest("GET", address.target, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", address.authority)
    connection.putheader("Accept", ", ".join(filter(None, media_types)))
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("Connection", "close")
    connection.endheaders()
    wire.flush()
    with http.client.HTTPResponse(wire, method="GET") as response:  # type: ignore[arg-type]  # likewise
        response.begin()
        if wire.has_ended:  # http.client takes the end of the stream for the end of the head
            raise DownloadError("answered with less than a head")
        _check_head(response, media_types)
        # A declared length above the limit, or a body without end, is cut off by reading one byte too many.
        body = response.read(limit + 1)
        if len(body) > limit:
            raise DownloadError(f"answered with more than {limit} bytes")
        if response.length:
            raise DownloadError("answered with less than it announced")
        return body


def _check_head(response: http.client.HTTPResponse, media_types: Collection[str]) -> None:
    if response.status != http.client.OK:
        raise DownloadError(f"answered with status {response.status}")
    lengths, codings = _values(response, "Content-Length"), _values(response, "Transfer-Encoding")
    if len(lengths) + len(codings) > 1 or response.msg.defects:
        raise DownloadError("answered with a head that can be read in two ways")
    if not all(length.isascii() and length.isdigit() for length in lengths) or codings not in ([], ["chunked"]):
        raise DownloadError("answered with a body of unknown length")
    if any(coding != "identity" for coding in _values(response, "Content-Encoding")):
        raise DownloadError("answered with a compressed body, which was not asked for")
    types = response.msg.get_all("Content-Type", [""])
    if len(types) != 1 or media_type(types[0]) not in media_types:
        raise DownloadError("answered with another type of document than was asked for")


def _values(response: http.client.HTTPResponse, name: str) -> list[str]:
    return [value.strip().lower() for value in response.msg.get_all(name, [])]
