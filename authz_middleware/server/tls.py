"""The TLS of the decision point's own socket. Certificates are read again when their files change."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, Literal

import msgspec

from authz_middleware.alarm import Alarm
from authz_middleware.errors import Problem, SettingsError

ClientCertificate = Literal["required", "optional"]

_VERIFY: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}


class TLSSettings(msgspec.Struct, frozen=True):
    """The files of the server's certificate chain and key (PEM), and of the authorities that vouch for clients; None:
    no client is asked for a certificate. Where one is optional, whoever shows none must have a token."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_certificate: ClientCertificate = "required"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to follow."""
        return tuple(file for file in (self.certificate, self.key, self.client_ca) if file is not None)


class ServerTLS:
    """`context` is what a server is given, once; a handshake is made with the certificates of that moment.

    Raises SettingsError for files that cannot be used when the process starts.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self._settings = settings
        self._alarm = Alarm("the certificate files of the decision point cannot be used (%s); the last ones are")
        self._current = _context(settings)
        self.context = _context(settings)
        self.context.sni_callback = self._switch

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to follow."""
        return self._settings.files

    def look(self, changed: bool) -> None:
        """Read the files again where they have changed. Never raises: files that cannot be used change nothing."""
        if not changed:
            return
        try:
            self._current = _context(self._settings)
        except SettingsError as error:
            self._alarm.ring("; ".join(map(str, error.problems)))
        except Exception as error:  # noqa: BLE001 - the thread that looks must outlive any fault
            self._alarm.ring(type(error).__name__)

    def _switch(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:  # noqa: ARG002 - called by OpenSSL, for clients that name a server and for those that do not
        handshake.context = self._current


def _context(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A resumed session would be one that the certificates of today have not seen.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except (OSError, ValueError) as error:
        what = f"and tls.key must be a certificate chain and its unencrypted key, in PEM ({_kind(error)})"
        raise SettingsError([Problem("tls.certificate", what)]) from None
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ValueError) as error:
            what = f"must be a file of certificates in PEM ({_kind(error)}): {settings.client_ca}"
            raise SettingsError([Problem("tls.client_ca", what)]) from None
        context.verify_mode = _VERIFY[settings.client_certificate]
    return context


def _no_password() -> bytes:
    # Without this OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted")


def _kind(error: Exception) -> str:
    # ssl.SSLError is an OSError whose reason names the fault and nothing of the file.
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
