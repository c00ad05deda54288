"""The content of a policy as bytes that depend on what it says, not on how it is laid out.

The revision of a policy is the SHA-256 of these bytes; equal conditions are recognised by them. JSON tells `1`, `1.0`,
`true` and `"1"` apart, which Python's equality does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from authz_middleware.policy.model import (
    AllOf,
    AnyOf,
    Condition,
    InputDeclaration,
    Match,
    Not,
    Policy,
    PolicyTest,
    Rule,
)


def condition_key(condition: Condition) -> bytes:
    """Bytes that two conditions share exactly when they mean the same, part by part."""
    return msgspec.json.encode(_condition(condition))


def revision_of(policy: Policy) -> str:
    """The revision: SHA-256, in hex, of everything the author said. The order of rules counts."""
    digest = hashlib.sha256()
    # One part at a time: encoding a large policy whole would hold the interpreter's lock for its length.
    for part in _parts(policy):
        digest.update(msgspec.json.encode(part, order="deterministic"))
        digest.update(b"\n")
    return digest.hexdigest()


def _parts(policy: Policy) -> Iterator[Any]:
    yield ["policy", policy.name, policy.owner]
    yield ["labels", {name: list(labels) for name, labels in policy.labels.items()}]
    for declaration in policy.inputs:
        yield _declaration(declaration)
    for rule in policy.rules:
        yield _rule("rules", rule)
    for name, rules in policy.degrade.items():
        yield ["degrade", name]
        for rule in rules:
            yield _rule("degrade", rule)
    for test in policy.tests:
        yield _test(test)


def _declaration(declaration: InputDeclaration) -> list[Any]:
    return ["input", declaration.name, declaration.source, declaration.max_age, declaration.labels]


def _rule(section: str, rule: Rule) -> list[Any]:
    condition = _condition(rule.condition)
    said = [section, rule.name, rule.effect, list(rule.actions), rule.sensitive, rule.owner, condition]
    asked = rule.authentication
    # Only where it is asked for, so that a policy that never does keeps the revision it has.
    return said if asked is None else [*said, list(asked.acr_values), asked.max_age]


def _test(test: PolicyTest) -> list[Any]:
    said = {name: getattr(test, name) for name in test.__struct_fields__ if name != "line"}
    return ["test", said]


def _condition(condition: Condition) -> list[Any]:
    if isinstance(condition, Match):
        return [condition.input, condition.matcher]
    if isinstance(condition, AllOf):
        return ["all", [_condition(part) for part in condition.parts]]
    if isinstance(condition, AnyOf):
        return ["any", [_condition(part) for part in condition.parts]]
    if isinstance(condition, Not):
        return ["not", _condition(condition.part)]
    return ["always"]
