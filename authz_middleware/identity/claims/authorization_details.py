"""What a token authorizes in detail (`authorization_details`, RFC 9396), as words that a policy can look for.

The members of one detail hold together: an action at these locations, on this object. A list of all actions beside a
list of all locations would permit the one of one detail at the other of another. So each detail becomes words of its
own, and a word never says more than its detail does:

* `type:*` where the detail names no actions, else `type:action` for each of them;
* with `@identifier` behind it where the detail is for one object only;
* nothing at all where `locations` names none of our audiences, where the detail has `datatypes`, `privileges` or a
  member of its type's own that a word cannot express, or where its names would make a word ambiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz_middleware.identity.claims.values import MAX_WORDS, is_text
from authz_middleware.identity.problem import CredentialDetail, TokenRefusedError

MAX_DETAILS: Final = 64

# RFC 9396 section 2.2.
_LISTS: Final = ("locations", "actions", "datatypes", "privileges")
_EXPRESSED: Final = frozenset({"type", "locations", "actions", "identifier"})


def words_of_details(value: object, audiences: frozenset[str]) -> frozenset[str]:
    """The words of an `authorization_details` claim for a resource server that answers to these audiences.

    Raises TokenRefusedError for a claim that is not of the form of RFC 9396 section 2, or beyond bounds.
    """
    if not isinstance(value, list) or len(value) > MAX_DETAILS:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    for detail in value:
        _check_form(detail)
    words = frozenset(word for detail in value for word in _words(detail, audiences))
    if len(words) > MAX_WORDS:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)
    return words


def _check_form(detail: object) -> None:
    is_formed = (
        isinstance(detail, Mapping)
        and is_text(detail.get("type"))
        and all(_is_list_of_texts(detail[name]) for name in _LISTS if name in detail)
        and ("identifier" not in detail or is_text(detail["identifier"]))
    )
    if not is_formed:
        raise TokenRefusedError(CredentialDetail.CLAIM_TYPE)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MAX_WORDS and all(map(is_text, value))


def _words(detail: Mapping[str, Any], audiences: frozenset[str]) -> Iterator[str]:
    if not _EXPRESSED.issuperset(detail) or "@" in detail["type"]:
        return
    if "locations" in detail and audiences.isdisjoint(detail["locations"]):
        return
    object_ = f"@{detail['identifier']}" if "identifier" in detail else ""
    if "actions" not in detail:
        yield f"{detail['type']}:*{object_}"
    for action in detail.get("actions", ()):
        # From the first "@" and the last ":" before it, a word can be read in one way only.
        if action != "*" and ":" not in action and "@" not in action:
            yield f"{detail['type']}:{action}{object_}"
