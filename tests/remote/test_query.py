"""What makes two questions the same question, and what must not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authz_middleware.identity.principal import Actor
from authz_middleware.permission import Permission
from authz_middleware.remote.messages.evaluation import evaluation_request
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from tests.support.questions import NOW, question

RESOURCE = question().resource


def key(revision: str = "r1", **changes: Any) -> object:
    return RemoteQuery.of(question(**changes), revision).key


@pytest.mark.capability("C32")
@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://other.test/"},
        {"subject": "bob"},
        {"kind": "human"},
        {"subject_kind": None},
        {"actors": ()},
        {"actors": (Actor("bot-8"),)},
        {"client": "other"},
        {"scopes": frozenset({"a"})},
        {"roles": frozenset()},
        {"tenant": "umbrella"},
        {"task": "T-2"},
        {"purpose": None},
        {"environment": "staging"},
        {"clearance": None},
        {"token_id": "jti-2"},
        {"transaction": "txn-2"},
        {"claims": {"department": "legal", "levels": [1, 2]}},
        {"permission": Permission(action="invoice:approve")},
        {"resource": Resource("refund", RESOURCE.id, RESOURCE.attributes)},
        {"resource": Resource(RESOURCE.type, "18", RESOURCE.attributes)},
        {"resource": Resource(RESOURCE.type, RESOURCE.id, {"amount": 13})},
        {"facts": msgspec.structs.replace(question().facts, client="192.0.2.8")},
        {"revision": "r2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_an_answer_may_depend_on_is_part_of_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_values_of_different_types_are_different() -> None:
    """1 == True == 1.0 in Python, but not to a decision point."""
    keys = {key(resource=Resource("t", "1", {"value": value})) for value in (1, True, 1.0, "1")}
    assert len(keys) == 4


def test_the_moment_of_asking_is_not_part_of_the_key() -> None:
    later = Resource(RESOURCE.type, RESOURCE.id, RESOURCE.attributes, NOW + 5)
    assert key(now=NOW + 5, resource=later) == key()


def test_the_order_of_sets_and_attributes_does_not_matter() -> None:
    attributes = dict(reversed(list((RESOURCE.attributes or {}).items())))
    assert key(resource=Resource(RESOURCE.type, RESOURCE.id, attributes)) == key()


def test_another_epoch_of_revocations_is_another_key() -> None:
    keys = {RemoteQuery.of(question(), "r1", epoch).key for epoch in (None, 0, 1, ("file", 1))}
    assert len(keys) == 4


def test_the_body_is_the_request() -> None:
    query = RemoteQuery.of(question(), "r1")
    assert msgspec.json.decode(query.body) == evaluation_request(question())


def test_each_query_has_an_id_of_its_own() -> None:
    ids = {RemoteQuery.of(question(), "r1").request_id for _ in range(100)}
    assert len(ids) == 100
