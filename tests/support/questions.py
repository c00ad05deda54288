"""Questions for tests: one that is complete, and strategies for any that can be asked."""

from __future__ import annotations

import unicodedata
from typing import Any

import msgspec
from hypothesis import strategies as st

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import KINDS, Actor, Principal
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.resource import Resource, is_clear_id

NOW = 1_769_850_000.25


def question(**changes: Any) -> Question:
    """A complete question; a change names a field of the question or, where there is none, of its principal."""
    whole = Question(
        principal=Principal(
            issuer="https://idp.test/",
            subject="alice",
            kind="agent",
            subject_kind="human",
            actors=(Actor("bot-7", "agent", "https://idp.test/"),),
            client="console",
            scopes=frozenset({"b", "a"}),
            roles=frozenset({"cashier"}),
            tenant="acme",
            task="T-1",
            purpose="support",
            environment="production",
            clearance="internal",
            token_id="jti-1",
            transaction="txn-1",
            issued_at=NOW - 60,
            expires_at=NOW + 840,
            claims={"department": "sales", "levels": [1, 2]},
        ),
        permission=Permission(action="invoice:refund"),
        resource=Resource("invoice", "17", {"amount": 12.5, "tenant": "acme", "lines": [{"n": 1}]}, NOW - 1),
        facts=RequestFacts(
            method="POST",
            route="/invoices/{invoice_id}/refund",
            endpoint="billing.views:refund",
            client="192.0.2.7",
            tls=True,
        ),
        environment="production",
        now=NOW,
    )
    own = {name: value for name, value in changes.items() if name in Question.__struct_fields__}
    principal = {name: value for name, value in changes.items() if name not in own}
    return msgspec.structs.replace(whole, **own, principal=msgspec.structs.replace(whole.principal, **principal))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
clear_ids = (
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
    .map(lambda text: unicodedata.normalize("NFC", text).strip())
    .filter(is_clear_id)
)
kinds = st.none() | st.sampled_from(KINDS)
times = st.floats(min_value=1e7, max_value=4e9)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)

principals = st.builds(
    Principal,
    issuer=clear_ids,
    subject=clear_ids,
    kind=kinds,
    subject_kind=kinds,
    actors=st.lists(st.builds(Actor, texts, st.sampled_from(KINDS), st.none() | texts), max_size=3).map(tuple),
    client=st.none() | texts,
    scopes=st.frozensets(texts, max_size=4),
    roles=st.frozensets(texts, max_size=4),
    tenant=st.none() | texts,
    task=st.none() | texts,
    purpose=st.none() | texts,
    environment=st.none() | texts,
    clearance=st.none() | texts,
    token_id=st.none() | texts,
    transaction=st.none() | texts,
    issued_at=times,
    expires_at=times,
    claims=json_objects,
)
actions = st.from_regex(r"[A-Za-z0-9_.-]{1,6}(:[A-Za-z0-9_.-]{1,6}){0,2}", fullmatch=True)
resources = st.builds(
    Resource,
    clear_ids,
    clear_ids,
    st.dictionaries(texts, json_values, min_size=1, max_size=4) | st.none(),
    st.none() | times,
)
facts = st.builds(
    RequestFacts,
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    route=clear_ids,
    endpoint=clear_ids,
    protocol=st.sampled_from(["http", "websocket"]),
    client=st.none() | texts,
    tls=st.booleans(),
)
questions = st.builds(
    Question,
    principal=principals,
    permission=st.builds(Permission, action=actions),
    resource=resources,
    facts=facts,
    environment=clear_ids,
    now=times,
)
