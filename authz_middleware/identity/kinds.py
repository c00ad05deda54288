"""Kinds of signed tokens, as the header member `typ` tells them (RFC 7515 section 4.1.9, RFC 8725 section 3.11)."""

from __future__ import annotations

from typing import Final

OTHER_KINDS: Final = frozenset(
    {
        "client-authentication+jwt",
        "dc+sd-jwt",
        "dpop+jwt",
        "entity-statement+jwt",
        "jwk-set+jwt",
        "kb+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "oauth-client-attestation+jwt",
        "oauth-client-attestation-pop+jwt",
        "openid4vci-proof+jwt",
        "secevent+jwt",
        "statuslist+jwt",
        "token-introspection+jwt",
        "trust-mark+jwt",
        "vc+jwt",
        "vp+jwt",
    }
)
"""Kinds of signed tokens that are never a credential, even where the settings list them."""


def kind_of(typ: object) -> str | None:
    """The media type in `typ`, without regard to case or to `application/`; None for what is none."""
    if not isinstance(typ, str) or not typ.isascii():
        return None
    return typ.lower().removeprefix("application/")
