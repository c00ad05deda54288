"""What TLS connections are made with: whom to trust, what to show, and both as the files say now.

Certificates are replaced under a running process. Once a second at most, when a question is to be put, the files are
read in a thread of their own: no event loop waits for a file, and no question for a file system that hangs. What has
changed makes a new context, and connections made with the old one carry no further question. What cannot be used (half
written, a certificate with another's key) changes nothing, and rings an alarm.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from cryptography.x509.oid import ExtendedKeyUsageOID

from authz_middleware.alarm import Alarm
from authz_middleware.errors import Problem, SettingsError
from authz_middleware.forking import renew_in_children
from authz_middleware.identity.problem import TokenRefusedError
from authz_middleware.identity.spiffe.x509_svid import X509Svid
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.settings.remote.tls import KeyPair, TlsSettings

CHECK_S: Final = 1.0
"""How often the files are looked at."""
PATIENCE_S: Final = 0.05
"""How long a question waits for that: a file system that takes longer must not use up its time."""

# Whoever stands in the way with a wrong certificate must not choose the fallback.
WRONG_SERVER: Final = RemoteFailure(FailureKind.CONFIG, "tls.certificate")
WRONG_CLIENT: Final = RemoteFailure(FailureKind.CONFIG, "tls.client_certificate")

# The alerts of RFC 8446 section 6.2 by which a server refuses the client's certificate, or that there is none; TLS 1.2
# says "handshake failure" for the latter. The words before them differ between versions of OpenSSL.
_REFUSALS: Final = re.compile(
    r"ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_(REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA"
    r"|ACCESS_DENIED|HANDSHAKE_FAILURE)\Z"
)


def tls_failure(error: ssl.SSLError) -> RemoteFailure | None:
    """The fault of configuration that an error of TLS tells of, or None where it may be anything."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return WRONG_SERVER
    return WRONG_CLIENT if _REFUSALS.search(error.reason or "") else None


class ClientTLS:
    """TLS to one server. One object serves all threads and event loops of a process.

    `where` is the place of the settings in the settings. Raises SettingsError for files that cannot be used.
    """

    def __init__(
        self, settings: TlsSettings, *, where: str = "remote", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._where = where
        self._monotonic = monotonic
        pair = settings.client_certificate
        files = (settings.ca_file, *(() if pair is None else (pair.certificate_file, pair.key_file)))
        self._files = [file for file in files if file is not None]
        self._unusable = Alarm("changed certificate files cannot be used, the last good ones stay in use: %s")
        self._digest = _digest_of(self._files)
        self._context = _context_of(settings, where)
        self._checked_at = monotonic()
        self.renew_after_fork()
        renew_in_children(self)

    def context(self) -> ssl.SSLContext:
        """What to make a connection with now; the same object for as long as nothing has changed. May wait a moment."""
        check = self._due()
        if check is not None:
            concurrent.futures.wait([check], self._patience())
        return self._context

    async def acontext(self) -> ssl.SSLContext:
        """`context` for an event loop."""
        check = self._due()
        if check is not None:
            done = asyncio.wrap_future(check)
            try:
                await asyncio.wait([done], timeout=self._patience())
            finally:
                done.cancel()  # the thread must not report to an event loop that may be gone by then
        return self._context

    def is_current(self, context: ssl.SSLContext) -> bool:
        """Whether connections made with this context may still be used."""
        return context is self._context

    def accepts(self, certificate: bytes | None) -> bool:
        """Whether a server whose certificate (DER) OpenSSL has verified is the one to speak with. A host name has been
        checked by then; a SPIFFE ID is checked here, so before anything is sent."""
        if self._settings.server_id is None:
            return True
        try:
            shown = None if certificate is None else X509Svid.parse(certificate, ExtendedKeyUsageOID.SERVER_AUTH)
            return shown is not None and shown.id == self._settings.server_id
        except TokenRefusedError:
            return False

    def renew_after_fork(self) -> None:
        """Wait for no thread that only the parent has."""
        self._lock = Lock()
        self._check: Future[None] | None = None

    def _due(self) -> Future[None] | None:
        """The check that is under way, begun here where it is time for one."""
        if not self._files:
            return None
        now = self._monotonic()
        if self._check is None and now - self._checked_at < CHECK_S:
            return None
        with self._lock:
            if self._check is None and now - self._checked_at >= CHECK_S:
                self._checked_at = now
                check: Future[None] = Future()
                self._check = check
                check.set_running_or_notify_cancel()  # from here on nobody who waits for it can cancel it
                self._begin(check)
            return self._check

    def _begin(self, check: Future[None]) -> None:
        try:
            Thread(target=self._look, args=(check,), name="authz-certificates", daemon=True).start()
        except RuntimeError:  # no more threads: the next check is due all the same
            self._check = None

    def _patience(self) -> float:
        return max(0.0, self._checked_at + PATIENCE_S - self._monotonic())

    def _look(self, check: Future[None]) -> None:
        try:
            self._reread()
        except SettingsError as error:
            self._unusable.ring("; ".join(map(str, error.problems)))
        except Exception:  # noqa: BLE001 - whatever it is, the last good ones stay, and its text may quote a file
            self._unusable.ring(f"{self._where}: a file cannot be read")
        finally:
            self._check = None
            check.set_result(None)

    def _reread(self) -> None:
        # By content: times of files are too coarse to tell two changes apart. What is written from here on is not in
        # the digest, whether or not the context has it already: the next check sees to it.
        digest = _digest_of(self._files)
        if digest is None or digest != self._digest:
            self._context, self._digest = _context_of(self._settings, self._where), digest


def _digest_of(files: Iterable[Path]) -> bytes | None:
    """Of what the files hold; None where one of them cannot be read."""
    try:
        return b"".join(sha256(file.read_bytes()).digest() for file in files)
    except (OSError, ValueError):
        return None


def _context_of(settings: TlsSettings, where: str) -> ssl.SSLContext:
    """Raises SettingsError with all that cannot be used."""
    is_spiffe, pair, problems = settings.server_id is not None, settings.client_certificate, list[Problem]()
    try:
        context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except (OSError, ValueError):
        what = f"holds no certificates that can be read: {settings.ca_file}"
        problems.append(Problem(f"{where}.spiffe.bundle_file" if is_spiffe else f"{where}.ca_file", what))
        context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.check_hostname = not is_spiffe
    if pair is not None and not _shows(context, pair):
        what = (
            "must be a certificate and its private key, in PEM and not encrypted, that can be read: "
            f"{pair.certificate_file} and {pair.key_file}"
        )
        problems.append(Problem(f"{where}.spiffe" if is_spiffe else f"{where}.client_certificate", what))
    if problems:
        raise SettingsError(problems)
    return context


def _shows(context: ssl.SSLContext, pair: KeyPair) -> bool:
    try:
        # Without a password OpenSSL asks at the terminal for the one of an encrypted key, and waits.
        context.load_cert_chain(pair.certificate_file, pair.key_file, password=str)
    except (OSError, ValueError):
        return False
    return True
