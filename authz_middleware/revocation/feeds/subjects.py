"""Whom a security event is about: subject identifiers (RFC 9493, and the Shared Signals Framework 1.0 section 3).

What only narrows a subject (a device, a tenant, a member that is not known here) is passed over: to revoke more than
was meant costs somebody a new token, to revoke less leaves a thief in. What names nobody who could be found in a token
is an error, never nothing: an event that was acknowledged without effect would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from authz_middleware.identity.claims.values import is_text
from authz_middleware.revocation.entry import Scope
from authz_middleware.settings.revocation_feeds import TransmitterSettings

_MAX_ALIASES: Final = 32


class SubjectError(Exception):
    """A subject that cannot be acted on. `err` is the code of RFC 8935 section 2.4, `what` says why, in our words."""

    def __init__(self, err: str, what: str) -> None:
        self.err = err
        self.what = what
        super().__init__(what)


class Target(msgspec.Struct, frozen=True):
    """What to revoke: a subject with all its tokens so far, or one token."""

    scope: Scope
    issuer: str
    value: str


def targets_of(subject: object, transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """Everything that a subject identifier stands for. Raises SubjectError; never empty."""
    if not isinstance(subject, Mapping) or not isinstance(subject.get("format"), str):
        raise SubjectError("invalid_request", "the subject is not an object with a format")
    read = _FORMATS.get(subject["format"])
    if read is None:
        raise SubjectError("invalid_request", f"subjects of this format cannot be acted on; accepted: {_ACCEPTED}")
    return read(subject, transmitter)


def _iss_sub(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """RFC 9493 section 3.2.3."""
    return (Target(Scope.SUBJECT, _issuer(subject, transmitter), _text(subject, "sub")),)


def _jwt_id(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """Shared Signals Framework 1.0 section 3.4.1."""
    return (Target(Scope.TOKEN, _issuer(subject, transmitter), _text(subject, "jti")),)


def _opaque(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """RFC 9493 section 3.2.4."""
    return _word_for_word(_text(subject, "id"), "opaque", transmitter)


def _email(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """RFC 9493 section 3.2.2."""
    return _word_for_word(_text(subject, "email"), "email", transmitter)


def _aliases(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """RFC 9493 section 3.2.8: other names of one subject, of which those count that mean something here."""
    names = subject.get("identifiers")
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_ALIASES:
        raise SubjectError("invalid_request", f"aliases must have 1 to {_MAX_ALIASES} identifiers")
    return _any_of(names, transmitter)


def _complex(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """Shared Signals Framework 1.0 section 3.2: the user, narrowed by the other members."""
    user, session = subject.get("user"), subject.get("session")
    named = [user] if user is not None else [session] if _is_token(session) else []
    if not named:
        raise SubjectError("invalid_request", "a complex subject must have a user, or a session that is a jwt_id")
    return _any_of(named, transmitter)


def _is_token(session: object) -> bool:
    return isinstance(session, Mapping) and session.get("format") == "jwt_id"


def _any_of(names: Sequence[object], transmitter: TransmitterSettings) -> tuple[Target, ...]:
    """What these simple subjects stand for: all of those that can be acted on, of which there must be one."""
    targets: dict[Target, None] = {}
    failure = SubjectError("invalid_request", "the subject names nobody")
    for name in names:
        if isinstance(name, Mapping) and name.get("format") in ("aliases", "complex"):
            # RFC 9493 section 3.2.8: an alias is no list of aliases; likewise for the members of a complex subject.
            raise SubjectError("invalid_request", "a subject has several names within one of its names")
        try:
            targets |= dict.fromkeys(targets_of(name, transmitter))
        except SubjectError as error:
            failure = error
    if not targets:
        raise failure
    return tuple(targets)


def _word_for_word(value: str, format_: str, transmitter: TransmitterSettings) -> tuple[Target, ...]:
    if format_ not in transmitter.subjects:
        what = f"{format_} subjects mean nothing here: the settings of the transmitter do not list them in subjects"
        raise SubjectError("invalid_request", what)
    (issuer,) = transmitter.about
    return (Target(Scope.SUBJECT, issuer, value),)


def _issuer(subject: Mapping[str, Any], transmitter: TransmitterSettings) -> str:
    issuer = _text(subject, "iss")
    if issuer not in transmitter.about:
        raise SubjectError("access_denied", "the transmitter may not speak about subjects of this issuer")
    return issuer


def _text(subject: Mapping[str, Any], name: str) -> str:
    value = subject.get(name)
    if not is_text(value):
        raise SubjectError("invalid_request", f"the subject has no {name!r} of printable text")
    return value


_FORMATS: Final = {
    "iss_sub": _iss_sub,
    "jwt_id": _jwt_id,
    "opaque": _opaque,
    "email": _email,
    "aliases": _aliases,
    "complex": _complex,
}
_ACCEPTED: Final = ", ".join(_FORMATS)
