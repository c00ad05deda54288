"""Reads the context of an answer (AuthZEN 1.0, section 5.5.1, which leaves its form to both sides).

* `reason_user`, `reason_admin`: a text, or an object of texts by language or code (`{"en": …}`, `{"403": …}`).
* `acr_values` (a list, or one text with spaces between, as in RFC 9470) and `max_age` (whole seconds): step-up.
* `obligations`: a list of objects with an `id`; whatever else is in one, or in its `attributes`, are its attributes.

Of a deny, what cannot be read is left out: it is a deny all the same. A permit under conditions that cannot be read is
none: its answer is malformed. Any other member is ignored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz_middleware.advice import NO_ADVICE, Advice, Obligation, is_obligation_id
from authz_middleware.remote.failure import FailureKind, RemoteFailure
from authz_middleware.resource import is_clear_id
from authz_middleware.step_up import StepUp, find_faults

MAX_REASON: Final = 512
MAX_READ: Final = 4 * MAX_REASON
"""Characters of a reason that are looked at: most of a text can be invisible."""
MAX_OBLIGATIONS: Final = 16
STEP_UP: Final = "body.step_up"
OBLIGATIONS: Final = "body.obligations"

_MEMBERS: Final = frozenset({"reason_user", "reason_admin", "acr_values", "amr_values", "max_age"})
_SPACE: Final = re.compile(r"\s+")
_ENGLISH: Final = re.compile(r"en(?:$|[-_])", re.IGNORECASE)


class _UnreadableError(Exception):
    """A condition that cannot be told. Its text is the stable code of what it is about."""


def read_advice(context: Mapping[str, Any], *, permit: bool, beside: Iterable[str] = ()) -> Advice | RemoteFailure:
    """The advice in the context of a permit or deny; a failure for a permit whose conditions cannot be read.

    `beside` are the names of what is in the answer beside its context: no place for obligations.
    """
    if permit is not False and any(map(_names_obligations, beside)):
        return RemoteFailure(FailureKind.MALFORMED, OBLIGATIONS)
    if not context or not any(name in _MEMBERS or _names_obligations(name) for name in context):
        return NO_ADVICE
    step_up: StepUp | None = None
    obligations: tuple[Obligation, ...] = ()
    try:
        step_up = _step_up(context, permit=permit)
        obligations = _obligations(context)
    except _UnreadableError as error:
        if permit is not False:
            return RemoteFailure(FailureKind.MALFORMED, str(error))
    return Advice(_reason(context.get("reason_user")), _reason(context.get("reason_admin")), step_up, obligations)


def _reason(value: object) -> str | None:
    """One line of text, or None. Of several languages English; else, so that it is always the same, the first name in
    the order of the alphabet."""
    if isinstance(value, str):
        return _line(value)
    if not isinstance(value, Mapping):
        return None
    lines = {name: line for name, text in value.items() if isinstance(text, str) and (line := _line(text))}
    first = min(lines, key=lambda name: (_ENGLISH.match(name) is None, name), default=None)
    return None if first is None else lines[first]


def _line(text: str) -> str | None:
    """A text as one line of what can be seen, cut where it is too long; None when there is nothing to see."""
    text = _SPACE.sub(" ", text[:MAX_READ])
    if not (text.isascii() and text.isprintable()):
        composed = unicodedata.normalize("NFC", text)
        text = "".join(character for character in composed if character == " " or is_clear_id(character))
    text = _SPACE.sub(" ", text).strip()
    return (text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…") or None


def _step_up(context: Mapping[str, Any], *, permit: bool) -> StepUp | None:
    if permit and "amr_values" in context:  # nothing here can tell whether they are met
        raise _UnreadableError(STEP_UP)
    if "acr_values" not in context and "max_age" not in context:
        return None
    values = _acr_values(context["acr_values"]) if "acr_values" in context else ()
    max_age = context.get("max_age")
    if "max_age" in context and max_age is None:
        raise _UnreadableError(STEP_UP)
    if not values and max_age is None:
        return None
    step_up = StepUp(values, max_age)
    if any(find_faults(step_up)):
        raise _UnreadableError(STEP_UP)
    return step_up


def _acr_values(value: object) -> tuple[str, ...]:
    """The values in their order, each once. Whether they are values is for `find_faults` to say."""
    words = [word for word in value.split(" ") if word] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _UnreadableError(STEP_UP)
    return tuple(dict.fromkeys(words))


def _names_obligations(name: str) -> bool:
    # `obligation`, `Obligations`: whoever writes so means it, and will not notice that nobody reads it.
    return name.lower() in ("obligation", "obligations")


def _obligations(context: Mapping[str, Any]) -> tuple[Obligation, ...]:
    if any(_names_obligations(name) and name != "obligations" for name in context):
        raise _UnreadableError(OBLIGATIONS)
    listed = context.get("obligations", [])
    if not isinstance(listed, list) or len(listed) > MAX_OBLIGATIONS:
        raise _UnreadableError(OBLIGATIONS)
    return tuple(map(_obligation, listed))


def _obligation(value: object) -> Obligation:
    if not isinstance(value, Mapping):
        raise _UnreadableError(OBLIGATIONS)
    members = dict(value)
    id_, nested = members.pop("id", None), members.pop("attributes", {})
    if not is_obligation_id(id_) or not isinstance(nested, Mapping):
        raise _UnreadableError(OBLIGATIONS)
    if nested.keys() & members.keys():  # of two values neither is the right one
        raise _UnreadableError(OBLIGATIONS)
    return Obligation(id_, {**members, **nested})
