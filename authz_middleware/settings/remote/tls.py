"""TLS in `[remote]`: whom the decision point must prove to be, and the certificate that it is shown."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from authz_middleware.identity.spiffe.spiffe_id import SpiffeId
from authz_middleware.settings.section import Section

# What `struct sockaddr_un` has room for, a closing zero included: 108 bytes on Linux, 104 elsewhere.
_MAX_SOCKET_PATH: Final = 103


class KeyPair(msgspec.Struct, frozen=True):
    """The files, in PEM, of a certificate (with those that lead up to its authority) and of its private key."""

    certificate_file: Path
    key_file: Path


class TlsSettings(msgspec.Struct, frozen=True):
    """How TLS connections are made to one server.

    `ca_file` holds the authorities to trust instead of the system's. With `server_id` the server is known by that
    SPIFFE ID and not by its host name.
    """

    ca_file: Path | None = None
    client_certificate: KeyPair | None = None
    server_id: SpiffeId | None = None


def read_tls(remote: Section, url: object) -> TlsSettings:
    """The keys `ca_file` and `client_certificate`, or the table `spiffe`, which stands for both; `url` is what they are
    for."""
    section = remote.optional_table("client_certificate")
    ca_file: Path | None = remote.file("ca_file", None)
    plain = TlsSettings(ca_file, None if section is None else _read_pair(section))
    if section is not None:
        section.done()
    spiffe = _read_spiffe(remote)
    if spiffe is not None and plain != TlsSettings():
        remote.problem("spiffe", "says whom to trust and what to show: leave out ca_file and client_certificate")
    for key in ("client_certificate", "spiffe"):
        if key in remote and isinstance(url, str) and not url.startswith("https:"):
            remote.problem(key, "needs an https URL: without TLS nobody proves who they are")
    return spiffe or plain


def read_unix_socket(remote: Section) -> Path | None:
    """The key `unix_socket`: where the decision point listens, whatever host its URL names."""
    path: Path | None = remote.file("unix_socket", None)
    if path is None:
        return None
    if not hasattr(socket, "AF_UNIX"):
        remote.problem("unix_socket", "is not possible on this system: leave it out")
    elif len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        remote.problem("unix_socket", f"must be a path of at most {_MAX_SOCKET_PATH} bytes, which is what sockets take")
    return path


def _read_pair(section: Section) -> KeyPair:
    return KeyPair(section.file("certificate_file"), section.file("key_file"))


def _read_spiffe(remote: Section) -> TlsSettings | None:
    section = remote.optional_table("spiffe")
    if section is None:
        return None
    pair, bundle, id_ = _read_pair(section), section.file("bundle_file"), section.text("id")
    section.done()
    try:
        server_id = None if id_ is None else SpiffeId.parse(id_)
    except ValueError:
        section.problem("id", 'must be the SPIFFE ID of the decision point, such as "spiffe://example.org/pdp"')
        server_id = None
    return TlsSettings(bundle, pair, server_id)
