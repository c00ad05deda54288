"""The table `dpop`: how proofs of possession (RFC 9449) are checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from authz_middleware.identity.possession.target_uri import normalise_uri
from authz_middleware.settings.secret import Secret
from authz_middleware.settings.section import Section

PROOF_ALGORITHMS: Final = (
    *("ES256", "ES384", "ES512", "EdDSA"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
)
"""What a proof may be signed with: public-key algorithms alone (RFC 9449 section 4.3)."""

_ORIGIN: Final = re.compile(r"https?://[^/?#]+")
_DEFAULT: Final = ("ES256", "EdDSA", "PS256")


class DPoPSettings(msgspec.Struct, frozen=True):
    """Proofs of possession: `max_age` in seconds; `origins` are those that the application is called by, none where it
    takes the word of `Host` for it; `replay` is the file that remembers spent proofs for all workers of
    a host, None where each process remembers its own; `nonce_secret` is what all workers make nonces with, None where
    proofs need no nonce."""

    algorithms: tuple[str, ...] = _DEFAULT
    max_age: float = 60.0
    replay: Path | None = None
    nonce_secret: Secret | None = None
    origins: tuple[str, ...] = ()


def read_dpop(section: Section) -> DPoPSettings:
    """The table `dpop`; an absent one reads as its defaults."""
    settings = DPoPSettings(
        algorithms=_algorithms(section),
        max_age=section.duration("max_age", "60s", least="5s", most="5m"),
        replay=_replay(section),
        nonce_secret=_nonce_secret(section),
        origins=_origins(section),
    )
    section.done()
    return settings


def _algorithms(section: Section) -> tuple[str, ...]:
    algorithms = section.texts("algorithms", _DEFAULT)
    for algorithm in algorithms:
        if algorithm not in PROOF_ALGORITHMS:
            section.problem("algorithms", f"has {algorithm!r}; accepted: {', '.join(PROOF_ALGORITHMS)}")
    return algorithms


def _origins(section: Section) -> tuple[str, ...]:
    origins = section.texts("origins", ())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) or normalise_uri(origin) is None:
            section.problem("origins", f"has {origin!r}; accepted: https://HOST or https://HOST:PORT, without a path")
    return origins


def _replay(section: Section) -> Path | None:
    replay: str = section.text("replay", "memory")
    kind, _, path = replay.partition(":")
    if kind == "file" and path.strip():
        return section.base / path
    if replay != "memory":
        section.problem("replay", f'must be "memory" or "file:PATH", not {replay!r}')
    return None


def _nonce_secret(section: Section) -> Secret | None:
    """The secret, only ever together with `nonce = true`, so that neither is set to no effect."""
    nonce, secret = section.flag("nonce", False), section.secret("nonce_secret")
    if nonce and "nonce_secret" not in section:
        accepted = '{ env = "NAME" } or { file = "path" }, at least 32 random bytes'
        section.problem("nonce_secret", f"is required where nonce is true, the same for all workers: {accepted}")
    if secret is not None and not nonce:
        section.problem("nonce_secret", "is of use only with nonce = true")
    return secret if nonce else None
